"""What an approver reads: critical fields first, every parameter, nothing that can deceive."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from host_agent.cli.commands import call
from host_agent.cli.terminal import request_fields
from host_agent.client import RequestView
from tests.support import answers

NOW = datetime(2026, 11, 20, 21, 30, tzinfo=UTC)


def view(**members: Any) -> RequestView:
    return RequestView.parse(answers.view(**members))


def shown(**members: Any) -> dict[str, str]:
    return dict(request_fields.rows(view(**members), NOW))


def test_host_effect_and_what_is_lost_come_first_and_every_parameter_is_there() -> None:
    rows = request_fields.rows(view(), NOW)

    labels = [label for label, _ in rows]
    assert labels[:7] == [
        "host",
        "change",
        "preview (estimate)",
        "undo",
        "runs as",
        "asked by",
        "reason",
    ]
    assert dict(rows)["change"] == "PULL /srv/app, main of origin"
    for name in ("parameter repository", "parameter remote", "parameter branch", "digest"):
        assert name in labels


def test_the_user_is_the_one_that_the_process_changes_to() -> None:
    assert shown(runs_as="root", unix_user="librarian")["runs as"] == "root"


def test_earlier_denials_are_told_with_their_words() -> None:
    last = {
        "approver": "erin",
        "channel": "http",
        "decision": "deny",
        "owner": "erin",
        "at": (NOW - timedelta(minutes=2)).isoformat(),
        "reason": 'ask "after" 18:00\x1b[A',
    }
    before = {"times": 4, "denied": 3, "last": last}

    text = shown(asked_before=before)["denied before"]
    assert text.startswith("3 of 4 times within a day, last 2 min ago by erin: \"ask 'after' 18:00")
    assert "\x1b" not in text
    assert "denied before" not in shown(asked_before={"times": 4, "denied": 0, "last": None})


def test_what_is_not_listed_is_counted() -> None:
    preview = {"accuracy": "exact", "summary": "s", "details": ["one"], "left_out": 10}

    assert shown(preview=preview)["preview (exact)"].endswith("\nand 10 more, which are not listed")


def test_the_reason_is_marked_as_the_callers_own_words() -> None:
    assert shown()["reason"] == "(the caller's own words, unverified)\nbefore the release"


def test_the_time_left_is_shown_and_ends_at_its_instant() -> None:
    soon = (NOW + timedelta(seconds=75)).isoformat()
    past = NOW.isoformat()

    assert shown(expires_at=soon)["time left"] == "1 min 15 s (until 2026-11-20T21:31:15Z)"
    assert shown(expires_at=past)["time left"].startswith("expired ")


@pytest.mark.promise("c31")
@pytest.mark.parametrize(
    "member",
    [
        "host",
        "subject",
        "verb",
        "operation",
        "resource",
        "caller",
        "owner",
        "runs_as",
        "rule",
        "reason",
        "request_id",
    ],
)
def test_no_field_can_control_the_terminal_or_push_others_away(member: str) -> None:
    hostile = "\x1b[2J\x9b1A\r\x08\u202eevil\u200b" + "x" * 100_000

    rows = request_fields.rows(view(**{member: hostile}), NOW)

    text = "".join(label + value for label, value in rows)
    assert not {"\x1b", "\x9b", "\r", "\x08", "\u202e", "\u200b"} & set(text)
    assert "\\u{1b}[2J\\u{9b}1A" in text
    assert len(text) < 4000


@pytest.mark.promise("c31")
def test_hostile_names_and_values_of_parameters_are_bounded() -> None:
    params = {"a\nstate": "approved\x1b[A", "b" * 500: "y" * 5000}

    rows = request_fields.rows(view(params=params), NOW)

    labels = [label for label, _ in rows if label.startswith("parameter")]
    assert labels == ["parameter", "parameter"]
    values = [value for label, value in rows if label == "parameter"]
    assert values[0] == 'a\\u{a}state = "approved\\u001b[A"'
    assert values[1].count("sha256 of all") == 1
    assert all(len(value) < 2000 for _, value in rows)


@pytest.mark.promise("c31")
def test_a_long_preview_is_cut_and_counted() -> None:
    preview = {"accuracy": "exact", "summary": "s", "details": ["a\nb"] + ["line"] * 500}

    text = shown(preview=preview)["preview (exact)"]

    assert text.splitlines()[1] == "- a\\u{a}b"
    assert text.count("\n") < 45
    assert "more lines" in text


def test_whose_yes_it_takes_is_told() -> None:
    anybody = {"needed": 2, "given": 1, "approvers": None, "approver_role": "admin"}

    assert shown()["approvals"] == "0 of 1 given; role approver, of alice"
    assert shown(approvals=anybody)["approvals"] == "1 of 2 given; anybody with role admin"


def test_an_effect_that_the_probe_did_not_see_is_loud() -> None:
    text = shown(state="succeeded", outcome=answers.outcome(verified=False))["outcome"]

    assert "NOT VERIFIED" in text


def test_output_is_shown_in_its_own_field() -> None:
    found = shown(state="succeeded", outcome=answers.outcome(stdout="a\n\x1b[2Jstate: x\n"))

    assert found["stdout"] == "a\n\\u{1b}[2Jstate: x"


def test_short_ids_name_one_request_each() -> None:
    ids = ["0" * 31 + "1", "0" * 31 + "2", "abcdef0123456789" * 2, "short"]
    views = [view(request_id=request_id) for request_id in ids]

    short = request_fields.short_ids(views)

    assert short["abcdef0123456789" * 2] == "abcdef01"
    assert short["0" * 31 + "1"] == "0" * 31 + "1"
    assert short["short"] == "short"


@pytest.mark.parametrize(
    ("state", "problem", "status"),
    [
        ("succeeded", None, 0),
        ("failed", "host:failed", 1),
        ("failed", "approval:target-changed", 75),
        ("failed", None, 1),
        ("timed_out", "host:timed-out", 1),
        ("timed_out", None, 1),
        ("unknown", None, 70),
        ("unknown", "host:failed", 70),
        ("denied", None, 77),
        ("denied", "approval:denied", 77),
        ("expired", None, 75),
        ("cancelled", None, 75),
        ("cancelled", "identity:revoked", 77),
    ],
)
def test_a_finished_request_has_its_exit_status(
    state: str, problem: str | None, status: int
) -> None:
    found = None if problem is None else {"code": problem, "detail": "x"}

    assert call.ended_status(view(state=state, problem=found)) == status
