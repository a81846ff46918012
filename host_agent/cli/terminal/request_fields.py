"""A request as a person reads it before deciding: what decides first, every parameter.

All text is escaped and bounded. What somebody wrote (the reason) is marked as their words, and the
preview says how far it can be believed.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import JsonValue

from host_agent.cli.terminal import render
from host_agent.client import ApprovalsView, HistoryView, Outcome, PreviewView, RequestView

if TYPE_CHECKING:
    from rich.text import Text

VALUE_LIMIT = 1024
REASON_LIMIT = 600
PREVIEW_LINES = 40
OUTPUT_LINES = 200
NAME_LIMIT = 512
STYLES = {"destroy": "bold red", "change": "yellow", "read": "green"}
"""The colour of each effect."""

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
    """Return the labels and values of a request, in the order in which they are shown.

    First what decides: host, effect, what is lost, undo, who runs it, who asks, and their words.
    """
    return [*_decisive(view, now), *_whole(view), *_happened(view), *_output(view)]


def _decisive(view: RequestView, now: datetime) -> Iterator[tuple[str, str]]:
    yield "host", name_text(view.host)
    yield effect_label(view), f"{verb(view)} {name_text(view.subject)}"
    if view.preview is not None:
        accuracy = view.preview.accuracy
        known = accuracy if accuracy in ("exact", "estimate", "none") else "of unknown accuracy"
        yield f"preview ({known})", _preview_text(view.preview)
        if view.preview.undo is not None:
            yield "undo", render.visible(view.preview.undo, limit=NAME_LIMIT)
    yield "runs as", name_text(view.runs_as if view.runs_as is not None else view.unix_user)
    yield "asked by", f"{name_text(view.caller)}, for {name_text(view.owner)}"
    if view.reason is not None:
        words = render.visible_lines(view.reason, max_lines=10, limit=REASON_LIMIT)
        yield "reason", f"(the caller's own words, unverified)\n{words}"
    if view.asked_before is not None and view.asked_before.denied:
        yield "denied before", _before_text(view.asked_before, now)
    if view.approvals is not None:
        yield "approvals", _approvals_text(view.approvals)
    if view.expires_at is not None:
        yield "time left", f"{time_left(view, now)} (until {_instant(view.expires_at)})"
    yield "state", name_text(view.state)


def drawn(view: RequestView, now: datetime) -> "list[tuple[str, str | Text]]":
    """Return `rows` with what is done in the colour of its effect."""
    from rich.text import Text

    label = effect_label(view)
    return [
        (name, Text(value, style=STYLES.get(name, "")) if name == label else value)
        for name, value in rows(view, now)
    ]


def effect_label(view: RequestView) -> str:
    """Return what it does to the host, as a label."""
    return view.effect if view.effect in STYLES else "effect"


def verb(view: RequestView) -> str:
    """Return the operation in a word."""
    return render.visible(view.verb or view.operation, limit=NAME_LIMIT)


def _before_text(before: HistoryView, now: datetime) -> str:
    text = f"{before.denied} of {before.times} times within a day"
    last = before.last
    if last is None:
        return text
    ago = "" if last.at is None else f" {render.span_text((now - last.at).total_seconds())} ago"
    text = f"{text}, last{ago} by {name_text(last.owner or last.approver)}"
    return f"{text}: {render.words(last.reason, limit=REASON_LIMIT)}" if last.reason else text


def _whole(view: RequestView) -> Iterator[tuple[str, str]]:
    """Yield all that an approval binds, and how the request is named."""
    yield "operation", name_text(view.operation)
    yield "resource", name_text(view.resource)
    for name, value in view.params.items():
        text = render.value_text(value, limit=VALUE_LIMIT)
        if _PLAIN_NAME.fullmatch(name):
            yield f"parameter {name}", text
        else:
            yield "parameter", f"{render.visible(name, limit=NAME_LIMIT)} = {text}"
    yield "rule", name_text(view.rule)
    yield "request", name_text(view.request_id)
    yield "digest", name_text(view.digest)
    if view.precondition:
        yield "precondition", _pairs(view.precondition)
    if view.preview is not None and view.preview.about:
        yield "says of itself", render.visible(view.preview.about, limit=VALUE_LIMIT)


def _approvals_text(approvals: ApprovalsView) -> str:
    words = f"{approvals.given} of {approvals.needed} given"
    role = name_text(approvals.approver_role)
    if approvals.approvers is None:
        return f"{words}; anybody with role {role}"
    owners = ", ".join(render.visible(owner, limit=64) for owner in approvals.approvers[:20])
    return f"{words}; role {role}, of {owners}"


def _preview_text(preview: PreviewView) -> str:
    summary = render.visible(preview.summary, limit=VALUE_LIMIT)
    shown = preview.details[:PREVIEW_LINES]
    lines = [f"- {render.visible(line, limit=VALUE_LIMIT)}" for line in shown]
    left_out = len(preview.details) - len(lines)
    if left_out > 0:
        lines.append(f"... [{left_out} more lines; --json shows all]")
    if preview.left_out > 0:
        lines.append(f"and {preview.left_out} more, which are not listed")
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


def _output(view: RequestView) -> Iterator[tuple[str, str]]:
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


def _instant(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def short_ids(views: Iterable[RequestView]) -> dict[str, str]:
    """Return for each id the shortest beginning, of at least 8 characters, that names it alone."""
    ids = [view.request_id for view in views]
    return {full: _shortest(full, ids) for full in ids}


def _shortest(full: str, ids: list[str]) -> str:
    for length in range(8, len(full)):
        if sum(other.startswith(full[:length]) for other in ids) == 1:
            return full[:length]
    return full
