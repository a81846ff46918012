"""What `wrappers/apt-*` print, as values. Strict: output of another form is no answer.

Versions, descriptions and addresses come from the sources: data, never believed.
"""

import re
from dataclasses import dataclass, replace
from typing import NoReturn, Self

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidOutputError
from host_agent.operations.catalogue import Inspection, Output, Preview, PreviewAccuracy
from host_agent.text import HASH_PREFIX

_NAME = r"[a-z0-9][a-z0-9+.-]*"
_ARCHITECTURE = r"[a-z0-9][a-z0-9-]*"
_VERSION = r"[A-Za-z0-9.+:~-]{1,256}"
_SHOWN = 40


def _refuse(what: str) -> NoReturn:
    message = f"apt's {what} is not in the form that is understood here."
    raise InvalidOutputError(message)


def _lines(output: Output, what: str) -> list[str]:
    if output.truncated or (output.stdout and not output.stdout.endswith("\n")):
        _refuse(f"{what}, which is cut,")
    return output.stdout.split("\n")[:-1]


def _pairs(output: Output, what: str) -> list[tuple[str, str]]:
    pairs = []
    for line in _lines(output, what):
        name, tab, value = line.partition("\t")
        if not tab:
            _refuse(what)
        pairs.append((name, value))
    return pairs


# -- list and show ---------------------------------------------------------------------------------

_ROW = re.compile(
    rf"(?P<package>{_NAME})\t(?P<architecture>{_ARCHITECTURE})\t(?P<installed>{_VERSION})"
    rf"\t(?P<candidate>{_VERSION}|\(none\))\t(?P<want>[a-z]+)",
    re.ASCII,
)


def parse_list(output: Output) -> JsonValue:
    """Return `{packages}`; `candidate` is null where no source and no file has one.

    Raises:
        InvalidOutputError: a line is of another form.
    """
    packages: list[JsonValue] = []
    for line in _lines(output, "list"):
        found = _ROW.fullmatch(line)
        if found is None:
            _refuse("list")
        candidate = None if found["candidate"] == "(none)" else found["candidate"]
        packages.append(
            {
                "package": found["package"],
                "architecture": found["architecture"],
                "installed": found["installed"],
                "candidate": candidate,
                "held": found["want"] == "hold",
            }
        )
    return {"packages": packages}


def restrict_list(output: Output, patterns: tuple[str, ...]) -> Output:
    """Return the output with the lines of those packages only that `patterns` name."""
    kept = [
        line
        for line in output.stdout.splitlines(keepends=True)
        if any(re.fullmatch(pattern, line.partition("\t")[0], re.ASCII) for pattern in patterns)
    ]
    return replace(output, stdout="".join(kept))


_FIELDS = {
    "Architecture": "architecture",
    "Section": "section",
    "Priority": "priority",
    "Maintainer": "maintainer",
    "Homepage": "homepage",
    "Pre-Depends": "pre_depends",
    "Depends": "depends",
    "Recommends": "recommends",
    "Breaks": "breaks",
    "Conflicts": "conflicts",
    "Replaces": "replaces",
    "Description": "description",
    "Description-en": "description",
}


def parse_show(output: Output, *, package: str) -> JsonValue:
    """Return what is known of one package; null is what it has not.

    Raises:
        InvalidOutputError: a line is of another form.
    """
    pairs = _pairs(output, "answer")
    first = dict(reversed(pairs))
    if "want" not in first:
        _refuse("answer")
    size = first.get("Installed-Size", "")
    known: dict[str, JsonValue] = {
        "package": package,
        "installed": first.get("installed"),
        "candidate": first.get("candidate"),
        "held": first["want"] == "hold",
        "sources": [value for name, value in pairs if name == "source"],
        "installed_bytes": int(size) * 1024 if re.fullmatch(r"[0-9]{1,9}", size) else None,
        **dict.fromkeys(_FIELDS.values()),
    }
    known.update({_FIELDS[name]: value for name, value in first.items() if name in _FIELDS})
    return known


# -- a transaction ---------------------------------------------------------------------------------

_CHANGE = re.compile(rf"({_NAME}) ({_ARCHITECTURE}) (-|{_VERSION}) ({_VERSION})", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9:_.-]+\.(?:service|socket|timer)", re.ASCII)
_FORMS = {
    "from": rf"-|{_VERSION}",
    "to": _VERSION,
    "bytes": r"[0-9]{1,15}",
    "transaction": r"[0-9a-f]{64}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One package that comes, or goes from one version to a higher one."""

    package: str
    old: str | None
    new: str

    def __str__(self) -> str:
        return f"{self.package} {self.new} comes" if self.old is None else self.as_upgrade()

    def as_upgrade(self) -> str:
        """Return it as `web 1.0 -> 1.1`."""
        return f"{self.package} {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What `apt-inspect` found: all that would come or change, and the hash of it."""

    changes: tuple[Change, ...]
    units: tuple[str, ...]
    old: str | None
    new: str
    bytes: int
    digest: str

    @classmethod
    def of(cls, output: Output) -> Self:
        """Read what the wrapper printed.

        Raises:
            InvalidOutputError: it printed something else.
        """
        facts: dict[str, str] = {}
        changes: list[Change] = []
        units: list[str] = []
        for name, value in _pairs(output, "inspection"):
            if name == "change" and (found := _CHANGE.fullmatch(value)):
                old = None if found[3] == "-" else found[3]
                changes.append(Change(package=found[1], old=old, new=found[4]))
            elif name == "unit" and _UNIT.fullmatch(value):
                units.append(value)
            elif name not in facts and re.fullmatch(_FORMS.get(name, r"(?!)"), value, re.ASCII):
                facts[name] = value
            else:
                _refuse("inspection")
        if facts.keys() != _FORMS.keys() or not changes:
            _refuse("inspection")
        return cls(
            changes=tuple(changes),
            units=tuple(dict.fromkeys(units)),
            old=None if facts["from"] == "-" else facts["from"],
            new=facts["to"],
            bytes=int(facts["bytes"]),
            digest=facts["transaction"],
        )

    def installs(self) -> Inspection:
        """Return what an installation is bound to, and what it would do."""
        return self._inspection(f"Installs {self.new}{self._along()}; nothing is removed.")

    def upgrades(self) -> Inspection:
        """Return what an upgrade is bound to, and what it would do."""
        return self._inspection(
            f"Upgrades it from {self.old} to {self.new}{self._along()}; nothing is removed."
        )

    def _along(self) -> str:
        coming = sum(change.old is None for change in self.changes) - (self.old is None)
        changing = len(self.changes) - 1 - coming
        told = [
            f"{count} {'other' if count == 1 else 'others'} {verb}{'s' if count == 1 else ''}"
            for count, verb in ((coming, "come"), (changing, "change"))
            if count
        ]
        return f"; {' and '.join(told)}" if told else ""

    def _inspection(self, summary: str) -> Inspection:
        running = ", ".join(self.units)
        first = (
            (f"Its scripts may restart what runs: {running}",)
            if self.units
            else ("No running unit is of these packages.",)
        )
        shown = self.changes[:_SHOWN]
        preview = Preview(
            accuracy=PreviewAccuracy.EXACT,
            summary=summary,
            details=(*first, "Changed configuration files stay as they are.", *map(str, shown)),
            left_out=len(self.changes) - len(shown),
            undo="none from here",
        )
        held: dict[str, JsonValue] = {
            "from": self.old,
            "to": self.new,
            "transaction": f"{HASH_PREFIX}{self.digest}",
        }
        return Inspection(precondition=held, preview=preview)


def is_done(output: Output, *, version: str) -> bool:
    """Return whether dpkg has the package whole, at `version`, and nothing half done.

    Raises:
        InvalidOutputError: the wrapper printed something else.
    """
    pairs = _pairs(output, "look afterwards")
    facts = dict(pairs)
    if not {"status", "version"} <= facts.keys():
        _refuse("look afterwards")
    return (facts["status"], facts["version"]) == ("installed", version) and "broken" not in facts
