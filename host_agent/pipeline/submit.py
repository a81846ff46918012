"""An operation is asked for: judged, inspected, then run, held, attached or refused.

Steps 3 to 6 of the way of a request, in the order of checks of docs/reference/http.md.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    IdempotencyConflictError,
    PolicyDeniedError,
    ReasonRequiredError,
    StoreUnavailableError,
)
from host_agent.execution.slots import Turn
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Effect, Inspection, Operation
from host_agent.pipeline.authorize import as_now, digest_of, judge, require_adapter
from host_agent.pipeline.context import Rooms, Snapshot, identify_request
from host_agent.pipeline.fatigue import hold_off, look_around, require_no_equivalent
from host_agent.pipeline.grants import is_granted, use_grant
from host_agent.pipeline.lifecycle import Approved
from host_agent.pipeline.recipients import prompts, require_reachable
from host_agent.pipeline.responses import Answer, answer_of, held, ran
from host_agent.pipeline.run import Act, inspect, perform
from host_agent.pipeline.transitions import Transitions
from host_agent.policy.rules import Allow
from host_agent.policy.rules import Ask as AskVerdict
from host_agent.requests.model import Digest, Request, RequestId, State, Terms
from host_agent.requests.notification import Notification
from host_agent.store.port import IdempotencyKey, Inserted, Standing

_log = logging.getLogger("host_agent.pipeline")


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
class _Judged:
    """An ask and what policy says of it. `grant` is the grant that it runs by, once it is used."""

    snapshot: Snapshot
    principal: Principal
    operation: Operation
    verdict: Allow | AskVerdict
    ask: Ask
    grant: str | None = None

    @property
    def body_sha256(self) -> str:
        """Return what a key is bound to: the body, and the operation that it was read as.

        The older routes read the same bytes as different operations.
        """
        asked = f"{self.operation.name} {self.ask.body_sha256}"
        return hashlib.sha256(asked.encode()).hexdigest()

    def is_judged_as(self, earlier: "_Judged") -> bool:
        """Return whether policy says of this ask what it said `earlier`."""
        return self.snapshot is earlier.snapshot or self.verdict == earlier.verdict


class Asking:
    """Takes asks. One instance lives as long as the agent."""

    def __init__(self, rooms: Rooms, transitions: Transitions, approved: Approved) -> None:
        self._rooms = rooms
        self._transitions = transitions
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
                    return answer_of(request, judged.operation)
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
        rooms, verdict = self._rooms, judged.verdict
        principal, operation = judged.principal, judged.operation
        require_adapter(judged.snapshot, operation)
        is_allowed = not isinstance(verdict, AskVerdict)
        standing = await look_around(
            rooms, judged.snapshot, principal, operation, is_allowed=is_allowed
        )
        require_no_equivalent(rooms, operation, standing.others)
        if is_allowed or is_granted(rooms, principal, operation, verdict, standing.grants):
            answer = await self._run(judged, idempotency_key)
            if answer is not None:
                return answer
            # What it could run by was gone when its turn came.
            judged = self._again(judged)
            if not isinstance(judged.verdict, AskVerdict):
                return await self._answer(judged, idempotency_key)
            standing = await look_around(
                rooms, judged.snapshot, judged.principal, operation, is_allowed=False
            )
            require_no_equivalent(rooms, operation, standing.others)
        return await self._hold(judged, standing, idempotency_key)

    async def _run(self, judged: _Judged, idempotency_key: str | None) -> Answer | None:
        """Run what is allowed, or what there is a grant for; None if that is lost by then."""
        exchange_id = judged.ask.exchange_id
        if judged.operation.effect is Effect.READ:
            return await self._rooms.tasks.shielded(self._read(judged), name=f"read {exchange_id}")
        return await self._rooms.tasks.shielded(
            self._change(judged, idempotency_key), name=f"change {exchange_id}"
        )

    def _again(self, judged: _Judged) -> _Judged:
        """Judge an ask that has waited as things are now.

        Raises:
            HostAgentError: what identity and policy say now.
        """
        now = self._judge(judged.principal, judged.operation, judged.ask)
        require_adapter(now.snapshot, now.operation)
        return now

    async def _licensed(self, judged: _Judged) -> _Judged | None:
        """Return what may run now, judged inside its turn, its grant used where it needs one.

        It may have waited: identities, lists, people and rules that changed meanwhile count. None
        where a person has to be asked now.

        Raises:
            HostAgentError: what identity and policy say now.
        """
        now = self._again(judged)
        if not isinstance(now.verdict, AskVerdict):
            return now
        grant = await use_grant(self._rooms, now.principal, now.operation, now.verdict)
        return None if grant is None else replace(now, grant=grant.id)

    def _require_same(self, licensed: _Judged) -> None:
        """Refuse what was licensed a moment ago if that would not be said any more."""
        now = self._again(licensed)
        if not now.is_judged_as(licensed):
            message = "The rule that this runs by has changed; nothing was run. Ask again."
            raise PolicyDeniedError(message)

    def _digest(self, judged: _Judged, inspection: Inspection | None) -> Digest:
        return digest_of(
            self._rooms,
            judged.snapshot,
            judged.principal,
            judged.operation,
            judged.verdict,
            None if inspection is None else inspection.precondition,
        )

    def _reading(self, judged: _Judged) -> Turn:
        timeout = judged.snapshot.config.execution.timeout_seconds
        return self._rooms.turns.read(timeout, caller=judged.principal.cn)

    async def _read(self, judged: _Judged) -> Answer | None:
        digest = self._digest(judged, None)  # what cannot be run takes no turn
        async with self._reading(judged):
            licensed = await self._licensed(judged)
            if licensed is None:
                return None
            if licensed.snapshot is not judged.snapshot:
                digest = self._digest(licensed, None)
            act = Act.of(
                licensed.principal,
                licensed.operation,
                request_id=licensed.ask.exchange_id,
                digest=digest,
                require=partial(self._require_same, licensed),
                grant=licensed.grant,
            )
            return ran(act, await perform(self._rooms, act))

    async def _inspect(self, judged: _Judged) -> Inspection | None:
        async with self._reading(judged):
            return await self._inspect_in_turn(judged)

    async def _inspect_in_turn(self, judged: _Judged) -> Inspection | None:
        now = self._again(judged)
        return await inspect(self._rooms, now.operation, now.principal, now.ask.exchange_id)

    async def _change(self, judged: _Judged, idempotency_key: str | None) -> Answer | None:
        """Run a change in its turn; where it has to wait for that, perhaps attach instead."""
        turns, turn = self._rooms.turns, judged.operation.turn
        if not turns.is_free(turn):
            live = await self._live(judged, await self._inspect(judged))
            if live is not None:
                return await self._attached(live, judged.ask)
        timeout = judged.snapshot.config.execution.timeout_seconds
        async with turns.change(turn, timeout):
            return await self._change_in_turn(judged, idempotency_key)

    async def _change_in_turn(self, judged: _Judged, idempotency_key: str | None) -> Answer | None:
        """Run it with a durable row, so that a crash leaves `unknown`."""
        # The turn may have come after another change: this look is the one that is bound.
        inspection = await self._inspect_in_turn(judged)
        if isinstance(judged.verdict, AskVerdict):
            live = await self._live(judged, inspection)
            if live is not None:
                return await self._attached(live, judged.ask)
        licensed = await self._licensed(judged)
        if licensed is None:
            return None
        request = self._request(licensed, inspection, State.RUNNING, Terms(), ttl_seconds=None)
        inserted = await self._insert(request, licensed, idempotency_key)
        await self._transitions.supersede(inserted.superseded)
        if not inserted.created:
            return await self._attached(inserted.request, licensed.ask)
        act = Act.of(
            licensed.principal,
            licensed.operation,
            request_id=request.id,
            digest=request.digest,
            require=partial(self._require_same, licensed),
            precondition=request.precondition,
            grant=licensed.grant,
        )
        return ran(act, await self._approved.perform_running(inserted.request, act))

    async def _live(self, judged: _Judged, inspection: Inspection | None) -> Request | None:
        """Return the caller's live request of the same digest, which an ask attaches to."""
        digest = self._digest(judged, inspection)
        return await self._rooms.store.live_by_digest(judged.principal.cn, digest)

    async def _hold(
        self, judged: _Judged, standing: Standing, idempotency_key: str | None
    ) -> Answer:
        terms, ttl_seconds = Terms(), None
        if isinstance(judged.verdict, AskVerdict):
            terms, ttl_seconds = judged.verdict.terms, judged.verdict.ttl_seconds
        too_many = hold_off(judged.snapshot, standing.refusals)
        require_reachable(self._rooms, terms, judged.principal.owner)
        inspection = await self._inspect(judged)
        now = self._again(judged)
        if not now.is_judged_as(judged):
            return await self._answer(now, idempotency_key)
        judged = now
        if too_many is not None:
            # What waits already asks nobody again.
            live = await self._live(judged, inspection)
            if live is None:
                raise too_many
            return await self._attached(live, judged.ask)
        request = self._request(judged, inspection, State.PENDING, terms, ttl_seconds=ttl_seconds)
        # From here on a client that goes away changes nothing: it is stored and written down.
        return await self._rooms.tasks.shielded(
            self._store_held(request, judged, idempotency_key), name=f"hold {request.id}"
        )

    async def _store_held(
        self, request: Request, judged: _Judged, idempotency_key: str | None
    ) -> Answer:
        inserted = await self._insert(request, judged, idempotency_key)
        await self._transitions.supersede(inserted.superseded)
        if not inserted.created:
            return await self._attached(inserted.request, judged.ask)
        await self._transitions.hold(request)
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
        told: tuple[Notification, ...] = ()
        if request.state is State.PENDING:
            told = prompts(
                self._rooms, request.terms, request.owner, request.id, request.created_at
            )
        return await self._rooms.store.insert(
            request,
            max_pending=limits.max_pending,
            max_pending_per_caller=limits.max_pending_per_caller,
            idempotency=idempotency,
            notifications=told,
        )

    async def _attached(self, request: Request, ask: Ask) -> Answer:
        await self._rooms.audit.append(
            Event.REQUEST_ATTACHED,
            **identify_request(request),
            reason=ask.reason,
            exchange_id=ask.exchange_id,
        )
        return held(request, reason=ask.reason)

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
            credential=principal.credential,
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
