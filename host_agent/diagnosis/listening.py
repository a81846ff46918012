"""Whether an agent listens, and what it says of itself: asked on the plain listener."""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

from host_agent import __version__
from host_agent.config import Config
from host_agent.diagnosis.values import Check, ok, problem, warning

_SECONDS = 5.0
_MAX_BYTES = 65_536
_LOOK = "systemctl status host-agent.service; journalctl -u host-agent.service"


def listening_checks(config: Config) -> Iterator[Check]:
    """Yield whether an agent answers, in which version, and whether it is ready."""
    host, port = config.metrics.address
    name = "listening agent"
    try:
        status, health = _ask(host, port, "/health")
        is_ready, parts = _ask(host, port, "/ready")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield problem(
            name, f"Nothing answers on {config.metrics.bind}: {reason}.", f"start it: {_LOOK}"
        )
        return
    if status != 200 or "version" not in health:
        sentence = f"Something else answers on {config.metrics.bind}."
        yield problem(name, sentence, "give [metrics] bind another port")
        return
    if health["version"] == __version__:
        yield ok(name, f"Version {__version__} answers on {config.metrics.bind}.")
    else:
        sentence = f"Version {health['version']} still runs, and {__version__} is installed."
        yield warning(name, sentence, "systemctl restart host-agent.service")
    yield _readiness(is_ready, parts)


def _readiness(status: int, parts: Mapping[str, Any]) -> Check:
    name = "readiness"
    if status != 200:
        bad = [
            f"{part}: {parts[part]}"
            for part in ("store", "audit", "crl", "certificate")
            if parts.get(part, "ok") != "ok"
        ]
        return problem(name, f"It cannot serve: {'; '.join(bad) or parts.get('detail')}.", _LOOK)
    loaded = parts.get("configuration", "ok")
    if loaded != "ok":
        sentence = f"It serves an older configuration; the last reload was rejected: {loaded}."
        return warning(name, sentence, "host-agent config check --user host-agent")
    return ok(name, "It can serve.")


def _ask(host: str, port: int, path: str) -> tuple[int, Mapping[str, Any]]:
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.loads(response.read(_MAX_BYTES))
        return response.status, body if isinstance(body, dict) else {}
    finally:
        connection.close()
