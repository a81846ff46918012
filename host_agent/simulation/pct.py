"""Containers in memory: running or stopped, with a configuration and snapshots."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from host_agent.operations.pct.output import ABSENT
from host_agent.simulation.stand_in import MISSING, die, hashed, require_same, tabbed, unknown


@dataclass(slots=True)
class SimulatedContainer:
    """A container; a snapshot is its configuration then, with the time."""

    vmid: str
    settings: dict[str, str]
    status: str = "stopped"
    snapshots: dict[str, dict[str, str]] = field(default_factory=dict)

    def config(self) -> str:
        """What `pct config` prints."""
        return _printed(self.settings)

    def take(self, name: str) -> None:
        """Take a snapshot, from which it descends from then on."""
        self.snapshots[name] = {**self.settings, "snaptime": str(int(time.time()))}
        self.settings["parent"] = name


def _printed(settings: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in sorted(settings.items()))


class SimulatedPct:
    """What stands in for `wrappers/pct-*`."""

    def __init__(self) -> None:
        self._containers: dict[str, SimulatedContainer] = {}
        for vmid, name, status in (
            ("101", "web", "stopped"),
            ("102", "db", "running"),
            ("103", "old", "stopped"),
        ):
            self.add(vmid, name, status)
        self._containers["102"].take("before")

    def add(self, vmid: str, name: str = "simulated", status: str = "stopped") -> None:
        """Add a container, where it is missing."""
        settings = {
            "arch": "amd64",
            "cores": "1",
            "hostname": name,
            "memory": "512",
            "ostype": "debian",
            "rootfs": f"local-zfs:subvol-{vmid}-disk-0,size=4G",
            "swap": "512",
            "unprivileged": "1",
        }
        self._containers.setdefault(vmid, SimulatedContainer(vmid, settings, status))

    def answer(self, verb: str, arguments: tuple[str, ...]) -> str:
        """Return what `pct-VERB` prints."""
        match verb, arguments:
            case "list", ():
                return self._list()
            case "status", (vmid,):
                return f"status: {self._one(vmid).status}\n"
            case "config", (vmid,):
                return self._one(vmid).config()
            case "inspect", (what, vmid, *name):
                return tabbed(self._facts(what, vmid, *name))
            case "create", (vmid, template, *options):
                return self._create(vmid, template, options)
            case "rollback", (vmid, name, config, snapshot):
                container = self._held(vmid, config)
                require_same(snapshot, hashed(_printed(container.snapshots.get(name, {}))))
                kept = container.snapshots[name]
                container.settings = {key: kept[key] for key in kept if key != "snaptime"}
                container.settings["parent"] = name
                container.status = "stopped"
                return ""
            case "snapshot", (vmid, name, config):
                self._held(vmid, config).take(name)
                return ""
            case "destroy", (vmid, config):
                self._held(vmid, config)
                del self._containers[vmid]
                return ""
            case (("start" | "stop" | "shutdown"), (vmid, config)):
                self._held(vmid, config).status = "running" if verb == "start" else "stopped"
                return ""
            case _:
                raise unknown()

    def _one(self, vmid: str) -> SimulatedContainer:
        if vmid not in self._containers:
            die(MISSING, "the container does not exist")
        return self._containers[vmid]

    def _held(self, vmid: str, config: str) -> SimulatedContainer:
        container = self._one(vmid)
        require_same(config, hashed(container.config()))
        return container

    def _list(self) -> str:
        rows = [
            f"{one.vmid:<10} {one.status:<10} {'':<12} {one.settings['hostname']:<20}\n"
            for one in sorted(self._containers.values(), key=lambda one: int(one.vmid))
        ]
        header = f"{'VMID':<10} {'Status':<10} {'Lock':<12} {'Name':<20}\n"
        return "".join([header, *rows] if rows else [])

    def _create(self, vmid: str, template: str, options: list[str]) -> str:
        if vmid in self._containers:
            die(1, "there is a container of that VMID already")
        self.add(vmid)
        given = (option.partition("=") for option in options)
        self._containers[vmid].settings |= {name: value for name, _, value in given if value}
        return f"extracting archive '{template}'\n"

    def _facts(self, what: str, vmid: str, name: str = "") -> Iterator[tuple[str, object]]:
        if vmid not in self._containers:
            if what not in ("create", "state"):
                die(MISSING, "the container does not exist")
            yield "status", ABSENT
            return
        if what == "create":
            die(1, "there is a container of that VMID already")
        container = self._containers[vmid]
        yield "status", container.status
        yield "config", hashed(container.config())
        if "parent" in container.settings:
            yield "parent", container.settings["parent"]
        if name:
            kept = container.snapshots.get(name)
            yield "snapshot", ABSENT if kept is None else hashed(_printed(kept))
            if kept is not None:
                yield "snaptime", kept["snaptime"]
        if what == "state":
            return
        _refuse_impossible(container, what, name)
        lines = container.config().splitlines()
        yield "lines", len(lines)
        yield from (("line", line) for line in lines)


def _refuse_impossible(container: SimulatedContainer, what: str, name: str) -> None:
    match what, container.status:
        case "start", "running":
            die(1, "the container is running already")
        case (("stop" | "shutdown"), "stopped"):
            die(1, "the container is not running")
        case "destroy", "running":
            die(1, "the container is running; it must be stopped first")
        case "snapshot", _ if name in container.snapshots:
            die(1, "the container has a snapshot of that name already")
        case "rollback", _ if name not in container.snapshots:
            die(MISSING, "the container has no such snapshot")
