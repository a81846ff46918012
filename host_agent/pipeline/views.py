"""Requests as people and programs may see them, and long polls for their changes."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from host_agent.api.wire.requests import DeliveryView, RequestPage, RequestView
from host_agent.errors import (
    RateLimitedError,
    invalid_in_query,
    request_not_found,
)
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.context import Context, preview_hash, welcome
from host_agent.pipeline.lifecycle import Lifecycle
from host_agent.requests.facts import NEVER, AskedBefore, RequestFacts, derive, request_view
from host_agent.requests.model import Request, State
from host_agent.requests.notification import Notification

LONG_POLLS_PER_IDENTITY = 16
RECHECK_SECONDS = 5.0
"""How often a waiting long poll asks whether its identity is still welcome."""
MAX_LISTED = 200
LOOK_BACK = timedelta(hours=24)
"""So far back an earlier ask for the same counts as asked before."""
_SEES_ALL = frozenset({Role.APPROVER, Role.ADMIN})


def facts_of(context: Context, request: Request, before: AskedBefore = NEVER) -> RequestFacts:
    spec = context.catalogue.find(request.operation)
    return derive(
        request,
        spec=spec,
        host=context.snapshot.config.host,
        runs_as=None if spec is None else context.runner.user_of(spec.run_as, request.unix_user),
        before=before,
        now=context.clock.now(),
    )


async def facts_with_history(context: Context, request: Request) -> RequestFacts:
    """Return the facts of a request, with how often the same was asked before.

    Raises:
        StoreUnavailableError: that cannot be read.
    """
    (facts,) = await all_facts_with_history(context, [request])
    return facts


async def all_facts_with_history(
    context: Context, requests: Sequence[Request]
) -> list[RequestFacts]:
    """Return the facts of requests, each with how often the same was asked before.

    Raises:
        StoreUnavailableError: that cannot be read.
    """
    since = context.clock.now() - LOOK_BACK
    found = await context.store.asked_before(requests, since)
    return [facts_of(context, *pair) for pair in zip(requests, found, strict=True)]


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


def delivery_view(row: Notification) -> DeliveryView:
    """Return how far a notification has come: to whom and over what, never where."""
    return DeliveryView(
        approver=row.owner,
        channel=row.channel,
        kind=row.kind.value,
        state=row.state.value,
        tries=row.tries,
        failure=None if row.failure is None else row.failure.value,
        at=row.delivered_at,
    )


class Views:
    """Answers GET. One instance lives as long as the agent."""

    def __init__(self, context: Context, lifecycle: Lifecycle) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._polls: Counter[str] = Counter()

    async def show(
        self, principal: Principal, request_id: str, *, wait_seconds: float = 0
    ) -> RequestView:
        """Return one request; with `wait_seconds`, once it changes or the time is over.

        A request that has ended is returned at once. Who waits is judged again every five seconds.

        Raises:
            RequestNotFoundError: none, or one that this principal may not see.
            IdentityError: not welcome any more while it waited.
            RateLimitedError: too many long polls of this identity.
        """
        request = await self._find(principal, request_id)
        if wait_seconds > 0 and request.finished_at is None:
            request = await self._wait(principal, request, wait_seconds)
            principal = self._as_now(principal, request)
        shown = view_for(principal, await self._facts(principal, request))
        rows = await self._context.store.notifications_of(request.id)
        return shown.model_copy(
            update={
                "preview_sha256": preview_hash(request),
                "deliveries": tuple(map(delivery_view, rows)),
            }
        )

    async def _facts(self, principal: Principal, request: Request) -> RequestFacts:
        """Return the facts of a request; what was said to others is not for a caller."""
        if may_see_all(principal):
            return await facts_with_history(self._context, request)
        return facts_of(self._context, request)

    async def _find(self, principal: Principal, request_id: str) -> Request:
        whose = None if may_see_all(principal) else principal.cn
        request = await self._context.store.find(request_id, caller=whose)
        if request.state is State.PENDING and request.is_expired(self._context.clock.now()):
            return await self._lifecycle.expire(request)
        return request

    async def _wait(self, principal: Principal, request: Request, wait_seconds: float) -> Request:
        if self._polls[principal.cn] >= LONG_POLLS_PER_IDENTITY:
            message = f"At most {LONG_POLLS_PER_IDENTITY} long polls of one identity at a time."
            raise RateLimitedError(message, retry_after_seconds=RECHECK_SECONDS)
        self._polls[principal.cn] += 1
        try:
            return await self._until_changed(principal, request, wait_seconds)
        finally:
            self._polls[principal.cn] -= 1
            if not self._polls[principal.cn]:
                del self._polls[principal.cn]

    async def _until_changed(
        self, principal: Principal, request: Request, wait_seconds: float
    ) -> Request:
        clock, store = self._context.clock, self._context.store
        end = clock.monotonic() + wait_seconds
        latest = request
        while latest.version == request.version and not self._context.is_draining:
            left = end - clock.monotonic()
            if left <= 0:
                break
            change = self._context.changes.watch(request.id)
            try:
                # The state may have moved between the look and the watch.
                latest = await store.get(request.id) or latest
                if latest.version == request.version:
                    await asyncio.wait((change,), timeout=min(left, RECHECK_SECONDS))
                    latest = await store.get(request.id) or latest
            finally:
                change.cancel()
            self._as_now(principal, request)
        return latest

    def _as_now(self, principal: Principal, request: Request) -> Principal:
        """Return who waited as the configuration has them now, if they may still see `request`."""
        now = welcome(self._context, principal.credential)
        if request.caller != now.cn and not may_see_all(now):
            raise request_not_found()
        return now

    async def list_requests(
        self,
        principal: Principal,
        *,
        state: str | None,
        limit: int,
        cursor: str | None,
        own: bool = False,
    ) -> RequestPage:
        """Return a page of requests, newest first, without their output.

        Raises:
            InvalidParameterError: an unknown state, a limit outside 1 to 200, a foreign cursor.
        """
        try:
            wanted = None if state is None else State(state)
        except ValueError:
            raise invalid_in_query("state", f"one of {', '.join(State)}.") from None
        if not 1 <= limit <= MAX_LISTED:
            raise invalid_in_query("limit", f"1 to {MAX_LISTED}.")
        await self._lifecycle.expire_due()
        caller = principal.cn if own or not may_see_all(principal) else None
        page, next_cursor = await self._context.store.list(
            state=wanted, caller=caller, limit=limit, cursor=cursor
        )
        if caller is None:
            facts = await all_facts_with_history(self._context, page)
        else:  # what was said to others is not for a caller
            facts = [facts_of(self._context, request) for request in page]
        return RequestPage(
            requests=tuple(request_view(one, with_output=False) for one in facts),
            next_cursor=next_cursor,
        )
