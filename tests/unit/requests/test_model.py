"""The pure state machine: who counts, in which order refusals come, and what each step leaves."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AlreadyDecidedError,
    DigestMismatchError,
    ExpiredError,
    HostAgentError,
    RoleRequiredError,
    SelfApprovalError,
)
from host_agent.requests import model as machine
from host_agent.requests.facts import request_view
from host_agent.requests.model import (
    LIVE,
    TRANSITIONS,
    Decision,
    Digest,
    Problem,
    Request,
    State,
    Terms,
    Verb,
    is_eligible,
)
from tests.support.stored_requests import NOW, TTL, a_decision, a_request, facts_of

APPROVER = ["approver"]
OTHER_DIGEST = Digest("sha256:" + "f" * 64)
WHY = Problem(code="approval:target-changed", detail="It moved.")
ENDED = [state for state in State if state not in LIVE]


def in_state(state: State) -> Request:
    ended = state not in LIVE
    return a_request(state=state, finished_at=NOW if ended else None)


def approve(
    request: Request,
    owner: str = "bob",
    *,
    roles: list[str] = APPROVER,
    digest: str | None = None,
    now: datetime = NOW,
) -> Request:
    return machine.approve(
        request, a_decision(owner), roles=roles, digest=digest or request.digest, now=now
    )


def deny(request: Request, owner: str = "bob", *, now: datetime = NOW) -> Request:
    return machine.deny(request, a_decision(owner, Verb.DENY), roles=APPROVER, now=now)


def test_one_approval_makes_it_approved() -> None:
    request = a_request()
    approved = approve(request)
    assert approved.state is State.APPROVED
    assert approved.version == request.version + 1
    assert approved.consents == (a_decision(),)
    assert approved.finished_at is None
    assert request.state is State.PENDING
    assert request.decisions == ()


def test_quorum_waits_for_as_many_owners() -> None:
    request = a_request(terms=Terms(approvals=2))
    once = approve(request)
    assert (once.state, once.version, len(once.consents)) == (State.PENDING, 2, 1)
    twice = approve(once, "carol")
    assert (twice.state, twice.version, len(twice.consents)) == (State.APPROVED, 3, 2)


@pytest.mark.parametrize("again", ["bob", "BOB", "Bob"])
def test_owner_has_one_voice_while_a_quorum_is_open(again: str) -> None:
    once = approve(a_request(terms=Terms(approvals=2)))
    with pytest.raises(AlreadyDecidedError):
        approve(once, again)
    with pytest.raises(AlreadyDecidedError):
        deny(once, again)


def test_one_denial_ends_an_open_quorum() -> None:
    once = approve(a_request(terms=Terms(approvals=3)))
    denied = deny(once, "carol")
    assert denied.state is State.DENIED
    assert denied.finished_at == NOW
    assert denied.problem is not None
    assert denied.problem.code == "approval:denied"
    assert [decision.decision for decision in denied.decisions] == [Verb.APPROVE, Verb.DENY]


@pytest.mark.promise("c33")
@pytest.mark.parametrize("own", ["alice", "ALICE", "Alice"])
@pytest.mark.parametrize("roles", [["approver"], ["admin"], []])
def test_owner_cannot_decide_on_own_request(own: str, roles: list[str]) -> None:
    request = a_request()
    with pytest.raises(SelfApprovalError):
        approve(request, own, roles=roles)
    with pytest.raises(SelfApprovalError):
        deny(request, own)


def test_owners_are_stored_case_folded() -> None:
    assert approve(a_request(), "BoB").decisions[0].owner == "bob"


def test_decide_follows_the_verb() -> None:
    request = a_request()
    for verb, state in ((Verb.APPROVE, State.APPROVED), (Verb.DENY, State.DENIED)):
        spoken = a_decision(verb=verb)
        decided = machine.decide(request, spoken, roles=APPROVER, digest=request.digest, now=NOW)
        assert decided.state is state


def test_verb_that_contradicts_the_step_is_a_defect() -> None:
    request = a_request()
    with pytest.raises(RuntimeError):
        machine.deny(request, a_decision(), roles=APPROVER, now=NOW)
    with pytest.raises(RuntimeError):
        machine.approve(
            request, a_decision(verb=Verb.DENY), roles=APPROVER, digest=request.digest, now=NOW
        )


@pytest.mark.parametrize("digest", [OTHER_DIGEST, "", "sha256:", None, "SHA256:"])
def test_approval_must_repeat_the_digest(digest: str | None) -> None:
    request = a_request()
    with pytest.raises(DigestMismatchError):
        machine.approve(request, a_decision(), roles=APPROVER, digest=digest, now=NOW)


def test_denial_needs_no_digest() -> None:
    request = a_request()
    spoken = a_decision(verb=Verb.DENY)
    denied = machine.decide(request, spoken, roles=APPROVER, digest=None, now=NOW)
    assert denied.state is State.DENIED


@pytest.mark.parametrize(
    ("terms", "owner", "roles", "expected"),
    [
        (Terms(), "bob", ["approver"], True),
        (Terms(), "bob", ["admin"], True),
        (Terms(), "bob", ["caller"], False),
        (Terms(), "bob", ["bridge"], False),
        (Terms(), "bob", [], False),
        (Terms(approver_role="admin"), "bob", ["admin"], True),
        (Terms(approver_role="admin"), "bob", ["approver"], False),
        (Terms(approvers=frozenset({"Bob"})), "BOB", ["approver"], True),
        (Terms(approvers=frozenset({"bob"})), "bobby", ["approver"], False),
        (Terms(approvers=frozenset({"bob"})), "carol", ["admin"], False),
        (Terms(approvers=frozenset()), "bob", ["admin"], False),
    ],
)
def test_eligibility(terms: Terms, owner: str, roles: list[str], expected: bool) -> None:
    assert is_eligible(terms, owner, roles) is expected


def test_ineligible_voice_is_refused() -> None:
    named = a_request(terms=Terms(approvers=frozenset({"carol"})))
    with pytest.raises(RoleRequiredError):
        approve(named)
    with pytest.raises(RoleRequiredError):
        approve(a_request(), roles=["caller"])


@pytest.mark.parametrize(
    ("request_", "owner", "roles", "expected"),
    [
        # Everything is wrong at once; each line takes the first wrong thing away.
        (a_request(expires_at=NOW), "alice", [], ExpiredError),
        (a_request(state=State.APPROVED), "alice", [], AlreadyDecidedError),
        (a_request(), "alice", [], SelfApprovalError),
        (a_request(), "bob", [], RoleRequiredError),
        (a_request(), "bob", ["approver"], DigestMismatchError),
    ],
)
def test_refusals_come_in_this_order(
    request_: Request, owner: str, roles: list[str], expected: type[HostAgentError]
) -> None:
    with pytest.raises(expected):
        approve(request_, owner, roles=roles, digest=OTHER_DIGEST)


@pytest.mark.promise("c8")
@pytest.mark.parametrize("late", [timedelta(0), timedelta(microseconds=1), timedelta(days=400)])
def test_nothing_is_decided_at_or_after_expiry(late: timedelta) -> None:
    request = a_request()
    with pytest.raises(ExpiredError):
        approve(request, now=request.expires_at + late)
    with pytest.raises(ExpiredError):
        deny(request, now=request.expires_at + late)
    in_time = request.expires_at - timedelta(microseconds=1)
    assert approve(request, now=in_time).state is State.APPROVED


def test_expired_request_stays_expired_when_the_clock_is_set_back() -> None:
    expired = machine.expire(a_request(), now=NOW + TTL)
    with pytest.raises(ExpiredError):
        approve(expired, now=NOW)


@pytest.mark.parametrize("state", [s for s in State if s not in {State.PENDING, State.EXPIRED}])
def test_decided_request_cannot_be_decided_again(state: State) -> None:
    for decide in (approve, deny):
        with pytest.raises(AlreadyDecidedError):
            decide(in_state(state))


@pytest.mark.parametrize("state", list(State))
def test_only_open_requests_can_be_cancelled(state: State) -> None:
    request = in_state(state)
    if state in {State.PENDING, State.APPROVED}:
        cancelled = machine.cancel(request, problem=WHY, now=NOW)
        assert (cancelled.state, cancelled.problem) == (State.CANCELLED, WHY)
        assert (cancelled.finished_at, cancelled.version) == (NOW, 2)
    else:
        with pytest.raises(AlreadyDecidedError):
            machine.cancel(request, problem=None, now=NOW)


@pytest.mark.parametrize("state", list(State))
def test_only_open_requests_expire(state: State) -> None:
    request = in_state(state)
    if state in {State.PENDING, State.APPROVED}:
        expired = machine.expire(request, now=request.expires_at)
        assert expired.state is State.EXPIRED
        assert expired.problem is not None
        assert expired.problem.code == "approval:expired"
    else:
        with pytest.raises(AlreadyDecidedError):
            machine.expire(request, now=request.expires_at)


def test_expiry_is_never_early() -> None:
    request = a_request()
    with pytest.raises(RuntimeError):
        machine.expire(request, now=request.expires_at - timedelta(microseconds=1))


def test_expiry_takes_the_problem_that_it_is_given() -> None:
    request = a_request()
    assert machine.expire(request, problem=WHY, now=request.expires_at).problem == WHY


def test_approved_request_starts_and_finishes() -> None:
    running = machine.start(approve(a_request()), now=NOW)
    assert (running.state, running.version, running.finished_at) == (State.RUNNING, 3, None)
    outcome = {"exit_code": 0, "verified": True}
    done = machine.finish(running, state=State.SUCCEEDED, outcome=outcome, problem=None, now=NOW)
    assert (done.state, done.outcome, done.version) == (State.SUCCEEDED, outcome, 4)
    assert done.finished_at == NOW


def test_expiry_bounds_the_run_too() -> None:
    approved = approve(a_request())
    with pytest.raises(ExpiredError):
        machine.start(approved, now=approved.expires_at)


def test_approved_request_can_fail_before_it_runs() -> None:
    failed = machine.fail(approve(a_request()), problem=WHY, now=NOW)
    assert (failed.state, failed.problem, failed.outcome) == (State.FAILED, WHY, None)


def finish_as(state: State) -> Callable[[Request], Request]:
    return lambda request: machine.finish(request, state=state, outcome=None, problem=None, now=NOW)


@pytest.mark.parametrize("state", list(State))
def test_steps_out_of_order_are_defects(state: State) -> None:
    request = in_state(state)
    if state is not State.APPROVED:
        with pytest.raises(RuntimeError):
            machine.start(request, now=NOW)
        with pytest.raises(RuntimeError):
            machine.fail(request, problem=WHY, now=NOW)
    for end in State:
        if state is State.RUNNING and end in TRANSITIONS[State.RUNNING]:
            assert finish_as(end)(request).state is end
        else:
            with pytest.raises(RuntimeError):
                finish_as(end)(request)


def test_view_shows_everything_that_a_person_judges_by() -> None:
    request = approve(a_request(terms=Terms(approvals=2, approvers=frozenset({"carol", "bob"}))))
    view = request_view(facts_of(request), with_output=True).as_json()
    assert view["request_id"] == request.id
    assert view["state"] == "pending"
    assert view["params"] == request.params
    assert view["created_at"] == "2026-11-20T21:00:00.123456Z"
    assert view["expires_at"] == "2026-11-20T21:30:00.123456Z"
    assert view["approvals"] == {
        "needed": 2,
        "given": 1,
        "approvers": ["bob", "carol"],
        "approver_role": "approver",
    }
    assert view["decisions"] == [
        {
            "approver": "bob-laptop",
            "owner": "bob",
            "decision": "approve",
            "channel": "http",
            "at": "2026-11-20T21:00:00.123456Z",
            "reason": None,
        }
    ]
    assert view["outcome"] is None
    assert view["problem"] is None
    assert view["finished_at"] is None
    never = {"fingerprint", "serial", "codes", "code"}
    assert never.isdisjoint(view)


def test_view_without_output_keeps_exit_code_and_verified_only() -> None:
    outcome: dict[str, JsonValue] = {
        "exit_code": 3,
        "stdout": "secret",
        "stderr": "",
        "data": [1],
        "verified": None,
    }
    request = replace(in_state(State.FAILED), outcome=outcome, problem=WHY)
    hidden = request_view(facts_of(request), with_output=False).as_json()
    assert hidden["outcome"] == {"exit_code": 3, "verified": None}
    recovery = {"kind": "ask_again_after", "seconds": 0}
    assert hidden["problem"] == {"code": WHY.code, "detail": WHY.detail, "recovery": recovery}
    assert hidden["finished_at"] == "2026-11-20T21:00:00.123456Z"
    assert request_view(facts_of(request), with_output=True).as_json()["outcome"] == outcome


def test_view_of_a_request_that_anybody_may_approve() -> None:
    view = request_view(facts_of(a_request()), with_output=False).as_json()
    assert view["approvals"] == {
        "needed": 1,
        "given": 0,
        "approvers": None,
        "approver_role": "approver",
    }
    assert view["outcome"] is None


def test_decision_values_are_immutable() -> None:
    decision = a_decision()
    with pytest.raises(AttributeError):
        decision.owner = "mallory"  # type: ignore[misc]
    assert isinstance(decision, Decision)


def test_the_words_of_a_denial_are_in_what_the_caller_is_told_made_visible() -> None:
    words = 'not "today"\nYes: \x1b[2J' + "x" * 1000
    said = replace(a_decision("Erin", Verb.DENY), reason=words)
    denied = machine.deny(a_request(), said, roles=APPROVER, now=NOW)
    assert denied.problem is not None
    detail = denied.problem.detail
    assert detail.startswith("erin denied this: \"not 'today'\\u{a}Yes: \\u{1b}[2J")
    assert detail.endswith(" characters; nothing was run.")
    assert detail.count('"') == 2
    problem = request_view(facts_of(denied), with_output=False).as_json()["problem"]
    assert problem == {
        "code": "approval:denied",
        "detail": detail,
        "recovery": {"kind": "ask_again_after", "seconds": 60},
        "decision_reason": words,
    }
    bare = machine.deny(a_request(), a_decision("erin", Verb.DENY), roles=APPROVER, now=NOW)
    assert bare.problem is not None
    assert bare.problem.detail == "erin denied this; nothing was run."
