"""A request as a person reads it before deciding: critical fields first, every parameter.

All text is escaped and bounded. What somebody wrote (the reason) is marked as their words, and the
preview says how far it can be believed.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from pydantic import JsonValue

from host_agent.cli import render
from host_agent.client import Approvals, Outcome, Preview, RequestView

VALUE_LIMIT = 1024
REASON_LIMIT = 600
PREVIEW_LINES = 40
OUTPUT_LINES = 200
NAME_LIMIT = 512

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]{0,31}")


def name_text(value: str | None) -> str:
    """Return a short name, escaped and bounded; `-` where there is none."""
    return "-" if value is None else render.visible(value, limit=NAME_LIMIT)


def time_left(view: RequestView, now: datetime) -> str:
    """Return how long the request can still be decided and run."""
    left = view.seconds_left(now)
    if left is None or view.is_finished:
        return "-"
    return render.duration_text(left) if left > 0 else "expired"


def rows(view: RequestView, now: datetime) -> list[tuple[str, str]]:
    """Return the labels and values of a request, in the order in which they are shown."""
    return [*_asked(view, now), *_expected(view), *_happened(view), *_said(view)]


def _asked(view: RequestView, now: datetime) -> Iterator[tuple[str, str]]:
    yield "operation", name_text(view.operation)
    yield "resource", name_text(view.resource)
    for name, value in view.params.items():
        text = render.value_text(value, limit=VALUE_LIMIT)
        if _PLAIN_NAME.fullmatch(name):
            yield f"parameter {name}", text
        else:
            yield "parameter", f"{render.visible(name, limit=NAME_LIMIT)} = {text}"
    yield "runs as", name_text(view.unix_user)
    yield "caller", name_text(view.caller)
    yield "for", name_text(view.owner)
    yield "digest", name_text(view.digest)
    yield "request", name_text(view.request_id)
    yield "state", name_text(view.state)
    if view.expires_at is not None:
        yield "time left", f"{time_left(view, now)} (until {_instant(view.expires_at)})"
    yield "rule", name_text(view.rule)
    if view.approvals is not None:
        yield "approvals", _approvals_text(view.approvals)


def _approvals_text(approvals: Approvals) -> str:
    words = f"{approvals.given} of {approvals.needed} given"
    role = name_text(approvals.approver_role)
    if approvals.approvers is None:
        return f"{words}; anybody with role {role}"
    owners = ", ".join(render.visible(owner, limit=64) for owner in approvals.approvers[:20])
    return f"{words}; role {role}, of {owners}"


def _expected(view: RequestView) -> Iterator[tuple[str, str]]:
    if view.preview is not None:
        accuracy = view.preview.accuracy
        known = accuracy if accuracy in ("exact", "estimate", "none") else "of unknown accuracy"
        yield f"preview ({known})", _preview_text(view.preview)
    if view.precondition:
        yield "precondition", _pairs(view.precondition)


def _preview_text(preview: Preview) -> str:
    summary = render.visible(preview.summary, limit=VALUE_LIMIT)
    lines = [render.visible(line, limit=VALUE_LIMIT) for line in preview.details[:PREVIEW_LINES]]
    left_out = len(preview.details) - len(lines)
    if left_out > 0:
        lines.append(f"... [{left_out} more lines; --json shows all]")
    return "\n".join([summary, *lines] if summary else lines)


def _pairs(values: dict[str, JsonValue]) -> str:
    return "\n".join(
        f"{name_text(name)} = {render.value_text(value, limit=VALUE_LIMIT)}"
        for name, value in values.items()
    )


def _happened(view: RequestView) -> Iterator[tuple[str, str]]:
    for decision in view.decisions:
        words = [decision.decision, decision.owner or decision.approver, decision.channel]
        text = " · ".join(name_text(word) for word in words if word)
        if decision.reason:
            text += f"\n{render.visible(decision.reason, limit=REASON_LIMIT)}"
        yield "decision", text
    if view.problem is not None:
        detail = render.visible(view.problem.detail, limit=VALUE_LIMIT)
        yield "problem", f"{detail} ({name_text(view.problem.code)})"
    if view.outcome is not None:
        yield from _outcome(view.outcome)


def _outcome(outcome: Outcome) -> Iterator[tuple[str, str]]:
    words = [f"exit status {outcome.exit_code}"]
    if outcome.duration_ms is not None:
        words.append(f"{outcome.duration_ms} ms")
    words.append(verified_text(outcome.verified))
    if outcome.truncated:
        words.append("output cut at its limit")
    yield "outcome", " · ".join(words)
    for name, text in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
        if text:
            yield name, render.visible_lines(text, max_lines=OUTPUT_LINES)


def verified_text(verified: bool | None) -> str:  # noqa: FBT001 - a value of three, not a mode
    """Return what the probe saw."""
    if verified is None:
        return "not probed"
    return "verified" if verified else "NOT VERIFIED: the probe did not see the effect"


def _said(view: RequestView) -> Iterator[tuple[str, str]]:
    if view.reason is not None:
        words = render.visible_lines(view.reason, max_lines=10, limit=REASON_LIMIT)
        yield "reason", f"(the caller's own words, unverified)\n{words}"


def _instant(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def short_ids(views: Iterable[RequestView]) -> dict[str, str]:
    """Return for each id the shortest beginning, of at least 12 characters, that names it alone."""
    ids = [view.request_id for view in views]
    return {full: _shortest(full, ids) for full in ids}


def _shortest(full: str, ids: list[str]) -> str:
    for length in range(12, len(full)):
        if sum(other.startswith(full[:length]) for other in ids) == 1:
            return full[:length]
    return full
