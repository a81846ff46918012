"""What a person is told about a request: derived once, for every prompt and every view. Pure.

Texts over channels (`prompts`) and what the API shows (`request_view`) are made of the same facts,
so no channel says what another one does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from host_agent.api.wire.operations import Outcome
from host_agent.api.wire.recovery import RecoveryView
from host_agent.api.wire.requests import (
    ApprovalsView,
    DecisionView,
    HistoryView,
    RequestProblem,
    RequestView,
)
from host_agent.canonical import JsonValue
from host_agent.errors import BY_CODE, InternalError, Recovery, again_after
from host_agent.operations.catalogue import Effect, OperationSpec
from host_agent.requests.model import Decision, Request, Terms
from host_agent.text import name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedBefore:
    """Earlier asks for one operation on one resource, by anybody, that ended within a day.

    People denied `denied` of them; `last` is the newest denial.
    """

    times: int = 0
    denied: int = 0
    last: Decision | None = None


NEVER = AskedBefore()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """A request, and what is derived of it for people.

    `verb` is the operation in a word (`DESTROY`), `subject` what it is done to, in words, escaped:
    `tank/old and all below it`. `left` are the parameters that `subject` does not say, but for
    those that are as they are where nobody gives them. `runs_as` is the user that the process
    changes to, None where there is no such user. `effect` is None for an operation that this build
    does not have.
    """

    request: Request
    host: str
    verb: str
    effect: Effect | None
    subject: str
    left: tuple[tuple[str, JsonValue], ...]
    runs_as: str | None
    before: AskedBefore = NEVER
    now: datetime | None = None

    @property
    def undo(self) -> str:
        """Return how it is taken back, as the preview says."""
        found = None if self.request.preview is None else self.request.preview.get("undo")
        return found if isinstance(found, str) and found.strip() else "not known"


def derive(
    request: Request,
    *,
    spec: OperationSpec | None,
    host: str,
    runs_as: str | None,
    before: AskedBefore = NEVER,
    now: datetime | None = None,
) -> RequestFacts:
    """Return the facts of `request`; `spec` is the declaration of its operation."""
    subject, left = _said(request, spec)
    return RequestFacts(
        request=request,
        host=host,
        verb=name(request.operation) if spec is None else spec.verb,
        effect=None if spec is None else spec.effect,
        subject=subject,
        left=left,
        runs_as=runs_as,
        before=before,
        now=now,
    )


def _said(
    request: Request, spec: OperationSpec | None
) -> tuple[str, tuple[tuple[str, JsonValue], ...]]:
    """Return the subject, and the parameters that are not in it.

    Two requests of one operation never have both alike unless their parameters are.
    """
    subject = "" if request.resource is None else name(request.resource)
    if spec is None:
        return subject, tuple(request.params.items())
    model, params = spec.parameters, dict(request.params)
    first = model.positional[0] if model.positional else ""
    if request.resource is None or params.get(first) != request.resource:
        return subject, tuple(params.items())
    subject = model.phrases.get(first, "{}").replace("{}", subject)
    del params[first]
    left = {
        key: item
        for key, item in params.items()
        if key not in model.phrases and not _is_default(spec, key, item)
    }
    for key, phrase in model.phrases.items():
        if key not in params or _is_default(spec, key, params[key]):
            continue
        if "{}" not in phrase and params[key] is not True:
            left[key] = params[key]
        else:
            subject += phrase.replace("{}", _spoken(params[key]))
    return subject, tuple(left.items())


def _is_default(spec: OperationSpec, key: str, item: JsonValue) -> bool:
    """Return whether a parameter is as it is where nobody gives it."""
    field = spec.parameters.model_fields.get(key)
    if field is None or field.is_required():
        return False
    default = field.get_default(call_default_factory=True)
    return type(item) is type(default) and item == default


def _spoken(item: JsonValue) -> str:
    if isinstance(item, Mapping):
        return " ".join(name(f"{key}={_plain(member)}") for key, member in item.items())
    return value(item)


def _plain(item: JsonValue) -> str:
    return item if isinstance(item, str) else value(item)


# -- as the API shows it --------------------------------------------------------------------------


def request_view(facts: RequestFacts, *, with_output: bool) -> RequestView:
    """Return a request as GET /requests/{id} shows it.

    Without output, the outcome is reduced to `exit_code` and `verified`.
    """
    request = facts.request
    return RequestView(
        request_id=request.id,
        state=request.state.value,
        host=facts.host,
        operation=request.operation,
        effect=None if facts.effect is None else facts.effect.value,
        verb=facts.verb,
        subject=facts.subject,
        resource=request.resource,
        caller=request.caller,
        owner=request.owner,
        unix_user=request.unix_user,
        runs_as=facts.runs_as,
        params=request.params,
        reason=request.reason,
        digest=request.digest,
        rule=request.rule,
        created_at=request.created_at,
        expires_at=request.expires_at,
        preview=request.preview,
        precondition=request.precondition,
        approvals=approvals_view(request.terms, given=request.agreeing),
        decisions=tuple(_decision_view(decision) for decision in request.decisions),
        asked_before=_history_view(facts.before),
        outcome=_outcome_view(request.outcome, with_output=with_output),
        problem=_problem_view(facts),
        finished_at=request.finished_at,
    )


def approvals_view(terms: Terms, *, given: int) -> ApprovalsView:
    """Return whose yes it takes, and how many are given."""
    return ApprovalsView(
        needed=terms.approvals,
        given=given,
        approvers=None if terms.approvers is None else tuple(sorted(terms.approvers)),
        approver_role=terms.approver_role,
    )


def _decision_view(decision: Decision) -> DecisionView:
    return DecisionView(
        approver=decision.approver,
        owner=decision.owner,
        decision=decision.decision.value,
        channel=decision.channel,
        at=decision.at,
        reason=decision.reason,
        **({} if decision.not_before is None else {"not_before": decision.not_before}),
    )


def _history_view(before: AskedBefore) -> HistoryView | None:
    if not before.times:
        return None
    last = None if before.last is None else _decision_view(before.last)
    return HistoryView(times=before.times, denied=before.denied, last=last)


def _problem_view(facts: RequestFacts) -> RequestProblem | None:
    request = facts.request
    problem, said = request.problem, request.denial_words
    if problem is None:
        return None
    error = BY_CODE.get(problem.code, InternalError)(problem.detail)
    view = RequestProblem(
        code=problem.code,
        detail=problem.detail,
        recovery=RecoveryView.of(_asked_again(facts) or error.recovery),
    )
    return view if said is None else view.model_copy(update={"decision_reason": said})


def _asked_again(facts: RequestFacts) -> Recovery | None:
    """Return when people may be asked again for what they denied, seen from `facts.now`."""
    last = facts.request.decisions[-1] if facts.request.decisions else None
    if facts.now is None or last is None or last.not_before is None:
        return None
    return again_after((last.not_before - facts.now).total_seconds())


def _outcome_view(outcome: Mapping[str, JsonValue] | None, *, with_output: bool) -> Outcome | None:
    if outcome is None:
        return None
    if not with_output:
        outcome = {"exit_code": outcome.get("exit_code"), "verified": outcome.get("verified")}
    return Outcome.model_validate(outcome)
