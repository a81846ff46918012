"""What only shows between the tables of channels, approvers, bridges and identities.

Works on raw values, so that one fault does not hide another.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from host_agent.config.approvers import Bridge
from host_agent.config.channels.declaration import FileMark
from host_agent.config.channels.registry import CHANNELS, RELAYED
from host_agent.config.permissions import program_fault

Table = dict[str, Any]
Key = tuple[str | int, ...]
Fault = tuple[Key, str]

_ADDRESSES = {
    name: declared.address for name, declared in CHANNELS.items() if declared.address is not None
}
_ADDRESS_KEYS = tuple(address.key for address in _ADDRESSES.values())
_REQUIRED_KEYS = {
    name: address.key for name, address in _ADDRESSES.items() if not CHANNELS[name].needs_enrolment
}
"""The key that an approver must have for a channel, where nobody can enrol instead."""


def people_faults(table: Table) -> Iterator[Fault]:
    """Find contradictions between channels, approvers, bridges and identities."""
    channels = _table(table.get("channels"))
    approvers = _tables(table.get("approvers"))
    yield from _approver_faults(approvers, channels)
    yield from _bridge_faults(table, approvers)


def _approver_faults(approvers: list[tuple[int, Table]], channels: Table) -> Iterator[Fault]:
    owners: Counter[str] = Counter()
    addresses: Counter[str] = Counter()
    for index, entry in approvers:
        owner = _folded(entry.get("owner"))
        if owner is not None:
            if owners[owner]:
                yield ("approvers", index, "owner"), "is the same as an earlier one, case aside"
            owners[owner] += 1
        for key in _ADDRESS_KEYS:
            address = entry.get(key)
            if isinstance(address, str):
                if addresses[address]:
                    yield ("approvers", index, key), "is another approver's"
                addresses[address] += 1
        yield from _listed_faults(index, entry, channels)


def _listed_faults(index: int, entry: Table, channels: Table) -> Iterator[Fault]:
    listed = entry.get("channels")
    names = listed if isinstance(listed, list) else []
    for position, name in enumerate(names):
        at: Key = ("approvers", index, "channels", position)
        if name in names[:position]:
            yield at, "is listed already"
        elif not isinstance(name, str) or name not in CHANNELS:
            continue  # the model names it
        elif not isinstance(channels.get(name), dict):
            yield at, f"there is no [channels.{name}]"
        elif (key := _REQUIRED_KEYS.get(name)) is not None and key not in entry:
            yield at, f"needs {key}"


def _bridge_faults(table: Table, approvers: list[tuple[int, Table]]) -> Iterator[Fault]:
    identities = {
        identity["cn"]: identity
        for _, identity in _tables(table.get("identities"))
        if isinstance(identity.get("cn"), str)
    }
    reached = {
        owner: entry for _, entry in approvers if (owner := _folded(entry.get("owner"))) is not None
    }
    seen: Counter[str] = Counter()
    for index, bridge in _tables(table.get("bridges")):
        cn = bridge.get("cn")
        if not isinstance(cn, str):
            continue
        if seen[cn]:
            yield ("bridges", index, "cn"), "is the same as an earlier one"
        seen[cn] += 1
        identity = identities.get(cn)
        if identity is None or "bridge" not in (identity.get("roles") or ()):
            yield ("bridges", index, "cn"), "names no identity with the role bridge"
        elif set(identity["roles"]) != {"bridge"}:
            yield ("bridges", index, "cn"), "names an identity that has other roles too"
        own = _folded((identity or {}).get("owner", cn))
        yield from _relayed_faults(index, bridge, reached, own)


def _relayed_faults(
    index: int, bridge: Table, reached: Mapping[str, Table], own: str | None
) -> Iterator[Fault]:
    for user, said in _table(bridge.get("approvers")).items():
        at: Key = ("bridges", index, "approvers", user)
        owner = _folded(said)
        if owner is None:
            continue
        entry = reached.get(owner)
        if entry is None:
            yield at, "names no owner of [[approvers]]"
        elif RELAYED not in (entry.get("channels") or ()):
            yield at, f"names an owner whose channels do not have {RELAYED}"
        elif owner == own:
            yield at, "names the bridge's own owner, who cannot answer through it"


def secret_files(table: Table) -> Iterator[tuple[Key, str]]:
    """Return every file with a secret that the channels and bridges name, with its key."""
    yield from channel_files(table, FileMark.SECRET)
    for index, bridge in _tables(table.get("bridges")):
        yield from (
            (("bridges", index, key), bridge[key])
            for key in Bridge.files(FileMark.SECRET)
            if isinstance(bridge.get(key), str)
        )


def channel_files(table: Table, mark: FileMark) -> Iterator[tuple[Key, str]]:
    """Return every file with this mark that the channels name, with its key."""
    channels = _table(table.get("channels"))
    for channel, declared in CHANNELS.items():
        section = _table(channels.get(channel))
        yield from (
            (("channels", channel, key), section[key])
            for key in declared.files(mark)
            if isinstance(section.get(key), str)
        )


def plugin_fault(plugin: str) -> str | None:
    """Return why a `command:` plugin may not be run, or None.

    It says who may approve: only root may have written it.
    """
    path = plugin.removeprefix("command:")
    return None if path == plugin else program_fault(path)


def _folded(value: object) -> str | None:
    return value.casefold() if isinstance(value, str) else None


def _table(value: object) -> Table:
    return value if isinstance(value, dict) else {}


def _tables(value: object) -> list[tuple[int, Table]]:
    if not isinstance(value, list):
        return []
    return [(index, item) for index, item in enumerate(value) if isinstance(item, dict)]
