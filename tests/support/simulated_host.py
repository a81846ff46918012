"""A simulation's script in a line, and what every read of its host says."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from host_agent.client import Ran
from host_agent.simulation.script import Script, parse_answer
from host_agent.simulation.simulation import Simulation

APP: Mapping[str, JsonValue] = {"repository": "/srv/app"}
PULL: Mapping[str, JsonValue] = {**APP, "remote": "origin", "branch": "main"}
READS: Sequence[tuple[str, Mapping[str, JsonValue]]] = (
    ("git.status", APP),
    ("git.log", {**APP, "ref": "origin/main"}),
    ("git.diff", {"repository": "/srv/site"}),
    ("zfs.list", {"types": ["snapshot"]}),
    ("zfs.get", {"dataset": "tank/media", "properties": ["used", "compression"]}),
    ("systemd.status", {"unit": "web.service"}),
    ("systemd.logs", {"unit": "web.service", "since": "2026-01-01T00:00:00Z"}),
    ("systemd.list", {"pattern": "w*"}),
    ("pct.list", {}),
    ("pct.status", {"vmid": "102"}),
    ("pct.config", {"vmid": "102"}),
    ("apt.list", {"state": "upgradable"}),
    ("apt.show", {"package": "web-tool"}),
)


def script(*answers: str) -> Script:
    return Script(tuple(parse_answer(answer, after=0) for answer in answers))


async def seen(simulation: Simulation) -> list[JsonValue]:
    """Return what every read of the host says, but for what time alone changes."""
    async with simulation.client("watcher") as client:
        answers = [await client.submit(operation, params) for operation, params in READS]
    return [answer.outcome.data for answer in answers if isinstance(answer, Ran)]
