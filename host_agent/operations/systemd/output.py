"""What systemctl and the systemd wrappers print, as values. Strict: another form is no answer.

Descriptions and status texts come from unit files and from the services themselves: data, never
believed. `systemctl show` prints a value that has a newline as `[unprintable]` (systemd 252), so a
line is always one property.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import NoReturn

from host_agent.canonical import MAX_SAFE_INTEGER, JsonValue
from host_agent.clock import span
from host_agent.errors import HostFailedError, InvalidOutputError
from host_agent.operations.catalogue import Inspection, Output, Preview, PreviewAccuracy
from host_agent.text import HASH_PREFIX

SHOWN = 20
"""Other units that a preview names."""
_SHOWN_CHARACTERS = 200
_NAME = r"[A-Za-z0-9:_.\\@-]{1,255}"
_WORD = r"[a-z-]{1,40}"


def _refuse(what: str) -> NoReturn:
    message = f"systemd's {what} is not in the form that is understood here."
    raise InvalidOutputError(message)


def _lines(output: Output) -> list[str]:
    if output.stdout and not output.stdout.endswith("\n"):
        _refuse("output, which does not end with a newline,")
    return output.stdout.split("\n")[:-1]


def with_text(output: Output, text: str) -> Output:
    """Return `output` with another standard output, its size and hash with it."""
    encoded = text.encode()
    return replace(
        output,
        stdout=text,
        stdout_bytes=len(encoded),
        stdout_sha256=sha256(encoded).hexdigest(),
    )


# -- status ----------------------------------------------------------------------------------------

_QUOTED = re.compile(r' *(?:"((?:[^"\\]|\\.)*)"|([^ "]+))')


def split_list(text: str) -> list[str]:
    """Return the words of a list property; an unusual one stands in quotes, with backslashes."""
    words, at = [], 0
    while text[at:].strip(" "):
        found = _QUOTED.match(text, at)
        if found is None:
            _refuse("list of names")
        words.append(found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1]))
        at = found.end()
    return words


_STATUS = (
    *("Id", "Names", "Description", "LoadState", "ActiveState", "SubState", "UnitFileState"),
    *("FragmentPath", "Result", "MainPID", "ExecMainStatus", "StateChangeTimestamp", "NRestarts"),
    *("MemoryCurrent", "TasksCurrent", "NeedDaemonReload", "StatusText", "TriggeredBy", "Triggers"),
)


def parse_status(output: Output) -> JsonValue:
    """Return what systemd knows of a unit, from `systemctl show` in UTC.

    What a type of unit does not have is None; so is a number that is not accounted for.

    Raises:
        InvalidOutputError: a line is no property that was asked for, or one is missing.
    """
    shown: dict[str, str] = {}
    for line in _lines(output):
        name, equals, value = line.partition("=")
        if not equals or name not in _STATUS or name in shown:
            _refuse("status")
        shown[name] = value
    for name in ("LoadState", "ActiveState", "SubState"):
        if re.fullmatch(_WORD, shown.get(name, "")) is None:
            _refuse("status")
    if re.fullmatch(_NAME, shown.get("Id", "")) is None:
        _refuse("status")
    return {
        "unit": shown["Id"],
        "names": list(split_list(shown.get("Names", ""))),
        "description": _text(shown, "Description"),
        "load": shown["LoadState"],
        "active": shown["ActiveState"],
        "sub": shown["SubState"],
        "enabled": _text(shown, "UnitFileState"),
        "file": _text(shown, "FragmentPath"),
        "since": _instant(shown.get("StateChangeTimestamp", "")),
        "result": _text(shown, "Result"),
        "main_pid": _number(shown, "MainPID") or None,
        "exit_status": _number(shown, "ExecMainStatus"),
        "restarts": _number(shown, "NRestarts"),
        "memory_bytes": _number(shown, "MemoryCurrent"),
        "tasks": _number(shown, "TasksCurrent"),
        "status_text": _text(shown, "StatusText"),
        "daemon_reload_needed": shown.get("NeedDaemonReload") == "yes",
        "triggers": list(split_list(shown.get("Triggers", ""))),
        "triggered_by": list(split_list(shown.get("TriggeredBy", ""))),
    }


def _text(shown: Mapping[str, str], name: str) -> str | None:
    return shown.get(name) or None


def _number(shown: Mapping[str, str], name: str) -> int | None:
    value = shown.get(name, "")
    # "[not set]", or 2**64-1 in older versions: systemd keeps no account of it.
    if re.fullmatch(r"[0-9]{1,20}", value) is None or int(value) > MAX_SAFE_INTEGER:
        return None
    return int(value)


def _instant(text: str) -> str | None:
    """Return `Fri 2026-11-20 22:00:00 UTC` as RFC 3339; None for no time, or another form."""
    try:
        instant = datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    except ValueError:
        return None
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


# -- list ------------------------------------------------------------------------------------------

_ROW = re.compile(
    rf" *(?P<unit>{_NAME}) +(?P<load>{_WORD}) +(?P<active>{_WORD}) +(?P<sub>{_WORD})"
    r"(?: +(?P<rest>.*))?"
)


def restrict_list(output: Output, patterns: tuple[str, ...]) -> Output:
    """Return `output` with the lines of units that one of `patterns` names, and no other line.

    Never raises: what cannot be read as a unit's line is left out too.
    """
    compiled = [re.compile(pattern, re.ASCII) for pattern in patterns]
    kept = [
        line
        for line in output.stdout.split("\n")
        if (found := _ROW.fullmatch(line)) is not None
        and any(pattern.fullmatch(found["unit"]) for pattern in compiled)
    ]
    return with_text(output, "".join(f"{line}\n" for line in kept))


def parse_list(output: Output) -> JsonValue:
    """Return `{units}` from `systemctl list-units --all --plain --no-legend --full`.

    Raises:
        InvalidOutputError: a line is not a unit's.
    """
    units: list[JsonValue] = []
    for line in _lines(output):
        found = _ROW.fullmatch(line)
        if found is None:
            _refuse("list of units")
        units.append(
            {
                "unit": found["unit"],
                "load": found["load"],
                "active": found["active"],
                "sub": found["sub"],
                "description": found["rest"] or None,
            }
        )
    return {"units": units}


# -- the wrapper's own facts -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFacts:
    """What `systemd-inspect` tells of a unit that is to be changed.

    `activity` is `up` or `down`: whether anything of it runs or is on its way. `definition` is a
    hash over its files. `pulled` are the units that are down and would be started with it, or
    later by it; `affected` those that would be stopped, restarted or reloaded with it, both by all
    that systemd says of them. `state` is the wrapper's own hash over what a change
    is bound to.
    """

    unit: str
    names: tuple[str, ...]
    description: str
    load: str
    active: str
    sub: str
    enabled: str
    activity: str
    definition: str
    state: str
    pulled: tuple[str, ...]
    affected: tuple[str, ...]
    triggered_by: tuple[str, ...]
    active_seconds: int | None
    needs_daemon_reload: bool
    can: Mapping[str, bool]


def _facts(output: Output) -> Mapping[str, list[str]]:
    if output.truncated:
        _refuse("inspection, which is cut,")
    facts: dict[str, list[str]] = {}
    for line in _lines(output):
        name, tab, value = line.partition("\t")
        if not tab:
            _refuse("inspection")
        facts.setdefault(name, []).append(value)
    return facts


def _one(facts: Mapping[str, list[str]], name: str, form: str) -> str:
    values = facts.get(name, [])
    if len(values) != 1 or re.fullmatch(form, values[0], re.ASCII) is None:
        _refuse("inspection")
    return values[0]


def _each(facts: Mapping[str, list[str]], name: str) -> tuple[str, ...]:
    values = facts.get(name, [])
    if any(re.fullmatch(_NAME, value) is None for value in values):
        _refuse("inspection")
    return tuple(values)


def read_facts(output: Output) -> UnitFacts:
    """Return what `systemd-inspect` printed.

    Raises:
        InvalidOutputError: it printed something else.
    """
    facts = _facts(output)
    return UnitFacts(
        unit=_one(facts, "Id", _NAME),
        names=_each(facts, "name"),
        description=_one(facts, "Description", r".*"),
        load=_one(facts, "LoadState", _WORD),
        active=_one(facts, "ActiveState", _WORD),
        sub=_one(facts, "SubState", rf"(?:{_WORD})?"),
        enabled=_one(facts, "UnitFileState", rf"(?:{_WORD})?"),
        activity=_one(facts, "activity", r"up|down"),
        definition=_one(facts, "definition", r"none|[0-9a-f]{64}"),
        state=_one(facts, "state", r"[0-9a-f]{64}"),
        pulled=_each(facts, "pulled"),
        affected=_each(facts, "affected"),
        triggered_by=tuple(split_list(_one(facts, "TriggeredBy", r".*"))),
        active_seconds=_seconds(facts),
        needs_daemon_reload=_one(facts, "NeedDaemonReload", r"yes|no") == "yes",
        can={
            # systemd refuses a restart for RefuseManualStop= too, up or down.
            verb: all(_one(facts, f"Can{name}", r"yes|no") == "yes" for name in names)
            for verb, names in (
                ("start", ("Start",)),
                ("restart", ("Start", "Stop")),
                ("stop", ("Stop",)),
                ("reload", ("Reload",)),
            )
        },
    )


def _seconds(facts: Mapping[str, list[str]]) -> int | None:
    """Return for how long the unit has been up; None where systemd does not know."""
    if "active_seconds" not in facts:
        return None
    return int(_one(facts, "active_seconds", r"[0-9]{1,12}"))


def parse_inspection(output: Output, *, verb: str) -> Inspection:
    """Return what a change is bound to, and what it would do.

    Bound: the unit itself, its load state, whether it is up or down, its definition, whether
    systemd has that definition loaded, and which other units it would start, stop or reload. Not
    bound, because they change without anybody's doing: the process and the invocation, the
    sub-state, counters; nor enablement, which decides nothing here.

    Raises:
        InvalidOutputError: it is not the wrapper's output.
        HostFailedError: systemd would refuse it, so nobody is asked.
    """
    facts = read_facts(output)
    _refuse_impossible(facts, verb)
    is_done_already = _is_done_already(facts, verb)
    return Inspection(
        precondition={
            "unit": facts.unit,
            "load": facts.load,
            "activity": facts.activity,
            "definition": "none"
            if facts.definition == "none"
            else f"{HASH_PREFIX}{facts.definition}",
            "daemon_reload_needed": facts.needs_daemon_reload,
            "pulled": list(facts.pulled),
            "affected": list(facts.affected),
            "state": facts.state,
        },
        preview=Preview(
            accuracy=PreviewAccuracy.EXACT if is_done_already else PreviewAccuracy.ESTIMATE,
            summary=_summary(facts, verb),
            details=tuple(_details(facts, verb)),
            left_out=max(len(facts.affected) + len(facts.pulled) - SHOWN, 0),
            undo=_UNDO[verb, facts.activity],
            about=facts.description[:_SHOWN_CHARACTERS] or None,
        ),
        is_done_already=is_done_already,
    )


DONE_IN: Mapping[str, frozenset[str]] = {
    "start": frozenset({"active", "reloading"}),
    "stop": frozenset({"inactive", "failed"}),
}
"""The states in which systemd itself drops a start or a stop of the unit (`-EALREADY`)."""


def _is_done_already(facts: UnitFacts, verb: str) -> bool:
    """Return whether the change would do nothing, to this unit and to any other."""
    reaches_others = bool(facts.pulled or facts.affected)
    return facts.active in DONE_IN.get(verb, frozenset()) and not reaches_others


_LOAD_FAULTS: Mapping[str, str] = {
    "masked": "is masked",
    "not-found": "has no definition any more",
}


def _refuse_impossible(facts: UnitFacts, verb: str) -> None:
    fault = None
    if facts.load != "loaded" and verb != "stop":
        fault = _LOAD_FAULTS.get(facts.load, "has a definition that systemd cannot load")
    elif verb == "reload" and facts.active not in ("active", "reloading"):
        fault = "is not active, so there is nothing to reload"
    elif not facts.can[verb]:
        fault = f"is one that systemd does not {verb} on request"
    if fault is not None:
        message = f"{facts.unit} {fault}; nothing was done."
        raise HostFailedError(message)


_OTHERS: Mapping[str, tuple[str, str]] = {
    "start": ("Nothing else stops for it", "cannot run beside it and would be stopped"),
    "restart": ("Nothing else restarts with it", "would be stopped or restarted with it"),
    "reload": ("Nothing else reloads with it", "would be reloaded with it"),
    "stop": ("Nothing else stops with it", "would be stopped with it"),
}
"""What is said where a change reaches no other unit, and of each unit that it reaches."""
_REACHES: Mapping[str, str] = {
    "start": "stop for it",
    "restart": "restart with it",
    "reload": "reload with it",
    "stop": "stop with it",
}
_UNDO: Mapping[tuple[str, str], str] = {
    ("start", "down"): "stop it",
    ("start", "up"): "none needed",
    ("restart", "down"): "stop it",
    ("restart", "up"): "none",
    ("reload", "up"): "none",
    ("stop", "down"): "none needed",
    ("stop", "up"): "start it",
}
_AT_BOOT: Mapping[str, str] = {
    "enabled": " Starts at boot.",
    "disabled": " Does not start at boot.",
}


def _summary(facts: UnitFacts, verb: str) -> str:
    boot = _AT_BOOT.get(facts.enabled, "")
    is_idle = (verb, facts.activity) in {("start", "up"), ("stop", "down")}
    if is_idle and not facts.pulled and not facts.affected:
        return f"Nothing to do: {_now(facts)}.{boot}"
    now = _now(facts)
    count = len(facts.affected)
    others = f"{count} other unit{'s' if count > 1 else ''} {_reaches(verb, count)}"
    told = [f"{now[0].upper()}{now[1:]}", others if count else _OTHERS[verb][0]]
    if count := len(facts.pulled):
        told.append(f"{count} other unit{'s start' if count > 1 else ' starts'} with it")
    return f"{'. '.join(told)}.{boot}"


def _reaches(verb: str, count: int) -> str:
    words = _REACHES[verb]
    return words if count > 1 else words.replace(" ", "s ", 1)


def _now(facts: UnitFacts) -> str:
    is_plain = (facts.active, facts.sub) == ("active", "running")
    state = "running" if is_plain else f"{facts.active} ({facts.sub or '-'})"
    if facts.active_seconds is None or facts.activity != "up":
        return state
    return f"{state} for {span(facts.active_seconds)}"


def _details(facts: UnitFacts, verb: str) -> Iterator[str]:
    if facts.needs_daemon_reload:
        yield "Its files have changed since systemd read them; what runs is the older definition."
    if verb == "stop" and facts.triggered_by:
        yield f"It can be started again by {', '.join(facts.triggered_by[:SHOWN])}."
    others = [name for name in facts.names if name != facts.unit]
    if others:
        yield f"Its other names: {', '.join(others[:SHOWN])}"
    yield from (f"{name} {_OTHERS[verb][1]}" for name in facts.affected[:SHOWN])
    yield from (f"{name} would be started with it, or later by it" for name in _pulled(facts))


def _pulled(facts: UnitFacts) -> tuple[str, ...]:
    """Return the units that would be started, as many as there is room for."""
    return facts.pulled[: max(SHOWN - len(facts.affected), 0)]


def is_done(output: Output, *, verb: str) -> bool:
    """Return whether the look after a change shows its effect.

    Up after a start, restart or reload, and a second later still; a one-shot unit may have ended,
    with success. Down after a stop, however it ended.

    Raises:
        InvalidOutputError: it is not the wrapper's output.
    """
    facts = _facts(output)
    active = _one(facts, "active", _WORD)
    if verb == "stop":
        return active in ("inactive", "failed")
    if active == "active":
        return True
    kind, result = _one(facts, "type", rf"(?:{_WORD})?"), _one(facts, "result", rf"(?:{_WORD})?")
    return verb != "reload" and active == "inactive" and (kind, result) == ("oneshot", "success")
