"""Requests: a page of them, one of them, decisions on them, and what happens to them."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, cast

from quart import Response

from host_agent.api import body as bodies
from host_agent.api.request import AgentRequest, StreamedResponse, until_gone
from host_agent.api.route import Route, Services
from host_agent.api.wire.events import EVENT_STREAM, EventView, MissedEvents
from host_agent.api.wire.requests import RequestPage, RequestView
from host_agent.errors import (
    FaultPlace,
    InvalidParameterError,
    correct,
    invalid_in_query,
    request_not_found,
)
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Role
from host_agent.pipeline.views import MAX_LISTED
from host_agent.policy.limits import Limits
from host_agent.requests.model import State, Verb
from host_agent.text import ID

MAX_WAIT_SECONDS = 60
DEFAULT_LIMIT = 50
_REQUEST_ID = re.compile(ID, re.ASCII)
_SEQUENCE = re.compile(r"[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


async def list_requests(services: Services, request: AgentRequest) -> RequestPage:
    """Show a page: one's own, or all."""
    return await _page(services, request, state=request.parameters.get("state"), own=False)


async def pending(services: Services, request: AgentRequest) -> RequestPage:
    """Show one's own that wait."""
    return await _page(services, request, state=State.PENDING, own=True)


async def admin_pending(services: Services, request: AgentRequest) -> RequestPage:
    """Show all that wait."""
    return await _page(services, request, state=State.PENDING, own=False)


async def _page(
    services: Services, request: AgentRequest, *, state: str | None, own: bool
) -> RequestPage:
    limit = request.parameters.get("limit", str(DEFAULT_LIMIT))
    if _NUMBER.fullmatch(limit) is None:
        raise invalid_in_query("limit", "a number.")
    return await services.pipeline.views.list_requests(
        request.principal,
        state=state,
        limit=int(limit),
        cursor=request.parameters.get("cursor"),
        own=own,
    )


async def show(services: Services, request: AgentRequest, request_id: str) -> RequestView:
    """Show one, at once or once it changes."""
    wait = request.parameters.get("wait", "0")
    if _NUMBER.fullmatch(wait) is None or int(wait) > MAX_WAIT_SECONDS:
        raise invalid_in_query("wait", f"whole seconds, 0 to {MAX_WAIT_SECONDS}.")
    _check_id(request_id)
    if int(wait) == 0:
        return await services.pipeline.views.show(request.principal, request_id)
    return await _changed(services, request, request_id, int(wait))


async def _changed(
    services: Services, request: AgentRequest, request_id: str, seconds: int
) -> RequestView:
    """Return a request once it changes; give up when the peer leaves or is unwelcome."""
    pipeline = services.pipeline
    poll = asyncio.ensure_future(
        pipeline.views.show(request.principal, request_id, wait_seconds=seconds)
    )
    gone = asyncio.ensure_future(until_gone(request.receive))
    try:
        await asyncio.wait((poll, gone), return_when=asyncio.FIRST_COMPLETED)
        if poll.done():
            return poll.result()
    finally:
        poll.cancel()
        gone.cancel()
        await asyncio.gather(poll, gone, return_exceptions=True)
    # It may have ended its own half only, and read what comes.
    principal = pipeline.identify(cast("PeerCertificate", request.peer))
    return await pipeline.views.show(principal, request_id)


async def events(services: Services, request: AgentRequest) -> Response:
    """Stream what happens, until the reader leaves or is not welcome any more."""
    after = request.headers.get("Last-Event-ID")
    if after is not None and _SEQUENCE.fullmatch(after) is None:
        message = "Last-Event-ID: the id of an event, a number."
        fix = correct(message, "Last-Event-ID", place=FaultPlace.HEADER)
        raise InvalidParameterError(message, recovery=fix)
    stream = services.pipeline.streams.open(
        request.principal, None if after is None else int(after)
    )
    return StreamedResponse(stream, content_type=EVENT_STREAM)


async def decide(services: Services, request: AgentRequest, request_id: str) -> RequestView:
    """Take a decision of the certificate that speaks."""
    decision = bodies.parse_decision(await request.read_json())
    _check_id(request_id)
    return await services.pipeline.decisions.decide(
        request.principal,
        request_id,
        decision=Verb(decision.decision),
        digest=decision.digest,
        reason=decision.reason,
        channel="http",
        grant=bodies.terms_of(decision.grant),
        not_before=decision.not_before,
    )


async def approve(services: Services, request: AgentRequest) -> RequestView:
    """Take an approval by a code, or by the digest."""
    older = bodies.fit(bodies.OlderApproval, bodies.parse_object(await request.read_json()))
    _check_id(older.approval_id)
    return await services.pipeline.decisions.decide_by_token(
        request.principal, older.approval_id, older.token
    )


async def cancel(services: Services, request: AgentRequest, request_id: str) -> RequestView:
    """Withdraw one; a body, and so its type, is optional."""
    data = await request.read_body()
    reason = None
    if data:
        bodies.require_json(
            request.headers.get("Content-Type"), request.headers.get("Content-Encoding")
        )
        reason = bodies.fit(bodies.CancelBody, bodies.parse_object(data)).reason
    _check_id(request_id)
    return await services.pipeline.decisions.cancel(request.principal, request_id, reason=reason)


def _check_id(request_id: str) -> None:
    """Refuse what cannot be an id, or the beginning of one, before anybody looks it up."""
    if _REQUEST_ID.fullmatch(request_id) is None:
        raise request_not_found()


_PAGED: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": DEFAULT_LIMIT},
    "cursor": {"type": "string"},
}
_STATE: Mapping[str, Any] = {"type": "string", "enum": [state.value for state in State]}
_WAIT: Mapping[str, Any] = {
    "type": "integer",
    "minimum": 0,
    "maximum": MAX_WAIT_SECONDS,
    "default": 0,
}
_DECIDED = frozenset({404, 409, 410, 429})

ROUTES: tuple[Route[Any], ...] = (
    Route(
        method="GET",
        rule="/requests",
        handler=list_requests,
        answer=RequestPage,
        scope="caller: own; approver, admin: all",
        summary="Requests, newest first.",
        query={"state": _STATE, **_PAGED},
    ),
    Route(
        method="GET",
        rule="/requests/<request_id>",
        handler=show,
        answer=RequestView,
        scope="its caller, approver, admin; to others it does not exist",
        summary="One request; with `wait`, once it changes or the time is over.",
        also=frozenset({404, 429}),
        query={"wait": _WAIT},
    ),
    Route(
        method="GET",
        rule="/events",
        handler=events,
        answer=None,
        streams=(EventView, MissedEvents),
        scope="caller: own; approver: requests, operations and grants; admin: all",
        summary="What happens, as server-sent events; `Last-Event-ID` goes on after that one.",
        also=frozenset({429}),
        headers={"Last-Event-ID": {"type": "string", "pattern": f"^{_SEQUENCE.pattern}$"}},
    ),
    Route(
        method="POST",
        rule="/requests/<request_id>/decision",
        handler=decide,
        answer=RequestView,
        roles=(Role.APPROVER, Role.ADMIN),
        rate=Limits.decision,
        body=bodies.DecisionBody,
        summary="Approve or deny a request; answers at once and does not wait for the run.",
        also=_DECIDED,
    ),
    Route(
        method="POST",
        rule="/requests/<request_id>/cancel",
        handler=cancel,
        answer=RequestView,
        scope="its caller, admin",
        body=bodies.CancelBody,
        needs_body=False,
        summary="Withdraw a request that has not begun to run.",
        also=_DECIDED,
    ),
    Route(
        method="POST",
        rule="/approve",
        handler=approve,
        answer=RequestView,
        roles=(Role.APPROVER, Role.ADMIN),
        rate=Limits.decision,
        body=bodies.OlderApproval,
        summary="Approve with the code that was sent to this approver, or with the request's"
        " digest.",
        also=_DECIDED,
        is_older=True,
    ),
    Route(
        method="GET",
        rule="/pending",
        handler=pending,
        answer=RequestPage,
        summary="One's own pending requests.",
        query=_PAGED,
        is_older=True,
    ),
    Route(
        method="GET",
        rule="/admin/pending",
        handler=admin_pending,
        answer=RequestPage,
        roles=(Role.ADMIN,),
        summary="All pending requests.",
        query=_PAGED,
        is_older=True,
    ),
)
