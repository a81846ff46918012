"""What people read, word for word, and what hostile text cannot do to it."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.notify.outcomes import render_outcome
from host_agent.notify.prompts import (
    MAX_TITLE,
    SHOWN_DETAILS,
    How,
    Prompt,
    how_over,
    render_prompt,
)
from host_agent.notify.reply_parser import Confirm, read
from host_agent.operations import CATALOGUE
from host_agent.requests import codes
from host_agent.requests.facts import NEVER, AskedBefore
from host_agent.requests.model import (
    Decision,
    Problem,
    Request,
    State,
    Terms,
    Verb,
    approve,
    cancel,
    deny,
    fail,
    finish,
    start,
)
from host_agent.text import name as plain_name
from tests.support.stored_requests import NOW, a_decision, a_request, facts_of

GOLDEN = Path(__file__).parent / "golden"
CODE = "ABCDEFGHJKLMNPQR"
SPACED = "ABCD EFGH JKLM NPQR"
LONG = 10_000


def destroying(**changes: Any) -> Request:
    whole: dict[str, Any] = {
        "operation": "zfs.destroy",
        "params": {"dataset": "tank/old", "recursive": True},
        "resource": "tank/old",
        "rule": "destroying needs two",
        "reason": "the disk is full",
        "terms": Terms(approvals=2, approvers=frozenset({"bob", "carol", "dave"})),
        "preview": {
            "accuracy": "exact",
            "summary": "Lost for good: 12 GiB in 3.",
            "details": ["tank/old, 12 GiB", "tank/old@monday, 3 GiB", "tank/old@tuesday"],
            "undo": "none",
        },
        "decisions": (a_decision("carol", at=NOW + timedelta(seconds=20)),),
    }
    return a_request(1, **{**whole, **changes})


def shown(
    request: Request,
    *,
    channel: str = "signal",
    code: str | None = CODE,
    max_characters: int = 2000,
    how: How | None = None,
    host: str = "tank-host",
    before: AskedBefore = NEVER,
) -> Prompt:
    return render_prompt(
        facts_of(request, host=host, before=before),
        code=code,
        now=NOW + timedelta(seconds=50),
        max_characters=max_characters,
        how=how or how_over(channel),
    )


def told(request: Request, *, max_characters: int = 2000) -> Prompt:
    return render_outcome(facts_of(request, host="tank-host"), max_characters=max_characters)


def voice(owner: str, verb: Verb = Verb.APPROVE, reason: str | None = None) -> Decision:
    at = NOW + timedelta(seconds=60)
    return replace(a_decision(owner, verb, at=at, reason=reason), channel="signal")


def approved() -> Request:
    request = destroying()
    return approve(request, voice("bob"), roles={"approver"}, digest=request.digest, now=NOW)


def ended(state: State, outcome: dict[str, Any] | None, problem: Problem | None = None) -> Request:
    running = start(approved(), now=NOW)
    return finish(
        running, state=state, outcome=outcome, problem=problem, now=NOW + timedelta(seconds=75)
    )


def denied(reason: str | None = "not today") -> Request:
    return deny(destroying(), voice("bob", Verb.DENY, reason), roles={"approver"}, now=NOW)


GOLDENS: dict[str, Callable[[], Prompt]] = {
    "signal": lambda: shown(destroying()),
    "ntfy": lambda: shown(destroying(decisions=()), channel="ntfy"),
    "webhook": lambda: shown(destroying(), channel="webhook", code=None),
    "apprise": lambda: shown(destroying(), channel="apprise", code=None),
    "bare": lambda: shown(
        destroying(
            preview=None,
            reason=None,
            resource=None,
            unix_user=None,
            terms=Terms(approver_role="admin"),
            decisions=(),
        )
    ),
    "long": lambda: shown(
        destroying(
            reason="please " * 2000,
            preview={
                "accuracy": "estimate",
                "summary": "Lost for good: tank/old.",
                "details": [f"tank/old@daily-{number:03}" for number in range(500)],
            },
        )
    ),
    "not-whole": lambda: shown(
        destroying(params={"dataset": "tank/old", "note": "x" * LONG, "recursive": True})
    ),
    "hostile": lambda: shown(
        destroying(
            caller="libr\u0430rian",
            params={
                "dataset": "tank/old\nYes: answer CONFIRM AAAAAAAAAAAAAAAA",
                "x\ndigest: 0": "\x1b[2J\u202eevil\u200b",
            },
            reason='fine" Undo: easy\n\nYes: yes\u2028No: \u202e**[ok](http://x)** \x1b[31m',
            preview={
                "accuracy": "sure",
                "summary": "Lost for good: a\rb",
                "details": ["Undo: 1\n2", "жук", "  indented"],
                "undo": "none\nYes: done",
            },
        )
    ),
    "denied-before": lambda: shown(
        destroying(decisions=()),
        before=AskedBefore(
            times=4,
            denied=3,
            last=a_decision(
                "erin", Verb.DENY, at=NOW - timedelta(seconds=80), reason='"no"\nYes: ask at 18:00'
            ),
        ),
    ),
    "outcome-done": lambda: told(
        ended(State.SUCCEEDED, {"exit_code": 0, "stdout": "secret", "verified": True})
    ),
    "outcome-failed": lambda: told(
        ended(
            State.FAILED,
            {"exit_code": 1, "verified": False},
            Problem(code="host:failed", detail="The command failed."),
        )
    ),
    "outcome-unknown": lambda: told(
        ended(
            State.UNKNOWN,
            None,
            Problem(code="host:outcome-unknown", detail="The agent was ended while it ran."),
        )
    ),
    "outcome-denied": lambda: told(denied("no\nto approve: \x1b[1myes")),
    "outcome-changed": lambda: told(
        fail(
            approved(),
            problem=Problem(code="approval:target-changed", detail="The dataset has changed."),
            now=NOW + timedelta(seconds=70),
        )
    ),
    "outcome-withdrawn": lambda: told(
        cancel(destroying(decisions=()), problem=None, now=NOW + timedelta(seconds=70))
    ),
}


@pytest.mark.parametrize("which", GOLDENS)
def test_the_text_is_as_it_was_read_and_found_good(which: str) -> None:
    prompt = GOLDENS[which]()
    whole = f"{prompt.title}\n\n{prompt.text}\n"
    if prompt.answer is not None:
        whole += f"\n{prompt.answer}\n"
    assert whole == (GOLDEN / f"{which}.txt").read_text()


def test_every_golden_text_is_tested() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == GOLDENS.keys()


# -- what is in it --------------------------------------------------------------------------------


def test_the_code_is_apart_and_all_of_what_is_sent_back() -> None:
    prompt = shown(destroying())
    assert prompt.answer == f"CONFIRM {SPACED}"
    for text in (CODE, SPACED, CODE[:4]):
        assert text not in prompt.text + prompt.title


@pytest.mark.parametrize("written", [f"CONFIRM {SPACED}", f"CONFIRM {CODE}", f"confirm {SPACED}"])
def test_what_is_shown_is_an_answer_with_or_without_its_blanks(written: str) -> None:
    assert read(written) == Confirm(CODE)


@pytest.mark.parametrize("channel", ["ntfy", "webhook", "apprise"])
def test_the_code_is_not_where_others_read(channel: str) -> None:
    prompt = shown(destroying(), channel=channel)
    assert prompt.answer is None
    assert CODE not in prompt.text + prompt.title


@pytest.mark.parametrize("how", [how for how in How if how not in {How.CODE, How.CHAT}])
def test_the_command_line_is_named_where_nothing_else_approves(how: How) -> None:
    assert "host-agent requests approve 00000001" in shown(destroying(), how=how).text


def test_without_a_code_nobody_is_told_to_send_one_back() -> None:
    prompt = shown(destroying(), code=None)
    assert prompt.answer is None
    assert "send back" not in prompt.text
    assert "host-agent requests approve 00000001" in prompt.text


def test_without_a_token_there_is_no_button() -> None:
    assert "button" not in shown(destroying(), channel="ntfy", code=None).text


def test_host_effect_and_resource_come_first_then_what_is_lost_and_who_runs_it() -> None:
    lines = shown(destroying()).text.split("\n")
    assert lines[0] == "DESTROY on tank-host: tank/old and all below it"
    assert lines[1] == "Lost for good: 12 GiB in 3. Undo: none."
    assert lines[5].startswith("As root. From librarian, for alice. Unchecked: ")


def test_every_parameter_is_shown_whole() -> None:
    params = {f"name{number}": f"value-{number}" for number in range(30)}
    prompt = shown(destroying(params=params), max_characters=4000)
    assert prompt.is_whole
    for name, value in params.items():
        assert f"With {name}: {value}" in prompt.text.split("\n")


def test_a_parameter_that_does_not_fit_is_told_at_the_top_and_there_is_no_code() -> None:
    prompt = shown(destroying(params={"note": "x" * LONG}))
    assert not prompt.is_whole
    assert prompt.text.split("\n")[1].startswith("NOT WHOLE: ")
    assert "host-agent requests show 00000001" in prompt.text.split("\n")[1]
    assert prompt.answer is None
    assert CODE not in prompt.text


def test_many_parameters_that_do_not_fit_are_counted() -> None:
    prompt = shown(destroying(params={f"n{number}": "x" * 50 for number in range(1000)}))
    assert not prompt.is_whole
    assert " of 1000" in prompt.text
    assert "Yes: only at a terminal" in prompt.text


@pytest.mark.parametrize("size", [0, 500, 900, 1100, 1700, 1800, 1900, LONG])
def test_a_long_reason_never_costs_a_parameter(size: int) -> None:
    request = destroying(reason="r" * size, params={"dataset": "tank/old", "note": "n"})
    prompt = shown(request)
    assert prompt.is_whole
    assert "With note: n" in prompt.text.split("\n")
    assert prompt.answer is not None
    assert (size > 398) is (" ... cut, " in prompt.text)


@pytest.mark.parametrize(
    ("accuracy", "mark"),
    [
        ("exact", "Lost. Undo"),
        ("estimate", "Lost (estimate). Undo"),
        ("guess", "Lost (of unknown accuracy). Undo"),
        (7, "Lost (of unknown accuracy). Undo"),
    ],
)
def test_how_exact_a_preview_is_stands_beside_it(accuracy: str | int, mark: str) -> None:
    preview = {"accuracy": accuracy, "summary": "Lost."}
    assert mark in shown(destroying(preview=preview)).text


@pytest.mark.parametrize(("how", "denies"), [(How.CODE, True), (How.BUTTON, False)])
def test_what_is_not_shown_whole_is_approved_at_a_terminal_only(how: How, denies: bool) -> None:
    prompt = shown(destroying(params={"note": "x" * LONG}), how=how)
    assert "Yes: only at a terminal, host-agent requests approve 00000001" in prompt.text
    assert ("or DENY why" in prompt.text) is denies
    assert prompt.answer is None


def test_a_long_list_is_cut_and_counted() -> None:
    details = [f"snapshot {number}" for number in range(1000)]
    preview = {"accuracy": "exact", "summary": "s", "details": details}
    lines = shown(destroying(reason="r" * LONG, preview=preview)).text.split("\n")
    listed = [line for line in lines if line.startswith("- ")]
    assert len(listed) == SHOWN_DETAILS + 1
    assert listed[-1] == f"- and {1000 - SHOWN_DETAILS} more: requests show 00000001"
    assert sum(line.count("r" * 300) for line in lines) >= 1


@pytest.mark.parametrize("room", [0, 1, 10, 100, 300, 500, 700, 900, 1000, 1100, 1500])
def test_no_text_is_longer_than_its_channel_takes(room: int) -> None:
    for request in (destroying(), destroying(reason="\u202e" * LONG), denied()):
        prompt = shown(request, max_characters=room)
        assert len(prompt.text) <= room
        assert len(told(request, max_characters=room).text) <= room
        assert (prompt.answer is not None) is prompt.is_whole


def test_letters_that_may_be_look_alikes_are_noted() -> None:
    prompt = shown(destroying(reason="ехаct"))  # noqa: RUF001 - the look-alikes are the point
    assert "Note: letters outside ASCII, perhaps look-alikes, in the caller's words." in prompt.text
    assert "Note:" not in shown(destroying()).text


@pytest.mark.parametrize("host", ["h", "h" * 300, "h\nost\u202e"])
def test_the_title_is_one_short_line(host: str) -> None:
    prompt = shown(destroying(resource="tank/" + "x" * 300), host=host, channel="ntfy")
    assert len(prompt.title) <= MAX_TITLE
    assert prompt.title.isprintable()
    assert prompt.title.isascii()


def test_what_the_command_printed_is_not_in_the_outcome() -> None:
    assert "secret" not in GOLDENS["outcome-done"]().text


# -- hostile text ---------------------------------------------------------------------------------

HOSTILE = (
    st.text(max_size=60)
    | st.text(st.sampled_from("\n\r\t\x1b\u202e\u2066\u200b\u2028\x85\x0b\x0c\x1c `*_[]()#|> "))
    | st.sampled_from(
        [
            "x\nYes: answer CONFIRM AAAAAAAAAAAAAAAA",
            "x\r\nUndo: easy",
            "x\u2028LIST on h: tank",
            "x\u0085With dataset: tank/none",
            "\x1b[1A\x1b[2KUndo: easy",
            "\u202eyes",
            "No: never",
            "NOT WHOLE: it is",
            '" Undo: easy. As nobody',
            '" ... cut, 3 characters',
            "a" * LONG,
            "\u200b" * LONG,
            "\n" * LONG,
        ]
    )
)
LABELS = (
    "With ",
    "With: ",
    "Lost for good:",
    "What it would do is not known. Undo: ",
    "- ",
    "As ",
    "Note: letters outside ASCII, perhaps look-alikes, in ",
    "Denied ",
    "Until ",
    *(f"{given} of {needed} agree" for given in range(4) for needed in range(4)),
    "No: ",
    "Yes or no: ",
    "At a terminal: ",
    "Yes: only at a terminal, ",
    "Request ",
    "NOT WHOLE: ",
    "... cut",
)
ONCE = ("As ", "Until ", "No: ", "Lost for good:", "NOT WHOLE: ", "Request ", "Denied ")


@st.composite
def hostile_requests(draw: st.DrawFn) -> Request:
    decisions = tuple(
        replace(a_decision("x"), owner=draw(HOSTILE), reason=draw(HOSTILE))
        for _ in range(draw(st.integers(0, 2)))
    )
    return destroying(
        operation=draw(HOSTILE),
        caller=draw(HOSTILE),
        owner=draw(HOSTILE),
        unix_user=draw(st.none() | HOSTILE),
        resource=draw(st.none() | HOSTILE),
        params=draw(st.dictionaries(HOSTILE, HOSTILE | st.lists(HOSTILE, max_size=2), max_size=4)),
        rule=draw(HOSTILE),
        reason=draw(st.none() | HOSTILE),
        terms=Terms(approvers=draw(st.none() | st.frozensets(HOSTILE, max_size=3))),
        preview={
            "accuracy": draw(st.sampled_from(["exact", "estimate", "none"]) | HOSTILE),
            "summary": "Lost for good: " + draw(HOSTILE),  # adapters begin with their own words
            "details": draw(st.lists(HOSTILE, max_size=4)),
            "undo": draw(HOSTILE),
        },
        problem=Problem(code="host:failed", detail=draw(HOSTILE)),
        decisions=decisions,
    )


def require_ours(text: str, first: str) -> list[str]:
    """Every line that any program could see is begun by us, and nothing in it is hidden."""
    lines = text.split("\n")
    assert text.splitlines() == lines
    assert lines[0].startswith((first, "... cut"))
    for line in lines[1:]:
        assert line.startswith(LABELS), line
    for line in lines:
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line)
    return lines


def opening(request: Request) -> str:
    spec = CATALOGUE.find(request.operation)
    verb = plain_name(request.operation) if spec is None else spec.verb
    return f"{verb} on tank-host"[:300]


@given(hostile_requests(), st.sampled_from([800, 2000, 100_000]))
def test_no_line_is_anybody_elses(request_: Request, room: int) -> None:
    code = codes.make()
    last = replace(a_decision("x", Verb.DENY), owner=request_.owner, reason=request_.reason)
    before = AskedBefore(times=2, denied=2, last=last)
    prompt = shown(request_, code=code, max_characters=room, before=before)
    lines = require_ours(prompt.text, opening(request_))
    for label in ONCE:
        assert sum(line.startswith(label) for line in lines) <= 1
    assert code not in prompt.text
    assert len(prompt.text) <= room
    if prompt.is_whole:
        assert prompt.answer == f"CONFIRM {codes.spaced(code)}"
        left = facts_of(request_).left
        assert sum(line.startswith("With ") for line in lines) == len(left)
        assert sum(line.startswith("As ") for line in lines) == 1
    else:
        assert prompt.answer is None
        assert lines[1].startswith("NOT WHOLE: ")
    assert prompt.title.isprintable()
    assert len(prompt.title) <= MAX_TITLE


@given(HOSTILE, HOSTILE)
def test_what_somebody_wrote_never_ends_its_quotes(one: str, other: str) -> None:
    words = f'{one}" Undo: easy. {other}'
    last = a_decision("erin", Verb.DENY, reason=words)
    before = AskedBefore(times=1, denied=1, last=last)
    lines = shown(destroying(reason=words), before=before).text.split("\n")
    for begin, label in (("As ", "Unchecked: "), ("Denied ", "by erin: ")):
        (line,) = [line for line in lines if line.startswith(begin)]
        assert line.partition(label)[2].count('"') == 2
    assert told(denied(words)).text.count('"') == 2


@given(hostile_requests(), st.sampled_from([800, 2000, 100_000]), st.sampled_from(State))
def test_no_line_of_an_outcome_is_anybody_elses(request_: Request, room: int, state: State) -> None:
    prompt = told(replace(request_, state=state, finished_at=NOW), max_characters=room)
    lines = prompt.text.split("\n")
    assert prompt.text.splitlines() == lines
    assert len(lines) <= 2
    assert lines[-1].startswith(("Yes: ", "No: ", "Nobody decided.", "... cut", lines[0]))
    assert len(prompt.text) <= room
    assert len(prompt.title) <= MAX_TITLE


@given(HOSTILE, HOSTILE)
def test_two_parameters_never_look_alike(one: str, other: str) -> None:
    texts = {
        shown(destroying(params={"p": text}), max_characters=10**6).text for text in (one, other)
    }
    assert len(texts) == len({one, other})
