"""Command lines of zfs."""

import re
from collections.abc import Callable, Sequence

from host_agent.hooks.translation import (
    READ,
    UNKNOWN,
    Parsed,
    Suggestion,
    Translation,
    Value,
    options,
    parse,
)

_COMPONENT = r"[A-Za-z0-9][A-Za-z0-9_.:-]*"
_DATASET = re.compile(rf"[A-Za-z][A-Za-z0-9_.:-]*(/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", re.ASCII)
_TYPES = ("filesystem", "snapshot", "volume")
_SHORT_TYPES = {"fs": "filesystem", "snap": "snapshot", "vol": "volume"}
_HELP = frozenset(["-?", "--help", "-V", "--version", "help", "version"])
_MOST = 255


def translate(words: Sequence[str]) -> Translation:
    """Return what the command line does."""
    if not words or words[0] in _HELP:
        return READ
    known = _VERBS.get(words[0])
    if known is None:
        return READ if words[0] in ("diff", "holds") else UNKNOWN
    accepted, function = known
    parsed = parse(words[1:], accepted)
    return UNKNOWN if parsed is None else function(parsed)


def _list(parsed: Parsed) -> Translation:
    parameters: dict[str, Value] = {}
    if len(parsed.operands) > 1:
        return READ
    if parsed.operands:
        parameters["dataset"] = parsed.operands[0]
    types = [_SHORT_TYPES.get(name, name) for name in parsed.given.get("-t", "").split(",") if name]
    if types and all(name in _TYPES for name in types):
        parameters["types"] = list(types)
    if parsed.has("-r"):
        parameters["recursive"] = True
    return READ._replace(suggestions=(Suggestion("zfs.list", parameters),))


def _get(parsed: Parsed) -> Translation:
    if len(parsed.operands) != 2 or not _is_dataset_or_snapshot(parsed.operands[1]):
        return READ
    names, dataset = parsed.operands
    parameters: dict[str, Value] = {"dataset": dataset, "properties": names.split(",")}
    return READ._replace(suggestions=(Suggestion("zfs.get", parameters),))


def _snapshot(parsed: Parsed) -> Translation:
    suggestions = []
    for operand in parsed.operands:
        dataset, _, name = operand.partition("@")
        if not _is_snapshot(operand):
            return UNKNOWN
        parameters: dict[str, Value] = {"dataset": dataset, "name": name}
        suggestions.append(Suggestion("zfs.snapshot", parameters | _recursive(parsed)))
    return Translation(suggestions=tuple(suggestions))


def _held(operation: str) -> Callable[[Parsed], Translation]:
    def function(parsed: Parsed) -> Translation:
        tag, *snapshots = parsed.operands or ("",)
        if not _TAG.fullmatch(tag) or not snapshots or not all(map(_is_snapshot, snapshots)):
            return UNKNOWN
        return Translation(
            suggestions=tuple(
                Suggestion(operation, {"dataset": snapshot, "tag": tag}) for snapshot in snapshots
            )
        )

    return function


def _destroy(parsed: Parsed) -> Translation:
    if len(parsed.operands) != 1 or not _is_dataset_or_snapshot(parsed.operands[0]):
        return UNKNOWN
    parameters: dict[str, Value] = {"dataset": parsed.operands[0]}
    return Translation(suggestions=(Suggestion("zfs.destroy", parameters | _recursive(parsed)),))


def _rollback(parsed: Parsed) -> Translation:
    if len(parsed.operands) != 1 or not _is_snapshot(parsed.operands[0]):
        return UNKNOWN
    return Translation(suggestions=(Suggestion("zfs.rollback", {"dataset": parsed.operands[0]}),))


def _recursive(parsed: Parsed) -> dict[str, Value]:
    return {"recursive": True} if parsed.has("-r") else {}


def _is_snapshot(text: str) -> bool:
    dataset, at, name = text.partition("@")
    is_named = bool(at) and _TAG.fullmatch(name) is not None
    return is_named and _DATASET.fullmatch(dataset) is not None and len(text) <= _MOST


def _is_dataset_or_snapshot(text: str) -> bool:
    return _is_snapshot(text) or (_DATASET.fullmatch(text) is not None and len(text) <= _MOST)


_SNAPSHOT = (options("-r"), _snapshot)
_VERBS = {
    "list": (options("-H -p -r -j", "-t -o -s -S -d"), _list),
    "get": (options("-H -p -j", "-o -s -t"), _get),
    "snapshot": _SNAPSHOT,
    "snap": _SNAPSHOT,
    "hold": (options(), _held("zfs.hold")),
    "release": (options(), _held("zfs.release")),
    "destroy": (options("-r -v"), _destroy),
    "rollback": (options(), _rollback),
}
