"""The identity plugin: a program or service of the administrator's, asked before a yes counts.

It gets JSON and gives JSON: `{"allow": true}`, or `{"allow": false, "reason": "..."}`. Anything
else refuses: another shape, an unknown key, a failure, five seconds without an answer.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeAlias

from host_agent.canonical import canonical_json
from host_agent.errors import HostAgentError, RoleRequiredError
from host_agent.requests.model import Decision, Request

_log = logging.getLogger("host_agent.pipeline")

DEADLINE_SECONDS = 5.0
MAX_ANSWER_BYTES = 65_536
MAX_REASON = 200

AskPlugin: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Gives the question to the plugin and returns its answer; raises whatever goes wrong."""


class Plugin:
    """One plugin behind an exchange."""

    def __init__(self, exchange: AskPlugin, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._exchange = exchange
        self._deadline_seconds = deadline_seconds

    async def require(self, request: Request, decision: Decision) -> None:
        """Return if the plugin allows that this approver approves this.

        Raises:
            RoleRequiredError: it refuses, or gives no clear answer in time.
        """
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await self._exchange(question(request, decision))
        except (HostAgentError, OSError, TimeoutError) as error:
            _log.error("the identity plugin did not answer: %s", type(error).__name__)
            raise RoleRequiredError(_UNCLEAR) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no yes
            _log.error("the identity plugin failed: %s", type(error).__name__)
            raise RoleRequiredError(_UNCLEAR) from None
        _require_yes(answer)


def question(request: Request, decision: Decision) -> bytes:
    """Return what the plugin is asked, as canonical JSON. `grant` is what a yes would also give."""
    grant = decision.grant
    return canonical_json(
        {
            "version": 1,
            "approver": decision.approver,
            "owner": decision.owner,
            "channel": decision.channel,
            "through": decision.through,
            "grant": None if grant is None else asdict(grant),
            "request": {
                "id": request.id,
                "operation": request.operation,
                "params": request.params,
                "resource": request.resource,
                "caller": request.caller,
                "owner": request.owner,
                "digest": request.digest,
            },
        }
    )


def _require_yes(answer: bytes) -> None:
    try:
        is_short = len(answer) <= MAX_ANSWER_BYTES
        found = json.loads(answer, object_pairs_hook=_once) if is_short else None
    except (ValueError, RecursionError):
        found = None
    if found == {"allow": True} and found["allow"] is True:
        return
    if not isinstance(found, dict) or found.get("allow") is not False:
        found = {"unclear": True}
    if not found.keys() <= {"allow", "reason"}:
        _log.error("the identity plugin gave no clear answer")
        raise RoleRequiredError(_UNCLEAR)
    reason = found.get("reason")
    said = reason if isinstance(reason, str) and reason.isprintable() and reason.isascii() else ""
    detail = f" ({said[:MAX_REASON]})" if said else ""
    raise RoleRequiredError(f"The identity plugin does not let this approver decide{detail}.")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a key that comes twice: which one counts would be a guess."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


_UNCLEAR = "The identity plugin gave no clear answer, so this approval does not count."
