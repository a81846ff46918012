"""Renders `docs/reference/commands.md` from the argument parsers: the same words as `--help`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from host_agent.__main__ import NOUNS, build_parser
from host_agent.cli.connection_settings import KEYS
from host_agent.cli.tree import Branch, Taken, read
from tests.support.pages import folded

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"

_INTRODUCTION = """\
# Commands

This page is rendered from the command line's own parsers; every command says the same with
`--help`. Option names are given whole, and values may come from a file or a variable only where a
line says so.

## Exit status

| status | meaning |
| --- | --- |
| 0 | done |
| 1 | the operation itself failed (`host:*`), or a checker found something |
| 64 | usage: the command line cannot be followed |
| 65 | refused as bad data (HTTP 400, 404, 413, 415), or an unreadable audit file |
| 69 | no connection, or the agent cannot serve at the moment (503) |
| 70 | internal: a defect, an answer that is not this service's, or an outcome that is unknown |
| 75 | try again later: held and not decided in time, 409, 410, 429 |
| 77 | refused: 403, denied, a certificate that is not let in |
| 78 | configuration: a setting is missing, or a file cannot be used |
| 130 | interrupted |

Errors are one sentence on standard error. With `--json` the result is JSON on standard output, and
a refusal is the problem's body there too, so that a script reads one stream.

## The agent and this client

`call`, `operations`, `requests`, `approver`, `grants` and `identities` need to know where the agent
listens, and who they are. `host-agent login` stores that from a bundle; then `--host NAME` is
enough, or `HOST_AGENT_HOST`, or nothing for the default host. Else each of the four settings is
taken from the first place that has it: the option, the variable, the file
`~/.config/host-agent/client.toml` (whose relative paths start at its directory).
[client.md](client.md) has the whole order and the file.

| option | variable | key in the file |
| --- | --- | --- |
| `--host NAME` | `HOST_AGENT_HOST` | `default_host` |
| `--url https://HOST:PORT` | `HOST_AGENT_URL` | `url` |
| `--cert FILE` | `HOST_AGENT_CERT` | `cert` |
| `--key FILE` | `HOST_AGENT_KEY` | `key` |
| `--ca FILE` | `HOST_AGENT_CA` | `ca` |

The connection is TLS 1.3, and the agent's certificate is always verified against that CA alone, by
name. There is no switch against it; proxies and other variables mean nothing here. A lost
connection is tried again, up to three times, where that cannot do a thing twice: for what only
reads, and for an ask, which carries an idempotency key. Decisions and cancellations are sent once.

## Parameters of `call`

`name=value` becomes the JSON type that the operation's schema names: a string, `true` or `false`, a
decimal integer, or a list by comma. `name:=JSON` is taken exactly, and needs no schema. What does
not fit is sent as text, and the agent refuses it.

What the operation printed goes to standard output and standard error as it is, into a file or a
pipe. On a terminal every control, bidirectional or invisible character in text of the host or of a
caller is shown as `\\u{1b}`, as in the log and in prompts; long text is cut, its hash told.
"""


def commands_page() -> str:
    """Return the page."""
    commands = read(build_parser(*NOUNS))
    sections = [_section(one) for child in commands.below for one in child.walk()]
    return "\n".join([_INTRODUCTION, *sections])


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers that run something."""
    children = list(_children(parser))
    if not children:
        yield parser
    for child in children:
        yield from leaves(child)


def _children(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


_SETTINGS = {"host", *KEYS}
"""What every client command takes, described once."""


def _section(command: Branch) -> str:
    level = "##" if len(command.words) == 2 else "###"
    is_clients = {one.dest for one in command.taken} >= _SETTINGS
    shown = [one for one in command.taken if not (is_clients and one.dest in _SETTINGS)]
    parts = [f"{level} `{command.name}`\n"]
    if command.description:
        parts.append(f"{folded(command.description)}\n")
    if shown:
        usage = " ".join([command.name, *(one.usage for one in shown)])
        rows = [f"| {_name(one)} | {_cell(one.meaning)} |" for one in shown]
        parts += [f"`{usage}`", "", "| argument | meaning |", "| --- | --- |", *rows, ""]
    if is_clients:
        names = ", ".join(f"`--{key}`" for key in ("host", *KEYS))
        parts.append(f"Also {names}: [the agent and this client](#the-agent-and-this-client).\n")
    return "\n".join(parts)


def _name(one: Taken) -> str:
    names = ", ".join(f"`{name}`" for name in one.options)
    return _cell(" ".join(part for part in (names, f"`{one.metavar}`" * bool(one.metavar)) if part))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(commands_page(), encoding="utf-8")
