"""One way for every step of a stored request: compare-and-set, wake, record.

The store says who won, so a step is stored first; who loses steps back, and nothing has happened.
Then whoever waits is woken: long polls, the outbox, the expiry. Then it is recorded. What is stored
stands whether or not the log takes it, with two exceptions: a request that is to be put before
people, and somebody's yes, are taken back where they cannot be recorded.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import assert_never
from weakref import WeakValueDictionary

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.clock import Clock, rfc3339
from host_agent.errors import AuditUnavailableError, HostAgentError, StoreUnavailableError
from host_agent.pipeline.context import Context, identify_request, preview_hash, record
from host_agent.requests import model as machine
from host_agent.requests.grant import Grant
from host_agent.requests.model import Decision, Problem, Request, State, Verb

_log = logging.getLogger("host_agent.pipeline")

QUEUED = frozenset({State.PENDING, State.APPROVED})
"""States that expire."""
ENDS: Mapping[State, Event] = {
    State.EXPIRED: Event.REQUEST_EXPIRED,
    State.CANCELLED: Event.REQUEST_CANCELLED,
    State.FAILED: Event.REQUEST_FAILED,
    State.UNKNOWN: Event.REQUEST_UNKNOWN,
}
"""Ends with a record of their own: the others end with a decision or an operation's record."""


class Transitions:
    """Takes the steps of stored requests. One instance lives as long as the agent."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deciding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.queue = QueueWatch(context.clock)

    async def move(
        self,
        before: Request,
        after: Request,
        event: Event | None = None,
        *,
        grant: Grant | None = None,
        **fields: JsonValue,
    ) -> bool:
        """Store `after` if nobody has moved `before` meanwhile; False if somebody has.

        `event` records it, with `fields`; None where the records of the run do. A decision has its
        own record; `grant` is stored with it. A step goes on to its end if the caller is cancelled.

        Raises:
            AuditUnavailableError: a yes could not be recorded, and the request has ended by that.
            StoreUnavailableError: nothing happened.
        """
        step = self._step(before, after, event, grant, fields)
        name = f"{after.state.value} {after.id}"
        return await self._context.tasks.shielded(step, name=name)

    async def _step(
        self,
        before: Request,
        after: Request,
        event: Event | None,
        grant: Grant | None,
        fields: Mapping[str, JsonValue],
    ) -> bool:
        version = before.version
        if not await self._context.store.transition(after, expected_version=version, grant=grant):
            return False
        self._wake(after, is_queue=before.state in QUEUED and after.state is not State.RUNNING)
        if len(after.decisions) > len(before.decisions):
            await self._record_decision(after, after.decisions[-1], grant)
        elif event is not None:
            await self._record(event, after, fields)
        return True

    async def supersede(self, requests: Iterable[Request]) -> None:
        """Wake and record for what the store ended as it took a newer ask for the same."""
        for request in requests:
            self._wake(request, is_queue=True)
            await self._record(ENDS[request.state], request, {})

    async def hold(self, request: Request) -> None:
        """Record a new request that waits for a person; only then are people told.

        Raises:
            AuditUnavailableError: it could not be recorded, and is cancelled.
        """
        await self._must_record(Event.REQUEST_HELD, request, held_fields(request))
        self._context.wake_outbox()
        self.queue.changed(request.expires_at)

    def _wake(self, request: Request, *, is_queue: bool) -> None:
        self._context.changes.tell(request.id)
        if request.state is not State.RUNNING:
            self._context.wake_outbox()
        if is_queue:
            self.queue.changed()

    async def _record(
        self, event: Event, request: Request, fields: Mapping[str, JsonValue]
    ) -> None:
        named = {**identify_request(request), **problem_fields(request), **fields}
        await record(self._context, event, f"{event} of request {request.id}", **named)

    async def _record_decision(
        self, decided: Request, decision: Decision, grant: Grant | None
    ) -> None:
        seconds = (decision.at - decided.created_at).total_seconds()
        self._context.metrics.decided(decision.decision.value, decision.channel, seconds)
        fields = decision_fields(decision, decided.state, None if grant is None else grant.id)
        # In the order in which they were stored: nothing runs by a yes while one before it is not
        # recorded, and may yet be taken back.
        async with self._deciding.setdefault(decided.id, asyncio.Lock()):
            match decision.decision:
                case Verb.APPROVE:
                    await self._must_record(Event.REQUEST_DECIDED, decided, fields)
                case Verb.DENY:
                    named = {**identify_request(decided), **fields}
                    what = f"the denial of request {decided.id}"
                    await record(self._context, Event.REQUEST_DECIDED, what, **named)
                case _:
                    assert_never(decision.decision)

    async def _must_record(
        self, event: Event, request: Request, fields: Mapping[str, JsonValue]
    ) -> None:
        try:
            await self._context.audit.append(event, **identify_request(request), **fields)
        except AuditUnavailableError as error:
            await self._take_back(request, error)
            raise

    async def _take_back(self, request: Request, error: HostAgentError) -> None:
        """End a request whose record could not be written, also where it has moved since."""
        problem = Problem(code=error.code, detail=error.detail)
        latest: Request | None = request
        try:
            while latest is not None and latest.state in QUEUED:
                end = machine.fail if latest.state is State.APPROVED else machine.cancel
                ended = end(latest, problem=problem, now=self._context.clock.now())
                if await self.move(latest, ended):
                    return
                latest = await self._context.store.get(request.id)
        except StoreUnavailableError:
            _log.critical("request %s could not be withdrawn", request.id)


class QueueWatch:
    """Wakes the expiry when the queue changes in a way that it has to know of."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self._looks_at: datetime | None = None

    def changed(self, expires_at: datetime | None = None) -> None:
        """Say that the queue has changed: at all, or only by a request that expires then.

        For the latter nobody is woken who will look before it falls due anyway.
        """
        if expires_at is None or self._looks_at is None or expires_at < self._looks_at:
            self._changed.set()

    def look(self) -> None:
        """Begin a look at the queue: what changes from now on is not in it."""
        self._changed.clear()
        self._looks_at = None

    async def wait(self, seconds: float) -> None:
        """Return when the queue has changed since the last look, or the time is over."""
        self._looks_at = self._clock.now() + timedelta(seconds=seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


# -- what the records of a step hold, beside the request -------------------------------------------


def held_fields(request: Request) -> dict[str, JsonValue]:
    """Return what is recorded of a request that waits for a person."""
    return {
        "reason": request.reason,
        "rule": request.rule,
        "expires_at": rfc3339(request.expires_at),
        "preview_sha256": preview_hash(request),
    }


def decision_fields(decision: Decision, state: State, grant: str | None) -> dict[str, JsonValue]:
    """Return what is recorded of a decision that led to `state`; `grant` was given with it."""
    return {
        "approver": decision.approver,
        "approver_owner": decision.owner,
        "decision": decision.decision.value,
        "channel": decision.channel,
        "through": decision.through,
        "vouchers": sorted(decision.vouchers) or None,
        "state": state.value,
        "reason": decision.reason,
        "grant": grant,
        "not_before": None if decision.not_before is None else rfc3339(decision.not_before),
    }


def problem_fields(request: Request) -> dict[str, JsonValue]:
    """Return what is recorded of an end: the code of its problem, where there is one."""
    return {"code": None if request.problem is None else request.problem.code}
