"""No page has anybody install a package by a name that somebody else could register.

What a page takes from an index has to be locked here, by name and hash; our own program comes from
a checkout, or from a file that was made of one.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import REPOSITORY, inline_code, pages
from tests.support.walkthrough import blocks, steps

INSTALLERS = re.compile(
    r"(?:^|[\s/;(])(?:pip3?|pipx|uv|uvx|npm|npx)\s+(?:pip\s+)?(?:install|download|wheel|run|i|tool)\s+(.+)"
)
VALUED = {
    "-r",
    "--requirement",
    "-c",
    "--constraint",
    "--wheel-dir",
    "-w",
    "--find-links",
    "--only",
    "--only-binary",
    "--root-user-action",
}
LOCKED = {
    line.partition("==")[0].partition("[")[0]
    for line in (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if "==" in line and line[0].isalnum()
}


def commands(page: Path) -> Iterator[str]:
    """Yield every command of a page, in its fenced blocks and in its prose."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(text):
        if block.language == "console":
            yield from (step.command for step in steps(block))
        else:
            yield from block.text.splitlines()
    yield from inline_code(page)


def names(command: str) -> Iterator[str]:
    """Yield the distributions that a command takes from an index by their names."""
    found = INSTALLERS.search(command.strip("`"))
    words = iter(found[1].split() if found else ())
    for word in words:
        if word in VALUED:
            next(words, None)
            continue
        plain = word.strip("'\"`")
        if plain.startswith("-") or "/" in plain or re.match(r"\.(\[|$)", plain):
            continue
        yield re.split(r"[\[=<>~!;@]", plain)[0].lower().replace("_", "-")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_no_page_installs_a_name_that_is_not_locked(page: Path) -> None:
    named = {name for command in commands(page) for name in names(command)}
    assert "host-agent" not in LOCKED
    assert named <= LOCKED


def texts() -> Iterator[tuple[str, str]]:
    """Yield every line that the program or its package may print to somebody, with its file."""
    for path in sorted((REPOSITORY / "host_agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from ((path.name, line) for line in node.value.splitlines())
    for path in sorted((REPOSITORY / "systemd").rglob("*")):
        if path.is_file():
            yield from ((path.name, line) for line in path.read_text("utf-8").splitlines())


def test_nothing_that_the_program_says_has_anybody_install_such_a_name() -> None:
    named = {
        (place, name)
        for place, line in texts()
        for command in (line, *re.findall("`([^`]+)`", line))
        for name in names(command)
        if re.match("[a-z]", name)
    }
    assert {(place, name) for place, name in named if name not in LOCKED} == set()


def test_a_name_from_an_index_would_be_seen() -> None:
    assert list(names("/opt/x/bin/pip install host-agent==0.1.0")) == ["host-agent"]
    assert list(names("pipx install host_agent")) == ["host-agent"]
    assert list(names("pip install --no-deps -r requirements.lock .")) == []
    assert list(names("pip install '.[signal]' ./host_agent-0.1.0-py3-none-any.whl")) == []
    assert list(names("pip install --upgrade pip")) == ["pip"]
