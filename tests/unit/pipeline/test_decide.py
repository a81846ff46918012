"""A person approves, denies or cancels: who counts, what it is for, and who was first."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.api.wire.requests import RequestView
from host_agent.audit.record import Event
from host_agent.errors import (
    AlreadyDecidedError,
    AuditUnavailableError,
    DigestMismatchError,
    ExpiredError,
    HostAgentError,
    RateLimitedError,
    RequestNotFoundError,
    RoleRequiredError,
    SelfApprovalError,
    StoreUnavailableError,
    TargetChangedError,
)
from host_agent.pipeline import decide as deciding
from host_agent.requests import codes
from host_agent.requests.model import Request, State, Verb
from tests.support.pipeline import ASIDE, RESET, Workbench, opened
from tests.support.request_stores import a_code
from tests.support.site import IDENTITIES, RULES


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


async def undecided(
    bench: Workbench,
    error: type[HostAgentError],
    request: Request,
    verb: Verb = Verb.APPROVE,
    **named: str | None,
) -> HostAgentError:
    """Decide, expect the refusal, and look that the request is as it was and nothing ran."""
    before = await bench.request(request.id)
    with pytest.raises(error) as caught:
        await bench.decide(request, verb, **named)  # type: ignore[arg-type]
    assert await bench.request(request.id) == before
    assert bench.host.changes == []
    return caught.value


# -- approve --------------------------------------------------------------------------------------


async def test_an_approval_runs_it_and_is_written_down(bench: Workbench) -> None:
    request = await bench.held()
    shown = await bench.decide(request, reason="looks right")
    assert shown.state in {"approved", "running"}
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED
    decided = bench.last(Event.REQUEST_DECIDED)
    assert (decided["approver"], decided["approver_owner"]) == ("alice", "alice")
    assert (decided["decision"], decided["channel"]) == ("approve", "http")
    assert (decided["state"], decided["reason"]) == ("approved", "looks right")
    assert decided["caller"] == "deployer"
    assert bench.steps() == [
        "request.held",
        "request.decided",
        "operation.started",
        "operation.finished",
    ]


async def test_an_approval_does_not_wait_for_the_run(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await bench.held()
    gate = bench.host.hold("pull")
    shown = await bench.decide(request)
    assert shown.state == "running"
    gate.set()
    await bench.settle()
    # Not for its checks either, where they take their time.
    other = await bench.held(operation="git.switch", params=ASIDE)
    monkeypatch.setattr(deciding, "CHECK_SECONDS", 0.01)
    gate = bench.host.hold("inspect-switch")
    assert (await bench.decide(other)).state == "approved"
    gate.set()
    await bench.settle()
    assert await bench.state(other) is State.SUCCEEDED


async def test_an_admin_may_approve(bench: Workbench) -> None:
    request = await bench.held()
    await bench.decide(request, by="root-admin")
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.promise("c28")
async def test_an_approval_must_repeat_the_digest(bench: Workbench) -> None:
    request = await bench.held()
    other = await bench.held(operation="git.switch", params=ASIDE)
    for wrong in (None, "", other.digest, request.digest[:-1], request.digest.upper()):
        await undecided(bench, DigestMismatchError, request, digest=wrong)


@pytest.mark.promise("c33")
async def test_nobody_approves_for_themselves(bench: Workbench) -> None:
    request = await bench.held()
    for verb in Verb:
        error = await undecided(bench, SelfApprovalError, request, verb, by="bobs-phone")
        assert error.about["request_id"] == request.id
        assert error.about["caller"] == "bobs-phone"
        assert error.about["decision"] == verb.value


@pytest.mark.promise("c33")
async def test_an_admin_of_the_same_owner_is_not_exempt(tmp_path: Path) -> None:
    identities = IDENTITIES.replace('owner = "frank"', 'owner = "BOB"')
    async with opened(tmp_path, identities=identities) as bench:
        request = await bench.held()
        await undecided(bench, SelfApprovalError, request, by="root-admin")


@pytest.mark.parametrize(
    "terms", ['approvers = ["erin"]', 'approver_role = "admin"'], ids=["not named", "role"]
)
async def test_who_does_not_count_for_the_rule_is_refused(tmp_path: Path, terms: str) -> None:
    rules = RULES.replace('verdict = "ask"', f'verdict = "ask"\n{terms}', 1)
    async with opened(tmp_path, rules=rules) as bench:
        request = await bench.held()
        await undecided(bench, RoleRequiredError, request, by="alice")
        counts = "erin" if "erin" in terms else "root-admin"
        await bench.decide(request, by=counts)
        await bench.settle()
        assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.promise("c27")
async def test_a_target_that_changed_is_told_to_the_approver(bench: Workbench) -> None:
    request = await bench.held()
    bench.host.tip = "c" * 40
    with pytest.raises(TargetChangedError) as caught:
        await bench.decide(request)
    assert caught.value.members["request"]["state"] == "failed"
    assert bench.host.changes == []
    assert await bench.state(request) is State.FAILED


@pytest.mark.promise("c8")
async def test_an_expired_request_is_not_approved(bench: Workbench) -> None:
    request = await bench.held()
    bench.clock.advance(minutes=30)
    for _ in range(2):  # it is told by whoever notices, once
        with pytest.raises(ExpiredError):
            await bench.decide(request)
    assert await bench.state(request) is State.EXPIRED
    assert bench.events().count("request.expired") == 1
    assert bench.host.changes == []


@pytest.mark.promise("c4")
async def test_a_yes_that_is_not_written_down_is_no_yes(bench: Workbench) -> None:
    request = await bench.held()
    bench.audit.refused = frozenset({Event.REQUEST_DECIDED})
    with pytest.raises(AuditUnavailableError):
        await bench.decide(request)
    await bench.settle()
    stored = await bench.request(request.id)
    assert stored.state is State.FAILED
    assert stored.problem is not None
    assert stored.problem.code == "audit:unavailable"
    assert bench.host.changes == []


@pytest.mark.promise("c4")
async def test_a_no_that_is_not_written_down_is_still_a_no(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await bench.held()
    bench.audit.refused = frozenset({Event.REQUEST_DECIDED})
    assert (await bench.decide(request, Verb.DENY)).state == "denied"
    assert "is not in the audit log" in caplog.text


@pytest.mark.promise("c46")
async def test_a_decision_that_cannot_be_stored_is_none(bench: Workbench) -> None:
    request = await bench.held()
    bench.store.refused = frozenset({"transition"})
    await undecided(bench, StoreUnavailableError, request)
    bench.store.refused = frozenset()
    await bench.decide(request)
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


async def test_an_approver_that_goes_away_has_still_approved(bench: Workbench) -> None:
    request = await bench.held()
    gate = bench.host.hold("inspect-pull")
    deciding = asyncio.ensure_future(bench.decide(request))
    await bench.host.reached["inspect-pull"].wait()
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    gate.set()
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


# -- deny -----------------------------------------------------------------------------------------


async def test_a_denial_needs_no_digest_and_ends_it(bench: Workbench) -> None:
    request = await bench.held()
    shown = await bench.decide(request, Verb.DENY, digest=None, reason="not today")
    assert shown.state == "denied"
    assert shown.problem is not None
    assert shown.problem.code == "approval:denied"
    await bench.settle()
    assert bench.host.changes == []
    assert bench.last(Event.REQUEST_DECIDED)["reason"] == "not today"


@pytest.mark.parametrize("first", list(Verb))
@pytest.mark.parametrize("second", list(Verb))
async def test_a_second_decision_is_refused_and_shows_the_request(
    bench: Workbench, first: Verb, second: Verb
) -> None:
    request = await bench.held()
    await bench.decide(request, first)
    await bench.settle()
    before = await bench.request(request.id)
    with pytest.raises(AlreadyDecidedError) as caught:
        await bench.decide(request, second, by="erin")
    assert caught.value.members["request"]["state"] == before.state
    assert await bench.request(request.id) == before
    assert len(bench.host.changes) == (first is Verb.APPROVE)


# -- quorum ---------------------------------------------------------------------------------------


async def test_a_quorum_waits_for_another_owner(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")
    assert (await bench.decide(request)).state == "pending"
    await undecided(bench, AlreadyDecidedError, request)
    await undecided(bench, AlreadyDecidedError, request, Verb.DENY)
    await bench.decide(request, by="erin")
    await bench.settle()
    assert [run[0] for run in bench.host.changes] == ["reset"]


async def test_two_certificates_of_one_owner_are_one_voice(tmp_path: Path) -> None:
    identities = IDENTITIES.replace('cn = "erin"', 'cn = "erin"\nowner = "ALICE"')
    async with opened(tmp_path, identities=identities) as bench:
        request = await bench.held(operation="git.reset", params=RESET, reason="undo")
        await bench.decide(request)
        await undecided(bench, AlreadyDecidedError, request, by="erin")
        await bench.decide(request, by="root-admin")
        await bench.settle()
        assert len(bench.host.changes) == 1


async def test_one_denial_ends_a_quorum(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")
    await bench.decide(request)
    assert (await bench.decide(request, Verb.DENY, by="erin")).state == "denied"
    await bench.settle()
    assert bench.host.changes == []


async def test_a_voice_of_a_quorum_that_lost_its_role_does_not_count(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")
    await bench.decide(request)
    bench.reconfigure(identities=IDENTITIES.replace('cn = "alice"', 'cn = "alice-2"'))
    await bench.decide(request, by="erin")
    await bench.settle()
    stored = await bench.request(request.id)
    assert stored.state is State.CANCELLED
    assert stored.problem is not None
    assert stored.problem.code == "identity:role-required"
    assert bench.host.changes == []


@pytest.mark.promise("c4")
async def test_a_voice_that_is_not_written_down_ends_the_quorum(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")
    bench.audit.refused = frozenset({Event.REQUEST_DECIDED})
    with pytest.raises(AuditUnavailableError):
        await bench.decide(request)
    assert await bench.state(request) is State.CANCELLED


@pytest.mark.promise("c4")
async def test_an_unwritten_voice_does_not_count_for_one_that_came_after_it(
    bench: Workbench,
) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")
    others: list[asyncio.Future[RequestView]] = []

    async def another_voice() -> None:
        """Come while the log takes its time for the first voice, which it then refuses."""
        others.append(asyncio.ensure_future(bench.decide(request, by="erin")))
        while len((await bench.request(request.id)).decisions) < 2:
            await asyncio.sleep(0)
        raise AuditUnavailableError("There was no room.")

    bench.audit.before = (Event.REQUEST_DECIDED, another_voice)
    with pytest.raises(AuditUnavailableError):
        await bench.decide(request)
    await others[0]
    await bench.settle()
    assert await bench.state(request) is State.FAILED
    assert bench.host.changes == []


@pytest.mark.promise("c4")
async def test_an_unwritten_voice_on_what_has_ended_meanwhile_changes_nothing(
    bench: Workbench,
) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")

    async def withdrawn() -> None:
        await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
        bench.audit.refused = frozenset({Event.REQUEST_DECIDED})

    bench.audit.before = (Event.REQUEST_DECIDED, withdrawn)
    with pytest.raises(AuditUnavailableError):
        await bench.decide(request)
    stored = await bench.request(request.id)
    assert (stored.state, stored.problem) == (State.CANCELLED, None)


# -- races ----------------------------------------------------------------------------------------


@pytest.mark.promise("c29")
async def test_who_is_slower_is_told_who_was_first(bench: Workbench) -> None:
    request = await bench.held()

    async def denied_first(_lifecycle: Request) -> None:
        await bench.decide(request, Verb.DENY, by="erin")

    bench.store.before_transition = denied_first
    with pytest.raises(AlreadyDecidedError) as caught:
        await bench.decide(request)
    assert caught.value.members["request"]["state"] == "denied"
    await bench.settle()
    assert bench.host.changes == []


@pytest.mark.promise("c29")
async def test_two_voices_at_once_both_count(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")
    await asyncio.gather(bench.decide(request), bench.decide(request, by="erin"))
    await bench.settle()
    assert len((await bench.request(request.id)).consents) == 2
    assert len(bench.host.changes) == 1


@pytest.mark.promise("c29")
async def test_approve_deny_cancel_and_expire_have_one_winner(bench: Workbench) -> None:
    """A hundred at once on one request, ten times over."""
    for _ in range(10):
        bench.host.head, ran = "a" * 40, len(bench.host.changes)
        request = await bench.held()

        async def expire(request: Request = request) -> None:
            late = replace(request, expires_at=bench.clock.now())
            await bench.pipeline.lifecycle.expire(late)

        work = [
            *(bench.decide(request, by=("alice", "erin", "root-admin")[n % 3]) for n in range(30)),
            *(bench.decide(request, Verb.DENY, by=("alice", "erin")[n % 2]) for n in range(30)),
            *(
                bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
                for _ in range(20)
            ),
            *(expire() for _ in range(20)),
        ]
        results = await asyncio.gather(*work, return_exceptions=True)
        await bench.settle()
        losers = [result for result in results if isinstance(result, BaseException)]
        assert all(isinstance(loser, AlreadyDecidedError | ExpiredError) for loser in losers)
        end = await bench.request(request.id)
        assert end.finished_at is not None
        mine = [r["event"] for r in bench.records() if r.get("request_id") == request.id]
        approved = end.state is State.SUCCEEDED
        assert len(bench.host.changes) - ran == mine.count("operation.started") == approved
        endings = {"request.decided", "request.cancelled", "request.expired"}
        assert sum(event in endings for event in mine) == 1


async def test_a_request_that_vanishes_while_it_is_decided_is_not_found(bench: Workbench) -> None:
    request = await bench.held()

    async def purged_first(_lifecycle: Request) -> None:
        await bench.decide(request, Verb.DENY, by="erin")
        bench.clock.advance(days=1)
        assert await bench.store.purge(bench.clock.now()) == 1

    bench.store.before_transition = purged_first
    with pytest.raises(RequestNotFoundError):
        await bench.decide(request)


# -- ids ------------------------------------------------------------------------------------------


async def test_a_unique_prefix_is_enough(bench: Workbench) -> None:
    answer = await bench.ask(exchange_id="ab" * 16)
    request = await bench.request(str(answer.body["request_id"]))
    await bench.decide(request, Verb.DENY, request_id="ababab")
    assert await bench.state(request) is State.DENIED


async def test_a_prefix_of_two_or_of_none_is_not_found(bench: Workbench) -> None:
    await bench.ask(exchange_id="ab" * 16)
    await bench.ask("git.switch", ASIDE, exchange_id="ab" * 15 + "cd")
    request = await bench.request("ab" * 16)
    await undecided(bench, RequestNotFoundError, request, request_id="abab")
    await undecided(bench, RequestNotFoundError, request, request_id="ffff")


# -- the older route ------------------------------------------------------------------------------


async def test_the_digest_is_a_token(bench: Workbench) -> None:
    request = await bench.held()
    approve = bench.pipeline.decisions.decide_by_token
    await approve(bench.who("alice"), request.id, request.digest)
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.promise("c28")
async def test_a_code_is_for_its_approver_and_dies_with_the_decision(
    bench: Workbench,
) -> None:
    request = await bench.held()
    code = codes.make()
    assert await bench.store.add_code(a_code(request, codes.hash_code(code), owner="alice"))
    approve = bench.pipeline.decisions.decide_by_token
    with pytest.raises(DigestMismatchError):
        await approve(bench.who("erin"), request.id, code)
    typed = f" {code[:4].lower()}-{code[4:]} "
    await approve(bench.who("alice"), request.id, typed)
    await bench.settle()
    assert await bench.store.codes(request.id) == []
    with pytest.raises(AlreadyDecidedError):
        await approve(bench.who("alice"), request.id, code)
    assert len(bench.host.changes) == 1


@pytest.mark.promise("c28")
async def test_five_wrong_codes_mute_the_approver_and_nobody_else(bench: Workbench) -> None:
    request = await bench.held()
    approve = bench.pipeline.decisions.decide_by_token
    for number in range(5):
        bench.clock.advance(minutes=1)
        with pytest.raises(DigestMismatchError):
            await approve(bench.who("alice"), request.id, codes.make() + str(number))
    with pytest.raises(RateLimitedError) as caught:
        await approve(bench.who("alice"), request.id, request.digest)
    assert caught.value.retry_after_seconds == pytest.approx(360)
    assert await bench.state(request) is State.PENDING
    bench.clock.advance(minutes=6)
    with pytest.raises(DigestMismatchError):
        await approve(bench.who("alice"), request.id, "wrong")
    with pytest.raises(RateLimitedError):
        await approve(bench.who("alice"), request.id, request.digest)
    await approve(bench.who("erin"), request.id, request.digest)
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


async def test_a_wrong_code_for_what_is_decided_does_not_count(bench: Workbench) -> None:
    request = await bench.held()
    await bench.decide(request, Verb.DENY)
    for _ in range(6):
        with pytest.raises(AlreadyDecidedError):
            await bench.pipeline.decisions.decide_by_token(bench.who("alice"), request.id, "wrong")


async def test_the_memory_of_wrong_codes_is_bounded(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "MAX_LOCKED_OUT", 1)
    request = await bench.held()
    for approver in ("alice", "erin"):
        with pytest.raises(DigestMismatchError):
            await bench.pipeline.decisions.decide_by_token(bench.who(approver), request.id, "wrong")
    assert list(bench.pipeline.decisions.lockout._wrong) == ["erin"]


# -- cancel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["deployer", "root-admin"])
async def test_its_caller_or_an_admin_cancels(bench: Workbench, by: str) -> None:
    request = await bench.held()
    shown = await bench.pipeline.decisions.cancel(
        bench.who(by), request.id, reason="changed my mind"
    )
    assert (shown.state, shown.problem) == ("cancelled", None)
    record = bench.last(Event.REQUEST_CANCELLED)
    assert (record["cancelled_by"], record["reason"]) == (by, "changed my mind")


@pytest.mark.parametrize("by", ["watcher", "alice", "bobs-phone"])
async def test_nobody_else_cancels(bench: Workbench, by: str) -> None:
    request = await bench.held()
    with pytest.raises(RequestNotFoundError):
        await bench.pipeline.decisions.cancel(bench.who(by), request.id, reason=None)
    assert await bench.state(request) is State.PENDING


async def test_what_runs_or_has_ended_is_not_cancelled(bench: Workbench) -> None:
    request = await bench.held()
    gate = bench.host.hold("pull")
    await bench.decide(request)
    for _ in range(2):
        with pytest.raises(AlreadyDecidedError) as caught:
            await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
        assert caught.value.about["request_id"] == request.id
        gate.set()
        await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.promise("c29")
async def test_a_cancellation_goes_on_where_another_voice_was_quicker(
    bench: Workbench,
) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="undo")

    async def approved_first(_cancelled: Request) -> None:
        await bench.decide(request)

    bench.store.before_transition = approved_first
    shown = await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
    assert shown.state == "cancelled"


@pytest.mark.promise("c4")
async def test_a_cancellation_that_is_not_written_down_still_holds(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await bench.held()
    bench.audit.refused = frozenset({Event.REQUEST_CANCELLED})
    shown = await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
    assert shown.state == "cancelled"
    assert "is not in the audit log" in caplog.text


async def test_an_approval_that_comes_while_the_agent_ends_runs_at_its_next_start(
    bench: Workbench,
) -> None:
    request = await bench.held()
    bench.context.is_draining = True
    await bench.decide(request)
    await bench.settle()
    assert await bench.state(request) is State.APPROVED
    assert bench.host.changes == []
    bench.context.is_draining = False
    await bench.pipeline.lifecycle.recover()
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED
    assert len(bench.host.changes) == 1
