"""A pool in memory: filesystems and snapshots with sizes, ids and holds. No clones."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from host_agent.operations.zfs.output import LIST_FIELDS
from host_agent.simulation.stand_in import (
    MISSING,
    EndedError,
    die,
    hashed,
    number,
    require_same,
    tabbed,
    unknown,
)

GIB = 1 << 30
_FREE = 400 * GIB
_CREATED = 1_790_000_000


@dataclass(slots=True)
class SimulatedDataset:
    """A filesystem or, with `@` in its name, a snapshot; `written` is since its newest snapshot."""

    name: str
    used: int
    txg: int
    written: int = 0
    tags: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        """The filesystem."""
        return self.name.partition("@")[0]

    @property
    def kind(self) -> str:
        """What zfs calls it."""
        return "snapshot" if "@" in self.name else "filesystem"

    @property
    def guid(self) -> str:
        """Its id: of name and transaction, so that one of the same name made anew is another."""
        return str(number(f"{self.name} {self.txg}", 18))

    def identity(self) -> tuple[str, ...]:
        """What an approval is bound to."""
        is_kept = self.kind == "snapshot"
        holds, deferred = (str(len(self.tags)), "off") if is_kept else ("-", "-")
        return (self.name, self.kind, self.guid, str(self.txg), holds, deferred, "-")


class SimulatedZfs:
    """What stands in for `wrappers/zfs-*`."""

    def __init__(self) -> None:
        self._datasets: dict[str, SimulatedDataset] = {}
        self._txg = 100
        for name, used in (
            ("tank", 30 * GIB),
            ("tank/media", 12 * GIB),
            ("tank/scratch", 3 * GIB),
            ("tank/scratch/old", GIB),
            ("tank/backup", 9 * GIB),
        ):
            self.add(name, used)
        for name in ("tank/media@daily", "tank/scratch@before", "tank/backup@monthly"):
            self.add(name, GIB // 4)
        self._datasets["tank/backup@monthly"].tags.append("keep")

    def add(self, name: str, used: int = GIB) -> None:
        """Add a dataset, and what is above it, where it is missing."""
        above = name.rpartition("@" if "@" in name else "/")[0]
        if above and above not in self._datasets:
            self.add(above, used)
        if name not in self._datasets:
            self._txg += 1
            self._datasets[name] = SimulatedDataset(name, used, self._txg, written=used // 8)

    def answer(self, verb: str, arguments: tuple[str, ...]) -> str:
        """Return what `zfs-VERB` prints."""
        match verb, arguments:
            case "list", (mode, types, *where):
                return self._list(mode, types.split(","), *where)
            case "get", (properties, name):
                return self._get(properties.split(","), self._one(name))
            case "inspect", ("gone", name, mode):
                return tabbed([("left", len(self._destroyed(name, mode)))])
            case "inspect", (what, name, *rest):
                self._one(name)
                return tabbed(self._facts(what, name, rest))
            case "snapshot", (name, snapshot, mode, guid, state):
                self._require("snapshot", name, [snapshot, mode], guid, state)
                for base in self._tree(name, mode):
                    self.add(f"{base}@{snapshot}", 0)
                    self._datasets[base].written = 0
                return ""
            case "hold", (name, tag, guid):
                require_same(guid, self._one(name).guid)
                self._one(name).tags.append(tag)
                return ""
            case "release", (name, tag, guid):
                require_same(guid, self._one(name).guid)
                if tag not in self._one(name).tags:
                    raise EndedError(1, f"cannot release: no such tag: {name}\n")
                self._one(name).tags.remove(tag)
                return ""
            case "destroy", (name, mode, guid, state):
                self._require("destroy", name, [mode], guid, state)
                return self._destroy(name, mode)
            case "rollback", (name, guid, state):
                self._require("rollback", name, [], guid, state)
                self._datasets[self._one(name).base].written = 0
                return ""
            case "destroy", _:
                raise EndedError(1, "host-agent: it is not marked for deferred destroy\n")
            case _:
                raise unknown()

    def _one(self, name: str) -> SimulatedDataset:
        if name not in self._datasets:
            die(MISSING, "the dataset does not exist")
        return self._datasets[name]

    def _tree(self, name: str, mode: str) -> list[str]:
        below = (one for one in self._datasets if one.startswith(f"{name}/") and "@" not in one)
        return [name, *(below if mode == "recursive" else ())]

    def _snapshots(self, base: str) -> list[str]:
        return [one for one in self._datasets if one.startswith(f"{base}@")]

    def _destroyed(self, name: str, mode: str) -> list[str]:
        if "@" in name:
            base, _, snapshot = name.partition("@")
            found = [f"{one}@{snapshot}" for one in self._tree(base, mode)]
        else:
            trees = self._tree(name, mode)
            along = [one for base in trees for one in self._snapshots(base)]
            found = [*trees, *(along if mode == "recursive" else ())]
        return [one for one in found if one in self._datasets]

    # -- what is printed --------------------------------------------------------------------------

    def _list(self, mode: str, types: list[str], where: str = "") -> str:
        if where:
            self._one(where)
        shown = [
            one
            for one in self._datasets.values()
            if one.kind in types
            and (
                not where
                or one.name == where
                or one.base == where
                or (mode == "recursive" and one.name.startswith(f"{where}/"))
            )
        ]
        return tabbed((one.name, *map(self._properties(one).get, LIST_FIELDS)) for one in shown)

    def _properties(self, one: SimulatedDataset) -> dict[str, str]:
        is_kept = one.kind == "snapshot"
        return {
            "type": one.kind,
            "used": str(one.used),
            "available": "-" if is_kept else str(_FREE),
            "referenced": str(one.used),
            "guid": one.guid,
            "createtxg": str(one.txg),
            "creation": str(_CREATED + one.txg),
            "origin": "-",
            "userrefs": str(len(one.tags)) if is_kept else "-",
            "mountpoint": "-" if is_kept else f"/{one.name}",
            "name": one.name,
            "written": str(one.written),
            "compression": "lz4",
            "readonly": "off",
            "quota": "0",
        }

    def _get(self, properties: list[str], one: SimulatedDataset) -> str:
        known = self._properties(one)
        unset = {"compression": "default", "readonly": "default", "quota": "default"}
        return tabbed(
            (one.name, name, known.get(name, "-"), unset.get(name, "-")) for name in properties
        )

    # -- changes ----------------------------------------------------------------------------------

    def _facts(self, what: str, name: str, rest: list[str]) -> Iterator[tuple[object, ...]]:
        one = self._one(name)
        members = self._members(what, name, rest)
        is_tagged = len(rest) > 1 or what in ("hold", "release")
        yield "guid", one.guid
        yield "createtxg", one.txg
        yield "userrefs", len(one.tags)
        yield "state", self._state(what, name, rest)
        yield "members", len(members)
        yield "held", sum(bool(self._datasets[member].tags) for member in members)
        yield "deferred", "off"
        if what == "destroy":
            is_kept = "@" in name
            below = [other for other in self._datasets if other.startswith(f"{name}/")]
            right_below = [other for other in below if "/" not in other[len(name) + 1 :]]
            children = 0 if is_kept else len(right_below) + len(self._snapshots(name))
            yield "is_last", "no"
            yield "children", children
            if children == 0:
                yield "reclaim", sum(self._datasets[member].used for member in members)
        if what in ("hold", "release") or (what == "destroy" and is_tagged):
            yield "has_tag", "yes" if rest[-1] in one.tags else "no"
        if what == "snapshot":
            taken = [base for base in members if f"{base}@{rest[0]}" in self._datasets]
            yield "exists", len(taken)
        if what == "rollback":
            newer = [
                other for other in self._snapshots(one.base) if self._datasets[other].txg > one.txg
            ]
            yield "snapshot_referenced", one.used
            yield "newers", len(newer)
            yield from (("newer", other) for other in newer)
            yield "referenced", self._datasets[one.base].used
            yield "written", self._datasets[one.base].written
        yield from (("dataset", base) for base in dict.fromkeys(m.split("@")[0] for m in members))
        for member in members:
            yield "member", *self._datasets[member].identity(), self._datasets[member].used

    def _members(self, what: str, name: str, rest: list[str]) -> list[str]:
        if what == "snapshot":
            return self._tree(name, rest[1])
        return self._destroyed(name, rest[0]) if what == "destroy" else [name]

    def _state(self, what: str, name: str, rest: list[str]) -> str:
        bound = [self._datasets[member].identity() for member in self._members(what, name, rest)]
        if what == "rollback":
            bound.append(self._datasets[self._one(name).base].identity())
        return hashed(tabbed(sorted(bound)))

    def _require(self, what: str, name: str, rest: list[str], guid: str, state: str) -> None:
        require_same(guid, self._one(name).guid)
        require_same(state, self._state(what, name, rest))

    def _destroy(self, name: str, mode: str) -> str:
        members = self._destroyed(name, mode)
        for member in members:
            if self._datasets[member].tags:
                raise EndedError(1, f"cannot destroy snapshot {member}: dataset is busy\n")
        for member in members:
            del self._datasets[member]
        return ""
