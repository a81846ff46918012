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
    PolicyDeniedError,
    StoreUnavailableError,
    again_after,
    idempotency_conflict,
)
from host_agent.identity.registry import Principal
from host_agent.operations.catalogue import Effect, Inspection, Operation
from host_agent.pipeline.authorize import require_adapter
from host_agent.pipeline.context import Context, audit_fields, identify_request
from host_agent.pipeline.dry_run import dry_run
from host_agent.pipeline.fatigue import held_off_act, hold_off
from host_agent.pipeline.grants import is_granted, use_grant
from host_agent.pipeline.judging import (
    bind_to,
    judge_again,
    judge_ask,
    live_request,
    look,
    look_in_turn,
    reading_slot,
    standing_of,
)
from host_agent.pipeline.lifecycle import Lifecycle
from host_agent.pipeline.recipients import prompts, require_reachable
from host_agent.pipeline.responses import Failed, SubmitAnswer, answer_of, held, ran, unchanged
from host_agent.pipeline.run import Run, perform
from host_agent.pipeline.transitions import Transitions
from host_agent.policy.rules import Ask
from host_agent.requests.model import Request, RequestId, State, Terms
from host_agent.requests.notification import Notification
from host_agent.store.admission import Inserted
from host_agent.store.answers import IdempotencyKey
from host_agent.store.refusals import AskContext

_log = logging.getLogger("host_agent.pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One ask as it came in: names and values, shape checked, meaning not yet.

    `exchange_id` becomes the request's id. `body_sha256` is over the body's bytes, for
    `idempotency_key`. A dry run has no use for a key: it is told anew each time.
    """

    operation: str
    params: Mapping[str, JsonValue]
    exchange_id: str
    body_sha256: str
    reason: str | None = None
    idempotency_key: str | None = None
    dry_run: bool = False


class Submissions:
    """Takes asks. One instance lives as long as the agent."""

    def __init__(self, context: Context, transitions: Transitions, lifecycle: Lifecycle) -> None:
        self._context = context
        self._transitions = transitions
        self._lifecycle = lifecycle
        self._in_flight: dict[tuple[str, str], asyncio.Task[SubmitAnswer | Failed]] = {}

    async def submit(self, principal: Principal, submission: Submission) -> SubmitAnswer | Failed:
        """Run, hold or refuse one ask.

        Raises:
            HostAgentError: any refusal; its `about` names the operation for the audit.
        """
        about: dict[str, JsonValue] = {
            "reason": submission.reason,
            "dry_run": submission.dry_run or None,
        }
        try:
            operation = self._context.catalogue.parse(submission.operation, submission.params)
            about |= audit_fields(
                operation=operation.name,
                resource=operation.resource,
                params=operation.params.canonical(),
            )
            answer = await self._judge_and_answer(principal, operation, submission)
        except HostAgentError as error:
            raise error.amended(about={**about, **error.about}) from error
        if isinstance(answer, Failed):
            self._context.metrics.refused(answer.error.code)
        return answer

    async def _judge_and_answer(
        self, principal: Principal, operation: Operation, submission: Submission
    ) -> SubmitAnswer | Failed:
        run = self._judge(principal, operation, submission)
        if submission.dry_run:
            return await dry_run(self._context, run)
        if submission.idempotency_key is None:
            return await self._answer(run)
        key = IdempotencyKey(
            key=submission.idempotency_key,
            body_sha256=_bound_body(operation, submission.body_sha256),
            request_id=submission.exchange_id,
            now=self._context.clock.now(),
        )
        slot = (run.principal.cn, key.key)
        while (first := self._in_flight.get(slot)) is not None:
            await asyncio.wait((first,))
            run = self._judge(principal, operation, submission)
        return await self._answer_once(run, key)

    def _judge(self, principal: Principal, operation: Operation, submission: Submission) -> Run:
        return judge_ask(
            self._context,
            principal,
            operation,
            request_id=submission.exchange_id,
            reason=submission.reason,
        )

    # -- idempotency ------------------------------------------------------------------------------

    async def _answer_once(self, run: Run, key: IdempotencyKey) -> SubmitAnswer | Failed:
        """Answer for a key while nobody else does; who comes meanwhile waits for it."""
        slot = (run.principal.cn, key.key)
        work = self._recall_or_answer(run, key)
        answering = self._context.tasks.start(work, name=f"ask {run.request_id}")
        self._in_flight[slot] = answering
        answering.add_done_callback(lambda _: self._in_flight.pop(slot, None))
        return await asyncio.shield(answering)

    async def _recall_or_answer(self, run: Run, key: IdempotencyKey) -> SubmitAnswer | Failed:
        context, caller = self._context, run.principal.cn
        stored = await context.store.recall(caller, key.key, context.clock.now())
        if stored is not None:
            if stored.body_sha256 != key.body_sha256:
                raise idempotency_conflict()
            if stored.body is not None:
                return SubmitAnswer(status=stored.status, body=stored.body)
            if stored.request_id is not None:
                request = await context.store.get(stored.request_id)
                if request is not None and not request.was_refused:
                    return answer_of(request, run.operation)
        answer = await self._answer(run, key)
        if isinstance(answer, Failed):
            return answer
        try:
            await context.store.remember(
                caller,
                key.key,
                body_sha256=key.body_sha256,
                status=answer.status,
                body=answer.body,
                request_id=str(answer.body["request_id"]),
                now=context.clock.now(),
            )
        except StoreUnavailableError:
            # It has happened, and that is what has to be told.
            _log.error("the answer to %s could not be kept for its key", run.request_id)
        return answer

    # -- run, hold, attach ------------------------------------------------------------------------

    async def _answer(self, run: Run, key: IdempotencyKey | None = None) -> SubmitAnswer | Failed:
        context, verdict, operation = self._context, run.verdict, run.operation
        require_adapter(run.snapshot, operation)
        is_allowed = not isinstance(verdict, Ask)
        standing = await standing_of(context, run)
        if is_allowed or is_granted(context, run.principal, operation, verdict, standing.grants):
            answer = await self._run(run, key)
            if answer is not None:
                return answer
            # What it could run by was gone when its turn came.
            run = judge_again(self._context, run)
            if not isinstance(run.verdict, Ask):
                return await self._answer(run, key)
            standing = await standing_of(context, run)
        return await self._hold(run, standing, key)

    async def _run(self, run: Run, key: IdempotencyKey | None) -> SubmitAnswer | Failed | None:
        """Run what is allowed, or what there is a grant for; None if that is lost by then."""
        tasks, request_id = self._context.tasks, run.request_id
        if run.operation.effect is Effect.READ:
            return await tasks.shielded(self._read(run), name=f"read {request_id}")
        return await tasks.shielded(self._change(run, key), name=f"change {request_id}")

    async def _licensed(self, run: Run) -> Run | None:
        """Return what may run now, judged inside its turn, its grant used where it needs one.

        It may have waited: identities, lists, people and rules that changed meanwhile count. None
        where a person has to be asked now.

        Raises:
            HostAgentError: what identity and policy say now.
        """
        now = judge_again(self._context, run)
        if not isinstance(now.verdict, Ask):
            return now
        grant = await use_grant(self._context, now.principal, now.operation, now.verdict)
        return None if grant is None else replace(now, grant=grant.id)

    def _require_same(self, licensed: Run) -> None:
        """Refuse what was licensed a moment ago if that would not be said any more."""
        now = judge_again(self._context, licensed)
        if not now.is_judged_as(licensed):
            message = "The rule that this runs by has changed; nothing was run. Ask again."
            raise PolicyDeniedError(message, recovery=again_after(0))

    async def _read(self, run: Run) -> SubmitAnswer | Failed | None:
        bound = bind_to(self._context, run, None)  # what cannot be run takes no turn
        async with reading_slot(self._context, run):
            licensed = await self._licensed(run)
            if licensed is None:
                return None
            if licensed.snapshot is run.snapshot:
                licensed = replace(licensed, digest=bound.digest)
            else:
                licensed = bind_to(self._context, licensed, None)
            require = partial(self._require_same, licensed)
            return ran(await perform(self._context, licensed, require))

    async def _change(self, run: Run, key: IdempotencyKey | None) -> SubmitAnswer | Failed | None:
        """Run a change in its turn; where it has to wait for that, perhaps attach instead."""
        slots, turn = self._context.slots, run.operation.turn
        if not slots.is_free(turn):
            live = await live_request(self._context, run, await look(self._context, run))
            if live is not None:
                return await self._attached(live, run)
        timeout = run.snapshot.config.execution.timeout_seconds
        async with slots.change(turn, timeout):
            return await self._change_in_turn(run, key)

    async def _change_in_turn(
        self, run: Run, key: IdempotencyKey | None
    ) -> SubmitAnswer | Failed | None:
        """Run it with a durable row, so that a crash leaves `unknown`."""
        # The turn may have come after another change: this look is the one that is bound.
        inspection = await look_in_turn(self._context, run)
        run = judge_again(self._context, run)  # it may have looked for long
        if isinstance(run.verdict, Ask):
            live = await live_request(self._context, run, inspection)
            if live is not None:
                return await self._attached(live, run)
            if run.operation.is_done_already(inspection):
                return await self._unchanged(run, inspection)
        licensed = await self._licensed(run)
        if licensed is None:
            return None
        bound = bind_to(self._context, licensed, inspection)
        request = self._request(bound, inspection, State.RUNNING, Terms(), ttl_seconds=None)
        inserted = await self._insert(request, bound, key)
        await self._transitions.supersede(inserted.superseded)
        if not inserted.created:
            return await self._attached(inserted.request, bound)
        require = partial(self._require_same, bound)
        return ran(await self._lifecycle.perform_running(inserted.request, bound, require))

    async def _hold(
        self, run: Run, standing: AskContext, key: IdempotencyKey | None
    ) -> SubmitAnswer | Failed:
        terms, ttl_seconds = Terms(), None
        if isinstance(run.verdict, Ask):
            terms, ttl_seconds = run.verdict.terms, run.verdict.ttl_seconds
        too_many = hold_off(run.snapshot, standing.refusals)
        require_reachable(self._context, terms, run.principal.owner)
        inspection = await look(self._context, run)
        now = judge_again(self._context, run)
        if not now.is_judged_as(run):
            return await self._answer(now, key)
        if now.operation.is_done_already(inspection):
            return await self._unchanged(now, inspection)
        refusal = too_many or await held_off_act(self._context, now.principal, now.operation)
        if refusal is not None:
            # What waits already asks nobody again.
            live = await live_request(self._context, now, inspection)
            if live is None:
                raise refusal
            return await self._attached(live, now)
        bound = bind_to(self._context, now, inspection)
        request = self._request(bound, inspection, State.PENDING, terms, ttl_seconds=ttl_seconds)
        # From here on a client that goes away changes nothing: it is stored and written down.
        return await self._context.tasks.shielded(
            self._store_held(request, bound, key), name=f"hold {request.id}"
        )

    async def _unchanged(self, run: Run, inspection: Inspection | None) -> SubmitAnswer:
        """Answer that there is nothing to do, which nobody has to be asked about.

        Raises:
            AuditUnavailableError: it could not be written down, so it is not answered.
        """
        bound = bind_to(self._context, run, inspection)
        await self._context.audit.append(
            Event.OPERATION_UNCHANGED,
            **bound.audit_fields(),
            reason=bound.reason,
            rule=bound.verdict.rule.name,
        )
        return unchanged(bound, inspection)

    async def _store_held(
        self, request: Request, run: Run, key: IdempotencyKey | None
    ) -> SubmitAnswer:
        inserted = await self._insert(request, run, key)
        await self._transitions.supersede(inserted.superseded)
        if not inserted.created:
            return await self._attached(inserted.request, run)
        await self._transitions.hold(request)
        return held(request)

    async def _insert(self, request: Request, run: Run, key: IdempotencyKey | None) -> Inserted:
        limits = run.snapshot.config.approvals
        told: tuple[Notification, ...] = ()
        if request.state is State.PENDING:
            told = prompts(
                self._context, request.terms, request.owner, request.id, request.created_at
            )
        return await self._context.store.insert(
            request,
            max_pending=limits.max_pending,
            max_pending_per_caller=limits.max_pending_per_caller,
            idempotency=None if key is None else replace(key, now=request.created_at),
            notifications=told,
        )

    async def _attached(self, request: Request, run: Run) -> SubmitAnswer:
        await self._context.audit.append(
            Event.REQUEST_ATTACHED,
            **identify_request(request),
            reason=run.reason,
            exchange_id=run.request_id,
        )
        return held(request, reason=run.reason)

    def _request(
        self,
        bound: Run,
        inspection: Inspection | None,
        state: State,
        terms: Terms,
        *,
        ttl_seconds: int | None,
    ) -> Request:
        principal, operation = bound.principal, bound.operation
        now = self._context.clock.now()
        ttl = ttl_seconds or bound.snapshot.config.approvals.ttl_seconds
        return Request(
            id=RequestId(bound.request_id),
            state=state,
            caller=principal.cn,
            credential=principal.credential,
            owner=principal.owner,
            unix_user=principal.unix_user,
            operation=operation.name,
            params=operation.params.canonical(),
            resource=operation.resource,
            digest=bound.digest,
            rule=bound.verdict.rule.name,
            reason=bound.reason,
            terms=terms,
            precondition=bound.precondition,
            preview=None if inspection is None else inspection.preview.as_json(),
            created_at=now,
            expires_at=now + timedelta(seconds=ttl),
        )


def _bound_body(operation: Operation, body_sha256: str) -> str:
    """Return what a key is bound to: the body, and the operation that it was read as.

    The older routes read the same bytes as different operations.
    """
    return hashlib.sha256(f"{operation.name} {body_sha256}".encode()).hexdigest()
