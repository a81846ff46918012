"""What happens to a stored request by itself: it runs once, expires, is withdrawn, or is recovered.

Steps 8 to 12 of the way of a request. Every change of state is one of `transitions`: whoever wins
it goes on, everybody else steps back.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

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
from host_agent.operations.catalogue import Operation
from host_agent.pipeline.approver_identity import still_counts
from host_agent.pipeline.authorize import bind, judge, require_adapter
from host_agent.pipeline.context import Context, welcome
from host_agent.pipeline.reconcile import catch_up
from host_agent.pipeline.run import Run, inspect, perform
from host_agent.pipeline.transitions import ENDS, Transitions
from host_agent.requests import model as machine
from host_agent.requests.model import Problem, Request, State

_log = logging.getLogger("host_agent.pipeline")

RETRY_SECONDS = 2.0
"""How soon an end that the store did not take is given to it again."""
IDLE_SECONDS = 30.0
"""The longest sleep of the expiry loop, so that a set clock is noticed."""


class Lifecycle:
    """Runs what was approved and ends what was not. One instance lives as long as the agent."""

    def __init__(self, context: Context, transitions: Transitions) -> None:
        self._context = context
        self._transitions = transitions
        self._unstored: list[tuple[Request, Request]] = []
        self._unstarted: list[Request] = []

    # -- run --------------------------------------------------------------------------------------

    def start(self, request: Request) -> "asyncio.Task[Request]":
        """Run an approved request in its own task, which ends with the request as it became."""
        return self._context.tasks.start(self._run(request), name=f"run {request.id}")

    async def _run(self, request: Request) -> Request:
        context = self._context
        left = (request.expires_at - context.clock.now()).total_seconds()
        try:
            operation = context.catalogue.parse(request.operation, request.params)
            async with context.slots.change(operation.turn, max(left, 0.001)):
                return await self._run_in_turn(request, operation)
        except HostAgentError as error:
            try:
                return await self._refuse(request, error)
            except StoreUnavailableError:
                # It is tried again with the next look at the queue, until it expires.
                _log.critical("request %s was not run and stays as stored", request.id)
                self._unstarted.append(request)
                self._transitions.queue.changed()
                raise

    async def _run_in_turn(self, request: Request, operation: Operation) -> Request:
        context = self._context
        run = await self._check_again(request, operation)
        running = machine.start(request, now=context.clock.now())
        if not await self._transitions.move(request, running):
            return await self._current(request)
        await self.perform_running(running, run, lambda: self._judge(running, operation))
        return await self._current(running)

    async def perform_running(
        self, running: Request, run: Run, require: Callable[[], object]
    ) -> Run:
        """Perform `run` for a request that is stored as running, and store how it ended.

        `require` is as of `perform`.

        Raises:
            AuditUnavailableError: nothing ran; the request is stored as failed.
        """
        try:
            ended = await perform(self._context, run, require)
        except AuditUnavailableError as error:
            await self._finish(running, replace(run, state=State.FAILED, error=error))
            raise
        await self._finish(running, ended)
        return ended

    async def _finish(self, running: Request, run: Run) -> None:
        problem = None
        if run.error is not None:
            problem = Problem(code=run.error.code, detail=run.error.detail)
        ended = machine.finish(
            running,
            state=run.state or State.UNKNOWN,
            outcome=run.outcome,
            problem=problem,
            now=self._context.clock.now(),
        )
        try:
            if not await self._transitions.move(running, ended):
                _log.error("request %s was ended by another process", running.id)
        except StoreUnavailableError:
            # The audit log has the end. The row stays `running`, and its like attach to it, until
            # the store takes it; after a restart it is `unknown`.
            _log.critical("the end of request %s could not be stored", running.id)
            self._unstored.append((running, ended))
            self._transitions.queue.changed()

    async def _store_ends(self) -> None:
        """Store the ends that the store did not take when they came."""
        while self._unstored:
            running, ended = self._unstored[0]
            await self._transitions.move(running, ended)
            self._unstored.remove((running, ended))

    async def _check_again(self, request: Request, operation: Operation) -> Run:
        """Ask everything again, as the world is now (step 9 of the way of a request)."""
        context = self._context
        asked = self._judge(request, operation)
        try:
            inspection = await inspect(context, asked)
        except (HostNotFoundError, PolicyDeniedError) as error:
            # It could be read when it was asked for: gone, or led elsewhere, is changed.
            raise TargetChangedError(error.detail) from error
        # That took its time: what was revoked, removed or denied meanwhile counts.
        precondition = None if inspection is None else inspection.precondition
        run = bind(context, self._judge(request, operation), precondition)
        if run.digest != request.digest:
            changed = _what_changed(request, precondition)
            message = f"{changed}; nothing was run. Ask again if it is still needed."
            raise TargetChangedError(message)
        return run

    def _judge(self, request: Request, operation: Operation) -> Run:
        """Return it as it may run by configuration, revocation and clock as they are now."""
        snapshot, now = self._context.snapshot, self._context.clock.now()
        if request.is_expired(now):
            raise ExpiredError(_EXPIRED)
        principal = welcome(self._context, request.credential)
        if principal.unix_user != request.unix_user:
            message = "The user that it runs as has changed; nothing was run. Ask again."
            raise TargetChangedError(message)
        verdict = judge(snapshot, principal, operation)
        require_adapter(snapshot, operation)
        if request.decisions:
            self._require_consents(request)
        return Run(
            request_id=request.id,
            principal=principal,
            operation=operation,
            snapshot=snapshot,
            verdict=verdict,
        )

    def _require_consents(self, request: Request) -> None:
        """Refuse if the approvers who still count are no longer enough."""
        if not still_counts(self._context, request.owner, request.consents, request.terms):
            message = "An approver no longer holds the role that the approval needs, or was revoked"
            raise RoleRequiredError(f"{message}; nothing was run.")

    async def _refuse(self, request: Request, error: HostAgentError) -> Request:
        """End an approved request that may not run, with the state that its cause has."""
        context, now = self._context, self._context.clock.now()
        problem = Problem(code=error.code, detail=error.detail)
        if isinstance(error, ExpiredError) or request.is_expired(now):
            return await self.expire(request)
        if isinstance(error, IdentityError | PolicyError):
            ended = machine.cancel(request, problem=problem, now=now)
        else:
            ended = machine.fail(request, problem=problem, now=now)
        if not await self._transitions.move(request, ended, ENDS[ended.state]):
            return await self._current(request)
        context.metrics.refused(error.code)
        return ended

    # -- expire, recover --------------------------------------------------------------------------

    async def expire(self, request: Request) -> Request:
        """Make the one transition to expired; whoever notices calls this. Returns the truth."""
        now = self._context.clock.now()
        problem = Problem(code=ExpiredError.code, detail=_EXPIRED)
        ended = machine.expire(request, problem=problem, now=now)
        if not await self._transitions.move(request, ended, Event.REQUEST_EXPIRED):
            return await self._current(request)
        return ended

    async def expire_due(self) -> None:
        """Expire everything that is due now."""
        for request in await self._context.store.due(self._context.clock.now()):
            await self.expire(request)

    async def expire_forever(self) -> None:
        """Expire requests as they fall due, until cancelled."""
        while True:
            self._transitions.queue.look()
            pause = IDLE_SECONDS
            try:
                await self._store_ends()
                await self.expire_due()
                await self._start_again()
                due = await self._context.store.next_expiry()
                if due is not None:
                    left = (due - self._context.clock.now()).total_seconds()
                    pause = min(max(left, 0.05), IDLE_SECONDS)
            except HostAgentError as error:
                _log.error("expiry could not be looked at: %s", error.detail)
                is_owing = bool(self._unstored or self._unstarted)
                pause = RETRY_SECONDS if is_owing else IDLE_SECONDS
            await self._transitions.queue.wait(pause)

    async def _start_again(self) -> None:
        """Run what was approved while the store could not be written, now that it can."""
        if not self._unstarted:
            return
        await self._context.store.ping()
        waiting, self._unstarted = self._unstarted, []
        for request in waiting:
            current = await self._current(request)
            if current.state is State.APPROVED:
                self.start(current)

    async def recover(self) -> None:
        """Bring the queue to rights after a start: what ran is unknown, what was approved runs.

        First of all, what the life before had no time to write down is written down.
        """
        context = self._context
        await catch_up(context)
        for request in await context.store.live():
            if request.state is State.RUNNING:
                await self._unknown(request)
            elif request.is_expired(context.clock.now()):
                await self.expire(request)
            elif request.state is State.APPROVED:
                self.start(request)

    async def _unknown(self, request: Request) -> None:
        problem, now = Problem(code=InternalError.code, detail=_UNKNOWN), self._context.clock.now()
        ended = machine.finish(request, state=State.UNKNOWN, outcome=None, problem=problem, now=now)
        if await self._transitions.move(request, ended, Event.REQUEST_UNKNOWN):
            _log.error("the outcome of request %s is unknown; it is not run again", request.id)

    async def cancel_callers_gone(self) -> None:
        """Cancel what is pending for callers who are not welcome any more."""
        context = self._context
        for request in await context.store.live():
            if request.state is not State.PENDING:
                continue
            now = context.clock.now()
            try:
                welcome(context, request.credential)
            except IdentityError as error:
                if error.status >= 500:
                    return
                problem = Problem(code=error.code, detail=error.detail)
                ended = machine.cancel(request, problem=problem, now=now)
                await self._transitions.move(request, ended, Event.REQUEST_CANCELLED)

    async def _current(self, request: Request) -> Request:
        return await self._context.store.get(request.id) or request


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
