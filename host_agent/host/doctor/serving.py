"""Whether what serves is what lies on disk: the running agent says what it has, by hash."""

import hashlib
import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from host_agent.config import Config
from host_agent.host.doctor.values import Check, ok, problem
from host_agent.identity.files import read_linked

_SETTLES, _SETTLE_SECONDS = 12, 0.25
_UNREAD = "unread"
_RELOAD = "systemctl reload host-agent.service"
_LIST = (
    "put a good list there that the agent's user can read, docs/how-to/revoke.md: it is used within"
    " a second"
)
_PARTS: Mapping[str, tuple[str, str]] = {
    "configuration_sha256": ("The configuration", _RELOAD),
    "certificate_sha256": ("The server's certificate", _RELOAD),
    "client_ca_sha256": ("The clients' authority", _RELOAD),
    "crl_sha256": ("The revocation list", _LIST),
}


def serving_checks(
    config: Config, parts: Mapping[str, Any], ask: Callable[[], Mapping[str, Any]]
) -> Iterator[Check]:
    """Yield whether the files as they lie there are those that serve.

    `parts` is what `/ready` said, and `ask` asks again: a list is looked at every second, so that
    a difference counts once it stays.
    """
    parts = _settled(config, parts, ask)
    complaint, serving = parts.get("crl_file"), parts.get("serving", {})
    differing = _differing(config, serving)
    if complaint is not None:
        numbers = [str(number) for number in serving.get("crl_numbers", ()) if number is not None]
        which = f"list number {', '.join(numbers)}" if numbers else "an earlier list"
        sentence = (
            f"{str(complaint).rstrip('.')}. What was revoked since then is let in: {which} serves."
        )
        yield problem("revocation list that serves", sentence, _LIST)
    for part, (what, remedy) in _PARTS.items():
        if part in differing and not (part == "crl_sha256" and complaint is not None):
            yield problem("what serves", f"{what} on disk is not the one that serves.", remedy)
    if complaint is None and not differing:
        sentence = "Configuration, certificates and revocation list are those that lie on disk."
        yield ok("what serves", sentence)


def _settled(
    config: Config, parts: Mapping[str, Any], ask: Callable[[], Mapping[str, Any]]
) -> Mapping[str, Any]:
    for _ in range(_SETTLES):
        if not _differing(config, parts.get("serving", {})) and "crl_file" not in parts:
            break
        time.sleep(_SETTLE_SECONDS)
        try:
            parts = ask()
        except (OSError, http.client.HTTPException, ValueError):
            break  # it ended meanwhile; what it said last stands
    return parts


def _differing(config: Config, serving: Mapping[str, Any]) -> set[str]:
    server = config.server
    lying = {
        "configuration_sha256": config.fingerprint,
        "certificate_sha256": _hash(server.certificate),
        "client_ca_sha256": _hash(server.client_ca),
        "crl_sha256": None if server.crl is None else _hash(server.crl),
    }
    return {
        part
        for part, value in lying.items()
        if part in serving and value != serving[part] and value != _UNREAD
    }


def _hash(path: Path) -> str:
    """Return the hash of a file's content; what cannot be read here is told by other checks."""
    try:
        return hashlib.sha256(read_linked(path)).hexdigest()
    except ValueError:
        return _UNREAD
