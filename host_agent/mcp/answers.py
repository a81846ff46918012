"""What a tool call is answered with: structured members, the same in words, and whether it failed.

Pure: values of the client in, values out. Every answer has `state` and `message`. What the host
wrote is in one member, `host_text`, between marks (`marks`); everything else is the agent's, or
escaped.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import JsonValue, ValidationError

from host_agent.client import Held, Outcome, PreviewView, Ran, RequestView
from host_agent.errors import (
    BY_CODE,
    CertificateRefusedError,
    ConnectionFailedError,
    HostError,
    InvalidAnswerError,
    PolicyDeniedError,
    ProblemError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.mcp.marks import as_line, marked
from host_agent.text import visible

UNDER_WAY = frozenset({"pending", "approved", "running"})
RETRY_SECONDS = 5


class OwnCode(StrEnum):
    """Codes of this server's own, beside those of the agent's problems."""

    UNREACHABLE = "mcp:unreachable"
    CERTIFICATE_REFUSED = "mcp:certificate-refused"
    INVALID_ANSWER = "mcp:invalid-answer"
    STILL_RUNNING = "mcp:still-running"
    CANCELLED = "mcp:cancelled"
    UNKNOWN_END = "mcp:unknown-end"


_DONE = frozenset({"succeeded", "unchanged"})
_CODE_BY_STATE: Mapping[str, str] = {
    "denied": "approval:denied",
    "expired": "approval:expired",
    "cancelled": OwnCode.CANCELLED,
    "unknown": OwnCode.UNKNOWN_END,
    "failed": "host:failed",
    "timed_out": "host:timed-out",
}
"""The code of a request that ended so without a problem of its own."""
_RECOVERY_BY_STATE: Mapping[str, JsonValue] = {
    "cancelled": {"kind": "never"},
    "unknown": {"kind": "ask_a_person"},
}
_DO_NOT_ASK = "Do not ask again: the same ask only attaches to this request."


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAnswer:
    """One answer. `members` are what the tool's output schema describes."""

    members: Mapping[str, JsonValue]
    is_error: bool = False

    @property
    def text(self) -> str:
        """Return the answer for a reader who does not see the members."""
        shown = {key: value for key, value in self.members.items() if key not in _TOLD}
        lines = [str(self.members["message"])]
        if shown:
            lines.append(as_line(shown))
        host_text = self.members.get("host_text")
        return "\n".join([*lines, str(host_text)] if host_text else lines)


_TOLD = frozenset({"message", "host_text"})


# -- it ran, or there was nothing to do -----------------------------------------------------------


def ran(answer: Ran) -> ToolAnswer:
    """Return the answer for what ran at once."""
    return ToolAnswer(
        members=_present(
            state=answer.state,
            message=_done_words(answer.operation, answer.state, answer.outcome),
            request_id=answer.request_id,
            operation=answer.operation,
            resource=_shown(answer.resource),
            grant=answer.grant,
            **_outcome_members(answer.outcome),
            host_text=_host_text(answer.outcome) or _preview_text(answer.preview),
        )
    )


def _done_words(operation: str, state: str, outcome: Outcome | None) -> str:
    if state == "unchanged":
        return f"{operation}: there was nothing to do; nothing has run and nobody was asked."
    if outcome is not None and outcome.verified is False:
        return f"{operation} ended without an error, and the probe did NOT see its effect."
    checked = " and was verified" if outcome is not None and outcome.verified else ""
    return f"{operation} has run{checked}."


def _outcome_members(outcome: Outcome | None) -> dict[str, JsonValue]:
    if outcome is None:
        return {}
    return {
        "exit_code": outcome.exit_code,
        "verified": outcome.verified,
        "truncated": True if outcome.truncated else None,
        "stdout_bytes": outcome.stdout_bytes if outcome.truncated else None,
    }


def _host_text(outcome: Outcome | None, *more: str) -> str:
    """Return what the host said: data as JSON where the operation reads its output, else as is."""
    if outcome is None:
        return marked(*more)
    said = outcome.stdout or "" if outcome.data is None else as_line(outcome.data)
    return marked(*more, said, outcome.stderr or "")


# -- it waits -------------------------------------------------------------------------------------


def held(answer: Held) -> ToolAnswer:
    """Return the answer for what waits, as far as the ask itself was told."""
    return ToolAnswer(
        members=_present(
            state=answer.state,
            message=_waiting_words(answer.state, answer.request_id, "a person"),
            request_id=answer.request_id,
            operation=answer.operation,
            expires_at=answer.body.get("expires_at"),
            rule=_shown(answer.rule),
            poll_after_seconds=answer.poll_after_seconds,
        )
    )


def of_request(view: RequestView) -> ToolAnswer:
    """Return the answer for a request as it is now: it waits, it has run, or it came to nothing."""
    if view.state in UNDER_WAY:
        return _waiting(view)
    return _succeeded(view) if view.state in _DONE else _failed(view)


def _waiting(view: RequestView) -> ToolAnswer:
    asked = view.approvals
    return ToolAnswer(
        members=_present(
            state=view.state,
            message=_waiting_words(view.state, view.request_id, _people(view)),
            **_request_members(view),
            expires_at=view.body.get("expires_at"),
            rule=_shown(view.rule),
            asked={
                "needed": asked.needed,
                "given": asked.given,
                "role": asked.approver_role,
                "approvers": None
                if asked.approvers is None
                else list(map(visible, asked.approvers)),
            },
            host_text=_preview_text(view.preview),
        )
    )


def _waiting_words(state: str, request_id: str, people: str) -> str:
    follow = f"Call request_status with request_id {request_id} to see what becomes of it."
    if state == "pending":
        return f"Nothing has run. It waits for {people} to approve it. {_DO_NOT_ASK} {follow}"
    return f"It is {state} and not finished. {_DO_NOT_ASK} {follow}"


def _people(view: RequestView) -> str:
    asked = view.approvals
    left = max(1, asked.needed - asked.given)
    if asked.approvers is None:
        return f"{left} of the people with the role {asked.approver_role}"
    return f"{left} of {', '.join(map(visible, asked.approvers))}"


def _preview_text(preview: PreviewView | None) -> str:
    if preview is None:
        return ""
    undo = f"Undo: {preview.undo}" if preview.undo else ""
    return marked(preview.summary, *preview.details, preview.about or "", undo)


def words_of(view: RequestView) -> str:
    """Return one sentence of how a request stands."""
    return str(of_request(view).members["message"])


# -- it ended -------------------------------------------------------------------------------------


def _succeeded(view: RequestView) -> ToolAnswer:
    return ToolAnswer(
        members=_present(
            state=view.state,
            message=_done_words(view.operation, view.state, view.outcome),
            **_request_members(view),
            **_outcome_members(view.outcome),
            host_text=_host_text(view.outcome),
        )
    )


def withdrawn(view: RequestView) -> ToolAnswer:
    """Return the answer of `request_cancel`: what was wanted, whatever the request came to."""
    told = of_request(view)
    members = {key: told.members[key] for key in told.members if key not in {"code", "recovery"}}
    return ToolAnswer(members=members)


def _failed(view: RequestView) -> ToolAnswer:
    problem = _object(view.body.get("problem"))
    code = problem.get("code") or _CODE_BY_STATE.get(view.state, "internal")
    detail, words = problem.get("detail"), problem.get("decision_reason")
    return ToolAnswer(
        members=_present(
            state=view.state,
            message=_ended_words(view),
            **_request_members(view),
            code=code,
            recovery=_recovery(problem, is_marked=True) or _RECOVERY_BY_STATE.get(view.state),
            **_outcome_members(view.outcome),
            host_text=_host_text(view.outcome, *_lines(detail), *_lines(words)),
        ),
        is_error=True,
    )


def _ended_words(view: RequestView) -> str:
    what = f"{view.operation} on {_shown(view.resource) or 'this host'}"
    match view.state:
        case "denied":
            return f"{what} was denied by a person; nothing has run. Their words are below, if any."
        case "expired":
            return f"{what} was not approved in time; nothing has run."
        case "cancelled":
            return f"{what} was withdrawn; nothing has run."
        case "unknown":
            return f"{what} was begun, and nobody knows how it ended: a person has to look."
        case state:
            return f"{what} has ended as {state}. Why is below."


def _request_members(view: RequestView) -> dict[str, JsonValue]:
    return {
        "request_id": view.request_id,
        "operation": view.operation,
        "resource": _shown(view.resource),
    }


def listed(view: RequestView) -> dict[str, JsonValue]:
    """Return a request as a row of `my_requests`."""
    return _present(
        **_request_members(view),
        state=view.state,
        created_at=view.body.get("created_at"),
        expires_at=view.body.get("expires_at") if view.state in UNDER_WAY else None,
        code=_object(view.body.get("problem")).get("code"),
    )


def rows(views: list[RequestView], *, has_more: bool) -> ToolAnswer:
    """Return the answer of `my_requests`."""
    waiting = sum(view.state in UNDER_WAY for view in views)
    more = " There are older ones." if has_more else ""
    return ToolAnswer(
        members={
            "state": "listed",
            "message": f"{len(views)} requests, {waiting} of them not finished.{more}",
            "requests": [listed(view) for view in views],
        }
    )


# -- it was refused -------------------------------------------------------------------------------


_QUOTING = (HostError, PolicyDeniedError, ProtectedError, TargetChangedError)
"""Errors that may repeat a wrapper's sentence, which names what it found on the host."""


def refused(problem: ProblemError) -> ToolAnswer:
    """Return the answer for a problem; what the host or a person may have said in it is marked."""
    body, code = problem.body, problem.code
    outcome: Outcome | None = None
    if "outcome" in body:
        with contextlib.suppress(ValidationError):  # of another version: the rest is told
            outcome = Outcome.model_validate(body["outcome"])
    has_run = "outcome" in body
    is_quoting = has_run or issubclass(BY_CODE.get(code, HostError), _QUOTING)
    title = str(body.get("title", "The command failed"))
    quoted = (problem.detail,) if is_quoting else ()
    request = _object(body.get("request")).get("request_id")
    return ToolAnswer(
        members=_present(
            state="failed" if has_run else "refused",
            message=visible(title if is_quoting else problem.detail),
            code=code,
            recovery=_recovery(body, is_marked=is_quoting),
            request_id=request if isinstance(request, str) else None,
            **_outcome_members(outcome),
            host_text=_host_text(outcome, *quoted, *_lines(body.get("decision_reason"))),
        ),
        is_error=True,
    )


def _recovery(problem: Mapping[str, JsonValue], *, is_marked: bool) -> JsonValue:
    """Return what to do next; its pointers lead into the tool's arguments.

    A fault does not repeat a detail that `is_marked`.
    """
    recovery = problem.get("recovery")
    if not isinstance(recovery, dict) or not isinstance(faults := recovery.get("faults"), list):
        return recovery
    told = problem.get("detail") if is_marked else None
    return {**recovery, "faults": [_into_arguments(fault, told) for fault in faults]}


def _into_arguments(fault: JsonValue, told: JsonValue) -> JsonValue:
    if not isinstance(fault, dict):
        return fault
    members = dict(fault)
    if told is not None and fault.get("message") == told:
        del members["message"]
    if isinstance(pointer := fault.get("pointer"), str):
        members["pointer"] = pointer.removeprefix("/params")
    return members


def unanswered(error: Exception, *, may_have_run: bool) -> ToolAnswer:
    """Return the answer for an agent that gave none, or one that is not this service's."""
    match error:
        case CertificateRefusedError():
            return _own(OwnCode.CERTIFICATE_REFUSED, str(error), {"kind": "ask_a_person"})
        case ConnectionFailedError():
            before = " It may have been followed: see my_requests first." if may_have_run else ""
            again: JsonValue = {"kind": "ask_again_after", "seconds": RETRY_SECONDS}
            return _own(OwnCode.UNREACHABLE, f"{error}{before}", again)
        case InvalidAnswerError():
            return _own(OwnCode.INVALID_ANSWER, str(error), {"kind": "ask_a_person"})
        case _:
            raise error


def still_running(operation: str, *, is_read: bool) -> ToolAnswer:
    """Return the answer for what outlasts the caller's patience and has no request of its own."""
    where = "A read may be asked for again." if is_read else "See my_requests before asking again."
    words = f"{operation} has not ended yet; what was begun goes on. {where}"
    return _own(OwnCode.STILL_RUNNING, words, {"kind": "ask_again_after", "seconds": RETRY_SECONDS})


def own_refusal(code: str, words: str, *, pointer: str | None = None) -> ToolAnswer:
    """Return the answer for a call that this server itself cannot follow."""
    if pointer is None:
        return _own(code, words, {"kind": "never"})
    fault: JsonValue = {"pointer": pointer, "message": words, "place": "body"}
    return _own(code, words, {"kind": "change_parameters", "faults": [fault]})


def _own(code: str, words: str, recovery: JsonValue) -> ToolAnswer:
    members = _present(state="refused", message=visible(words), code=code, recovery=recovery)
    return ToolAnswer(members=members, is_error=True)


def _present(**members: JsonValue) -> dict[str, JsonValue]:
    return {key: value for key, value in members.items() if value is not None and value != ""}


def _shown(text: str | None) -> str | None:
    return None if text is None else visible(text)


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _lines(value: JsonValue) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else ()
