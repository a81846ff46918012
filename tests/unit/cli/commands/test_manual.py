"""The manual page has every command and option, and man(1) has nothing to say against it."""

import re
import shutil
import subprocess

import pytest

from host_agent.__main__ import NOUNS, build_parser, main
from host_agent.cli.commands.manual import page
from host_agent.cli.connection_settings import KEYS
from host_agent.cli.tree import read

TREE = read(build_parser(*NOUNS))


@pytest.fixture(scope="module")
def roff() -> str:
    return page(TREE)


@pytest.fixture(scope="module")
def shown(roff: str) -> str:
    """Return the page as a terminal of 200 columns shows it."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-rLL=200n", "-P-cbou"],
        input=roff,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_every_command_has_its_section_and_usage(shown: str) -> None:
    for command in list(TREE.walk())[1:]:
        assert re.search(rf"^ *{re.escape(command.name)}$", shown, re.MULTILINE), command.name


def test_every_option_is_named_with_its_meaning(shown: str) -> None:
    words = " ".join(shown.split())
    for command in TREE.walk():
        for one in command.taken:
            assert all(option in words for option in one.options), one
            assert " ".join(one.meaning.split()) in words, one
    for key in KEYS:
        assert f"HOST_AGENT_{key.upper()}" in words


def test_a_line_that_begins_like_a_request_of_roff_is_text(roff: str) -> None:
    known = (".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I")
    requests = [line for line in roff.splitlines() if line.startswith((".", "'"))]
    assert {line.split()[0] for line in requests} <= set(known)


def test_the_command_prints_it(roff: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manual"]) == 0
    assert capsys.readouterr().out == roff
