"""At a start: steps of requests that were stored and not written down are written down.

A step is stored first, because only the store says who won, and recorded before anybody is told. A
kill in between leaves a step that nobody was told of and the audit log does not know. It holds all
the same, so it is recorded now, before anything runs by it.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from host_agent.audit.recent import CAUGHT_UP
from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.clock import rfc3339
from host_agent.pipeline.context import Context, identify_request
from host_agent.pipeline.transitions import ENDS, decision_fields, held_fields, problem_fields
from host_agent.requests.model import Request, State, Verb

_log = logging.getLogger("host_agent.pipeline")

_HELD = frozenset(
    {State.PENDING, State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED},
)
"""States of requests that wait, or waited, for a person; the others may have been allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RequestStep:
    """One step of a request: when it was taken, and its record."""

    at: datetime
    event: Event
    fields: Mapping[str, JsonValue]


async def catch_up(context: Context) -> int:
    """Record every step of the last life that its record is missing of; return how many.

    Raises:
        AuditUnavailableError: the log cannot be read or written; nothing may run.
        StoreUnavailableError: the store cannot be read.
    """
    recent = await context.audit.recent()
    since = recent.since
    if since is None:
        return 0
    written = {_key(record) for record in recent.records}
    grants = {grant.request_id: grant.id for grant in await context.store.grants()}
    count = 0
    for request in [*await context.store.ended_since(since), *await context.store.live()]:
        for step in _steps(request, grants.get(request.id)):
            fields = {**identify_request(request), **step.fields}
            if step.at < since or _is_written(step, fields, written):
                continue
            detail = f"the step was taken at {rfc3339(step.at)}"
            await context.audit.append(step.event, **fields, cause=CAUGHT_UP, detail=detail)
            count += 1
    if count:
        _log.warning("%d steps of the life before were not in the audit log and are now", count)
    return count


def _key(record: Mapping[str, object]) -> tuple[object, ...]:
    return record.get("request_id"), record.get("event"), record.get("approver")


def _is_written(
    step: _RequestStep, fields: Mapping[str, object], written: set[tuple[object, ...]]
) -> bool:
    if _key({**fields, "event": step.event.value}) in written:
        return True
    # What failed while it ran has its end there.
    finished = {**fields, "event": Event.OPERATION_FINISHED.value}
    return step.event is Event.REQUEST_FAILED and _key(finished) in written


def _steps(request: Request, grant: str | None) -> Iterator[_RequestStep]:
    if request.decisions or request.state in _HELD:
        yield _RequestStep(
            at=request.created_at,
            event=Event.REQUEST_HELD,
            fields=held_fields(request),
        )
    yield from _decisions(request, grant)
    event = ENDS.get(request.state)
    if event is not None and request.finished_at is not None:
        yield _RequestStep(at=request.finished_at, event=event, fields=problem_fields(request))


def _decisions(request: Request, grant: str | None) -> Iterator[_RequestStep]:
    """Yield the steps of the decisions; `grant` was given with the one that approved it."""
    consents = 0
    for decision in request.decisions:
        match decision.decision:
            case Verb.APPROVE:
                consents += 1
                is_last = consents >= request.terms.approvals
                state = State.APPROVED if is_last else State.PENDING
            case Verb.DENY:
                state = State.DENIED
            case _:
                assert_never(decision.decision)
        given = grant if state is State.APPROVED else None
        yield _RequestStep(
            at=decision.at,
            event=Event.REQUEST_DECIDED,
            fields=decision_fields(decision, state, given),
        )
