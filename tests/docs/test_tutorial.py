"""The tutorial is walked through for real: every command, and what the page says it prints."""

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.reference_pages import REPOSITORY
from tests.support.walkthrough import Block, Server, Walk, blocks, environment, steps

PAGE = REPOSITORY / "docs" / "tutorial" / "first-approval.md"
DEMO = REPOSITORY / "docs" / "tutorial" / "demo.sh"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    environ = environment(tmp_path)
    words = {
        "/home/you/host-agent/.venv/bin:$PATH": environ["PATH"],
        "/home/you/host-agent": str(REPOSITORY),
        "/home/you/trial": str(tmp_path / "trial"),
        ":8443": f":{free_port()}",
        ":9464": f":{free_port()}",
        "laptop": socket.gethostname(),
        "your-user": pwd.getpwuid(os.geteuid()).pw_name,
    }
    return Walk(directory=tmp_path, words=words, environ=environ)


@pytest.fixture
def served() -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.kill()


def follow(walk: Walk, block: Block, served: list[Server]) -> None:
    """Do what one block of the page says, and hold it to what the page says comes of it."""
    trial = walk.directory / "trial"
    match block.language, block.name:
        case "console", "":
            for step in steps(block):
                walk.check(step.output, walk.run(step))
        case "console", "agent":
            (step,) = steps(block)
            served.append(Server(walk.here(step.command), directory=trial, environ=walk.environ))
            served[0].wait_for("serving on")
            walk.check(step.output, served[0].text)
        case "console", "agent-end":
            said = served[0].text
            assert served[0].interrupt() == 0
            walk.check(block.text, served[0].text.removeprefix(said))
        case "toml", name:
            (trial / name).write_text(walk.here(block.text))
            (trial / name).chmod(0o600)
        case _:
            pytest.fail(f"a block that nobody follows: {block.language} {block.name}")


def test_every_command_of_the_tutorial_does_what_the_page_says(
    walk: Walk, served: list[Server]
) -> None:
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        follow(walk, block, served)
    assert not served[0].is_running


def test_a_walk_notices_what_is_not_as_the_page_says(walk: Walk) -> None:
    (step,) = steps(Block(language="console", name="", text="$ echo one 1234567\ntwo 7654321\n"))
    printed = walk.run(step)
    with pytest.raises(AssertionError, match="the page says"):
        walk.check(step.output, printed)
    with pytest.raises(AssertionError, match="the page says"):
        walk.check("one 1234567\nthree\n", printed)
    walk.check("one 7654321\n", printed)  # the same form; from here on the page's word for it
    with pytest.raises(AssertionError, match="the page says"):
        walk.check("one 7654321\n", "one 7654321\n")


def test_the_tutorial_goes_the_way_of_the_demonstration() -> None:
    page, demo = PAGE.read_text(encoding="utf-8"), DEMO.read_text(encoding="utf-8")
    for command in (
        *("pki init", "pki issue", "config check", "serve", "call git.status", "call git.pull"),
        *("requests list", "requests deny", "requests approve", "requests show", "audit verify"),
    ):
        assert f"host-agent {command}" in page
        assert f"host-agent {command}" in demo
