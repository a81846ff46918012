"""Command lines of systemctl, and of `service`, which passes them on."""

import re
from collections.abc import Sequence

from host_agent.hooks.shell import names
from host_agent.hooks.translation import (
    READ,
    UNKNOWN,
    Suggestion,
    Translation,
    options,
    parse,
)

OPERATIONS = {
    "start": "systemd.start",
    "stop": "systemd.stop",
    "restart": "systemd.restart",
    "reload": "systemd.reload",
    "status": "systemd.status",
}
"""The verbs that an operation does, a unit at a time."""

_READS = names(
    "cat get-default help is-active is-enabled is-failed is-system-running"
    " list-dependencies list-jobs list-sockets list-timers list-unit-files list-units show"
)
_KNOWN = options(
    "-a --all -l --full -q --quiet --no-pager --no-legend --plain --system --no-ask-password --wait"
    " --no-block --version -h --help --failed -r --recursive --reverse --value",
    "-n --lines -o --output -p --property -t --type --state -P",
)
_UNIT = re.compile(r"[A-Za-z0-9:_.@-]{1,246}", re.ASCII)
_TYPES = tuple(
    sorted(
        names(".service .socket .target .timer .mount .automount .swap .path .slice .scope .device")
    )
)
_OF_THE_USER = options(
    f"{' '.join(_KNOWN.flags - {'--system'})} --user --now -f --force --runtime --no-reload",
    f"{' '.join(_KNOWN.valued)} -s --kill-whom --what --job-mode",
)
"""The options beside which `--user` means the user's own manager on this host; systemctl takes
abbreviations too, and the last of `--user` and `--system`."""


def is_of_the_user(words: Sequence[str]) -> bool:
    """Return whether the user's own manager is meant, on this host."""
    parsed = parse(words, _OF_THE_USER)
    return parsed is not None and parsed.has("--user")


def translate(words: Sequence[str]) -> Translation:
    """Return what the command line does."""
    parsed = parse(words, _KNOWN)
    if parsed is None:
        return UNKNOWN
    if parsed.has("--version", "-h", "--help") or not parsed.operands:
        return READ
    verb, *units = parsed.operands
    if verb == "list-units":
        return READ._replace(suggestions=(_listed(units),))
    if verb in _READS:
        return READ
    if verb not in OPERATIONS:
        return UNKNOWN
    if not units:
        return READ if verb == "status" else UNKNOWN
    named = [_unit(unit) for unit in units]
    suggestions = tuple(
        Suggestion(OPERATIONS[verb], {"unit": unit}) for unit in named if unit is not None
    )
    return Translation(
        only_reads=verb == "status",
        suggestions=suggestions if None not in named else (),
    )


def translate_service(words: Sequence[str]) -> Translation:
    """Return what `service NAME VERB` does."""
    if len(words) == 2 and words[1] in OPERATIONS and not words[0].startswith("-"):
        return translate([words[1], words[0]])
    return READ if list(words) in (["--status-all"], ["--help"], ["--version"]) else UNKNOWN


def _listed(patterns: Sequence[str]) -> Suggestion:
    if len(patterns) == 1 and _UNIT.fullmatch(patterns[0]):
        return Suggestion("systemd.list", {"pattern": patterns[0]})
    return Suggestion("systemd.list", {})


def _unit(text: str) -> str | None:
    """Return the whole name of a unit, as systemctl completes it; None for what is no name."""
    if not _UNIT.fullmatch(text) or text.startswith("-"):
        return None
    whole = text if text.endswith(_TYPES) else f"{text}.service"
    return None if "@." in whole else whole
