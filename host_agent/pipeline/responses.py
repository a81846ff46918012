"""What the caller of an ask gets: the answer for a run, for a held request, for a repeat."""

from collections.abc import Mapping
from dataclasses import dataclass

from host_agent.api.wire.dry_run import DryRun, Would
from host_agent.api.wire.operations import Held, Ran
from host_agent.canonical import JsonValue
from host_agent.errors import BY_CODE, HostAgentError
from host_agent.operations.catalogue import Inspection, Operation
from host_agent.pipeline.run import Run
from host_agent.policy.rules import Ask
from host_agent.requests.facts import approvals_view
from host_agent.requests.model import LIVE, Request, State

POLL_AFTER_SECONDS = 5
_NOTHING_RAN: Mapping[str, JsonValue] = {"exit_code": None, "verified": None}
UNCHANGED = "unchanged"
"""The state of an ask for which there was nothing to do: no request is made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitAnswer:
    """What the caller gets: an HTTP status and the whole JSON body."""

    status: int
    body: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What the caller gets of a run that failed: a problem that the audit log has already."""

    error: HostAgentError


def ran(ended: Run) -> SubmitAnswer | Failed:
    """Return the answer for a run that has ended; `grant` names the grant that it ran by."""
    if ended.error is not None:
        return Failed(error=ended.error.amended(members=_outcome(ended.outcome)))
    body = _done(
        ended.operation, ended.request_id, State.SUCCEEDED.value, ended.digest, ended.outcome
    )
    if ended.grant is not None:
        body["grant"] = ended.grant
    return SubmitAnswer(status=200, body=body)


def answer_of(request: Request, operation: Operation) -> SubmitAnswer | Failed:
    """Return what to tell who asks again with the key of `request`, of which no answer was kept.

    `operation` is what was asked for both times.
    """
    if request.state is State.SUCCEEDED:
        body = _done(operation, request.id, request.state.value, request.digest, request.outcome)
        return SubmitAnswer(status=200, body=body)
    if request.problem is not None and request.state in {State.FAILED, State.TIMED_OUT}:
        error_type = BY_CODE[request.problem.code]
        return Failed(error=error_type(request.problem.detail, members=_outcome(request.outcome)))
    return held(request)


def unchanged(run: Run, inspection: Inspection | None) -> SubmitAnswer:
    """Return the answer for what would change nothing, with the preview that says so."""
    body = _done(run.operation, run.request_id, UNCHANGED, run.digest, _NOTHING_RAN)
    body["preview"] = _preview(inspection)
    return SubmitAnswer(status=200, body=body)


def dry(
    run: Run,
    would: Would,
    inspection: Inspection | None,
    live: Request | None,
    *,
    runs_as: str | None,
) -> SubmitAnswer:
    """Return the answer for a dry run; `live` is what it would attach to."""
    operation, verdict = run.operation, run.verdict
    is_ask = isinstance(verdict, Ask)
    told = DryRun(
        exchange_id=run.request_id,
        operation=operation.name,
        resource=operation.resource,
        effect=operation.effect.value,
        state="dry_run",
        would=would,
        verdict="ask" if is_ask else "allow",
        rule=verdict.rule.name,
        digest=run.digest,
        runs_as=runs_as,
        approvals=approvals_view(verdict.terms, given=0) if isinstance(verdict, Ask) else None,
        preview=_preview(inspection),
        precondition=run.precondition,
    ).as_json()
    if live is not None:
        told["attaches_to"] = live.id
    return SubmitAnswer(status=200, body=told)


def _preview(inspection: Inspection | None) -> dict[str, JsonValue] | None:
    return None if inspection is None else inspection.preview.as_json()


def _outcome(outcome: Mapping[str, JsonValue] | None) -> Mapping[str, JsonValue]:
    return {} if outcome is None else {"outcome": outcome}


def _done(
    operation: Operation,
    request_id: str,
    state: str,
    digest: str,
    outcome: Mapping[str, JsonValue] | None,
) -> dict[str, JsonValue]:
    return Ran(
        request_id=request_id,
        operation=operation.name,
        resource=operation.resource,
        effect=operation.effect.value,
        state=state,
        digest=digest,
        outcome=outcome,
    ).as_json()


def held(request: Request, *, reason: str | None = None) -> SubmitAnswer:
    """Return the 202 answer for a request that was made now or earlier.

    `reason` is one that came with a later ask for the same: people are shown the first.
    """
    kept = ""
    if reason is not None and reason != request.reason:
        kept = " People see the reason that it was first asked with; the one given now is written"
        kept += " down, and not shown to them."
    return SubmitAnswer(
        status=202,
        body=Held(
            request_id=request.id,
            operation=request.operation,
            state=request.state.value,
            digest=request.digest,
            expires_at=request.expires_at,
            rule=request.rule,
            poll_after_seconds=POLL_AFTER_SECONDS,
            message=f"{_message(request)}{kept}",
        ).as_json(),
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
    why = ""
    if request.state is State.DENIED and request.problem is not None:
        why = f" {request.problem.detail}"
    return f"This request has ended as {request.state.value}; see GET {where}.{why}"
