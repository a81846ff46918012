"""One shell command, read as words; what is more than one simple command is told apart, not read.

Only words are found, nothing is expanded. A word is literal where the shell would leave it as it
stands, but for its quotes.
"""

import re
from typing import NamedTuple

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[[^]]*\])?\+?=", re.ASCII)
_BREAKS = frozenset(";&|<>()\n`")
_EXPANDS = frozenset("*?[~{")
_ESCAPED_IN_QUOTES = '$`"\\\n'


def names(text: str) -> frozenset[str]:
    """Return the names that stand in `text`, between spaces."""
    return frozenset(text.split())


_RESERVED = names(
    "! { } [[ ]] case coproc do done elif else esac fi for function if in select then time until"
    " while"
)


class ShellWord(NamedTuple):
    """A word of a command: `text` without its quotes, `raw` as it was written."""

    text: str
    raw: str
    is_literal: bool


class SimpleCommand(NamedTuple):
    """One simple command: the assignments before it, and its words, the program first."""

    assignments: tuple[ShellWord, ...]
    words: tuple[ShellWord, ...]


class UnreadableError(Exception):
    """The text is not one simple command that can be read."""


def read(text: str) -> SimpleCommand:
    """Return the one simple command that `text` is.

    Raises:
        UnreadableError: it is several, has an operator, a substitution or a comment, begins with a
            reserved word, or has an open quote.
    """
    words = _words(text.strip(" \t\r\n"))
    count = 0
    while count < len(words) and _ASSIGNMENT.match(words[count].raw):
        count += 1
    found = SimpleCommand(assignments=tuple(words[:count]), words=tuple(words[count:]))
    if found.words and found.words[0].raw in _RESERVED:
        raise UnreadableError
    return found


def _words(text: str) -> list[ShellWord]:
    words: list[ShellWord] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
        elif text[at] == "#":
            raise UnreadableError
        else:
            word, at = _word(text, at)
            words.append(word)
    return words


def _word(text: str, begin: int) -> tuple[ShellWord, int]:
    """Return the word that begins at `begin`, and where it ends."""
    pieces: list[str] = []
    is_literal = True
    at = begin
    while at < len(text) and text[at] not in " \t":
        sign = text[at]
        if sign in _BREAKS or (sign < " " and sign != "\t") or sign == "\x7f":
            raise UnreadableError
        if sign == "'":
            end = _closing(text, at)
            pieces.append(text[at + 1 : end])
            at = end + 1
        elif sign == '"':
            inside, at, is_fixed = _double_quoted(text, at + 1)
            pieces.append(inside)
            is_literal = is_literal and is_fixed
        elif sign == "\\":
            if at + 1 == len(text):
                raise UnreadableError
            pieces.append("" if text[at + 1] == "\n" else text[at + 1])
            at += 2
        else:
            if sign == "$":
                _no_substitution(text, at)
            is_literal = is_literal and sign != "$" and not _expands(text, at)
            pieces.append(sign)
            at += 1
    return ShellWord(text="".join(pieces), raw=text[begin:at], is_literal=is_literal), at


def _expands(text: str, at: int) -> bool:
    """Return whether the sign may stand for other text, as a `{}` or a lone `[` does not."""
    after = text[at + 1 : at + 2]
    is_alone = (text[at] == "{" and after == "}") or (text[at] == "[" and after in ("", " ", "\t"))
    return text[at] in _EXPANDS and not is_alone


def _double_quoted(text: str, begin: int) -> tuple[str, int, bool]:
    """Return what is between double quotes, the place after them, and whether it stays as is."""
    pieces: list[str] = []
    is_fixed = True
    at = begin
    while at < len(text):
        sign = text[at]
        if sign == '"':
            return "".join(pieces), at + 1, is_fixed
        if sign == "`" or sign == "\0":
            raise UnreadableError
        if sign == "\\" and text[at + 1 : at + 2] and text[at + 1] in _ESCAPED_IN_QUOTES:
            pieces.append("" if text[at + 1] == "\n" else text[at + 1])
            at += 2
            continue
        if sign == "$":
            _no_substitution(text, at)
            is_fixed = False
        pieces.append(sign)
        at += 1
    raise UnreadableError


def _closing(text: str, begin: int) -> int:
    end = text.find("'", begin + 1)
    if end < 0 or "\0" in text[begin:end]:
        raise UnreadableError
    return end


def _no_substitution(text: str, at: int) -> None:
    """Raise where a command could run at this `$`: `$(`, `$[`, or within `${`."""
    after = text[at + 1 : at + 2]
    if after in ("(", "["):
        raise UnreadableError
    if after == "{":
        end = text.find("}", at)
        if end < 0 or any(sign in text[at + 2 : end] for sign in "(`$'\"\\<>"):
            raise UnreadableError
