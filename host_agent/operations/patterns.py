"""Python's regular expressions as POSIX extended ones, so that root's wrappers match alike: pure.

Policy matches with `re.fullmatch`, the wrappers with bash's `[[ =~ ]]` in the C locale, between
`^(` and `)$`. Both then ask the same question, whether a name is in a regular language; how greedy
a repeat is changes nothing. What is not regular, or is read otherwise by the two, is refused. Names
are printable ASCII: no resource holds anything else.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from host_agent.operations.languages import EMPTY, Either, Expression, OneOf, Repeat, then

MAX_SIZE: Final = 2000
"""Single-character matches after every counted repeat is written out: glibc's matcher expands them,
and a pattern that it has no memory for would make the wrappers refuse everything."""

MAX_REPEAT: Final = 255
"""The largest count in braces that POSIX promises (RE_DUP_MAX)."""

_ALL: Final = frozenset(map(chr, range(0x20, 0x7F)))
_DIGITS: Final = frozenset("0123456789")
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD: Final = _DIGITS | _LETTERS | {"_"}
_SETS: Final = {
    "d": _DIGITS,
    "D": _ALL - _DIGITS,
    "w": _WORD,
    "W": _ALL - _WORD,
    "s": frozenset(" "),
    "S": _ALL - {" "},
}
_SPECIAL: Final = frozenset(r".*+?()[{|^$\ ")
_TIMES: Final[Mapping[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_BRACES = re.compile(r"\{(?:([0-9]+)(,([0-9]*))?|,([0-9]*))\}", re.ASCII)
_GROUP = re.compile(r"\((?:\?(?::|P<[A-Za-z_][A-Za-z0-9_]*>))?(?!\?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Part:
    """A translated piece, and what it means; `is_atom`: a repeat may follow it as it stands."""

    text: str
    size: int
    means: Expression
    is_atom: bool = True


def to_extended(pattern: str) -> str:
    """Return the POSIX extended regular expression of the same names as `pattern`, which compiles.

    Raises:
        ValueError: it has none, or one that is too large. The message is a fragment of a sentence.
    """
    return _read(pattern).text


def expression(pattern: str) -> Expression:
    """Return the names of `pattern` as an expression that can be compared with others.

    Raises:
        ValueError: as `to_extended` does.
    """
    return _read(pattern).means


def _read(pattern: str) -> _Part:
    reader = _PatternReader(pattern)
    try:
        part = reader.alternatives(is_outermost=True)
    except RecursionError:
        _refuse("it is nested too deeply")
    if reader.at < len(pattern):
        _refuse("a parenthesis is not opened")
    return part


def extended(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return them as the wrappers read them; one of the empty name alone names nothing."""
    return tuple(filter(None, map(to_extended, patterns)))


def _refuse(reason: str) -> NoReturn:
    message = f"is a pattern that root's wrappers cannot read alike: {reason}"
    raise ValueError(message)


class _PatternReader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def _next(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def alternatives(self, *, is_outermost: bool = False) -> _Part:
        """Read up to the end, or to a closing parenthesis, which is left."""
        branches = [self._sequence(is_outermost=is_outermost)]
        while self._next() == "|":
            self.at += 1
            branches.append(self._sequence(is_outermost=is_outermost))
        filled = [branch for branch in branches if branch.text]
        size = sum(branch.size for branch in filled)
        text = "|".join(branch.text for branch in filled)
        options = tuple(branch.means for branch in branches)
        means = options[0] if len(options) == 1 else Either(options)
        if not filled or len(filled) == len(branches):
            return _Part(text, size, means, is_atom=False)
        return _Part(f"({text})?", size, means, is_atom=False)  # POSIX knows no empty branch

    def _sequence(self, *, is_outermost: bool) -> _Part:
        if is_outermost:
            self._skip("^", r"\A")
        text, size = "", 0
        means: Expression = EMPTY
        while self._next() not in ("", "|", ")"):
            if is_outermost and self._is_end():
                break
            part = self._repeated(self._atom())
            text, size, means = text + part.text, size + part.size, then(means, part.means)
            if size > MAX_SIZE:
                _refuse(f"its repeats come to more than {MAX_SIZE} characters")
        return _Part(text, size, means, is_atom=False)

    def _skip(self, *anchors: str) -> None:
        """Step over an anchor where it says nothing: the whole name is matched anyhow."""
        for anchor in anchors:
            if self.pattern.startswith(anchor, self.at):
                self.at += len(anchor)
                return

    def _is_end(self) -> bool:
        before = self.at
        self._skip("$", r"\Z")
        if before != self.at and self._next() in ("", "|"):
            return True
        self.at = before
        return False

    # -- one thing --------------------------------------------------------------------------------

    def _atom(self) -> _Part:
        character = self._next()
        match character:
            case "(":
                return self._group()
            case "[":
                return self._class()
            case "\\":
                return _of(self._escape())
            case ".":
                self.at += 1
                return _of(_ALL)
            case "^" | "$":
                _refuse(f"{character} stands within it")
            case "*" | "+" | "?":
                _refuse(f"{character} repeats nothing")
        self.at += 1
        return _of(_known(character))

    def _group(self) -> _Part:
        opening = _GROUP.match(self.pattern, self.at)
        if opening is None:
            _refuse("(? stands for a look around, a condition or a flag")
        self.at = opening.end()
        inner = self.alternatives()
        self.at += 1  # compiled before, so it is closed
        return _Part(f"({inner.text})" if inner.text else "", inner.size, inner.means)

    def _escape(self) -> frozenset[str]:
        escaped = self.pattern[self.at + 1 : self.at + 2]
        self.at += 2
        if escaped in _SETS:
            return _SETS[escaped]
        if escaped in _LETTERS or escaped in _DIGITS:
            _refuse(f"\\{escaped} has no like there")
        return _known(escaped)

    def _class(self) -> _Part:
        self.at += 1
        is_negated = self._next() == "^"
        self.at += is_negated
        members: frozenset[str] = frozenset()
        is_first = True
        while is_first or self._next() != "]":
            is_first = False
            low = self._member()
            if self._next() == "-" and self.pattern[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                (first,), (last,) = low, self._member()
                low = frozenset(map(chr, range(ord(first), ord(last) + 1)))
            members |= low
        self.at += 1
        return _of(_ALL - members if is_negated else members)

    def _member(self) -> frozenset[str]:
        if self._next() == "\\":
            return self._escape()
        self.at += 1
        return _known(self.pattern[self.at - 1])

    # -- how often --------------------------------------------------------------------------------

    def _repeated(self, part: _Part) -> _Part:
        character = self._next()
        if character in _TIMES:
            self.at += 1
            times, text = 1, character
            least, most = _TIMES[character]
        elif braces := _BRACES.match(self.pattern, self.at):
            self.at = braces.end()
            low = int(braces[1] or 0)
            high = braces[4] if braces[1] is None else braces[3] if braces[2] else str(low)
            times = max(low, int(high or 0), 1)
            if times > MAX_REPEAT:
                _refuse(f"it repeats something more than {MAX_REPEAT} times")
            text = f"{{{low}}}" if high == str(low) else f"{{{low},{high}}}"
            least, most = low, int(high) if high else None
        else:
            return part
        if self._next() == "+":
            _refuse(f"{text}+ gives nothing back")
        self.at += self._next() == "?"
        if not part.text:
            return part
        whole = part.text if part.is_atom else f"({part.text})"
        means = Repeat(part.means, least, most)
        return _Part(whole + text, part.size * times, means, is_atom=False)


def _known(character: str) -> frozenset[str]:
    if character not in _ALL:
        _refuse("it holds a character that no name has")
    return frozenset(character)


def _of(members: frozenset[str]) -> _Part:
    """Return what matches one of `members`: the character, or a bracket expression."""
    if not members:
        _refuse("one of its classes holds nothing that a name can have")
    return _Part(_bracketed(members), 1, OneOf(members))


def _bracketed(members: frozenset[str]) -> str:
    if members == _ALL:
        return "."
    if len(members) == 1:
        (character,) = members
        if character == " ":
            return "[ ]"
        return f"\\{character}" if character in _SPECIAL else character
    if len(members) > len(_ALL) // 2:
        return f"[^{_listed(_ALL - members)}]"
    inner = _listed(members)
    # A caret in front would negate: only `^-` is left with one there.
    return f"[{inner if inner[0] != '^' else '-^'}]"


def _listed(members: frozenset[str]) -> str:
    """Return the inside of a bracket expression: `]` first, and `[ ^ -` last, where they are plain.

    Ranges are of digits and letters only, which every C locale orders alike.
    """
    text = "]" if "]" in members else ""
    plain = sorted(members - frozenset("][^-"))
    while plain:
        run = [plain.pop(0)]
        while plain and plain[0].isalnum() and ord(plain[0]) == ord(run[-1]) + 1:
            if not run[0].isalnum():
                break
            run.append(plain.pop(0))
        text += f"{run[0]}-{run[-1]}" if len(run) > 2 else "".join(run)
    return text + "".join(character for character in "[^-" if character in members)
