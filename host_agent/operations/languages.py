"""What names a set of patterns lets through: whether there are any, and which, where few: pure.

A pattern that root's list can hold is regular, so the names of some patterns without those of
others are a regular language too. It is walked by partial derivatives (Antimirov, 1996): what is
left of an expression after one character is a set of expressions, and there are few of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias, assert_never

MAX_STATES: Final = 2048
"""States that are walked before a language counts as too large to be looked at."""


@dataclass(frozen=True, slots=True)
class Empty:
    """The empty name."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One character of a set."""

    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class Then:
    """One thing, and another after it."""

    first: "Expression"
    second: "Expression"


@dataclass(frozen=True, slots=True)
class Either:
    """One of several things."""

    options: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A thing `low` to `high` times; `high` of None has no end."""

    inner: "Expression"
    low: int
    high: int | None


Expression: TypeAlias = Empty | OneOf | Then | Either | Repeat
EMPTY: Final = Empty()
_States: TypeAlias = frozenset[Expression]


class LanguageTooLargeError(Exception):
    """There are more states than are walked."""


def then(first: Expression, second: Expression) -> Expression:
    """Return `first` followed by `second`, without what is empty."""
    if isinstance(first, Empty):
        return second
    if isinstance(second, Empty):
        return first
    if isinstance(first, Then):
        return Then(first.first, then(first.second, second))
    return Then(first, second)


def shown(expression: Expression) -> str:
    """Return a regular expression of these names that JavaScript and Python read alike."""
    match expression:
        case Empty():
            return ""
        case OneOf(members):
            return _class(members)
        case Then(first, second):
            return "".join(
                f"(?:{shown(one)})" if isinstance(one, Either) else shown(one)
                for one in (first, second)
            )
        case Either(options):
            return "|".join(map(shown, options))
        case Repeat(inner, low, high):
            text = shown(inner)
            return (text if isinstance(inner, OneOf) else f"(?:{text})") + _times(low, high)
        case _:
            assert_never(expression)


def alternatives(expression: Expression, limit: int) -> tuple[Expression, ...]:
    """Return expressions that together have the same names, at most `limit`, as fine as can be."""
    found: list[Expression]
    match expression:
        case OneOf(members):
            found = [OneOf(frozenset(one)) for one in sorted(members)]
        case Either(options):
            found = [one for option in options for one in alternatives(option, limit)]
        case Then(first, second):
            rest = alternatives(second, limit)
            found = [then(one, two) for one in alternatives(first, limit) for two in rest]
        case _:
            found = [expression]
    return tuple(found) if len(found) <= limit else (expression,)


_PRINTABLE: Final = frozenset(map(chr, range(0x20, 0x7F)))
_WORD: Final = frozenset(one for one in _PRINTABLE if one.isalnum()) | {"_"}


def _class(members: frozenset[str]) -> str:
    if len(members) == 1:
        (character,) = members
        return f"\\{character}" if character in r"^$\.*+?()[]{}|" else character
    if members == _PRINTABLE:
        return "."
    return min(f"[{_listed(members)}]", f"[^{_listed(_PRINTABLE - members)}]", key=len)


def _listed(members: frozenset[str]) -> str:
    text = ""
    if members >= _WORD:
        text, members = r"\w", members - _WORD
    characters = sorted(members)
    while characters:
        run = [characters.pop(0)]
        while characters and run[0].isalnum() and _follows(run[-1], characters[0]):
            run.append(characters.pop(0))
        ends = (run[0], run[-1]) if len(run) > 2 else tuple(run)
        joint = "-" if len(run) > 2 else ""
        text += joint.join(f"\\{one}" if one in r"\[]^-" else one for one in ends)
    return text


def _follows(one: str, other: str) -> bool:
    return other.isalnum() and ord(other) == ord(one) + 1


def _times(low: int, high: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
    if known is not None:
        return known
    return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


class Machine:
    """The names of some expressions, as a deterministic machine that is built as it is walked.

    A state is a number; 0 is the start. It is shared by whoever compares with these names.
    """

    def __init__(self, expressions: Iterable[Expression]) -> None:
        start = frozenset(expressions)
        self._numbers: dict[_States, int] = {start: 0}
        self._states = [start]
        self._steps: list[dict[int, int]] = [{}]
        self._sets = list(dict.fromkeys(_sets(start)))
        self._accepting: list[bool] = [any(map(_may_be_empty, start))]

    def kind(self, character: str) -> int:
        """Return a number that is the same for characters which no expression tells apart."""
        return sum(1 << at for at, members in enumerate(self._sets) if character in members)

    def accepts(self, state: int) -> bool:
        """Return whether a name may end in `state`."""
        return self._accepting[state]

    def is_dead(self, state: int) -> bool:
        """Return whether no name goes on from `state`."""
        return not self._states[state]

    def after(self, state: int, kind: int, character: str) -> int:
        """Return the state after a character, of which `kind` is told.

        Raises:
            LanguageTooLargeError: there are too many.
        """
        found = self._steps[state].get(kind)
        if found is None:
            left = frozenset[Expression]().union(
                *(_left_after(one, character) for one in self._states[state])
            )
            found = self._steps[state][kind] = self._number(left)
        return found

    def _number(self, left: _States) -> int:
        found = self._numbers.get(left)
        if found is None:
            found = len(self._states)
            if found >= MAX_STATES:
                raise LanguageTooLargeError
            self._numbers[left] = found
            self._states.append(left)
            self._steps.append({})
            self._accepting.append(any(map(_may_be_empty, left)))
        return found


_State: TypeAlias = tuple[int, ...]


class Language:
    """The names that all machines of `within` have, and none of `without`."""

    def __init__(self, within: Sequence[Machine], without: Sequence[Machine] = ()) -> None:
        self._machines = (*within, *without)
        self._within = len(within)
        self._kinds: dict[tuple[int, ...], str] = {}
        for character in sorted(_PRINTABLE):
            key = tuple(machine.kind(character) for machine in self._machines)
            if all(key[: self._within]):
                self._kinds[key] = self._kinds.get(key, "") + character
        self._follows: dict[_State, tuple[tuple[str, _State], ...]] = {}

    def is_empty(self) -> bool:
        """Return whether there is no such name.

        Raises:
            LanguageTooLargeError: that is not found out.
        """
        return not any(map(self._accepts, self._walk()))

    def names(self, limit: int) -> tuple[str, ...] | None:
        """Return all names in their order, or None where there are more than `limit`.

        Raises:
            LanguageTooLargeError: that is not found out.
        """
        start = (0,) * len(self._machines)
        lead = self._leading_to_a_name()
        found: list[str] = []
        todo = [("", start, frozenset[_State]())] if start in lead else []
        while todo:
            name, state, above = todo.pop()
            if state in above or len(todo) > limit * 8:
                return None  # a circle that leads to a name: there is no end of them
            if self._accepts(state):
                found.append(name)
                if len(found) > limit:
                    return None
            todo += [
                (name + character, after, above | {state})
                for members, after in self._after(state)
                if after in lead
                for character in members
            ]
        return tuple(sorted(found))

    def _leading_to_a_name(self) -> set[_State]:
        states = list(self._walk())
        lead = set(filter(self._accepts, states))
        before: dict[_State, list[_State]] = {}
        for state in states:
            for _, after in self._after(state):
                before.setdefault(after, []).append(state)
        todo = list(lead)
        while todo:
            for state in before.get(todo.pop(), ()):
                if state not in lead:
                    lead.add(state)
                    todo.append(state)
        return lead

    def _walk(self) -> Iterator[_State]:
        start = (0,) * len(self._machines)
        seen, todo = {start}, [start]
        while todo:
            state = todo.pop()
            yield state
            for _, after in self._after(state):
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
            if len(seen) > MAX_STATES:
                raise LanguageTooLargeError

    def _accepts(self, state: _State) -> bool:
        ends = [one.accepts(at) for one, at in zip(self._machines, state, strict=True)]
        return all(ends[: self._within]) and not any(ends[self._within :])

    def _after(self, state: _State) -> tuple[tuple[str, _State], ...]:
        found = self._follows.get(state)
        if found is None:
            steps = []
            for key, members in self._kinds.items():
                after = self._step(state, key, members[0])
                if after is not None:
                    steps.append((members, after))
            found = self._follows[state] = tuple(steps)
        return found

    def _step(self, state: _State, key: tuple[int, ...], character: str) -> _State | None:
        """Return the state after a character; None where no name goes on."""
        after = []
        for number, (one, at, kind) in enumerate(zip(self._machines, state, key, strict=True)):
            next_state = one.after(at, kind, character)
            if number < self._within and one.is_dead(next_state):
                return None
            after.append(next_state)
        return tuple(after)


@lru_cache(maxsize=4096)
def _may_be_empty(expression: Expression) -> bool:
    match expression:
        case Empty():
            return True
        case OneOf():
            return False
        case Then(first, second):
            return _may_be_empty(first) and _may_be_empty(second)
        case Either(options):
            return any(map(_may_be_empty, options))
        case Repeat(inner, low):
            return low == 0 or _may_be_empty(inner)
        case _:
            assert_never(expression)


@lru_cache(maxsize=8192)
def _left_after(expression: Expression, character: str) -> _States:
    match expression:
        case Empty():
            return frozenset()
        case OneOf(members):
            return frozenset({EMPTY}) if character in members else frozenset()
        case Then(first, second):
            left = frozenset(then(one, second) for one in _left_after(first, character))
            return left | _left_after(second, character) if _may_be_empty(first) else left
        case Either(options):
            return frozenset[Expression]().union(*(_left_after(one, character) for one in options))
        case Repeat(inner, low, high):
            if high == 0:
                return frozenset()
            rest = Repeat(inner, max(0, low - 1), None if high is None else high - 1)
            more = EMPTY if rest.high == 0 else rest
            return frozenset(then(one, more) for one in _left_after(inner, character))
        case _:
            assert_never(expression)


def _sets(expressions: Iterable[Expression]) -> Iterator[frozenset[str]]:
    todo = list(expressions)
    while todo:
        match todo.pop():
            case OneOf(members):
                yield members
            case Then(first, second):
                todo += [first, second]
            case Either(options):
                todo += options
            case Repeat(inner):
                todo.append(inner)
            case Empty():
                pass
            case other:
                assert_never(other)
