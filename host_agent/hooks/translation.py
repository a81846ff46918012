"""What a command line of a privileged program is, in terms of the operations of the agent."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

Value: TypeAlias = "str | int | bool | list[str]"


class Suggestion(NamedTuple):
    """An operation to ask for, with the parameters that the command line had.

    `missing` names the parameters that it needs and that the command line left to a default.
    """

    operation: str
    parameters: dict[str, Value]
    missing: tuple[str, ...] = ()


class Translation(NamedTuple):
    """What a command line does: only looks, or more; and what to ask for instead.

    Without a suggestion no operation does the same.
    """

    only_reads: bool = False
    suggestions: tuple[Suggestion, ...] = ()


READ = Translation(only_reads=True)
UNKNOWN = Translation()


class Options(NamedTuple):
    """The options of a program: those without a value, and those with one."""

    flags: frozenset[str]
    valued: frozenset[str]


def options(flags: str = "", valued: str = "") -> Options:
    """Return the options whose names stand in the two texts, between spaces."""
    return Options(frozenset(flags.split()), frozenset(valued.split()))


class Parsed(NamedTuple):
    """The words of a command line: its options with their last values, and the others in order."""

    given: dict[str, str]
    operands: tuple[str, ...]

    def has(self, *names: str) -> bool:
        return any(name in self.given for name in names)


def parse(words: Sequence[str], known: Options) -> Parsed | None:
    """Return the words as options and operands; None where an option is not known.

    Short options may be written together, and values after `=`, after a space, or at once.
    """
    given: dict[str, str] = {}
    operands: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            operands += words[at:]
            break
        if not word.startswith("-") or word == "-":
            operands.append(word)
            continue
        if word in known.flags:
            given[word] = ""
            continue
        name, equals, value = word.partition("=")
        if word in known.valued:
            if at == len(words):
                return None
            given[word] = words[at]
            at += 1
        elif equals and name in known.valued:
            given[name] = value
        elif word[1] != "-" and word[:2] in known.valued:
            given[word[:2]] = word[2:]
        elif word[1] != "-" and len(word) > 2 and all(f"-{x}" in known.flags for x in word[1:]):
            given.update({f"-{letter}": "" for letter in word[1:]})
        else:
            return None
    return Parsed(given, tuple(operands))
