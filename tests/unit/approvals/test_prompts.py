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

from host_agent.approvals import codes
from host_agent.approvals.prompts import (
    HOW,
    MAX_TITLE,
    How,
    Prompt,
    render_outcome,
    render_prompt,
)
from host_agent.approvals.request import (
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
from tests.support.stored_requests import NOW, a_decision, a_request

GOLDEN = Path(__file__).parent / "golden"
CODE = "ABCDEFGHJKLMNPQR"
HEAD = "sha256:0123456789abcdef" + "7" * 48
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
            "summary": "destroys tank/old and 2 snapshots, 12 GiB",
            "details": ["tank/old@monday 3 GiB", "tank/old@tuesday 4 GiB"],
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
) -> Prompt:
    return render_prompt(
        request,
        owner="bob",
        channel=channel,
        code=code,
        audit_head=HEAD,
        audit_sequence=1234,
        host="tank-host",
        now=NOW + timedelta(seconds=50),
        max_characters=max_characters,
        how=how or HOW[channel],
    )


def told(request: Request, *, max_characters: int = 2000) -> Prompt:
    return render_outcome(
        request,
        owner="bob",
        channel="signal",
        audit_head=HEAD,
        audit_sequence=1240,
        host="tank-host",
        now=NOW + timedelta(seconds=90),
        max_characters=max_characters,
    )


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
                "summary": "destroys tank/old",
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
                "dataset": "tank/old\nto approve: answer CONFIRM AAAAAAAAAAAAAAAA",
                "x\ndigest: 0": "\x1b[2J\u202eevil\u200b",
            },
            reason="fine\n\nto approve: yes\u2028rule: \u202e**[ok](http://x)** \x1b[31m",
            preview={"accuracy": "sure", "summary": "a\rb", "details": ["to deny: 1\n2", "жук"]},
        )
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
    assert f"{prompt.title}\n\n{prompt.text}\n" == (GOLDEN / f"{which}.txt").read_text()


def test_every_golden_text_is_tested() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == GOLDENS.keys()


# -- what is in it --------------------------------------------------------------------------------


def test_the_code_is_there_exactly_once() -> None:
    assert shown(destroying()).text.count(CODE) == 1


@pytest.mark.parametrize("channel", ["ntfy", "webhook", "apprise"])
def test_the_code_is_not_where_others_read(channel: str) -> None:
    prompt = shown(destroying(), channel=channel)
    assert CODE not in prompt.text + prompt.title


@pytest.mark.parametrize("how", How)
def test_the_command_line_is_always_a_way(how: How) -> None:
    line = "at a terminal: host-agent requests approve 00000001-000"
    assert line in shown(destroying(), how=how).text.split("\n")


def test_without_a_code_nobody_is_told_to_confirm() -> None:
    assert "CONFIRM" not in shown(destroying(), code=None).text


def test_without_a_token_there_is_no_button() -> None:
    assert "button" not in shown(destroying(), channel="ntfy", code=None).text


def test_every_parameter_is_shown_whole() -> None:
    params = {f"name{number}": f"value-{number}" for number in range(30)}
    prompt = shown(destroying(params=params), max_characters=4000)
    assert prompt.is_whole
    for name, value in params.items():
        assert f"parameter {name}: {value}" in prompt.text.split("\n")


def test_a_parameter_that_does_not_fit_is_told_at_the_top_and_there_is_no_code() -> None:
    prompt = shown(destroying(params={"note": "x" * LONG}))
    assert not prompt.is_whole
    assert prompt.text.split("\n")[1].startswith("NOT WHOLE: ")
    assert "host-agent requests show 00000001-000" in prompt.text.split("\n")[1]
    assert "CONFIRM" not in prompt.text
    assert CODE not in prompt.text


def test_many_parameters_that_do_not_fit_are_counted() -> None:
    prompt = shown(destroying(params={f"n{number}": "x" * 50 for number in range(1000)}))
    assert not prompt.is_whole
    assert " of 1000" in prompt.text
    assert "to approve: only at a terminal" in prompt.text


@pytest.mark.parametrize("size", [0, 500, 900, 1100, 1200, 1300, LONG])
def test_a_long_reason_never_costs_a_parameter(size: int) -> None:
    request = destroying(reason="r" * size)
    prompt = shown(request)
    assert prompt.is_whole
    assert "parameter recursive: true" in prompt.text
    assert CODE in prompt.text
    assert size < 1500 or " ... cut, " in prompt.text


def test_a_reason_and_details_share_the_room() -> None:
    details = [f"snapshot {number}" for number in range(1000)]
    preview = {"accuracy": "exact", "summary": "s", "details": details}
    lines = shown(destroying(reason="r" * LONG, preview=preview)).text.split("\n")
    assert sum(line.startswith("detail: ") for line in lines) > 10
    assert sum(line.count("r" * 300) for line in lines) >= 1


@pytest.mark.parametrize("room", [0, 1, 10, 100, 300, 500, 700, 900, 1000, 1100, 1500])
def test_no_text_is_longer_than_its_channel_takes(room: int) -> None:
    for request in (destroying(), destroying(reason="\u202e" * LONG), denied()):
        prompt = shown(request, max_characters=room)
        assert len(prompt.text) <= room
        assert len(told(request, max_characters=room).text) <= room
        if not prompt.is_whole:
            assert CODE not in prompt.text


def test_letters_that_may_be_look_alikes_are_noted() -> None:
    prompt = shown(destroying(reason="ехаct"))  # noqa: RUF001 - the look-alikes are the point
    assert "note: characters outside ASCII, which may be look-alikes, in: reason" in prompt.text
    assert "note:" not in shown(destroying()).text


@pytest.mark.parametrize("host", ["h", "h" * 300, "h\nost\u202e"])
def test_the_title_is_one_short_line(host: str) -> None:
    prompt = render_prompt(
        destroying(resource="tank/" + "x" * 300),
        owner="bob",
        channel="ntfy",
        code=None,
        audit_head=HEAD,
        audit_sequence=1,
        host=host,
        now=NOW,
        max_characters=4000,
        how=How.BUTTON,
    )
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
            "x\nto approve: answer CONFIRM AAAAAAAAAAAAAAAA",
            "x\r\nrule: safe",
            "x\u2028operation: zfs.list",
            "x\u0085parameter dataset: tank/none",
            "\x1b[1A\x1b[2Krule: safe",
            "\u202eyes",
            "to deny: never",
            "NOT WHOLE: it is",
            '" ... cut, 3 characters',
            "a" * LONG,
            "\u200b" * LONG,
            "\n" * LONG,
        ]
    )
)
LABELS = (
    "host-agent on ",
    "to: ",
    "operation: ",
    "parameter ",
    "parameters: ",
    "resource: ",
    "runs as: ",
    "caller: ",
    "acting for: ",
    "preview (",
    "detail: ",
    "reason (the caller's own words, not verified): ",
    "reason: none was given",
    "note: ",
    "rule: ",
    "approvals: ",
    "said: ",
    "time left: ",
    "digest: ",
    "request: ",
    "audit head: ",
    "to approve: ",
    "to deny: ",
    "to approve or deny: ",
    "at a terminal: ",
    "NOT WHOLE: ",
    "... cut",
    "outcome: ",
    "problem: ",
    "decided: ",
    "words: ",
    "ended: ",
)
ONCE = ("host-agent on ", "to: ", "operation: ", "caller: ", "acting for: ", "to approve: ")


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
            "summary": draw(HOSTILE),
            "details": draw(st.lists(HOSTILE, max_size=4)),
        },
        problem=Problem(code="host:failed", detail=draw(HOSTILE)),
        decisions=decisions,
    )


def require_ours(text: str) -> list[str]:
    """Every line that any program could see begins with a label, and nothing in it is hidden."""
    lines = text.split("\n")
    assert text.splitlines() == lines
    for line in lines:
        assert line.startswith(LABELS), line
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line)
    return lines


@given(hostile_requests(), st.sampled_from([800, 2000, 100_000]))
def test_no_line_is_anybody_elses(request_: Request, room: int) -> None:
    code = codes.make()
    prompt = shown(request_, code=code, max_characters=room)
    lines = require_ours(prompt.text)
    for label in ONCE:
        assert sum(line.startswith(label) for line in lines) <= 1
    assert prompt.text.count(code) == (1 if prompt.is_whole else 0)
    assert len(prompt.text) <= room
    if prompt.is_whole:
        counted = sum(line.startswith("parameter ") for line in lines)
        assert counted == len(request_.params)
        assert sum(line.startswith("said: ") for line in lines) == len(request_.decisions)
    else:
        assert lines[1].startswith("NOT WHOLE: ")
    assert prompt.title.isprintable()
    assert len(prompt.title) <= MAX_TITLE


@given(hostile_requests(), st.sampled_from([800, 2000, 100_000]), st.sampled_from(State))
def test_no_line_of_an_outcome_is_anybody_elses(request_: Request, room: int, state: State) -> None:
    prompt = told(replace(request_, state=state, finished_at=NOW), max_characters=room)
    require_ours(prompt.text)
    assert len(prompt.text) <= room


@given(HOSTILE, HOSTILE)
def test_two_parameters_never_look_alike(one: str, other: str) -> None:
    texts = {
        shown(destroying(params={"p": text}), max_characters=10**6).text for text in (one, other)
    }
    assert len(texts) == len({one, other})
