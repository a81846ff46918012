"""The front page's examples are run against an agent, and print what the page says."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.client.bundle import Bundle
from tests.support.pages import REPOSITORY
from tests.support.site import Served, Site, make_site
from tests.support.walkthrough import Step, Walk, blocks, environment, steps

PAGE = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RULES = """
[[rules]]
name = "looking is free"
operations = ["git.status"]
verdict = "allow"
[[rules]]
name = "pulling needs alice"
operations = ["git.pull"]
verdict = "ask"
approvers = ["alice"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(make_site(tmp_path_factory.mktemp("site"), rules=RULES)) as running:
        yield running


def walk_of(site: Site, url: str, cn: str, directory: Path, known: dict[str, str]) -> Walk:
    """Return a walk of somebody who has logged in, with the page's files in their directory."""
    directory.mkdir()
    leaf = site.client(cn)
    ca = site.pki.ca.certificate_pem()
    for name, data in ((f"{cn}.crt", leaf.pem), (f"{cn}.key", leaf.key_pem), ("ca.crt", ca)):
        (directory / name).touch(0o600)
        (directory / name).write_bytes(data)
    bundle = Bundle(
        host="web-1",
        cn=cn,
        urls=(url,),
        certificate=leaf.pem.decode(),
        private_key=leaf.key_pem.decode(),
        ca=ca.decode(),
    )
    (directory / f"{cn}.bundle").touch(0o600)
    (directory / f"{cn}.bundle").write_bytes(bundle.encode())
    words = {"/srv/app": str(site.repository.path), "https://localhost:8443": url}
    walk = Walk(directory=directory, words=words, environ=environment(directory), known=known)
    said = walk.run(Step(command=f"host-agent login {cn}.bundle", output=""))
    assert "answers: you are" in said
    return walk


def test_every_example_of_the_front_page_does_what_the_page_says(
    served: Served, tmp_path: Path
) -> None:
    known: dict[str, str] = {}
    url = served.url.replace("127.0.0.1", "localhost")
    walks = {
        cn: walk_of(served.site, url, cn, tmp_path / cn, known) for cn in ("deployer", "alice")
    }
    done = []
    for block in blocks(PAGE):
        for step in steps(block) if block.language == "console" else ():
            if step.command.startswith("curl") and shutil.which("curl") is None:
                continue
            walk = walks["alice" if "# as alice" in step.command else "deployer"]
            printed = walk.run(step)
            walk.check(step.output, printed)
            done.append((step.command.split()[:3], printed))
    assert [words[:3] for words, _ in done[:2]] == [
        ["host-agent", "call", "git.pull"],
        ["host-agent", "requests", "approve"],
    ]
    followed = walks["deployer"].run(
        Step(command=f"host-agent requests show {next(iter(known.values()))} --wait 30", output="")
    )
    assert "succeeded" in followed, followed
    if shutil.which("curl") is not None:
        assert '"state":"succeeded"' in done[-1][1].replace(" ", "")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_what_login_stored_serves_curl_as_the_page_says(served: Served, tmp_path: Path) -> None:
    url = served.url.replace("127.0.0.1", "localhost")
    walk = walk_of(served.site, url, "watcher", tmp_path / "watcher", {})
    page = (REPOSITORY / "docs/reference/client.md").read_text(encoding="utf-8")
    commands = [step.command for block in blocks(page) for step in steps(block)]
    (command,) = (command for command in commands if command.startswith("curl"))
    here = command.replace("https://web-1.example.org:8443", url)
    assert '"cn":"watcher"' in walk.run(Step(command=here, output="")).replace(" ", "")


def test_every_prompt_of_the_front_page_stands_in_a_block_that_is_run() -> None:
    for block in PAGE.split("```")[1::2]:
        if "\n$ " in block:
            assert block.startswith("console\n")
