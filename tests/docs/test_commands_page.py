"""The commands page says what `--help` says, of every command and option."""

import argparse
import re

import pytest

from host_agent.__main__ import NOUNS, build_parser
from host_agent.cli.tree import read
from host_agent.errors import BY_CODE, exit_status
from tests.support.commands_page import PAGE, commands_page, leaves

LEAVES = {leaf.prog: leaf for leaf in leaves(build_parser(*NOUNS))}


def test_the_page_is_what_the_parsers_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == commands_page(), (
        "run `python -m tests.support.commands_page`"
    )


def test_the_short_list_of_commands_says_what_each_says_of_itself() -> None:
    for parser in (build_parser(), build_parser(*NOUNS)):
        assert {one.words[-1]: one.meaning for one in read(parser).below} == dict(NOUNS)


@pytest.mark.parametrize("prog", LEAVES)
def test_every_command_and_option_of_help_is_on_the_page(prog: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    section = re.search(rf"^#+ `{re.escape(prog)}`$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)

    assert section is not None
    own = {name for action in LEAVES[prog]._actions for name in action.option_strings}
    named = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", LEAVES[prog].format_help())
    for option in own & set(named) - {"--help"}:
        assert f"`{option}`" in section[1]


@pytest.mark.parametrize(
    "prog", [p for p in LEAVES if p.split()[1] in ("call", "operations", "requests")]
)
def test_every_option_of_the_client_says_what_it_is_for(prog: str) -> None:
    silent = [action.dest for action in LEAVES[prog]._actions if not action.help]

    assert not silent


def test_the_page_has_every_exit_status() -> None:
    page = PAGE.read_text(encoding="utf-8")
    used = {exit_status(code) for code in BY_CODE} | {0, 64, 78, 130}

    assert {int(status) for status in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} >= used


def test_every_listing_takes_json() -> None:
    names = {"operations", "requests list", "requests show", "pki list", "audit verify"}
    names |= {"requests watch", "call", "config check"}

    for name in names:
        options = LEAVES[f"host-agent {name}"]._option_string_actions
        assert isinstance(options.get("--json"), argparse._StoreTrueAction), name
