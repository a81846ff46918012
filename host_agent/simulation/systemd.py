"""Units in memory: up or down, with a few lines of journal each."""

import fnmatch
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from host_agent.simulation.stand_in import (
    EndedError,
    hashed,
    number,
    require_same,
    tabbed,
    unknown,
)


@dataclass(slots=True)
class SimulatedUnit:
    """A service, a socket or a timer; `since` is when it last changed, as a Unix time."""

    name: str
    description: str
    active: str = "active"
    can_reload: bool = False
    since: float = field(default_factory=time.time)
    starts: int = 1
    journal: list[tuple[float, str, str]] = field(default_factory=list)

    @property
    def sub(self) -> str:
        """The state of its own kind."""
        return {"active": "running", "inactive": "dead"}.get(self.active, "failed")

    @property
    def pid(self) -> int:
        """Its process; 0 where there is none."""
        return number(f"{self.name} {self.starts}", 5) if self.active == "active" else 0

    def say(self, source: str, message: str) -> None:
        """Add a message to its journal."""
        self.journal.append((time.time(), source, message))

    def turn(self, active: str, message: str) -> None:
        """Change its state."""
        self.active, self.since = active, time.time()
        self.say("systemd", f"{message} {self.name} - {self.description}.")


class SimulatedSystemd:
    """What stands in for `wrappers/systemd-*`."""

    def __init__(self) -> None:
        self._units: dict[str, SimulatedUnit] = {}
        for unit in (
            SimulatedUnit("web.service", "The web server", can_reload=True),
            SimulatedUnit("worker.service", "The queue's worker"),
            SimulatedUnit("idle.service", "Started on demand", active="inactive"),
            SimulatedUnit("broken.service", "Its last start failed", active="failed"),
            SimulatedUnit("ssh.service", "OpenBSD Secure Shell server"),
        ):
            self._units[unit.name] = unit
            unit.say(unit.name.partition(".")[0], f"{unit.description} is {unit.sub}")

    def add(self, name: str) -> None:
        """Add a unit that runs, where it is missing."""
        self._units.setdefault(name, SimulatedUnit(name, name.partition(".")[0]))

    def answer(self, verb: str, arguments: tuple[str, ...]) -> str:
        """Return what `systemd-VERB` prints."""
        match verb, arguments:
            case "list", (*pattern,):
                return self._list(*pattern)
            case "status", (name,):
                return "".join(f"{key}={value}\n" for key, value in self._status(name))
            case "logs", (name, lines, *since):
                return self._logs(name, int(lines), *since)
            case "inspect", ("after", _, name):
                unit = self._one(name)
                rows = [("active", unit.active), ("type", "simple"), ("result", "success")]
                return tabbed(rows)
            case "inspect", (_, name):
                return tabbed(self._facts(self._one(name)))
            case (("start" | "restart" | "reload" | "stop"), (name, state)):
                unit = self._one(name)
                require_same(state, _state(unit))
                _change(unit, verb)
                return ""
            case _:
                raise unknown()

    def _one(self, name: str) -> SimulatedUnit:
        if name not in self._units:
            raise EndedError(4, f"Unit {name} could not be found: not loaded.\n")
        return self._units[name]

    def _list(self, pattern: str = "*") -> str:
        return "".join(
            f"{unit.name} loaded {unit.active} {unit.sub} {unit.description}\n"
            for unit in self._units.values()
            if fnmatch.fnmatchcase(unit.name, pattern)
        )

    def _status(self, name: str) -> Iterator[tuple[str, object]]:
        unit = self._units.get(name)
        yield "Id", name
        yield "Names", name
        yield "Description", unit.description if unit else name
        yield "LoadState", "loaded" if unit else "not-found"
        yield "ActiveState", unit.active if unit else "inactive"
        yield "SubState", unit.sub if unit else "dead"
        if unit is not None:
            yield "UnitFileState", "enabled"
            yield "FragmentPath", f"/usr/lib/systemd/system/{name}"
            yield "Result", "exit-code" if unit.active == "failed" else "success"
            yield "MainPID", unit.pid
            changed = time.gmtime(unit.since)
            yield "StateChangeTimestamp", time.strftime("%a %Y-%m-%d %H:%M:%S UTC", changed)
            yield "NRestarts", 0

    def _logs(self, name: str, lines: int, since: str = "0") -> str:
        shown = [entry for entry in self._one(name).journal if entry[0] >= float(since)]
        return "".join(
            json.dumps(
                {
                    "__REALTIME_TIMESTAMP": str(int(at * 1_000_000)),
                    "PRIORITY": "6",
                    "SYSLOG_IDENTIFIER": source,
                    "_PID": "1",
                    "MESSAGE": message,
                }
            )
            + "\n"
            for at, source, message in reversed(shown[-lines:])
        )

    def _facts(self, unit: SimulatedUnit) -> Iterator[tuple[str, object]]:
        yield "Id", unit.name
        yield "name", unit.name
        yield "Description", unit.description
        yield "LoadState", "loaded"
        yield "ActiveState", unit.active
        yield "SubState", unit.sub
        yield "UnitFileState", "enabled"
        yield "TriggeredBy", ""
        yield "NeedDaemonReload", "no"
        yield "CanStart", "yes"
        yield "CanStop", "yes"
        yield "CanReload", "yes" if unit.can_reload else "no"
        yield "activity", "up" if unit.active == "active" else "down"
        yield "definition", hashed(unit.name)
        if unit.active == "active":
            yield "active_seconds", max(int(time.time() - unit.since), 0)
        yield "state", _state(unit)


def _state(unit: SimulatedUnit) -> str:
    return hashed(f"{unit.name} {unit.active == 'active'}")


def _change(unit: SimulatedUnit, verb: str) -> None:
    if verb == "reload":
        unit.say("systemd", f"Reloaded {unit.name} - {unit.description}.")
    elif verb == "stop":
        unit.turn("inactive", "Stopped")
    elif verb == "restart" or unit.active != "active":
        unit.starts += 1
        unit.turn("active", "Started")
