"""How a request ended, or how things stand with it, in one line for whoever asked or decided."""

from typing import TYPE_CHECKING

from host_agent.cli.terminal import render
from host_agent.requests.state import LIVE, NOTHING_RAN, State
from host_agent.text import SHOWN_ID

if TYPE_CHECKING:
    from host_agent.client import Outcome, RequestView

LOOK_SECONDS = 5
"""So long an approval waits to see how the run ends."""
UNDER_WAY: frozenset[str] = LIVE - {State.PENDING}
_NAME_LIMIT = 200
_WORDS_LIMIT = 300
_ENDS = {
    "failed": "failed",
    "timed_out": "ended at its limit",
    "unknown": "unknown: look at the host before asking again",
    "expired": "expired; nothing ran. Ask again if it is still needed",
    "cancelled": "cancelled; nothing ran",
}


def short_id(request_id: str) -> str:
    """Return the beginning of an id, escaped."""
    return render.visible(request_id[:SHOWN_ID])


def subject(operation: str, resource: str | None) -> str:
    """Return operation and resource on one line, escaped."""
    return " ".join(
        render.visible(word, limit=_NAME_LIMIT) for word in (operation, resource) if word
    )


def verified(outcome: "Outcome | None") -> str:
    """Return what the probe saw, in a word or two."""
    if outcome is None or outcome.verified is None:
        return "not probed"
    return "verified" if outcome.verified else "NOT VERIFIED"


def done(what: str, outcome: "Outcome | None", by: str) -> str:
    """Return the line of what succeeded: `done   zfs.destroy tank/old  verified  0.9 s  (...)`."""
    parts = [f"done   {what}", verified(outcome)]
    if outcome is not None and outcome.duration_ms is not None:
        parts.append(f"{outcome.duration_ms / 1000:.1f} s")
    return "  ".join([*parts, *([f"({by})"] if by else [])])


def line(view: "RequestView") -> str:
    """Return how a request ended, or what it waits for."""
    what = subject(view.operation, view.resource)
    if view.state == "succeeded":
        return done(what, view.outcome, approved_by(view))
    if view.state == "pending":
        return f"held   {what}  {waits_for(view)}"
    if not view.is_finished:
        return f"{render.visible(view.state)}  {what}"
    if view.state == "denied":
        return f"{denied_by(view)}; nothing ran"
    ended = _ENDS.get(view.state, render.visible(view.state))
    problem = view.problem
    if problem is None or view.state in NOTHING_RAN:
        return f"{ended}: {what}" if view.state == "failed" else f"{what}: {ended}"
    detail = render.visible(problem.detail, limit=1000).removesuffix(".")
    return f"{ended}: {what}: {detail}. ({render.visible(problem.code, limit=64)})"


def waits_for(view: "RequestView") -> str:
    """Return what a pending request waits for: the rule, or how many more must agree."""
    terms = view.approvals
    if terms is None or (terms.needed < 2 and not terms.given):
        return f"waits for: {render.visible(view.rule or 'a decision', limit=_NAME_LIMIT)}"
    left = terms.needed - terms.given
    more = "one more" if left == 1 else f"{left} more"
    return f"{terms.given} of {terms.needed}: waits for {more}"


def approved_by(view: "RequestView") -> str:
    """Return who said yes, or nothing."""
    names = [
        render.visible(decision.owner or decision.approver or "somebody", limit=64)
        for decision in view.decisions
        if decision.decision == "approve"
    ]
    return f"approved by {', '.join(names)}" if names else ""


def denied_by(view: "RequestView") -> str:
    """Return who said no, and their words."""
    denials = [decision for decision in view.decisions if decision.decision == "deny"]
    if not denials:
        return "denied"
    last = denials[-1]
    who = render.visible(last.owner or last.approver or "somebody", limit=64)
    said = f": {render.words(last.reason, limit=_WORDS_LIMIT)}" if last.reason else ""
    until = f"; not before {last.not_before:%Y-%m-%d %H:%M} UTC" if last.not_before else ""
    return f"denied by {who}{said}{until}"
