"""The commands of the pages on certificates that need no host are run, and print what they say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import REPOSITORY
from tests.support.walkthrough import Step, Walk, blocks, environment, steps

HOW_TO = REPOSITORY / "docs" / "how-to"
RUN = ("umask", "host-agent pki", "rm ca/", "rm host-agent-ca/")
AUTHORITY = (
    "host-agent pki init --dir host-agent-ca",
    "host-agent pki issue --dir host-agent-ca --cn agent.example.org --usage server --out server",
    "host-agent pki issue --dir host-agent-ca --cn deployer --usage client",
)
"""What the other pages go on from: an authority as `install --bootstrap` makes it."""


def of_page(name: str) -> Iterator[Step]:
    """Yield the commands of a page that need no host."""
    for block in blocks((HOW_TO / name).read_text(encoding="utf-8")):
        for step in steps(block) if block.language == "console" else ():
            if step.command.startswith(RUN):
                yield step


def follow(walk: Walk, step: Step) -> None:
    """Run one command as the page has it, and hold it to what the page says it prints."""
    printed = walk.run(step)
    assert "host-agent: " not in printed, walk.transcript
    if step.output:
        walk.check(step.output, printed)


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    (tmp_path / "password").write_text("a password\n")
    return Walk(directory=tmp_path, words={}, environ=environment(tmp_path))


def test_every_command_on_certificates_does_what_the_page_says(walk: Walk) -> None:
    commands = list(of_page("certificates.md"))
    assert len(commands) > 8
    for step in commands:
        follow(walk, step)


@pytest.mark.parametrize(
    "page",
    [
        *("approve-over-webhook.md", "break-glass.md", "install.md"),
        *("revoke.md", "rotate-certificates.md"),
    ],
)
def test_every_command_for_the_authoritys_machine_does_what_the_page_says(
    walk: Walk, page: str
) -> None:
    for command in AUTHORITY:
        walk.run(Step(command=command, output=""))
    commands = list(of_page(page))
    assert commands
    for step in commands:
        follow(walk, step)
