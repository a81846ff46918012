"""docs/explanation/prompts.md: what people see of real runs, on a phone and at a terminal."""

import io
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rich.console import Console, RenderableType

from host_agent.cli.terminal import endings, listing, render, request_fields
from host_agent.cli.watch import screen
from host_agent.cli.watch.model import WatchState
from host_agent.client import RequestView
from host_agent.notify.outcomes import render_outcome
from host_agent.notify.prompts import Prompt, how_over, render_prompt
from host_agent.requests.facts import RequestFacts, request_view
from host_agent.requests.model import State, Verb
from tests.support.prompt_cases import PromptCase, prompt_cases
from tests.support.stored_requests import NOW, a_decision

PHONE, TERMINAL, LINES = 38, 80, 24
CODE = "SP5AQXNLB7PJBFYY"
_MAX_CHARACTERS = 2_000
_OUTPUT = {"exit_code": 0, "verified": True, "duration_ms": 940}
_HEAD = """# What people see before they decide

Rendered by a test from real runs: `make docs` writes this page as root, and the tests compare it.
The previews are what the wrappers said a moment before: git on a repository, a program that is
registered, the stand-ins for OpenZFS and systemd behind the unmodified wrappers. Commits are
replaced, so that the page stays the same.

Everything people are told is derived once (`requests/facts.py`), and every channel and view is
made of it: host and effect, what is lost in sum, how it is taken back, the user that sudo really
changes to, who asks and for whom, their words, whether the same was denied within 24 hours, how
many must agree, until when. A prompt shows every parameter, in words or by its name; one that
cannot carries no code and says so. No line of it is a caller's: what somebody wrote stands in
quotes that it cannot end, on the same line, with everything hidden made visible.

The code comes apart, in a second message that is nothing but the answer. Both are one delivery:
both were taken, or both are sent again, with a new code. It keeps 16 characters (80 bits): it is
copied, not typed, and a shorter one would rest on counting wrong answers, which anybody who can
write to the agent could use to make it deaf. What is longer (digest, rule, precondition, all of a
list) is in `host-agent requests show`.

"""


def prompts_page() -> str:
    """Return the page, from runs made now."""
    with tempfile.TemporaryDirectory() as directory:
        cases = prompt_cases(Path(directory).resolve())
    return _HEAD + "\n".join([*_phone(cases), *_wide(cases), *_terminal(cases)])


def prompt_of(facts: RequestFacts) -> Prompt:
    """Return the prompt over Signal."""
    return render_prompt(
        facts, code=CODE, now=NOW, max_characters=_MAX_CHARACTERS, how=how_over("signal")
    )


def outcome_of(facts: RequestFacts) -> Prompt:
    """Return what people read once it is done."""
    return render_outcome(ended(facts), max_characters=_MAX_CHARACTERS)


def ended(facts: RequestFacts) -> RequestFacts:
    """Return the facts of a request that was approved and is done."""
    yes = tuple(a_decision(owner, Verb.APPROVE) for owner in ("alice", "erin"))
    decisions = yes[: facts.request.terms.approvals]
    request = replace(
        facts.request,
        state=State.SUCCEEDED,
        decisions=decisions,
        outcome=_OUTPUT,
        finished_at=NOW + timedelta(minutes=1),
    )
    return replace(facts, request=request)


def folded(text: str, width: int) -> list[str]:
    """Return the lines of a message as a screen folds them."""
    lines = []
    for line in text.split("\n"):
        lines += textwrap.wrap(line, width, break_on_hyphens=False) or [""]
    return lines


def view_of(facts: RequestFacts) -> RequestView:
    """Return what the API gives an approver."""
    body = request_view(facts, with_output=True).as_json()
    return RequestView.parse(body)


def _phone(cases: Sequence[PromptCase]) -> Iterable[str]:
    yield f"## On a phone, {PHONE} columns\n"
    for case in cases:
        prompt = prompt_of(case.facts)
        yield f"### {case.name.capitalize()}\n"
        yield _block([*folded(prompt.text, PHONE), "-- second message", prompt.answer or ""])
    yield "### Done\n"
    yield _block(folded(outcome_of(cases[0].facts).text, PHONE))


def _wide(cases: Sequence[PromptCase]) -> Iterable[str]:
    yield f"## The same at {TERMINAL} columns\n"
    for case in cases:
        yield _block(folded(prompt_of(case.facts).text, TERMINAL))


def _terminal(cases: Sequence[PromptCase]) -> Iterable[str]:
    here = [replace(case.facts, host=cases[0].facts.host) for case in cases]
    views = [view_of(facts) for facts in here]
    yield f"## At a terminal, {TERMINAL} columns\n"
    yield "`requests list`: what destroys is red and has a `!`, what changes is yellow.\n"
    shown = listing.lines(listing.ordered(views), width=TERMINAL, now=NOW)
    yield _block([listing.headline(views), *(line.plain for line in shown)])
    yield "`requests show`, and `requests approve` before it asks:\n"
    yield _block(_drawn(render.fields(request_fields.drawn(views[0], NOW))))
    yield f"`requests watch`, {TERMINAL} by {LINES}:\n"
    yield _block(_watched(views))
    yield "After an approval, at `requests approve` and in the watch; for the caller, at `call`:\n"
    first = cases[0].facts
    half = replace(first.request, decisions=(a_decision("alice"),))
    no = a_decision("erin", Verb.DENY, reason="ask after 18:00")
    denied = replace(first.request, state=State.DENIED, decisions=(no,), finished_at=NOW)
    ends = (replace(first, request=half), ended(first), replace(first, request=denied))
    yield _block([endings.line(view_of(one)) for one in ends])


def _watched(views: Sequence[RequestView]) -> list[str]:
    ordered = tuple(listing.ordered(views))
    desk = WatchState(views=ordered, selected=ordered[0].request_id)
    drawn = screen.draw(desk, _console(io.StringIO()), now=NOW, trouble="", is_live=True)
    return screen.plain(drawn.lines)


def _drawn(table: RenderableType) -> list[str]:
    out = io.StringIO()
    _console(out).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _console(out: io.StringIO) -> Console:
    return Console(
        file=out,
        width=TERMINAL,
        height=LINES,
        markup=False,
        emoji=False,
        highlight=False,
        color_system=None,
        force_terminal=False,
    )


def _block(lines: Iterable[str]) -> str:
    return "\n".join(["```text", *lines, "```", ""])
