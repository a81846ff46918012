"""What happens to a stored request by itself: it runs once, expires, is withdrawn, or is recovered.

Steps 8 to 12 of the way of a request. Every change of state goes through the store's
compare-and-set: whoever wins it goes on, everybody else steps back.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    AuditUnavailableError,
    ExpiredError,
    HostAgentError,
    HostNotFoundError,
    IdentityError,
    InternalError,
    PolicyDeniedError,
    PolicyError,
    RoleRequiredError,
    StoreUnavailableError,
    TargetChangedError,
)
from host_agent.identity.registry import Principal
from host_agent.operations.catalogue import Operation
from host_agent.pipeline.authorize import digest_of, judge, require_adapter
from host_agent.pipeline.context import Rooms, Snapshot, identify_request, welcome
from host_agent.pipeline.grants import still_counts
from host_agent.pipeline.reconcile import catch_up
from host_agent.pipeline.run import Act, Performance, inspect, perform
from host_agent.policy.rules import Allow, Ask
from host_agent.requests import model as machine
from host_agent.requests.model import Problem, Request, State

_log = logging.getLogger("host_agent.pipeline")

RETRY_SECONDS = 2.0
"""How soon an end that the store did not take is given to it again."""
IDLE_SECONDS = 30.0
"""The longest sleep of the expiry loop, so that a set clock is noticed."""


class Approved:
    """Runs what was approved and ends what was not. One instance lives as long as the agent."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._pending_changed = asyncio.Event()
        self._looks_at: datetime | None = None
        self._unstored: list[Request] = []
        self._unstarted: list[Request] = []

    # -- run --------------------------------------------------------------------------------------

    def start(self, request: Request) -> "asyncio.Task[Request]":
        """Run an approved request in its own task, which ends with the request as it became."""
        return self._rooms.tasks.start(self._run(request), name=f"run {request.id}")

    async def _run(self, request: Request) -> Request:
        rooms = self._rooms
        left = (request.expires_at - rooms.clock.now()).total_seconds()
        try:
            operation = rooms.catalogue.parse(request.operation, request.params)
            async with rooms.turns.change(operation.turn, max(left, 0.001)):
                return await self._run_in_turn(request, operation)
        except HostAgentError as error:
            try:
                return await self._refuse(request, error)
            except StoreUnavailableError:
                # It is tried again with the next look at the queue, until it expires.
                _log.critical("request %s was not run and stays as stored", request.id)
                self._unstarted.append(request)
                self.pending_changed()
                raise

    async def _run_in_turn(self, request: Request, operation: Operation) -> Request:
        rooms = self._rooms
        await self._check_again(request, operation)
        running = machine.start(request, now=rooms.clock.now())
        if not await rooms.store.transition(running, expected_version=request.version):
            return await self._current(request)
        act = Act(
            request_id=running.id,
            caller=running.caller,
            fingerprint=running.fingerprint,
            owner=running.owner,
            unix_user=running.unix_user,
            operation=operation,
            digest=running.digest,
            require=lambda: self._require_allowed(running, operation),
            precondition=running.precondition,
        )
        rooms.changes.tell(running.id)
        await self.perform_running(running, act)
        return await self._current(running)

    async def perform_running(self, running: Request, act: Act) -> Performance:
        """Perform `act` for a request that is stored as running, and store how it ended.

        Raises:
            HostAgentError: nothing ran; the request is stored as failed.
        """
        try:
            performance = await perform(self._rooms, act)
        except HostAgentError as error:
            problem = Problem(code=error.code, detail=error.detail)
            await self._finish(running, State.FAILED, None, problem)
            raise
        problem_or_none = None
        if performance.error is not None:
            problem_or_none = Problem(code=performance.error.code, detail=performance.error.detail)
        await self._finish(running, performance.state, performance.outcome, problem_or_none)
        return performance

    async def _finish(
        self,
        running: Request,
        state: State,
        outcome: Mapping[str, JsonValue] | None,
        problem: Problem | None,
    ) -> None:
        rooms = self._rooms
        ended = machine.finish(
            running, state=state, outcome=outcome, problem=problem, now=rooms.clock.now()
        )
        try:
            if not await rooms.store.transition(ended, expected_version=running.version):
                _log.error("request %s was ended by another process", running.id)
        except StoreUnavailableError:
            # The audit log has the end. The row stays `running`, and its like attach to it, until
            # the store takes it; after a restart it is `unknown`.
            _log.critical("the end of request %s could not be stored", running.id)
            self._unstored.append(ended)
            self.pending_changed()
        rooms.changes.tell(running.id)
        rooms.wake_outbox()

    async def _store_ends(self) -> None:
        """Store the ends that the store did not take when they came."""
        while self._unstored:
            ended = self._unstored[0]
            await self._rooms.store.transition(ended, expected_version=ended.version - 1)
            self._unstored.remove(ended)
            self._rooms.changes.tell(ended.id)
            self._rooms.wake_outbox()

    async def _check_again(self, request: Request, operation: Operation) -> None:
        """Ask everything again, as the world is now (step 9 of the way of a request)."""
        rooms = self._rooms
        _, principal, _ = self._require_allowed(request, operation)
        try:
            inspection = await inspect(rooms, operation, principal, request.id)
        except (HostNotFoundError, PolicyDeniedError) as error:
            # It could be read when it was asked for: gone, or led elsewhere, is changed.
            raise TargetChangedError(error.detail) from error
        # That took its time: what was revoked, removed or denied meanwhile counts.
        snapshot, principal, verdict = self._require_allowed(request, operation)
        precondition = None if inspection is None else inspection.precondition
        digest = digest_of(rooms, snapshot, principal, operation, verdict, precondition)
        if digest != request.digest:
            changed = _what_changed(request, precondition)
            message = f"{changed}; nothing was run. Ask again if it is still needed."
            raise TargetChangedError(message)

    def _require_allowed(
        self, request: Request, operation: Operation
    ) -> tuple[Snapshot, Principal, Allow | Ask]:
        """Return who asked and the verdict, as configuration, revocation and clock are now."""
        snapshot, now = self._rooms.snapshot, self._rooms.clock.now()
        if request.is_expired(now):
            raise ExpiredError(_EXPIRED)
        principal = welcome(self._rooms, request.credential)
        if principal.unix_user != request.unix_user:
            message = "The user that it runs as has changed; nothing was run. Ask again."
            raise TargetChangedError(message)
        verdict = judge(snapshot, principal, operation)
        require_adapter(snapshot, operation)
        if request.decisions:
            self._require_consents(request)
        return snapshot, principal, verdict

    def _require_consents(self, request: Request) -> None:
        """Refuse if the approvers who still count are no longer enough."""
        if not still_counts(self._rooms, request.owner, request.consents, request.terms):
            message = "An approver no longer holds the role that the approval needs, or was revoked"
            raise RoleRequiredError(f"{message}; nothing was run.")

    async def _refuse(self, request: Request, error: HostAgentError) -> Request:
        """End an approved request that may not run, with the state that its cause has."""
        rooms, now = self._rooms, self._rooms.clock.now()
        problem = Problem(code=error.code, detail=error.detail)
        if isinstance(error, ExpiredError) or request.is_expired(now):
            return await self.expire(request)
        if isinstance(error, IdentityError | PolicyError):
            ended = machine.cancel(request, problem=problem, now=now)
            event = Event.REQUEST_CANCELLED
        else:
            ended = machine.fail(request, problem=problem, now=now)
            event = Event.REQUEST_FAILED
        if not await rooms.store.transition(ended, expected_version=request.version):
            return await self._current(request)
        rooms.metrics.refused(error.code)
        await self._record(event, ended, code=error.code)
        return ended

    # -- withdraw, expire, recover ----------------------------------------------------------------

    async def withdraw(self, request: Request, error: HostAgentError) -> None:
        """Cancel a request that was stored and could not be written down."""
        problem = Problem(code=error.code, detail=error.detail)
        ended = machine.cancel(request, problem=problem, now=self._rooms.clock.now())
        try:
            await self._rooms.store.transition(ended, expected_version=request.version)
        except StoreUnavailableError:
            _log.critical("request %s could not be withdrawn", request.id)
        self._rooms.changes.tell(request.id)
        self._rooms.wake_outbox()

    async def announce_superseded(self, requests: Sequence[Request]) -> None:
        """Write down what the store ended for a newer request of the same ask."""
        for request in requests:
            code = None if request.problem is None else request.problem.code
            expired = request.state is State.EXPIRED
            event = Event.REQUEST_EXPIRED if expired else Event.REQUEST_CANCELLED
            await self._record(event, request, code=code)

    async def expire(self, request: Request) -> Request:
        """Make the one transition to expired; whoever notices calls this. Returns the truth."""
        now = self._rooms.clock.now()
        problem = Problem(code=ExpiredError.code, detail=_EXPIRED)
        ended = machine.expire(request, problem=problem, now=now)
        if not await self._rooms.store.transition(ended, expected_version=request.version):
            return await self._current(request)
        await self._record(Event.REQUEST_EXPIRED, ended, code=ExpiredError.code)
        return ended

    async def expire_due(self) -> None:
        """Expire everything that is due now."""
        for request in await self._rooms.store.due(self._rooms.clock.now()):
            await self.expire(request)

    async def expire_forever(self) -> None:
        """Expire requests as they fall due, until cancelled."""
        while True:
            self._pending_changed.clear()
            self._looks_at = None
            pause = IDLE_SECONDS
            try:
                await self._store_ends()
                await self.expire_due()
                await self._start_again()
                due = await self._rooms.store.next_expiry()
                if due is not None:
                    left = (due - self._rooms.clock.now()).total_seconds()
                    pause = min(max(left, 0.05), IDLE_SECONDS)
            except HostAgentError as error:
                _log.error("expiry could not be looked at: %s", error.detail)
                is_owing = bool(self._unstored or self._unstarted)
                pause = RETRY_SECONDS if is_owing else IDLE_SECONDS
            self._looks_at = self._rooms.clock.now() + timedelta(seconds=pause)
            try:
                await asyncio.wait_for(self._pending_changed.wait(), pause)
            except TimeoutError:
                continue

    async def _start_again(self) -> None:
        """Run what was approved while the store could not be written, now that it can."""
        if not self._unstarted:
            return
        await self._rooms.store.ping()
        waiting, self._unstarted = self._unstarted, []
        for request in waiting:
            current = await self._current(request)
            if current.state is State.APPROVED:
                self.start(current)

    def pending_changed(self, expires_at: datetime | None = None) -> None:
        """Say that the queue has changed: at all, or only by a request that expires then.

        For the latter nobody is woken who will look before it falls due anyway.
        """
        if expires_at is None or self._looks_at is None or expires_at < self._looks_at:
            self._pending_changed.set()

    async def recover(self) -> None:
        """Bring the queue to rights after a start: what ran is unknown, what was approved runs.

        First of all, what the life before had no time to write down is written down.
        """
        rooms = self._rooms
        await catch_up(rooms)
        for request in await rooms.store.live():
            if request.state is State.RUNNING:
                await self._unknown(request)
            elif request.is_expired(rooms.clock.now()):
                await self.expire(request)
            elif request.state is State.APPROVED:
                self.start(request)

    async def _unknown(self, request: Request) -> None:
        problem = Problem(code=InternalError.code, detail=_UNKNOWN)
        ended = machine.finish(
            request,
            state=State.UNKNOWN,
            outcome=None,
            problem=problem,
            now=self._rooms.clock.now(),
        )
        if await self._rooms.store.transition(ended, expected_version=request.version):
            _log.error("the outcome of request %s is unknown; it is not run again", request.id)
            await self._record(Event.REQUEST_UNKNOWN, ended, code=InternalError.code)

    async def cancel_callers_gone(self) -> None:
        """Cancel what is pending for callers who are not welcome any more."""
        rooms = self._rooms
        for request in await rooms.store.live():
            if request.state is not State.PENDING:
                continue
            now = rooms.clock.now()
            try:
                welcome(rooms, request.credential)
            except IdentityError as error:
                if error.status >= 500:
                    return
                problem = Problem(code=error.code, detail=error.detail)
                ended = machine.cancel(request, problem=problem, now=now)
                if await rooms.store.transition(ended, expected_version=request.version):
                    await self._record(Event.REQUEST_CANCELLED, ended, code=error.code)

    # -- common -----------------------------------------------------------------------------------

    async def _record(self, event: Event, request: Request, *, code: str | None) -> None:
        self._rooms.changes.tell(request.id)
        self._rooms.wake_outbox()
        self.pending_changed()
        try:
            await self._rooms.audit.append(event, **identify_request(request), code=code)
        except AuditUnavailableError:
            _log.critical("%s of request %s is not in the audit log", event, request.id)

    async def _current(self, request: Request) -> Request:
        return await self._rooms.store.get(request.id) or request


_EXPIRED = "It was not decided and run in time; nothing was run. Ask again if it is still needed."
_UNKNOWN = (
    "The agent was stopped while this ran: it may or may not have happened. Look at the resource; "
    "it is not run again by itself."
)


def _what_changed(request: Request, precondition: Mapping[str, JsonValue] | None) -> str:
    before, after = request.precondition or {}, precondition or {}
    names = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if not names:
        return "The policy, the wrapper or the host has changed since it was asked for"
    return f"Changed since it was asked for: {', '.join(names)}"
