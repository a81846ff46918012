"""Command lines of pct."""

import re
from collections.abc import Sequence

from host_agent.hooks.translation import (
    READ,
    UNKNOWN,
    Suggestion,
    Translation,
    Value,
    options,
    parse,
)

_VMID = re.compile(r"[1-9][0-9]{2,8}", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,39}", re.ASCII)
_TEMPLATE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*:vztmpl/[A-Za-z0-9._+-]+", re.ASCII)
_OF_ONE = ("start", "stop", "shutdown", "destroy", "status", "config")
_OF_A_SNAPSHOT = ("snapshot", "rollback")
_LOOKS = ("list", "help", "listsnapshot", "pending")
_TEXTS, _NUMBERS = ("hostname", "rootfs"), ("memory", "cores", "swap")
_CREATE = options(
    valued=" ".join(f"-{name} --{name}" for name in (*_TEXTS, *_NUMBERS)),
)


def translate(words: Sequence[str]) -> Translation:
    """Return what the command line does."""
    if not words:
        return READ
    verb, *operands = words
    if verb == "list" and not operands:
        return READ._replace(suggestions=(Suggestion("pct.list", {}),))
    if verb in _LOOKS:
        return READ
    if verb == "create":
        return _create(operands)
    if not operands or not _VMID.fullmatch(operands[0]):
        return UNKNOWN
    parameters: dict[str, Value] = {"vmid": operands[0]}
    if verb in _OF_ONE and len(operands) == 1:
        reads = verb in ("status", "config")
        return Translation(reads, (Suggestion(f"pct.{verb}", parameters),))
    if verb in _OF_A_SNAPSHOT and len(operands) == 2 and _NAME.fullmatch(operands[1]):
        parameters["name"] = operands[1]
        return Translation(suggestions=(Suggestion(f"pct.{verb}", parameters),))
    return UNKNOWN


def _create(words: Sequence[str]) -> Translation:
    parsed = parse(words, _CREATE)
    if parsed is None or len(parsed.operands) != 2:
        return UNKNOWN
    vmid, template = parsed.operands
    if not _VMID.fullmatch(vmid) or not _TEMPLATE.fullmatch(template):
        return UNKNOWN
    parameters: dict[str, Value] = {"vmid": vmid, "template": template}
    for option, value in parsed.given.items():
        name = option.lstrip("-")
        if name in _TEXTS:
            parameters[name] = value
        elif value.isascii() and value.isdigit() and len(value) < 8:
            parameters[name] = int(value)
        else:
            return UNKNOWN
    return Translation(suggestions=(Suggestion("pct.create", parameters),))
