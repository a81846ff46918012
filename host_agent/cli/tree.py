"""The command line as values, read from its own parsers: for completions and manual pages.

argparse has no public way to list what a parser takes, so its private lists are read here alone.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Takes(StrEnum):
    """The kind of a value, as far as a shell can help with it."""

    NOTHING = "nothing"
    WORD = "word"
    CHOICE = "choice"
    FILE = "file"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An option with its spellings, or a positional argument, which has none."""

    dest: str
    options: tuple[str, ...]
    metavar: str
    """The name of its value; empty where it takes none."""
    meaning: str
    takes: Takes
    choices: tuple[str, ...] = ()
    is_required: bool = False
    is_many: bool = False

    @property
    def spelling(self) -> str:
        """Return it as a usage line has it: `--days N`, `FILE ...`."""
        words = (*self.options[-1:], self.metavar)
        return " ".join(word for word in words if word) + (" ..." if self.is_many else "")

    @property
    def usage(self) -> str:
        """Return the spelling, in brackets where it may be left out."""
        return self.spelling if self.is_required else f"[{self.spelling}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A command: what it is called whole, what it takes, and the commands below it."""

    words: tuple[str, ...]
    meaning: str
    """One line, as the list of commands above it says."""
    description: str
    epilog: str
    taken: tuple[Taken, ...]
    below: tuple["Branch", ...]

    @property
    def name(self) -> str:
        """Return its words with spaces between: `host-agent pki issue`."""
        return " ".join(self.words)

    @property
    def usage(self) -> str:
        """Return its usage line; a command with commands below it has none of its own."""
        return " ".join([self.name, *(one.usage for one in self.taken)])

    def walk(self) -> Iterator["Branch"]:
        """Yield this command and all below it, in the order of help."""
        yield self
        for child in self.below:
            yield from child.walk()


def read(parser: argparse.ArgumentParser, meaning: str = "") -> Branch:
    """Return what `parser` and the parsers below it take. `--help` is not named."""
    actions = parser._actions  # noqa: SLF001
    return Branch(
        words=tuple(parser.prog.split()),
        meaning=meaning,
        description=_sentence(parser.description or meaning),
        epilog=parser.epilog or "",
        taken=tuple(_taken(parser, action) for action in actions if _is_told(action)),
        below=tuple(
            read(child, meanings(action).get(name, ""))
            for action in actions
            if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
            for name, child in action.choices.items()
        ),
    )


def meanings(action: "argparse._SubParsersAction[argparse.ArgumentParser]") -> Mapping[str, str]:
    """Return the one-line meaning of each command that `action` chooses from."""
    return {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001


def _is_told(action: argparse.Action) -> bool:
    hidden = isinstance(action, argparse._HelpAction | argparse._SubParsersAction)  # noqa: SLF001
    return not hidden and action.help is not argparse.SUPPRESS


def _taken(parser: argparse.ArgumentParser, action: argparse.Action) -> Taken:
    takes = _kind(action)
    is_repeated = isinstance(action, argparse._AppendAction)  # noqa: SLF001
    return Taken(
        dest=action.dest,
        options=tuple(action.option_strings),
        metavar="" if takes is Takes.NOTHING else _metavar(action),
        meaning=_help(parser, action),
        takes=takes,
        choices=tuple(str(choice) for choice in action.choices or ()),
        is_required=action.required and action.nargs != "*",
        is_many=action.nargs in ("*", "+") or is_repeated,
    )


def _kind(action: argparse.Action) -> Takes:
    if action.nargs == 0:
        return Takes.NOTHING
    if action.choices is not None:
        return Takes.CHOICE
    if action.metavar == "DIR" or action.dest == "dir":
        return Takes.DIRECTORY
    return Takes.FILE if action.type is Path or action.metavar in ("FILE", "BUNDLE") else Takes.WORD


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "|".join(str(choice) for choice in action.choices)
    return action.dest.upper()


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""  # noqa: SLF001


def _sentence(text: str) -> str:
    return text if not text or text.endswith(".") else f"{text[:1].upper()}{text[1:]}."
