"""Whether an agent listens, and what it says of itself: asked on the plain listener."""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

from host_agent import __version__
from host_agent.config import Config
from host_agent.host.doctor.serving import serving_checks
from host_agent.host.doctor.values import Check, ok, problem, warning

_SECONDS = 5.0
_MAX_BYTES = 65_536
_FAILURES = (OSError, http.client.HTTPException, ValueError)
_RESTART = "systemctl restart host-agent.service"
_LOOK = "systemctl status host-agent.service; journalctl -u host-agent.service"


def listening_checks(config: Config) -> Iterator[Check]:
    """Yield whether an agent answers, in which version, whether it is ready, and what serves."""
    host, port = config.metrics.address
    name = "listening agent"
    try:
        status, health = _ask(host, port, "/health")
        is_ready, parts = _ask(host, port, "/ready")
    except _FAILURES as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield problem(
            name, f"Nothing answers on {config.metrics.bind}: {reason}.", f"start it: {_LOOK}"
        )
        return
    if status != 200 or "version" not in health:
        sentence = f"Something else answers on {config.metrics.bind}."
        yield problem(name, sentence, "give [metrics] bind another port")
        return
    is_this = health["version"] == __version__
    if is_this:
        yield ok(name, f"Version {__version__} answers on {config.metrics.bind}.")
    else:
        sentence = f"Version {health['version']} still runs, and {__version__} is installed."
        yield warning(name, sentence, _RESTART)
    yield _readiness(is_ready, parts)
    if is_this:  # another version may count its configuration otherwise
        yield from serving_checks(config, parts, lambda: _ask(host, port, "/ready")[1])


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
        sentence = f"It serves an older configuration; {str(loaded).rstrip('.')}."
        is_moved = parts.get("restart_needed", False)
        return problem(name, sentence, _RESTART if is_moved else "host-agent config check")
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
