"""What `zfs` and the zfs wrappers print, as values. Strict: output of another form is no answer.

Three forms are read: JSON (OpenZFS 2.3 and newer), tab-separated lines of `zfs list -Hp`, and lines
of `zfs get -Hp`, one a property (zfs-fuse, which lists no exact numbers). Names of datasets and
values of properties come from the host: data, never believed. In lines, a value with a newline in
it can look like another row of the same dataset; a property that comes twice is no answer.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from host_agent.canonical import MAX_SAFE_INTEGER, JsonValue
from host_agent.errors import InvalidOutputError
from host_agent.operations.catalogue import Output

LIST_FIELDS = (
    *("type", "used", "available", "referenced", "guid", "createtxg", "creation", "origin"),
    *("userrefs", "mountpoint"),
)
"""The properties that `zfs-list` asks for, in its order."""

_NUMBERS = frozenset({"used", "available", "referenced", "creation", "userrefs"})
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)

Keep = Callable[[str, str], bool]
"""Whether the dataset of a name and a type is to be shown."""


def _refuse(what: str) -> NoReturn:
    message = f"The {what} of zfs is not in the form that is understood here."
    raise InvalidOutputError(message)


# -- list ------------------------------------------------------------------------------------------


def restrict_list(output: Output, keep: Keep) -> Output:
    """Return `output` with the datasets alone that `keep` holds; its sizes are of what is left.

    What cannot be told to be a row of one of these is left out too. JSON that is cut, or is none,
    leaves nothing.
    """
    if output.stdout.lstrip().startswith("{"):
        stdout = _restrict_json(output.stdout, keep)
    else:
        stdout = "".join(f"{line}\n" for line in _kept_lines(output.stdout, keep))
    content = stdout.encode()
    return dataclasses.replace(
        output,
        stdout=stdout,
        stdout_bytes=len(content),
        stdout_sha256=hashlib.sha256(content).hexdigest(),
    )


def _restrict_json(stdout: str, keep: Keep) -> str:
    try:
        document = _document(stdout)
    except InvalidOutputError:
        return ""
    kept = {name: entry for name, entry in _entries(document).items() if keep(name, _type(entry))}
    return json.dumps({"output_version": document.get("output_version"), "datasets": kept})


def _kept_lines(stdout: str, keep: Keep) -> Iterator[str]:
    rows = [line.split("\t") for line in stdout.split("\n")[:-1]]
    types = {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "type"}
    keep = cache(keep)  # a dataset has a row for each property
    for row in rows:
        if len(row) == len(LIST_FIELDS) + 1:
            is_kept = keep(row[0], row[1])
        else:
            is_kept = len(row) == 3 and row[0] in types and keep(row[0], types[row[0]])
        if is_kept:
            yield "\t".join(row)


def parse_list(output: Output) -> JsonValue:
    """Return one object a dataset: `name`, and each of `LIST_FIELDS`; null is what it has not.

    Sizes are bytes and `creation` is a Unix time. `guid` and `createtxg` are strings of digits,
    because a guid has 64 bits; so is a size beyond 2**53-1.

    Raises:
        InvalidOutputError: the output is in none of the three forms.
    """
    if output.stdout.lstrip().startswith("{"):
        rows = {
            name: _properties(entry) for name, entry in _entries(_document(output.stdout)).items()
        }
    else:
        rows = _rows(output.stdout)
    return [_listed(name, row) for name, row in rows.items()]


def _listed(name: str, row: Mapping[str, str]) -> dict[str, JsonValue]:
    if not row.keys() >= set(LIST_FIELDS):
        _refuse("list")
    fields: dict[str, JsonValue] = {"name": name}
    for field in LIST_FIELDS:
        value = row[field]
        fields[field] = None if value == "-" else _number(value) if field in _NUMBERS else value
    fields["type"] = row["type"].lower()
    return fields


def _number(value: str) -> int | str:
    if _DIGITS.fullmatch(value) is None:
        _refuse("list")
    return int(value) if int(value) <= MAX_SAFE_INTEGER else value


def _rows(stdout: str) -> dict[str, dict[str, str]]:
    if stdout and not stdout.endswith("\n"):
        _refuse("list")
    found: dict[str, dict[str, str]] = {}
    for line in stdout.split("\n")[:-1]:
        name, *values = line.split("\t")
        if len(values) == len(LIST_FIELDS) and name not in found:
            found[name] = dict(zip(LIST_FIELDS, values, strict=True))
        elif len(values) == 2 and values[0] not in found.get(name, {}):
            found.setdefault(name, {})[values[0]] = values[1]
        else:
            _refuse("list")
    return found


# -- get -------------------------------------------------------------------------------------------

_INHERITED = "inherited from "


def parse_get(output: Output, *, dataset: str) -> JsonValue:
    """Return `{name, properties}`; a property has `value`, `source` and `inherited_from`.

    `source` is `local`, `default`, `inherited`, `received`, `temporary`, or None.

    Raises:
        InvalidOutputError: the output is in neither form, or of another dataset.
    """
    if output.stdout.lstrip().startswith("{"):
        entry = _entries(_document(output.stdout)).get(dataset)
        if entry is None:
            _refuse("properties")
        from_json = {name: _from_json(value) for name, value in entry["properties"].items()}
        return {"name": dataset, "properties": from_json}
    return {"name": dataset, "properties": _from_lines(output.stdout, dataset)}


def _property(value: str, source: str, origin: str | None) -> dict[str, JsonValue]:
    return {
        "value": None if value == "-" and source == "-" else value,
        "source": None if source in {"-", "none"} else source,
        "inherited_from": origin,
    }


def _from_json(described: Mapping[str, Any]) -> dict[str, JsonValue]:
    source = described.get("source")
    if not isinstance(source, dict):
        _refuse("properties")
    kind = str(source.get("type")).lower()
    return _property(
        _text(described.get("value")),
        "-" if kind == "none" else kind,
        _text(source.get("data")) if kind == "inherited" else None,
    )


def _from_lines(stdout: str, dataset: str) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    if not stdout.startswith(f"{dataset}\t") or not stdout.endswith("\n"):
        _refuse("properties")
    for chunk in stdout[:-1].split(f"\n{dataset}\t"):  # a value may hold tabs and newlines
        name, tab, rest = chunk.removeprefix(f"{dataset}\t").partition("\t")
        value, last_tab, source = rest.rpartition("\t")
        if not tab or not last_tab or name in found:
            _refuse("properties")
        is_inherited = source.startswith(_INHERITED)
        origin = source.removeprefix(_INHERITED) if is_inherited else None
        found[name] = _property(value, "inherited" if is_inherited else source, origin)
    return found


# -- JSON ------------------------------------------------------------------------------------------


def _document(stdout: str) -> dict[str, Any]:
    try:
        document = json.loads(stdout)
    except (ValueError, RecursionError):
        _refuse("JSON")
    if not isinstance(document, dict):
        _refuse("JSON")
    return document


def _entries(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    datasets = document.get("datasets", {})
    if not isinstance(datasets, dict):
        _refuse("JSON")
    for entry in datasets.values():
        if not isinstance(entry, dict) or not isinstance(entry.get("properties"), dict):
            _refuse("JSON")
        if not all(isinstance(value, dict) for value in entry["properties"].values()):
            _refuse("JSON")
    return datasets


def _type(entry: Mapping[str, Any]) -> str:
    return _text(entry.get("type")).lower()


def _properties(entry: Mapping[str, Any]) -> dict[str, str]:
    values = {name: _text(value.get("value")) for name, value in entry["properties"].items()}
    return {**values, "type": _type(entry)}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    _refuse("JSON")


# -- the wrapper's own facts -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A dataset that a change acts on; `used` is None where it has no size of its own.

    `is_deferred`: a snapshot that goes with its last hold, or the last of its clones.
    """

    name: str
    kind: str
    holds: int
    is_deferred: bool
    origin: str | None
    used: int | None


_MEMBER = re.compile(
    r"(?P<name>[^\t]+)\t(?P<kind>[a-z]+)\t[0-9]{1,20}\t[0-9]{1,20}\t(?P<holds>[0-9]{1,9}|-)"
    r"\t(?P<deferred>on|off|-)\t(?P<origin>[^\t]+)\t(?P<used>[0-9]{1,20}|-)"
)


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What `zfs-inspect` tells: lines of a name, a tab and a value; some names come repeatedly."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, output: Output) -> "DatasetFacts":
        """Return the facts in `output`.

        Raises:
            InvalidOutputError: it is cut, or a line is of another form.
        """
        if output.truncated or not output.stdout.endswith("\n"):
            _refuse("inspection")
        lines = [line.partition("\t") for line in output.stdout.split("\n")[:-1]]
        if not all(tab for _, tab, _ in lines):
            _refuse("inspection")
        return cls(tuple((name, value) for name, _, value in lines))

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.pairs if key == name)

    def one(self, name: str, form: str = r"[0-9]{1,20}") -> str:
        """Return the one value of `name`, which must have the form of a regular expression."""
        values = self.all(name)
        if len(values) != 1 or re.fullmatch(form, values[0], re.ASCII) is None:
            _refuse("inspection")
        return values[0]

    def count(self, name: str) -> int:
        """Return the one value of `name` as a number."""
        return int(self.one(name))

    def optional(self, name: str) -> int | None:
        """Return the value of `name` as a number; None where this zfs cannot tell it."""
        return self.count(name) if self.all(name) else None

    @property
    def state(self) -> str:
        """Return the hash of everything that an approval is bound to."""
        return self.one("state", r"[0-9a-f]{64}")

    def members(self) -> tuple[Member, ...]:
        """Return what the change acts on: the first of `members`, which is the true number."""
        return tuple(self._member(value) for value in self.all("member"))

    def _member(self, value: str) -> Member:
        found = _MEMBER.fullmatch(value)
        if found is None:
            _refuse("inspection")
        return Member(
            name=found["name"],
            kind=found["kind"],
            holds=0 if found["holds"] == "-" else int(found["holds"]),
            is_deferred=found["deferred"] == "on",
            origin=None if found["origin"] == "-" else found["origin"],
            used=None if found["used"] == "-" else int(found["used"]),
        )
