"""What people read before they decide: one renderer for all channels. Pure.

A prompt is short enough to be read on a phone: host and effect first, then what is lost in sum, how
it is taken back, who asks, their words, earlier denials, until when, and how to answer. The code is
apart, in a second message that is nothing but the answer.

Every line is ours: it begins with words of ours, and what comes from a caller, a host or a person
stands behind them on the same line, escaped. Lists and reasons are cut, and told so; parameters are
never cut without the text saying, above them, that it is not whole, and such a text has no code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from host_agent.canonical import JsonValue
from host_agent.clock import span
from host_agent.config import CHANNELS
from host_agent.requests import codes
from host_agent.requests.facts import RequestFacts
from host_agent.requests.model import Request
from host_agent.text import HASH_PREFIX, SHOWN_ID, cut, free, name, plain, value

MAX_TITLE = 80
SHOWN_DIGEST = 8
SHOWN_DETAILS = 6
"""So many lines of a preview are on a phone; `requests show` has all of them."""

_MAX_SUMMARY = 400
_MAX_DETAIL = 120
_MAX_UNDO = 120
_MAX_REASON = 400
_MAX_SAID = 200
_MAX_CUT_VALUE = 120
_MAX_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text for one person: `title` is one line of at most 80 characters, `text` is all of it.

    `answer` is a second message: with nothing around it, it is what to send back to approve. None
    where nobody can approve with a code.

    Everything hidden in it is written visibly; no line of it that looks like ours is a caller's.
    `is_whole` is False where a parameter did not fit. The text says so in its second line, and
    there is no code: nobody can say yes with this text to what it does not show.
    """

    title: str
    text: str
    is_whole: bool = True
    answer: str | None = None


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


def how_over(channel: str) -> How:
    """Return how a prompt is answered on a channel."""
    declared = CHANNELS[channel]
    if declared.carries_codes:
        return How.CODE
    if declared.has_buttons:
        return How.BUTTON
    return How.CHAT if declared.is_relayed else How.NOWHERE


def render_prompt(
    facts: RequestFacts, *, code: str | None, now: datetime, max_characters: int, how: How
) -> Prompt:
    """Return what a person reads before deciding.

    Args:
        facts: what is asked.
        code: the code made for this sending; it gets into `answer` with `How.CODE` alone. With
            `How.BUTTON`, None means that there is no button.
        now: the instant from which the time left is counted.
        max_characters: the text is not longer.
        how: how the channel takes answers.
    """
    request = facts.request
    title = title_of(facts)
    headline = headline_of(facts)
    before = [headline, *(_parameter(key, item) for key, item in facts.left), _sum(facts)]
    after = [*_notes(request), *_before(facts, now)]
    end = [_until(request, now), *_answers(request, how, code), _identification(request)]
    room = max_characters - _length([*before, *after, *end]) - 1
    middle = _words(facts, room)
    if middle is None:
        unseen = [_until(request, now), *_answers_unseen(request, how), _identification(request)]
        text = _reduced(facts, headline, unseen, max_characters)
        return Prompt(title=title, text=text, is_whole=False)
    answer = None
    if how is How.CODE and code is not None:
        answer = f"CONFIRM {codes.spaced(code)}"
    text = "\n".join([*before, *middle, *after, *end])
    return Prompt(title=title, text=text, answer=answer)


def title_of(facts: RequestFacts) -> str:
    """Return the request in one line of at most 80 characters: effect, host, resource."""
    text = f"{facts.verb} on {plain(facts.host)}: {plain(facts.request.resource or '')}"
    line = text.strip(" :")
    return line if len(line) <= MAX_TITLE else f"{line[: MAX_TITLE - 4]} ..."


def headline_of(facts: RequestFacts) -> str:
    """Return effect, host and what it is done to, whole."""
    where = f"{facts.verb} on {name(facts.host)}"
    return f"{where}: {facts.subject}" if facts.subject else where


def short_id(request: Request) -> str:
    """Return the beginning of a request's id, as it is shown and taken."""
    return plain(request.id[:SHOWN_ID])


def _length(lines: Sequence[str]) -> int:
    return sum(map(len, lines)) + max(len(lines) - 1, 0)


def _parameter(key: str, item: JsonValue) -> str:
    return f"With {name(key)}: {value(item)}"


# -- what would happen ----------------------------------------------------------------------------

_MARKS: Mapping[JsonValue, str] = {"exact": "", "none": "", "estimate": " (estimate)"}


def _sum(facts: RequestFacts) -> str:
    """Return what is lost or stops, in sum, and how it is taken back."""
    preview = facts.request.preview or {}
    said = preview.get("summary")
    undo = f"Undo: {_short(facts.undo, _MAX_UNDO)}."
    if not isinstance(said, str) or not said.strip():
        return f"What it would do is not known. {undo}"
    accuracy = preview.get("accuracy")
    mark = " (of unknown accuracy)"
    if isinstance(accuracy, str):
        mark = _MARKS.get(accuracy, mark)
    sentence = _short(said, _MAX_SUMMARY).removesuffix(".")
    return f"{sentence}{mark}. {undo}"


def _short(text: str, room: int) -> str:
    """Return a text that is ours in the main: not in quotes, its cut told."""
    shown = free(text.strip())
    return shown if len(shown) <= room else f"{shown[:room]} ... cut"


def _details(facts: RequestFacts) -> list[str]:
    found = (facts.request.preview or {}).get("details")
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [item if isinstance(item, str) else value(item) for item in found]


def _left_out(facts: RequestFacts) -> int:
    """Return how many items the preview itself does not name."""
    found = (facts.request.preview or {}).get("left_out")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def _listed(facts: RequestFacts, room: int) -> list[str]:
    """Return the lines of the preview that fit; the last one tells how many are left out."""
    request, details, beyond = facts.request, _details(facts), _left_out(facts)
    lines = [f"- {_short(line, _MAX_DETAIL)}" for line in details]
    shown = min(len(lines), SHOWN_DETAILS)
    while shown and _length([*lines[:shown], _more(request, len(lines) - shown + beyond)]) > room:
        shown -= 1
    left = len(lines) - shown + beyond
    return lines if not left else [*lines[:shown], _more(request, left)]


def _more(request: Request, left: int) -> str:
    return f"- and {left} more: requests show {short_id(request)}" if left else ""


# -- who asks -------------------------------------------------------------------------------------


def _words(facts: RequestFacts, room: int) -> list[str] | None:
    """Return the lines of preview and caller in `room` characters; None if none will do.

    Where both are too long, the caller's words get half at most.
    """
    listed = _listed(facts, room)
    caller = _asked(facts)
    if _length([*listed, caller]) > room:
        caller = _asked(facts, max(room // 2, room - _length(listed) - 1))
        listed = _listed(facts, room - len(caller) - 1)
    shown = [*listed, caller]
    return shown if _length(shown) <= room else None


def _user(facts: RequestFacts) -> str:
    return f"As {'nobody known' if facts.runs_as is None else _short_name(facts.runs_as)}"


def _asked(facts: RequestFacts, room: int | None = None) -> str:
    request = facts.request
    caller, owner = name(request.caller), name(request.owner)
    told = f"{_user(facts)}. From {caller}, for {owner}"
    if request.reason is None:
        return f"{told}, without a reason."
    most = _MAX_REASON if room is None else min(room - len(told) - 13, _MAX_REASON)
    return f"{told}. Unchecked: {cut(request.reason, most)}"


def _notes(request: Request) -> Iterator[str]:
    """Warn of letters that may look like others, where words of people are shown as they are."""
    preview = request.preview or {}
    parts = {"what it does": str(preview), "the caller's words": request.reason or ""}
    found = [part for part, text in parts.items() if not text.isascii()]
    if found:
        yield f"Note: letters outside ASCII, perhaps look-alikes, in {' and '.join(found)}."


def _before(facts: RequestFacts, now: datetime) -> Iterator[str]:
    """Tell that the same was denied before, and what was said."""
    last = facts.before.last
    if last is None:
        return
    ago = span((now - last.at).total_seconds())
    often = "once" if facts.before.denied == 1 else f"{facts.before.denied} times"
    said = f": {cut(last.reason, _MAX_SAID)}" if last.reason else "."
    yield f"Denied {often} in 24 h, last {ago} ago by {name(last.owner)}{said}"


# -- how to answer --------------------------------------------------------------------------------


def _until(request: Request, now: datetime) -> str:
    end = request.expires_at.astimezone(UTC)
    is_soon = end.date() == now.astimezone(UTC).date()
    clock = end.strftime("%H:%M UTC" if is_soon else "%Y-%m-%d %H:%M UTC")
    left = span((request.expires_at - now).total_seconds())
    return f"{_quorum(request)}Until {clock} ({left})."


def _quorum(request: Request) -> str:
    needed, given = request.terms.approvals, request.consents
    if needed == 1 and not given:
        return ""
    names = [name(consent.owner) for consent in given[:_MAX_NAMES]]
    said = f" ({', '.join(names)})" if names else ""
    return f"{request.agreeing} of {needed} agree{said}. "


def _answers(request: Request, how: How, code: str | None) -> Iterator[str]:
    at_terminal = f"host-agent requests approve {short_id(request)}"
    if how is How.CODE and code is not None:
        yield "No: \N{THUMBS DOWN SIGN} or DENY why. Yes: send back the next message."
    elif how is How.CODE:
        yield f"No: \N{THUMBS DOWN SIGN} or DENY why. Yes: {at_terminal}"
    elif how is How.BUTTON and code is not None:
        yield f"No: the button Deny. Yes: {at_terminal}"
    elif how is How.CHAT:
        yield "Yes or no: answer in the chat that shows this."
    else:
        yield f"At a terminal: {at_terminal}"


def _answers_unseen(request: Request, how: How) -> Iterator[str]:
    """Tell how to answer a prompt that does not show everything."""
    if how is How.CODE:
        yield "No: \N{THUMBS DOWN SIGN} or DENY why."
    yield f"Yes: only at a terminal, host-agent requests approve {short_id(request)}"


def _identification(request: Request) -> str:
    """Return the beginnings of the request's id and of its digest."""
    return f"Request {short_id(request)} {_hex(request)}"


def _hex(request: Request) -> str:
    return plain(request.digest.removeprefix(HASH_PREFIX)[:SHOWN_DIGEST])


# -- what does not fit ----------------------------------------------------------------------------


def _reduced(facts: RequestFacts, headline: str, after: list[str], max_characters: int) -> str:
    """Return a text that says at its top that it is not whole, and shows what fits."""
    request = facts.request
    look = f"look at all of it with: host-agent requests show {short_id(request)}"
    first = [
        _cut_line(headline, _MAX_SUMMARY),
        f"NOT WHOLE: not all of it fits here; {look}",
    ]
    caller, owner = _short_name(request.caller), _short_name(request.owner)
    who = f"{_user(facts)}. From {caller}, for {owner}."
    room = max_characters - _length([*first, who, *after]) - 1
    return clipped([*first, *_cut_parameters(facts, room), who, *after], max_characters)


def _short_name(text: str) -> str:
    return name(text) if len(text) <= _MAX_CUT_VALUE else cut(text, _MAX_CUT_VALUE, shown=plain)


def _cut_line(line: str, room: int) -> str:
    """Return a line of printable text in at most `room` characters, its cut told."""
    return line if len(line) <= room else f"{line[: max(room - 10, 0)]} ... cut"[:room]


def _cut_parameters(facts: RequestFacts, room: int) -> list[str]:
    params = facts.request.params
    shown: list[str] = []
    for number, (key, item) in enumerate(params.items()):
        rest = f"With: ... cut, {len(params) - number} of {len(params)} parameters"
        label, text = f"With {_short_name(key)}: ", value(item)
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


def clipped(lines: Sequence[str], max_characters: int) -> str:
    """Return the lines that fit; nothing more than `max_characters`, whatever they are."""
    text = "\n".join(lines)
    if len(text) <= max_characters:
        return text
    for count in reversed(range(len(lines))):
        cut_short = "\n".join([*lines[:count], "... cut"])
        if len(cut_short) <= max_characters:
            return cut_short
    return "... cut"[:max_characters]
