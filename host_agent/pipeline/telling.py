"""What people are told about stored requests, with what the rooms know: host, user, history."""

from collections.abc import Sequence
from datetime import timedelta

from host_agent.api.wire import RequestView
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.context import Rooms
from host_agent.requests.facts import NEVER, AskedBefore, RequestFacts, derive, request_view
from host_agent.requests.model import Request

LOOK_BACK = timedelta(hours=24)
"""So far back an earlier ask for the same counts as asked before."""
_SEES_ALL = frozenset({Role.APPROVER, Role.ADMIN})


def facts_of(rooms: Rooms, request: Request, before: AskedBefore = NEVER) -> RequestFacts:
    """Return the facts of a request."""
    spec = rooms.catalogue.find(request.operation)
    return derive(
        request,
        spec=spec,
        host=rooms.snapshot.config.host,
        runs_as=None if spec is None else rooms.runner.user_of(spec.run_as, request.unix_user),
        before=before,
    )


async def facts_with_history(rooms: Rooms, request: Request) -> RequestFacts:
    """Return the facts of a request, with how often the same was asked before.

    Raises:
        StoreUnavailableError: that cannot be read.
    """
    (facts,) = await all_facts_with_history(rooms, [request])
    return facts


async def all_facts_with_history(rooms: Rooms, requests: Sequence[Request]) -> list[RequestFacts]:
    """Return the facts of requests, each with how often the same was asked before.

    Raises:
        StoreUnavailableError: that cannot be read.
    """
    since = rooms.clock.now() - LOOK_BACK
    found = await rooms.store.asked_before(requests, since)
    return [facts_of(rooms, *pair) for pair in zip(requests, found, strict=True)]


def may_see_all(principal: Principal) -> bool:
    """Return whether `principal` sees every request: approvers and admins do."""
    return not _SEES_ALL.isdisjoint(principal.roles)


def view_for(principal: Principal, facts: RequestFacts) -> RequestView:
    """Return a request as `principal` may see it.

    Output is for the caller, admins and those who decided; others see exit code and `verified`.
    """
    request = facts.request
    decided = any(decision.approver == principal.cn for decision in request.decisions)
    with_output = request.caller == principal.cn or decided or Role.ADMIN in principal.roles
    return request_view(facts, with_output=with_output)
