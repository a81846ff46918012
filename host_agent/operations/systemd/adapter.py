"""systemd units: declarations and pure functions; the wrappers `systemd-VERB` do the work as root.

A unit is named in full, in an alphabet in which systemctl finds nothing to complete, escape or
expand. What the host needs to stay up and reachable is protected three times: by the given name
here (`admit`), by every name that systemd has for the unit and for what goes with it (`guard`), and
by the wrappers, which also read root's own list. Their arguments and exit statuses are in
docs/reference/systemd-wrappers.md.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    PolicyDeniedError,
    ProtectedError,
)
from host_agent.operations.catalogue import (
    Adapter,
    Allowed,
    Choice,
    Deed,
    Effect,
    Inspection,
    Invocation,
    OperationSpec,
    Output,
    Parameters,
    RunAs,
    Tool,
)
from host_agent.operations.endings import (
    Endings,
    Words,
    by_status,
    by_words,
    tool_endings,
    unknown,
    wrapper_endings,
)
from host_agent.operations.patterns import extended
from host_agent.operations.systemd.journal import decode, parse_logs
from host_agent.operations.systemd.output import (
    DONE_IN,
    is_done,
    parse_inspection,
    parse_list,
    parse_status,
    read_facts,
    restrict_list,
)
from host_agent.operations.systemd.section import SystemdSection

MAX_NAME_LENGTH = 255
MAX_LINES = 10_000
TYPES = (
    *("service", "socket", "timer", "mount", "path", "target", "slice", "scope", "swap"),
    *("automount", "device"),
)
PROTECTED = (
    *(r"ssh.*", r"host-agent.*", r"dbus.*", r"polkit.*", r"systemd-.*", r"networking\..*"),
    *(r"NetworkManager.*", r"ifup@.*", r"wpa_supplicant.*", r"user@.*", r"user-runtime-dir@.*"),
    *(r"(serial-|container-)?getty@.*", r"console-getty\..*", r"autovt@.*"),
    *(r"(console|container|debug)-shell.*", r"-\.slice", r"init\.scope"),
    *(r"(system|user|user-.*|machine)\.slice", r"session-.*\.scope"),
    r"(-|boot|boot-.*|dev|dev-.*|efi|etc|home|proc|proc-.*|root|run|sys|sys-.*|tmp|usr|var)\.mount",
    r"(sysinit|basic|multi-user|graphical|default|network.*)\.target",
    r"(rescue|emergency|initrd.*)\..*",
    r"(poweroff|reboot|halt|kexec|exit|suspend.*|hibernate.*|hybrid-sleep|sleep)\.target",
    r"(ctrl-alt-del|shutdown|umount|final|soft-reboot|runlevel[0-6]|sigpwr)\.target",
    r"(poweroff|reboot|halt|kexec|kexec-.*|ctrl-alt-del)\.service",
    *(r"kexec-.*", r".*-target-mode\..*", r"factory-reset.*", r"system-update.*"),
    *(r".*-offline-update\..*", r"usb-gadget.*", r"modprobe@.*", r"breakpoint-.*", r"watchdog.*"),
    *(r"wd_keepalive.*", r"pve-(cluster|guests|ha-.*)\..*"),
)
"""Units that are never changed, as patterns over whole names: what the host needs to stay up and
reachable, and the doors to bringing it down or opening it. `systemd-inspect` has the same."""

BROUGHT = (
    r"(network|network-pre|network-online)\.target",
    r"(systemd-networkd|NetworkManager)-wait-online.*",
    r"systemd-(fsck@|fsckd\.|growfs@|growfs-root\.|quotacheck|pcrfs@).*",
    r"modprobe@.*",
    r"(dev|dev-.*|proc|proc-.*|sys|sys-.*|tmp)\.mount",
)
"""Of these, what the start of another unit may bring up with it: it waits, checks or prepares."""

# -- grammar ---------------------------------------------------------------------------------------

_PART = r"[A-Za-z0-9_][A-Za-z0-9:_.-]*"
_UNIT = re.compile(rf"{_PART}(?:@{_PART})?\.(?:{'|'.join(TYPES)})")
_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9:_.@*?-]*")
_PROTECTED, _BROUGHT = (
    re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.ASCII)
    for patterns in (PROTECTED, BROUGHT)
)
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def is_unit(text: str) -> bool:
    """Return whether `text` is a whole unit name that systemctl takes as it stands.

    An instance, `backup@daily.service`, is one; its template, `backup@.service`, is not. No
    backslash, so no name with an escaped character; nothing that begins with a dash.
    """
    return len(text) <= MAX_NAME_LENGTH and _UNIT.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Return whether `text` is a whole unit name, or one with `*` and `?` in it.

    Without a wildcard systemctl would complete a name that is not whole.
    """
    if len(text) > MAX_NAME_LENGTH or _PATTERN.fullmatch(text) is None:
        return False
    return is_unit(text) or "*" in text or "?" in text


def is_protected(name: str) -> bool:
    """Return whether a unit of this name is never changed."""
    return _PROTECTED.fullmatch(name) is not None


def is_brought(name: str) -> bool:
    """Return whether the start of another unit may bring up this one, although it is protected."""
    return _BROUGHT.fullmatch(name) is not None


def parse_since(text: str) -> datetime:
    """Return the instant that `text` names by RFC 3339, in UTC, to the microsecond.

    Raises:
        ValueError: it is none, or before 1970.
    """
    message = "must be a time by RFC 3339, as in 2026-11-20T22:00:00Z, not before 1970"
    if _INSTANT.fullmatch(text) is None:
        raise ValueError(message)
    try:
        instant = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(message) from None
    if instant.year < 1970:
        raise ValueError(message)
    return instant


def _as_utc(text: str) -> str:
    """Return the one form of an instant, so that equal instants are the same parameter."""
    instant = parse_since(text)
    fraction = f".{instant.microsecond:06}" if instant.microsecond else ""
    return f"{instant:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _checked(is_valid: Callable[[str], bool], sentence: str) -> AfterValidator:
    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


_Text = StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH)
UnitName = Annotated[
    str,
    _Text,
    _checked(
        is_unit,
        "must be a whole unit name with its type, as in nginx.service; no template, escape or path",
    ),
    Field(description="A whole unit name with its type, as in `nginx.service`."),
]
UnitPattern = Annotated[
    str,
    _Text,
    _checked(is_pattern, "must be a whole unit name, or a pattern of one with * or ?"),
    Field(description="A whole unit name, or a pattern of one with `*` and `?`."),
]
Since = Annotated[
    str,
    StringConstraints(min_length=20, max_length=40),
    AfterValidator(_as_utc),
    Field(description="Only messages from this time on; RFC 3339."),
]

# -- parameters ------------------------------------------------------------------------------------


class UnitParameters(Parameters):
    """One unit."""

    positional: ClassVar[tuple[str, ...]] = ("unit",)
    unit: UnitName


class LogsParameters(UnitParameters):
    """`logs`: the newest messages of one unit."""

    positional: ClassVar[tuple[str, ...]] = ("unit", "lines", "since")
    lines: Annotated[int, Field(ge=1, le=MAX_LINES, description="How many messages at most.")] = 100
    since: Since | None = None


class UnitListParameters(Parameters):
    """`list`: the loaded units, or those that a pattern names."""

    positional: ClassVar[tuple[str, ...]] = ("pattern",)
    pattern: UnitPattern | None = None


# -- protections and allow-lists -------------------------------------------------------------------


def admit_read(params: UnitParameters, section: SystemdSection) -> None:
    """Refuse a unit that the administrator did not list.

    Raises:
        PolicyDeniedError: it is not listed; an empty list holds nothing.
    """
    if not any(re.fullmatch(pattern, params.unit, re.ASCII) for pattern in section.units):
        message = "This unit is not one that may be worked on here."
        raise PolicyDeniedError(message)


def admit_change(params: UnitParameters, section: SystemdSection) -> None:
    """Refuse a protected unit, then one that is not listed.

    Raises:
        ProtectedError: the host needs it, whatever is listed.
        PolicyDeniedError: it is not listed.
    """
    if is_protected(params.unit):
        message = "This unit is protected: the host needs it to stay up and reachable."
        raise ProtectedError(message)
    admit_read(params, section)


def admit_list(_params: UnitListParameters, section: SystemdSection) -> None:
    """Refuse where no unit is listed at all; else the answer is filtered by the list.

    Raises:
        PolicyDeniedError: the list is empty.
    """
    if not section.units:
        message = "No unit may be worked on here."
        raise PolicyDeniedError(message)


def _choices_read(section: SystemdSection) -> tuple[Choice, ...]:
    return (Choice(resource=Allowed(patterns=section.units)),)


def _choices_change(section: SystemdSection) -> tuple[Choice, ...]:
    return (Choice(resource=Allowed(patterns=section.units, without=PROTECTED)),)


def _choices_list(section: SystemdSection) -> tuple[Choice, ...]:
    return (Choice(),) if section.units else ()


def guard(_params: UnitParameters, _section: SystemdSection, output: Output) -> None:
    """Refuse a unit that is protected under another name, or that takes a protected one along.

    Raises:
        ProtectedError: one of its names is protected, or a unit that would be affected.
        InvalidOutputError: the inspection is not the wrapper's.
    """
    facts = read_facts(output)
    if any(is_protected(name) for name in (facts.unit, *facts.names)):
        message = "This unit is protected: it is another name of one that the host needs."
        raise ProtectedError(message)
    if any(is_protected(name) for name in facts.affected):
        message = "A protected unit would be affected too, so this one is protected with it."
        raise ProtectedError(message)
    if any(is_protected(name) and not is_brought(name) for name in facts.pulled):
        message = "A protected unit would be started too, so this one is protected with it."
        raise ProtectedError(message)


# -- invocations -----------------------------------------------------------------------------------


def _wrapper(verb: str, *arguments: str) -> Invocation:
    return Invocation(wrapper=f"systemd-{verb}", arguments=arguments, run_as=RunAs.ROOT)


def _invoke_status(params: UnitParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("status", params.unit)


def _invoke_logs(params: LogsParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    since = () if params.since is None else (_seconds(parse_since(params.since)),)
    return _wrapper("logs", params.unit, str(params.lines), *since)


def _seconds(instant: datetime) -> str:
    whole = int(instant.replace(microsecond=0).timestamp())
    return f"{whole}.{instant.microsecond:06}" if instant.microsecond else str(whole)


def _invoke_list(params: UnitListParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("list", *(() if params.pattern is None else (params.pattern,)))


def _restrict_list(_params: UnitListParameters, section: SystemdSection, output: Output) -> Output:
    return restrict_list(output, section.units)


def _parsed(parse: Callable[[Output], JsonValue]) -> Callable[[object, Output], JsonValue]:
    return lambda _params, output: parse(output)


# -- failures --------------------------------------------------------------------------------------

_LATE = "The wrapper's limit was reached; systemd may still be at it"
_ENDINGS: Endings = {
    **wrapper_endings("systemd", "The unit"),
    **tool_endings("systemctl"),
    124: (HostTimedOutError, _LATE),
    137: (HostTimedOutError, _LATE),
    143: (HostTimedOutError, "systemctl was ended before it was done; systemd may still be at it"),
}
# Words of systemctl(1) and journalctl(1), systemd 247 to 257, in the C locale.
_WORDS: tuple[Words, ...] = (
    ("has not been booted with systemd", AdapterUnavailableError, "systemd does not run here."),
    ("Failed to connect to bus", AdapterUnavailableError, "systemd cannot be reached here."),
    ("Failed to connect to system scope bus", AdapterUnavailableError, "systemd is unreachable."),
    ("Transport endpoint is not connected", AdapterUnavailableError, "systemd went away."),
    ("transaction is destructive", HostBusyError, "Another job of systemd stands against it."),
    ("conflicting jobs", HostBusyError, "Another job of systemd stands against it."),
    ("Job type reload is not applicable", HostFailedError, "The unit cannot be reloaded."),
    ("not active, cannot reload", HostFailedError, "The unit is not active; it cannot reload."),
    ("is masked", HostFailedError, "The unit is masked."),
    ("requested by dependency only", HostFailedError, "systemd does not do this on request."),
    ("repeated too quickly", HostFailedError, "It was started too often; systemd waits."),
    ("a dependency job for", HostFailedError, "Another unit that it needs could not be started."),
    ("A dependency job for", HostFailedError, "Another unit that it needs could not be started."),
    ("control process exited", HostFailedError, "Its own command failed; its logs tell why."),
    ("a timeout was exceeded", HostFailedError, "It did not get there in its time; see its logs."),
    ("not loaded", HostNotFoundError, "The unit does not exist."),
    ("not found", HostNotFoundError, "The unit does not exist."),
    ("Job for", HostFailedError, "systemd could not do it; the unit's logs tell why."),
)


def failure(_params: object, output: Output) -> HostAgentError:
    """Return the error for an exit status other than 0: the wrapper's own, or systemd's failure."""
    return by_status(output, _ENDINGS) or by_words(output, _WORDS) or unknown(output, "systemctl")


# -- the table -------------------------------------------------------------------------------------


def _unit(params: UnitParameters) -> str:
    return params.unit


def _nothing(_params: UnitListParameters) -> None:
    """Name no resource: a pattern is none, so the answer is filtered instead."""


def _change(
    verb: str, effect: Effect, summary: str, undo: str
) -> OperationSpec[UnitParameters, SystemdSection]:
    def inspect(params: UnitParameters) -> Invocation:
        return _wrapper("inspect", verb, params.unit)

    def inspected(_params: UnitParameters, output: Output) -> Inspection:
        return parse_inspection(output, verb=verb)

    def invoke(params: UnitParameters, held: Mapping[str, JsonValue]) -> Invocation:
        return _wrapper(verb, params.unit, str(held["state"]))

    def probe(params: UnitParameters, _held: Mapping[str, JsonValue]) -> Invocation:
        return _wrapper("inspect", "after", verb, params.unit)

    def deeds(params: UnitParameters) -> frozenset[Deed]:
        # The short name too: commands are often given that one. A restart starts what is down.
        verbs = {f"systemd.{verb}", *(["systemd.start"] if verb == "restart" else [])}
        names = {params.unit, params.unit.removesuffix(".service")}
        return frozenset((verb, name) for verb in verbs for name in names)

    def probed(_params: UnitParameters, _held: Mapping[str, JsonValue], output: Output) -> bool:
        return is_done(output, verb=verb)

    return OperationSpec(
        name=f"systemd.{verb}",
        effect=effect,
        summary=summary,
        parameters=UnitParameters,
        inspector="systemd-inspect",
        resource=_unit,
        admit=admit_change,
        choices=_choices_change,
        undo=undo,
        inspect=inspect,
        may_be_done_already=verb in DONE_IN,
        parse_inspection=inspected,
        guard=guard,
        deeds=deeds,
        invoke=invoke,
        probe=probe,
        parse_probe=probed,
        failure=failure,
    )


SPECS = (
    OperationSpec(
        name="systemd.status",
        effect=Effect.READ,
        summary="What systemd knows of one unit; one that does not run is an answer too.",
        resource=_unit,
        admit=admit_read,
        choices=_choices_read,
        failure=failure,
        parameters=UnitParameters,
        invoke=_invoke_status,
        parse=_parsed(parse_status),
    ),
    OperationSpec(
        name="systemd.logs",
        effect=Effect.READ,
        summary="The newest messages of one unit, and those of systemd about it.",
        resource=_unit,
        admit=admit_read,
        choices=_choices_read,
        failure=failure,
        parameters=LogsParameters,
        invoke=_invoke_logs,
        decode=decode,
        parse=_parsed(parse_logs),
    ),
    OperationSpec(
        name="systemd.list",
        effect=Effect.READ,
        summary="The loaded units that may be worked on, with their states.",
        failure=failure,
        parameters=UnitListParameters,
        resource=_nothing,
        admit=admit_list,
        choices=_choices_list,
        invoke=_invoke_list,
        restrict=_restrict_list,
        parse=_parsed(parse_list),
    ),
    _change("start", Effect.CHANGE, "Start a unit, with what it needs.", "stop it"),
    _change(
        "restart",
        Effect.CHANGE,
        "Stop a unit and start it again; start it where it is down.",
        "none",
    ),
    _change(
        "reload", Effect.CHANGE, "Let a running unit read its own configuration again.", "none"
    ),
    _change("stop", Effect.DESTROY, "Stop a unit, and with it what depends on it.", "start it"),
)
"""The operations of this adapter."""


def _names(section: SystemdSection) -> tuple[str, ...]:
    return extended(section.units)


ADAPTER = Adapter(
    name="systemd",
    section=SystemdSection,
    specs=SPECS,
    tool=Tool(name="systemctl", path="/usr/bin/systemctl", version=("--version",)),
    names=_names,
    programs=frozenset(
        {
            *("halt", "init", "journalctl", "loginctl", "poweroff", "reboot", "service"),
            *("shutdown", "systemctl", "telinit"),
        }
    ),
)
