"""The commands in the pages are ones that the command line takes, and their TOML is good."""

import argparse
import json
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.__main__ import NOUNS, build_parser
from host_agent.cli.connection_settings import KEYS, parse
from host_agent.config import Config
from host_agent.hooks.settings import load_settings
from host_agent.simulation.script import read_script
from tests.support.pages import REPOSITORY, inline_code, pages
from tests.support.walkthrough import Block, blocks, steps

HOW_TO = sorted((REPOSITORY / "docs" / "how-to").glob("*.md"))
PROGRAM = "host-agent"
STUB = {"certificate": "server.crt", "private_key": "server.key", "client_ca": "ca.crt"}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `host-agent` command in the page's `console` blocks."""
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "console":
            for step in steps(block):
                words = shlex.shlex(
                    step.command.replace("\\\n", " "), posix=True, punctuation_chars=True
                )
                words.whitespace_split = True
                found = list(words)
                if found[0] == PROGRAM:
                    yield found[1 : next(_ends(found), len(found))]


def _ends(words: list[str]) -> Iterator[int]:
    yield from (at for at, word in enumerate(words) if word in {"|", ">", ">>", "&&", ";"})


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    parser = build_parser(*NOUNS)
    for arguments in commands(page):
        assert parser.parse_args(arguments).run is not None


def test_nothing_is_installed_on_a_host_that_no_lock_names() -> None:
    """An environment whose programs may become root takes nothing that an index resolves."""
    installs = [
        step.command
        for page in HOW_TO
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.language == "console"
        for step in steps(block)
        if "pip install" in step.command
    ]
    assert len(installs) >= 6
    for command in installs:
        assert "--no-deps" in command
        assert "--no-index" in command or "--require-hashes" in command


def test_the_pages_have_commands() -> None:
    assert sum(len(list(commands(page))) for page in HOW_TO) > 20


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_commands_in_the_text_exist(page: Path) -> None:
    unknown = [
        code
        for code in inline_code(page)
        if code.startswith(f"{PROGRAM} ") and not _exists(code.split()[1:])
    ]
    assert not unknown


def _exists(words: list[str]) -> bool:
    parser: argparse.ArgumentParser = build_parser(*NOUNS)
    for word in words:
        choices = _choices(parser)
        if not choices or word.startswith("-"):
            return True
        if word not in choices:
            return False
        parser = choices[word]
    return True


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return {
        name: choice
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, choice in action.choices.items()
    }


def toml_blocks() -> list[tuple[str, Block]]:
    return [
        (f"{page.name}-{number}", block)
        for page in pages()
        for number, block in enumerate(blocks(page.read_text(encoding="utf-8")))
        if block.language == "toml"
    ]


@pytest.mark.parametrize("block", [b for _, b in toml_blocks()], ids=[n for n, _ in toml_blocks()])
def test_every_toml_block_is_accepted(block: Block, tmp_path: Path) -> None:
    table = tomllib.loads(block.text)
    if block.name == "answers.toml":
        (tmp_path / block.name).write_text(block.text)
        assert read_script(tmp_path / block.name)
        return
    if block.name == "hook.toml":
        (tmp_path / block.name).write_text(block.text)
        assert load_settings(str(tmp_path / block.name)).repositories
        return
    if block.name == "client.toml":
        found = parse(Path("/home/you/.config/host-agent/client.toml"), block.text)
        assert found.of_host(str(found.implied())).keys() == KEYS.keys()
        return
    whole = {"server": STUB, "store": {}, "audit": {}, **table}
    config = Config.model_validate_json(json.dumps(whole), context={"base": Path("/etc")})
    assert config.model_fields_set == whole.keys()
