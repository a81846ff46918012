"""What `cvtsudoers -f json` says of the gathered lines, as values with their origins.

cvtsudoers tells neither file nor line, so the text that it gets has a marker entry before every
line, for a user whose name nobody knows in advance; what stands between two markers belongs to the
line between them. It also writes JSON that is none (seen with 1.9.13: members without an object
around them, a missing comma after an empty list), which is mended before it is read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from host_agent.sudoers.lines import LogicalLine
from host_agent.sudoers.values import Origin


class UnparsableError(ValueError):
    """What cvtsudoers wrote is not understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMember:
    """One name of a list of users, hosts or run-as users: its kind (`username`, ...) and value."""

    kind: str
    value: str
    negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """One command of an entry: `ALL`, `sudoedit ...`, or a path with its arguments."""

    text: str
    negated: bool = False
    has_digest: bool = False

    @property
    def path(self) -> str:
        """Return the command without its arguments."""
        return self.text.partition(" ")[0]

    @property
    def arguments(self) -> str | None:
        """Return the arguments as written, `""` for none allowed; None where any are."""
        _, space, arguments = self.text.partition(" ")
        return arguments if space else None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSpec:
    """Commands that users may run on hosts as other users: one specification of an entry.

    `run_as` and `run_as_groups` are None where the entry has none. `options` are the tags and
    options in force, by cvtsudoers' names (`authenticate`, `setenv`, `runchroot`, ...).
    """

    origin: Origin
    users: tuple[ListMember, ...]
    hosts: tuple[ListMember, ...]
    run_as: tuple[ListMember, ...] | None
    run_as_groups: tuple[ListMember, ...] | None
    options: Mapping[str, Any]
    commands: tuple[CommandSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One `Defaults` option: `scope` is one of `:@>!` with its `binding`, or empty for everybody.

    `operation` is `list_add`, `list_remove` or `list_assign` for lists, else empty.
    """

    origin: Origin
    scope: str
    binding: tuple[ListMember, ...]
    name: str
    value: Any
    operation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SudoersPolicy:
    """All that a set of sudoers files says, in order."""

    grants: tuple[UserSpec, ...]
    settings: tuple[Setting, ...]
    doubts: tuple[Origin, ...] = ()
    """Where a setting is for somebody, and nobody is named: it is taken to be for everybody."""


@dataclass(frozen=True, slots=True)
class Marked:
    """The text for cvtsudoers, and how to find a line of it again."""

    text: str
    starts: tuple[int, ...]
    marker: str

    def index(self, number: int) -> int:
        """Return which logical line holds the line `number` of the text."""
        before = [index for index, start in enumerate(self.starts) if start <= number]
        return before[-1] if before else 0


def mark(lines: Sequence[LogicalLine], nonce: str) -> Marked:
    """Return `lines` as one text with marker entries; `nonce` is a word that nobody can foresee."""
    marker = f"line.{nonce}."
    parts: list[str] = []
    starts: list[int] = []
    number = 1
    for index, line in enumerate(lines):
        starts.append(number)
        part = "" if line.is_blank else _marked(line, f"{marker}{index}")
        parts.append(part)
        number += part.count("\n")
    return Marked("".join(parts), tuple(starts), marker)


def _marked(line: LogicalLine, user: str) -> str:
    return f"Defaults:{user} !lecture\n{user} ALL = /m\n{line.text}\n"


# -- mending --------------------------------------------------------------------------------------

_BARE_MEMBER = re.compile(r'^(\s*)("(?:runchroot|runcwd)": ".*")(,?)$', re.MULTILINE)
_BARE_SELINUX = re.compile(r'"SELinux_Spec": \[([^\]]*)\]')
_MISSING_COMMA = re.compile(r'([\]}])(\n\s*["{])')


def mended(text: str) -> str:
    """Return cvtsudoers' JSON with the faults that it is known to have taken out.

    A string never spans lines there, so line ends are structure.
    """
    text = _BARE_MEMBER.sub(r"\1{ \2 }\3", text)
    text = _BARE_SELINUX.sub(r'"SELinux_Spec": {\1}', text)
    return _MISSING_COMMA.sub(r"\1,\2", text)


# -- aliases --------------------------------------------------------------------------------------

_ALIASES = {
    "useralias": ("User_Aliases", "username"),
    "runasalias": ("Runas_Aliases", "username"),
    "hostalias": ("Host_Aliases", "hostname"),
    "cmndalias": ("Command_Aliases", ""),
}
"""Of each kind of alias: where it is defined, and what its name is where it is not defined.

sudo takes such a name for a user's, a group's or a host's, without case as any other: `(ROOT)` is
root. A command has no name of that form. cvtsudoers' own expansion leaves it out without a word.
"""
_MAX_MEMBERS = 200_000
"""Members of aliases in all; aliases of aliases can double them without end."""


class _Aliases:
    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told
        self._left = _MAX_MEMBERS

    def expanded(
        self, members: Iterable[Mapping[str, Any]], within: frozenset[str] = frozenset()
    ) -> Iterator[Mapping[str, Any]]:
        """Yield `members` with what each alias stands for, `within` the aliases of these names."""
        for member in members:
            self._left -= 1
            if self._left < 0:
                message = "the aliases have too many members"
                raise UnparsableError(message)
            kind = next((kind for kind in _ALIASES if kind in member), None)
            if kind is None:
                yield member
                continue
            section, plain = _ALIASES[kind]
            name = str(member[kind])
            meant = self._told.get(section, {}).get(name)
            if meant is None and plain:
                meant = [{plain: name}]
            if meant is None or name in within:
                continue
            for one in self.expanded(meant, within | {name}):
                yield _negated(one) if member.get("negated") else one


def _negated(member: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**member, "negated": not member.get("negated")}


# -- reading --------------------------------------------------------------------------------------


def parse(text: str, marked: Marked, lines: Sequence[LogicalLine]) -> SudoersPolicy:
    """Return the policy that cvtsudoers told of `marked`.

    Raises:
        UnparsableError: it is not what cvtsudoers writes.
    """
    try:
        told = json.loads(mended(text) or "{}", strict=False)
        if not isinstance(told, dict):
            raise UnparsableError(type(told).__name__)
        reader = _EntryReader(marked, lines, _Aliases(told))
        return SudoersPolicy(
            grants=tuple(reader.grants(told.get("User_Specs", []))),
            settings=tuple(reader.settings(told.get("Defaults", []))),
            doubts=tuple(reader.doubts),
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,  # an alias of an alias, a thousand times
    ) as error:
        message = f"{type(error).__name__}: {error}"
        raise UnparsableError(message) from error


_FLAGS = frozenset({"negated"})


class _EntryReader:
    def __init__(self, marked: Marked, lines: Sequence[LogicalLine], aliases: _Aliases) -> None:
        self._marked = marked
        self._lines = lines
        self._aliases = aliases
        self.doubts: list[Origin] = []

    def grants(self, specs: Iterable[Mapping[str, Any]]) -> list[UserSpec]:
        found: list[UserSpec] = []
        line: LogicalLine | None = None
        for spec in specs:
            users = self._members(spec["User_List"])
            marker = self._marker(users)
            if marker is not None:
                line = marker
                continue
            hosts, origin = self._members(spec["Host_List"]), _of(line).origin
            found += [self._grant(origin, users, hosts, part) for part in spec["Cmnd_Specs"]]
        return found

    def settings(self, defaults: Iterable[Mapping[str, Any]]) -> list[Setting]:
        found: list[Setting] = []
        line: LogicalLine | None = None
        for entry in defaults:
            binding = self._members(entry.get("Binding", []))
            marker = self._marker(binding)
            if marker is not None:
                line = marker
                continue
            scopes = _scopes(_of(line).text, binding)
            if scopes == ("",) and _written_scope(_of(line).text) != "":
                self.doubts.append(_of(line).origin)
            for option in entry["Options"]:
                found.extend(_settings(_of(line).origin, scopes, binding, option))
        return found

    def _marker(self, members: Sequence[ListMember]) -> LogicalLine | None:
        if len(members) == 1 and members[0].value.startswith(self._marked.marker):
            return self._lines[int(members[0].value.removeprefix(self._marked.marker))]
        return None

    def _members(self, told: Iterable[Mapping[str, Any]]) -> tuple[ListMember, ...]:
        return tuple(
            ListMember(kind=kind, value=str(value), negated=bool(member.get("negated")))
            for member in self._aliases.expanded(told)
            for kind, value in member.items()
            if kind not in _FLAGS
        )

    def _grant(
        self,
        origin: Origin,
        users: tuple[ListMember, ...],
        hosts: tuple[ListMember, ...],
        part: Mapping[str, Any],
    ) -> UserSpec:
        options: dict[str, Any] = {}
        for option in part.get("Options", []):
            options.update(option)
        options.update(part.get("SELinux_Spec", {}))
        groups = self._members(part["runasgroups"]) if "runasgroups" in part else None
        return UserSpec(
            origin=origin,
            users=users,
            hosts=hosts,
            run_as=self._members(part["runasusers"]) if "runasusers" in part else None,
            run_as_groups=groups,
            options=options,
            commands=tuple(
                CommandSpec(
                    text=command["command"],
                    negated=bool(command.get("negated")),
                    has_digest=any(key.startswith("sha") for key in command),
                )
                for command in self._aliases.expanded(part["Commands"])
            ),
        )


def _of(line: LogicalLine | None) -> LogicalLine:
    if line is None:
        message = "an entry comes before the first line"
        raise UnparsableError(message)
    return line


_SCOPE = re.compile(r"[ \t]*Defaults(?P<scope>[:@>!]?)")
_FURTHER = re.compile(r"\n[ \t]*Defaults(?![A-Za-z])")
_OF_HOSTS = frozenset({"hostname", "networkaddr"})


def _scopes(text: str, binding: tuple[ListMember, ...]) -> tuple[str, ...]:
    """Return for what a setting with this binding is: `:@>!`, or empty for everybody.

    cvtsudoers' answer decides. It has users and run-as users alike, and netgroups of users and of
    hosts: there the line itself tells, and where that could be two lines, both are meant.
    """
    kinds = {member.kind for member in binding}
    if not kinds:
        return ("",)
    if "command" in kinds:
        return ("!",)
    if kinds & _OF_HOSTS:
        return ("@",)
    possible = (":", ">", "@") if kinds == {"netgroup"} else (":", ">")
    written = _written_scope(text)
    if written is None or written not in possible or _FURTHER.search(text):
        return possible
    return (written,)


def _written_scope(text: str) -> str | None:
    """Return the sign after `Defaults`, empty where there is none; None for another line."""
    found = _SCOPE.match(text)
    return found["scope"] if found is not None else None


def _settings(
    origin: Origin,
    scopes: tuple[str, ...],
    binding: tuple[ListMember, ...],
    option: Mapping[str, Any],
) -> list[Setting]:
    return [
        Setting(
            origin=origin,
            scope=scope,
            binding=binding,
            name=name,
            value=value,
            operation=str(option.get("operation", "")),
        )
        for scope in scopes
        for name, value in option.items()
        if name != "operation"
    ]
