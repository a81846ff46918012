"""What pct and `wrappers/pct-inspect` print, as values. Strict: output of another form is none.

Names, descriptions and every value of a configuration are the container's own words: data.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NoReturn

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidOutputError
from host_agent.operations.catalogue import Inspection, Output, Preview, PreviewAccuracy
from host_agent.text import HASH_PREFIX

_HASH = r"[0-9a-f]{64}"
ABSENT = "absent"


def _refuse(what: str) -> NoReturn:
    message = f"pct's {what} is not in the form that is understood here."
    raise InvalidOutputError(message)


# -- list ------------------------------------------------------------------------------------------

# Columns of 10, 10, 12 and 20, a space between; a lock may be longer, a name always.
_ROW = re.compile(
    r"(?P<vmid>[1-9][0-9]{2,8}) +(?P<status>[a-z]{1,20}) +(?P<rest>.*)", re.ASCII | re.DOTALL
)
_HEADER = re.compile(r"VMID +Status +Lock +Name *")
_LOCK_AT, _LOCK_WIDTH = 22, 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of `pct list`. `lock` and `name` are None where there is none."""

    vmid: str
    status: str
    lock: str | None
    name: str | None

    @classmethod
    def of(cls, line: str) -> "Row | None":
        """Return what `line` says; None where it is no row."""
        found = _ROW.fullmatch(line)
        if found is None or found.start("rest") < _LOCK_AT or line[_LOCK_AT - 1] != " ":
            return None
        rest = line[_LOCK_AT:]
        if rest[:1].strip():
            lock, _, name = rest.partition(" ")
        else:
            lock, name = "", rest[_LOCK_WIDTH:]
        return cls(
            vmid=found["vmid"],
            status=found["status"],
            lock=lock or None,
            name=name.strip(" ") or None,
        )

    def as_json(self) -> dict[str, JsonValue]:
        """Return the row of an answer's `data`."""
        return {"vmid": self.vmid, "status": self.status, "lock": self.lock, "name": self.name}


def parse_list(output: Output) -> JsonValue:
    """Return `{containers}` in the order of pct; no output at all means none.

    Raises:
        InvalidOutputError: a line is no row, or the header is missing.
    """
    lines = output.stdout.split("\n")
    if lines.pop() != "":
        _refuse("list")
    if lines and _HEADER.fullmatch(lines.pop(0)) is None:
        _refuse("list")
    rows = [Row.of(line) for line in lines]
    if None in rows:
        _refuse("list")
    return {"containers": [row.as_json() for row in rows if row is not None]}


def restrict_list(output: Output, is_listed: Callable[[str], bool]) -> Output:
    """Return `output` with the rows of listed containers only; sizes and hash are of these.

    What cannot be read as a row is left out, as is what was said on standard error.
    """
    lines = output.stdout.splitlines(keepends=True)
    rows = [line for line in lines if line.endswith("\n") and _is_shown(line, is_listed)]
    header = [line for line in lines[:1] if rows and _HEADER.fullmatch(line.rstrip("\n"))]
    shown = "".join(header + rows)
    data = shown.encode()
    return replace(
        output,
        stdout=shown,
        stdout_bytes=len(data),
        stdout_sha256=hashlib.sha256(data).hexdigest(),
        stderr="",
        stderr_bytes=0,
    )


def _is_shown(line: str, is_listed: Callable[[str], bool]) -> bool:
    row = Row.of(line.rstrip("\n"))
    return row is not None and is_listed(row.vmid)


# -- status and config -----------------------------------------------------------------------------


def parse_status(output: Output) -> JsonValue:
    """Return `{status}`: running, stopped or unknown.

    Raises:
        InvalidOutputError: it is no status.
    """
    found = re.fullmatch(r"status: ([a-z]{1,20})\n", output.stdout, re.ASCII)
    if found is None:
        _refuse("status")
    return {"status": found[1]}


def parse_config(output: Output) -> JsonValue:
    """Return `{settings, lxc}`: what pct knows, by name, and raw lines for LXC, in their order.

    A description stays encoded as pct prints it, on one line.

    Raises:
        InvalidOutputError: a line has no name, or a name comes twice.
    """
    settings: dict[str, JsonValue] = {}
    raw: list[JsonValue] = []
    lines = output.stdout.split("\n")
    if lines.pop() != "":
        _refuse("configuration")
    for line in lines:
        name, colon, value = line.partition(": ")
        if re.fullmatch(r"[a-z][a-z0-9_.-]*:?", name) is None or (not colon and name[-1] != ":"):
            _refuse("configuration")
        name = name.removesuffix(":")
        if name.startswith("lxc."):
            raw.append({"name": name, "value": value})
        elif name in settings:
            _refuse("configuration")
        else:
            settings[name] = value
    return {"settings": settings, "lxc": raw}


# -- inspection ------------------------------------------------------------------------------------

_FACTS: Mapping[str, str] = {
    "status": r"[a-z]{1,20}",
    "config": _HASH,
    "parent": r"[^\n]{1,200}",
    "snapshot": rf"{_HASH}|{ABSENT}",
    "snaptime": r"[0-9]{1,12}",
    "lines": r"[0-9]{1,5}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFacts:
    """What `pct-inspect` told: each fact once, and lines of the configuration."""

    values: Mapping[str, str]
    lines: tuple[str, ...]

    @classmethod
    def of(cls, output: Output) -> "ContainerFacts":
        """Return the facts in `output`.

        Raises:
            InvalidOutputError: a line is no fact, or a fact comes twice.
        """
        values: dict[str, str] = {}
        lines: list[str] = []
        printed = output.stdout.split("\n")
        if output.truncated or printed.pop() != "":
            _refuse("inspection")
        for line in printed:
            name, _, value = line.partition("\t")
            if name == "line":
                lines.append(value)
            elif name in values or re.fullmatch(_FACTS.get(name, r"(?!)"), value) is None:
                _refuse("inspection")
            else:
                values[name] = value
        if "status" not in values or ("config" in values) == (values["status"] == ABSENT):
            _refuse("inspection")
        return cls(values=values, lines=tuple(lines))

    @property
    def status(self) -> str:
        """Return running, stopped, unknown; or `absent`, where there is no such container."""
        return self.values["status"]

    def hash_of(self, name: str) -> str:
        """Return a hash that was told.

        Raises:
            InvalidOutputError: it was not, or what it is of does not exist.
        """
        value = self.values.get(name, ABSENT)
        if value == ABSENT:
            _refuse("inspection")
        return f"{HASH_PREFIX}{value}"

    @property
    def left_out(self) -> int:
        """Return how many lines of the configuration were not told."""
        return max(int(self.values.get("lines", "0")) - len(self.lines), 0)


def inspected_state(output: Output, does: str, undo: str) -> Inspection:
    """Return what a change of the running state assumes; `does` says what happens."""
    facts = ContainerFacts.of(output)
    summary = f"It is {facts.status}; {does}."
    return _inspection({"config": facts.hash_of("config")}, summary, facts, undo)


def inspected_snapshot(output: Output) -> Inspection:
    """Return what a snapshot assumes: the container as configured."""
    facts = ContainerFacts.of(output)
    summary = f"It is {facts.status}; nothing is lost."
    return _inspection({"config": facts.hash_of("config")}, summary, facts, "not with this agent")


def inspected_rollback(output: Output) -> Inspection:
    """Return what a rollback assumes: the container as configured, and this very snapshot."""
    facts = ContainerFacts.of(output)
    taken = int(facts.values.get("snaptime", "0"))
    when = datetime.fromtimestamp(taken, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if taken else None
    since = f"after {when}" if when else "after it was taken"
    stops = " It is running, and is stopped for that." if facts.status == "running" else ""
    summary = f"Lost for good: what was written {since}, files and configuration.{stops}"
    held: dict[str, JsonValue] = {
        "config": facts.hash_of("config"),
        "snapshot": facts.hash_of("snapshot"),
    }
    return _inspection(held, summary, facts, "none")


def inspected_destroy(output: Output) -> Inspection:
    """Return what a destroy assumes: the container as configured, its newest snapshot included."""
    facts = ContainerFacts.of(output)
    newest = facts.values.get("parent")
    taken = f" and its snapshots, the newest of them {newest}" if newest else ""
    summary = f"Lost for good: every volume that it owns{taken}. It is {facts.status}."
    return _inspection({"config": facts.hash_of("config")}, summary, facts, "a backup, if there is")


def inspected_create(output: Output, wanted: tuple[str, ...]) -> Inspection:
    """Return what a create assumes: that there is no such container."""
    facts = ContainerFacts.of(output)
    if facts.status != ABSENT:
        _refuse("inspection")
    summary = "Makes an unprivileged container, stopped and without a network."
    preview = Preview(
        accuracy=PreviewAccuracy.ESTIMATE, summary=summary, details=wanted, undo="destroy it"
    )
    return Inspection(precondition={"exists": False}, preview=preview)


def _inspection(
    held: Mapping[str, JsonValue], summary: str, facts: ContainerFacts, undo: str
) -> Inspection:
    preview = Preview(
        accuracy=PreviewAccuracy.ESTIMATE,
        summary=summary,
        details=facts.lines,
        left_out=facts.left_out,
        undo=undo,
    )
    return Inspection(precondition=held, preview=preview)
