"""An operation is asked for: judged, inspected, then run, held, attached or refused.

Steps 3 to 6 of the way of a request, in the order of checks of contract section 4.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from host_agent.approvals.port import IdempotencyKey, Inserted
from host_agent.approvals.request import LIVE, Digest, Request, RequestId, State, Terms
from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.clock import rfc3339
from host_agent.errors import (
    BY_CODE,
    AuditUnavailableError,
    HostAgentError,
    IdempotencyConflictError,
    RateLimitedError,
    ReasonRequiredError,
    StoreUnavailableError,
    UnreachableError,
)
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Effect, Inspection, Operation
from host_agent.pipeline.approved import Approved
from host_agent.pipeline.judging import as_now, digest_of, judge, require_adapter
from host_agent.pipeline.performing import Act, Performance, inspect, perform
from host_agent.pipeline.rooms import Rooms, Snapshot, identify_request
from host_agent.policy.rules import Allow
from host_agent.policy.rules import Ask as AskVerdict

_log = logging.getLogger("host_agent.pipeline")

POLL_AFTER_SECONDS = 5
HOLD_OFF_WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One ask as it came in: names and values, shape checked, meaning not yet.

    `exchange_id` becomes the request's id. `body_sha256` is over the body's bytes, for
    `idempotency_key`.
    """

    operation: str
    params: Mapping[str, JsonValue]
    exchange_id: str
    body_sha256: str
    reason: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the caller gets: an HTTP status and the whole JSON body."""

    status: int
    body: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    snapshot: Snapshot
    principal: Principal
    operation: Operation
    verdict: Allow | AskVerdict
    ask: Ask

    @property
    def body_sha256(self) -> str:
        """Return what a key is bound to: the body, and the operation that it was read as.

        The older routes read the same bytes as different operations.
        """
        asked = f"{self.operation.name} {self.ask.body_sha256}"
        return hashlib.sha256(asked.encode()).hexdigest()


class Asking:
    """Takes asks. One instance lives as long as the agent."""

    def __init__(self, rooms: Rooms, approved: Approved) -> None:
        self._rooms = rooms
        self._approved = approved
        self._in_flight: dict[tuple[str, str], asyncio.Task[Answer]] = {}

    async def submit(self, principal: Principal, ask: Ask) -> Answer:
        """Run, hold or refuse one ask.

        Raises:
            HostAgentError: any refusal or failure; its `about` names the operation for the audit.
        """
        about: dict[str, JsonValue] = {"request_id": ask.exchange_id, "reason": ask.reason}
        try:
            operation = self._rooms.catalogue.parse(ask.operation, ask.params)
            about |= {
                "operation": operation.name,
                "resource": operation.resource,
                "params": operation.params.canonical(),
            }
            judged = self._judge(principal, operation, ask)
            if ask.idempotency_key is None:
                return await self._answer(judged)
            slot = (judged.principal.cn, ask.idempotency_key)
            while (first := self._in_flight.get(slot)) is not None:
                await asyncio.wait((first,))
                judged = self._judge(principal, operation, ask)
            return await self._answer_once(judged, ask.idempotency_key)
        except HostAgentError as error:
            error.about = {**about, **error.about}
            raise

    def _judge(self, principal: Principal, operation: Operation, ask: Ask) -> _Judged:
        principal = as_now(self._rooms, principal, Role.CALLER)
        snapshot = self._rooms.snapshot
        verdict = judge(snapshot, principal, operation)
        if verdict.require_reason and not ask.reason:
            message = "This needs a reason; give one that the approver can judge by."
            raise ReasonRequiredError(message)
        return _Judged(
            snapshot=snapshot, principal=principal, operation=operation, verdict=verdict, ask=ask
        )

    # -- idempotency ------------------------------------------------------------------------------

    async def _answer_once(self, judged: _Judged, key: str) -> Answer:
        """Answer for a key while nobody else does; who comes meanwhile waits for it."""
        slot = (judged.principal.cn, key)
        work = self._recall_or_answer(judged, key)
        answering = self._rooms.tasks.start(work, name=f"ask {judged.ask.exchange_id}")
        self._in_flight[slot] = answering
        answering.add_done_callback(lambda _: self._in_flight.pop(slot, None))
        return await asyncio.shield(answering)

    async def _recall_or_answer(self, judged: _Judged, key: str) -> Answer:
        rooms, ask, caller = self._rooms, judged.ask, judged.principal.cn
        stored = await rooms.store.recall(caller, key, rooms.clock.now())
        if stored is not None:
            if stored.body_sha256 != judged.body_sha256:
                message = "This Idempotency-Key was used for another body; take a new key."
                raise IdempotencyConflictError(message)
            if stored.body is not None:
                return Answer(status=stored.status, body=stored.body)
            if stored.request_id is not None:
                request = await rooms.store.get(stored.request_id)
                if request is not None and not request.was_refused:
                    return answer_of(request)
        answer = await self._answer(judged, idempotency_key=key)
        try:
            await rooms.store.remember(
                caller,
                key,
                body_sha256=judged.body_sha256,
                status=answer.status,
                body=answer.body,
                request_id=str(answer.body["request_id"]),
                now=rooms.clock.now(),
            )
        except StoreUnavailableError:
            # It has happened, and that is what has to be told.
            _log.error("the answer to %s could not be kept for its key", ask.exchange_id)
        return answer

    # -- run, hold, attach ------------------------------------------------------------------------

    async def _answer(self, judged: _Judged, idempotency_key: str | None = None) -> Answer:
        require_adapter(judged.snapshot, judged.operation)
        if isinstance(judged.verdict, AskVerdict):
            return await self._hold(judged, judged.verdict, idempotency_key)
        if judged.operation.effect is Effect.READ:
            return await self._read(judged)
        return await self._rooms.tasks.shielded(
            self._change(judged, idempotency_key), name=f"change {judged.ask.exchange_id}"
        )

    def _digest(self, judged: _Judged, inspection: Inspection | None) -> Digest:
        return digest_of(
            self._rooms,
            judged.snapshot,
            judged.principal,
            judged.operation,
            judged.verdict,
            None if inspection is None else inspection.precondition,
        )

    async def _read(self, judged: _Judged) -> Answer:
        act = Act.of(
            judged.principal,
            judged.operation,
            request_id=judged.ask.exchange_id,
            digest=self._digest(judged, None),
        )
        return await self._rooms.tasks.shielded(self._run_read(act), name=f"read {act.request_id}")

    async def _run_read(self, act: Act) -> Answer:
        async with self._rooms.turns.read(self._rooms.snapshot.config.execution.timeout_seconds):
            return _ran(act, await perform(self._rooms, act))

    async def _inspect(self, judged: _Judged) -> Inspection | None:
        async with self._rooms.turns.read(judged.snapshot.config.execution.timeout_seconds):
            return await inspect(self._rooms, judged.operation, judged.principal.unix_user)

    async def _change(self, judged: _Judged, idempotency_key: str | None) -> Answer:
        """Run an allowed change: with a durable row, so that a crash leaves `unknown`."""
        rooms, operation = self._rooms, judged.operation
        unix_user = judged.principal.unix_user
        inspection = await self._inspect(judged)
        live = await rooms.store.live_by_digest(
            judged.principal.cn, self._digest(judged, inspection)
        )
        if live is not None:
            return await self._attached(live, judged.ask)
        timeout = judged.snapshot.config.execution.timeout_seconds
        async with rooms.turns.change(operation.turn, timeout):
            # The turn may have come after another change: look again, and bind what is now.
            inspection = await inspect(rooms, operation, unix_user)
            request = self._request(judged, inspection, State.RUNNING, Terms(), ttl_seconds=None)
            inserted = await self._insert(request, judged, idempotency_key)
            await self._approved.announce_superseded(inserted.superseded)
            if not inserted.created:
                return await self._attached(inserted.request, judged.ask)
            act = Act.of(
                judged.principal,
                operation,
                request_id=request.id,
                digest=request.digest,
                precondition=request.precondition,
            )
            performance = await self._approved.perform_running(inserted.request, act)
        return _ran(act, performance)

    async def _hold(
        self, judged: _Judged, verdict: AskVerdict, idempotency_key: str | None
    ) -> Answer:
        refusals = await self._refusals(judged)
        self._require_reachable(judged, verdict.terms)
        inspection = await self._inspect(judged)
        if refusals >= judged.snapshot.config.limits.held_off_after:
            return await self._attach_or_hold_off(judged, inspection, refusals)
        request = self._request(
            judged, inspection, State.PENDING, verdict.terms, ttl_seconds=verdict.ttl_seconds
        )
        # From here on a client that goes away changes nothing: it is stored and written down.
        return await self._rooms.tasks.shielded(
            self._store_held(request, judged, idempotency_key), name=f"hold {request.id}"
        )

    async def _store_held(
        self, request: Request, judged: _Judged, idempotency_key: str | None
    ) -> Answer:
        rooms = self._rooms
        inserted = await self._insert(request, judged, idempotency_key)
        await self._approved.announce_superseded(inserted.superseded)
        if not inserted.created:
            return await self._attached(inserted.request, judged.ask)
        try:
            await rooms.audit.append(
                Event.REQUEST_HELD,
                **identify_request(request),
                reason=request.reason,
                rule=request.rule,
                expires_at=rfc3339(request.expires_at),
            )
        except AuditUnavailableError as error:
            await self._approved.withdraw(request, error)
            raise
        self._approved.pending_changed(request.expires_at)
        return held(request)

    async def _insert(
        self, request: Request, judged: _Judged, idempotency_key: str | None
    ) -> Inserted:
        limits = judged.snapshot.config.approvals
        idempotency = None
        if idempotency_key is not None:
            idempotency = IdempotencyKey(
                key=idempotency_key,
                body_sha256=judged.body_sha256,
                request_id=request.id,
                now=request.created_at,
            )
        return await self._rooms.store.insert(
            request,
            max_pending=limits.max_pending,
            max_pending_per_caller=limits.max_pending_per_caller,
            idempotency=idempotency,
        )

    async def _attached(self, request: Request, ask: Ask) -> Answer:
        await self._rooms.audit.append(
            Event.REQUEST_ATTACHED,
            **identify_request(request),
            reason=ask.reason,
            exchange_id=ask.exchange_id,
        )
        return held(request)

    def _request(
        self,
        judged: _Judged,
        inspection: Inspection | None,
        state: State,
        terms: Terms,
        *,
        ttl_seconds: int | None,
    ) -> Request:
        principal, operation = judged.principal, judged.operation
        now = self._rooms.clock.now()
        ttl = ttl_seconds or judged.snapshot.config.approvals.ttl_seconds
        return Request(
            id=RequestId(judged.ask.exchange_id),
            state=state,
            caller=principal.cn,
            fingerprint=principal.fingerprint,
            serial=f"{principal.serial:x}",
            owner=principal.owner,
            unix_user=principal.unix_user,
            operation=operation.name,
            params=operation.params.canonical(),
            resource=operation.resource,
            digest=self._digest(judged, inspection),
            rule=judged.verdict.rule.name,
            reason=judged.ask.reason,
            terms=terms,
            precondition=None if inspection is None else inspection.precondition,
            preview=None if inspection is None else inspection.preview.as_json(),
            created_at=now,
            expires_at=now + timedelta(seconds=ttl),
        )

    # -- refusals of an ask -----------------------------------------------------------------------

    async def _refusals(self, judged: _Judged) -> int:
        since = self._rooms.clock.now() - HOLD_OFF_WINDOW
        return await self._rooms.store.refusals_of(judged.principal.cn, since)

    async def _attach_or_hold_off(
        self, judged: _Judged, inspection: Inspection | None, refusals: int
    ) -> Answer:
        """Return the live request of the same digest, which asks nobody again, or refuse."""
        digest = self._digest(judged, inspection)
        live = await self._rooms.store.live_by_digest(judged.principal.cn, digest)
        if live is not None:
            return await self._attached(live, judged.ask)
        message = (
            f"{refusals} requests of this identity were denied or expired within the hour; "
            "nothing more is put before people until some time has passed."
        )
        raise RateLimitedError(message, retry_after_seconds=300)

    def _require_reachable(self, judged: _Judged, terms: Terms) -> None:
        snapshot = judged.snapshot
        role = Role(terms.approver_role)
        owners = snapshot.registry.owners_with_role(role) - {judged.principal.owner}
        if terms.approvers is not None:
            owners &= terms.approvers
        if not snapshot.config.approvals.command_line:
            owners = frozenset()
        if len(owners) < terms.approvals:
            message = (
                f"This needs {terms.approvals} approval(s) by other owners and only {len(owners)} "
                "could give one; ask the administrator of this host."
            )
            raise UnreachableError(message)


def _ran(act: Act, performance: Performance) -> Answer:
    if performance.error is not None:
        raise performance.error
    body: dict[str, JsonValue] = {
        "request_id": act.request_id,
        "operation": act.operation.name,
        "state": performance.state.value,
        "digest": act.digest,
        "outcome": performance.outcome,
    }
    return Answer(status=200, body=body)


def answer_of(request: Request) -> Answer:
    """Return what to tell who asks again with the key of `request`, of which no answer was kept.

    Raises:
        HostAgentError: it has failed; the same problem again.
    """
    if request.state is State.SUCCEEDED:
        body: dict[str, JsonValue] = {
            "request_id": request.id,
            "operation": request.operation,
            "state": request.state.value,
            "digest": request.digest,
            "outcome": request.outcome,
        }
        return Answer(status=200, body=body)
    if request.problem is not None and request.state in {State.FAILED, State.TIMED_OUT}:
        error = BY_CODE[request.problem.code](request.problem.detail)
        if request.outcome is not None:
            error.members["outcome"] = request.outcome
        error.is_recorded = True
        raise error
    return held(request)


def held(request: Request) -> Answer:
    """Return the 202 answer for a request that was made now or earlier."""
    return Answer(
        status=202,
        body={
            "request_id": request.id,
            "operation": request.operation,
            "state": request.state.value,
            "digest": request.digest,
            "expires_at": rfc3339(request.expires_at),
            "rule": request.rule,
            "poll_after_seconds": POLL_AFTER_SECONDS,
            "message": _message(request),
        },
    )


def _message(request: Request) -> str:
    where = f"/requests/{request.id}"
    if request.state is State.PENDING:
        return (
            "Nothing has run. A person has to approve this first. Sending it again returns this "
            f"same request; it does not ask again. Follow it with GET {where}?wait=30, or do "
            "something else meanwhile."
        )
    if request.state in LIVE:
        return (
            f"This same request is {request.state.value} already; sending it again does not run it "
            f"again. Follow it with GET {where}?wait=30."
        )
    return f"This request has ended as {request.state.value}; see GET {where}."
