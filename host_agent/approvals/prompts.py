"""What people read: one renderer for all channels. Pure.

Every line is ours: it begins with one of our labels, and what comes from a caller, a host or a
person stands behind it on the same line, escaped. What decides comes first. What the caller or the
host wrote at length is cut first, and told so; parameters are never cut without the text saying,
above them, that it is not whole, and such a text carries no code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from host_agent.approvals.request import Decision, Request, State
from host_agent.approvals.wording import cut, duration, free, name, plain, value
from host_agent.canonical import JsonValue

MAX_TITLE = 80
SHOWN_HEX = 16
"""So many digits of a digest and of the audit head are shown."""
SHOWN_ID = 12
"""So many characters of a request's id are shown: the command line takes them."""

_MAX_RULE = 200
_MAX_SUMMARY = 500
_MAX_WORDS = 300
_MAX_CUT_VALUE = 120
_MAX_NAMES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text for one person: `title` is one line of at most 80 characters, `text` is all of it.

    Everything hidden in it is written visibly; no line of it that looks like ours is a caller's.
    `is_whole` is False where a parameter did not fit. The text says so in its second line, and
    there is no code in it: nobody can say yes with this text to what it does not show.
    """

    title: str
    text: str
    is_whole: bool = True


class How(StrEnum):
    """How a prompt can be answered where it is read. At a terminal it always can."""

    CODE = "code"
    """By a message with the code."""
    BUTTON = "button"
    """By a button that can only deny."""
    CHAT = "chat"
    """In the chat that a bridge shows it in."""
    NOWHERE = "nowhere"
    """At a terminal only."""


HOW: Mapping[str, How] = {
    "signal": How.CODE,
    "ntfy": How.BUTTON,
    "webhook": How.CHAT,
    "apprise": How.NOWHERE,
}
"""How a prompt is answered on each channel."""


def render_prompt(
    request: Request,
    *,
    owner: str,
    channel: str,
    code: str | None,
    audit_head: str,
    audit_sequence: int,
    host: str,
    now: datetime,
    max_characters: int,
    how: How,
) -> Prompt:
    """Return what `owner` reads before deciding on `request`.

    Args:
        request: what is asked.
        owner: whom the text is for, and whose voice an answer is.
        channel: where it is read.
        code: the code made for this sending; it gets into the text with `How.CODE` alone. With
            `How.BUTTON`, None means that there is no button.
        audit_head: the hash of the newest audit record, with its `sha256:`.
        audit_sequence: the number of that record.
        host: the name of the host that would change.
        now: the instant from which the time left is counted.
        max_characters: the text is not longer.
        how: how the channel takes answers.
    """
    verdict = f"{name(request.operation)} waits for a decision"
    headline = f"host-agent on {name(host)}: {verdict}"
    critical = [
        f"to: {name(owner)}, over {name(channel)}",
        f"operation: {name(request.operation)}",
        *(_parameter(key, item) for key, item in request.params.items()),
        *_who(request),
    ]
    standing = _standing(request, now, audit_head, audit_sequence)
    answers = _answers(request, how, code)
    before = [headline, *critical, _preview_line(request.preview)]
    after = [*_notes(request), *standing, *answers]
    title = _title(f"{plain(host)}: {plain(request.operation)} {plain(request.resource or '')}")
    room = max_characters - _length([*before, *after]) - 1
    words = _words(request, room)
    if words is not None:
        return Prompt(title=title, text="\n".join([*before, *words, *after]))
    text = _reduced(request, headline, [*standing, *_answers_unseen(request, how)], max_characters)
    return Prompt(title=title, text=text, is_whole=False)


def _length(lines: Sequence[str]) -> int:
    return sum(map(len, lines)) + max(len(lines) - 1, 0)


def _title(text: str) -> str:
    line = text.strip()
    return line if len(line) <= MAX_TITLE else f"{line[: MAX_TITLE - 4]} ..."


def _parameter(key: str, item: JsonValue) -> str:
    return f"parameter {name(key)}: {value(item)}"


def _who(request: Request) -> Iterator[str]:
    if request.resource is not None:
        yield f"resource: {name(request.resource)}"
    user = "the agent's own user" if request.unix_user is None else name(request.unix_user)
    yield f"runs as: {user}"
    yield f"caller: {name(request.caller)}"
    yield f"acting for: {name(request.owner)}"


def _standing(request: Request, now: datetime, head: str, sequence: int) -> list[str]:
    left = duration((request.expires_at - now).total_seconds())
    until = f"until {_instant(request.expires_at)}"
    return [
        f"rule: {cut(request.rule, _MAX_RULE)}",
        f"approvals: {_quorum(request)}",
        *(f"said: {_voice(decision)}" for decision in request.decisions[:_MAX_NAMES]),
        f"time left: {left} ({until})",
        *_identification(request, head, sequence),
    ]


def _identification(request: Request, head: str, sequence: int) -> list[str]:
    return [
        f"digest: {_hex(request.digest)}",
        f"request: {_short(request)}",
        f"audit head: {sequence}, {_hex(head)}",
    ]


def _hex(hashed: str) -> str:
    return name(hashed.removeprefix("sha256:")[:SHOWN_HEX])


def _short(request: Request) -> str:
    return plain(request.id[:SHOWN_ID])


def _instant(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _quorum(request: Request) -> str:
    terms = request.terms
    given = f"{request.agreeing} of {terms.approvals} given; role {name(terms.approver_role)}"
    if terms.approvers is None:
        return given
    named = sorted(terms.approvers)
    more = f" and {len(named) - _MAX_NAMES} more" if len(named) > _MAX_NAMES else ""
    return f"{given}, of {', '.join(map(name, named[:_MAX_NAMES]))}{more}"


def _voice(decision: Decision) -> str:
    said = f"{decision.decision.value} by {name(decision.owner)} over {name(decision.channel)}"
    return f"{said} at {_instant(decision.at)}"


# -- what the caller and the host wrote -----------------------------------------------------------


def _preview_line(preview: Mapping[str, JsonValue] | None) -> str:
    accuracy = "none" if preview is None else preview.get("accuracy")
    if preview is None or (accuracy == "none" and not preview.get("summary")):
        return "preview (none): what it would do is not known"
    label = accuracy if accuracy in ("exact", "estimate", "none") else "of unknown accuracy"
    return f"preview ({label}): {cut(_string(preview.get('summary')), _MAX_SUMMARY)}"


def _string(item: JsonValue) -> str:
    return item if isinstance(item, str) else value(item)


def _details(request: Request) -> list[str]:
    found = None if request.preview is None else request.preview.get("details")
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [_string(item) for item in found]


def _notes(request: Request) -> Iterator[str]:
    """Warn of letters that may look like others, where words of people are shown as they are."""
    parts = {
        "preview": " ".join([_preview_line(request.preview), *_details(request)]),
        "reason": request.reason or "",
        "rule": request.rule,
    }
    found = [part for part, text in parts.items() if not text.isascii()]
    if found:
        yield f"note: characters outside ASCII, which may be look-alikes, in: {', '.join(found)}"


_REASON = "reason (the caller's own words, not verified): "


def _words(request: Request, room: int) -> list[str] | None:
    """Return the lines of preview details and reason in `room` characters; None if none will do.

    Where both are too long, each gets half at least.
    """
    details = _details(request)
    lines = [f'detail: "{free(line)}"' for line in details]
    whole = [*lines, _reason(request.reason)]
    if _length(whole) <= room:
        return whole
    reason = _reason(request.reason, max(room // 2, room - _length(lines) - 1))
    shown = _first_lines(lines, details, room - len(reason) - 1)
    return [*shown, reason] if _length([*shown, reason]) <= room else None


def _reason(reason: str | None, room: int | None = None) -> str:
    if reason is None:
        return "reason: none was given"
    if room is None:
        return f'{_REASON}"{free(reason)}"'
    return _REASON + cut(reason, room - len(_REASON))


def _first_lines(lines: list[str], details: Sequence[str], room: int) -> list[str]:
    """Return as many lines as fit in `room`; the last one tells what was cut, if anything was."""
    if _length(lines) <= room:
        return lines
    shown: list[str] = []
    for number, line in enumerate(lines):
        left = sum(map(len, details[number + 1 :]))
        if _length([*shown, line, _cut_details(left)]) > room:
            break
        shown.append(line)
    return [*shown, _cut_details(sum(map(len, details[len(shown) :])))]


def _cut_details(characters: int) -> str:
    return f"detail: ... cut, {characters} characters"


# -- how to answer --------------------------------------------------------------------------------


def _answers(request: Request, how: How, code: str | None) -> Iterator[str]:
    if how is How.CODE and code is not None:
        yield f"to approve: answer CONFIRM {code}"
        yield "to deny: answer DENY, that code and why; or DENY as a reply to this message"
    elif how is How.CODE:
        yield "to deny: answer DENY as a reply to this message"
    elif how is How.BUTTON and code is not None:
        yield "to deny: press the button Deny of this message"
    elif how is How.CHAT:
        yield "to approve or deny: answer in the chat that shows this"
    yield f"at a terminal: host-agent requests approve {_short(request)}"


def _answers_unseen(request: Request, how: How) -> Iterator[str]:
    """Tell how to answer a prompt that does not show everything."""
    if how is How.CODE:
        yield "to deny: answer DENY as a reply to this message"
    yield f"to approve: only at a terminal, host-agent requests approve {_short(request)}"


def _reduced(request: Request, headline: str, after: list[str], max_characters: int) -> str:
    """Return a text that says at its top that it is not whole, and shows what fits."""
    look = f"look at all of it with: host-agent requests show {_short(request)}"
    first = [
        _cut_line(headline, _MAX_SUMMARY),
        f"NOT WHOLE: not all of it fits here; {look}",
        f"operation: {_short_name(request.operation)}",
    ]
    user = "the agent's own user" if request.unix_user is None else _short_name(request.unix_user)
    who = [
        f"runs as: {user}",
        f"caller: {_short_name(request.caller)}",
        f"acting for: {_short_name(request.owner)}",
    ]
    room = max_characters - _length([*first, *who, *after]) - 1
    return _clipped([*first, *_cut_parameters(request, room), *who, *after], max_characters)


def _short_name(text: str) -> str:
    return name(text) if len(text) <= _MAX_CUT_VALUE else cut(text, _MAX_CUT_VALUE, shown=plain)


def _cut_line(line: str, room: int) -> str:
    """Return a line of printable text in at most `room` characters, its cut told."""
    return line if len(line) <= room else f"{line[: max(room - 10, 0)]} ... cut"[:room]


def _cut_parameters(request: Request, room: int) -> list[str]:
    shown: list[str] = []
    for number, (key, item) in enumerate(request.params.items()):
        rest = f"parameters: ... cut, {len(request.params) - number} of {len(request.params)}"
        label, text = f"parameter {_short_name(key)}: ", value(item)
        if len(text) > _MAX_CUT_VALUE:
            text = _cut_value(item)
        if _length([*shown, label + text, rest]) > room:
            return [*shown, rest] if _length([*shown, rest]) <= room else shown
        shown.append(label + text)
    return shown


def _cut_value(item: JsonValue) -> str:
    """Return the beginning of a long value, its cut told."""
    if isinstance(item, str):
        return cut(item, _MAX_CUT_VALUE, shown=plain)
    text = value(item)
    return f"{text[:_MAX_CUT_VALUE]} ... cut, {len(text) - _MAX_CUT_VALUE} characters"


def _clipped(lines: Sequence[str], max_characters: int) -> str:
    """Return the lines that fit; nothing more than `max_characters`, whatever they are."""
    text = "\n".join(lines)
    if len(text) <= max_characters:
        return text
    kept: list[str] = []
    for line in lines:
        if _length([*kept, line, "... cut"]) > max_characters:
            break
        kept.append(line)
    return "\n".join([*kept, "... cut"])[:max_characters]


# -- what became of it ----------------------------------------------------------------------------

_ENDS: Mapping[State, str] = {
    State.SUCCEEDED: "was approved and is done",
    State.FAILED: "was approved and failed",
    State.TIMED_OUT: "was approved and did not end in time",
    State.UNKNOWN: "was approved; whether it ran to its end is unknown: look at the host",
    State.DENIED: "was denied; nothing was run",
    State.EXPIRED: "expired; nothing was run",
    State.CANCELLED: "was withdrawn; nothing was run",
}


def render_outcome(
    request: Request,
    *,
    owner: str,
    channel: str,
    audit_head: str,
    audit_sequence: int,
    host: str,
    now: datetime,
    max_characters: int,
) -> Prompt:
    """Return what `owner`, who was asked about `request`, reads once it has ended.

    It says what became of it and who decided. What the command printed is not in it. The arguments
    are those of `render_prompt`; `now` stands for the end where the request has none.
    """
    ended = _ENDS.get(request.state, f"is {request.state.value}")
    if request.state is State.FAILED and request.outcome is None:
        ended = "was approved and refused before it ran; nothing was run"
    operation = _short_name(request.operation)
    lines = [
        f"host-agent on {_short_name(host)}: {operation} {ended}",
        f"to: {_short_name(owner)}, over {name(channel)}",
        f"operation: {operation}",
        *([] if request.resource is None else [f"resource: {_short_name(request.resource)}"]),
        f"caller: {_short_name(request.caller)}",
        f"acting for: {_short_name(request.owner)}",
        *_ran(request),
        *_decided(request),
        f"ended: {_instant(request.finished_at or now)}",
        *_identification(request, audit_head, audit_sequence),
        f"at a terminal: host-agent requests show {_short(request)}",
    ]
    title = _title(f"{plain(host)}: {plain(request.operation)} {request.state.value}")
    return Prompt(title=title, text=_clipped(lines, max_characters))


def _ran(request: Request) -> Iterator[str]:
    if request.outcome is not None:
        seen = request.outcome.get("verified")
        verified = {True: "verified", False: "NOT VERIFIED: the probe did not see the effect"}
        probe = verified[seen] if isinstance(seen, bool) else "not probed"
        yield f"outcome: exit status {value(request.outcome.get('exit_code'))}; {probe}"
    if request.problem is not None:
        detail = cut(request.problem.detail, _MAX_WORDS)
        yield f"problem: {name(request.problem.code)}, {detail}"


def _decided(request: Request) -> Iterator[str]:
    if not request.decisions:
        yield "decided: by nobody"
    for decision in request.decisions[:_MAX_NAMES]:
        yield f"decided: {_voice(decision)}"
        if decision.reason:
            yield f"words: {cut(decision.reason, _MAX_WORDS)}"
