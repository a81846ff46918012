"""`host-agent manual`: this program's manual page, rendered from the command line's own parsers."""

import argparse
import sys
from collections.abc import Iterator

import host_agent
from host_agent.cli.connection_settings import KEYS
from host_agent.cli.tree import Branch, Taken, read
from host_agent.errors import EX_OK
from host_agent.host.install import layout

_CLIENT_FILE = "~/.config/host-agent/client.toml"
_FILES = (
    (layout.CONFIGURATION, "the agent's configuration"),
    (_CLIENT_FILE, "where a person's commands find the agent, and as whom"),
)
_SEE_ALSO = ("sudo(8)", "sudoers(5)", "systemd.service(5)", "git(1)")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `manual` to the command line."""
    parser = subparsers.add_parser(
        "manual",
        help="print the manual page, for man(1)",
        description="Prints host-agent(1), of every command and option, for man(1): `host-agent"
        " manual | man -l -`. The Debian package has it in place.",
    )
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    """Print the page."""
    from host_agent.__main__ import NOUNS, build_parser

    sys.stdout.write(page(read(build_parser(*NOUNS))))
    return EX_OK


def page(tree: Branch) -> str:
    """Return the page of a whole command line, in man(7)."""
    return "\n".join(_lines(tree)) + "\n"


def _lines(tree: Branch) -> Iterator[str]:
    title = tree.name.upper()
    yield f'.TH {title} 1 "" "{tree.name} {host_agent.__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"{_roff(tree.name)} \\- {_roff(tree.description[:1].lower() + tree.description[1:-1])}"
    yield ".SH SYNOPSIS"
    yield f".B {_roff(tree.name)}"
    yield ".I COMMAND"
    yield "[\\fIOPTION\\fR ...]"
    yield ".SH DESCRIPTION"
    yield _text(tree.description)
    for one in tree.taken:
        yield from _entry(_spelling(one), one.meaning)
    yield from _entry("--help", "show what a command does and takes; every command has it")
    yield ".SH COMMANDS"
    for child in tree.below:
        yield from _entry(child.words[-1], child.meaning)
    for command in list(tree.walk())[1:]:
        yield from _command(command)
    yield ".SH CLIENT OPTIONS"
    yield _text(
        "Where the agent is, and who asks. Each is taken from the option, else the variable,"
        f" else its key in {_CLIENT_FILE}."
    )
    for key, meaning in KEYS.items():
        yield from _entry(f"--{key}, HOST_AGENT_{key.upper()}", meaning)
    yield ".SH FILES"
    for path, meaning in _FILES:
        yield from _entry(path, meaning)
    yield ".SH NOTES"
    yield _text(tree.epilog)
    yield ".SH SEE ALSO"
    yield _text(", ".join(_SEE_ALSO))


def _command(command: Branch) -> Iterator[str]:
    heading = ".SH" if len(command.words) == 2 else ".SS"
    yield f"{heading} {_roff(command.name)}"
    if not command.below:
        shown = (one for one in command.taken if one.dest not in KEYS)
        yield _text(" ".join([command.name, *(one.usage for one in shown)]))
        yield ".PP"
    yield _text(command.description)
    is_client = {one.dest for one in command.taken} >= set(KEYS)
    for one in command.taken:
        if not (is_client and one.dest in KEYS):
            yield from _entry(_spelling(one), one.meaning)
    if is_client:
        yield ".PP"
        yield _text("It takes the CLIENT OPTIONS too.")


def _spelling(one: Taken) -> str:
    return " ".join(part for part in (", ".join(one.options), one.metavar) if part)


def _entry(term: str, meaning: str) -> Iterator[str]:
    yield ".TP"
    yield f"\\fB{_roff(term)}\\fR"
    yield _text(meaning) or "\\&"


def _text(text: str) -> str:
    """Return a paragraph of one line, which roff does not take for a request."""
    escaped = _roff(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
