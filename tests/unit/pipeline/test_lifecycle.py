"""What was approved runs once or not at all, what was not ends, and a restart finds its place."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import (
    StoreUnavailableError,
    SudoRefusedError,
)
from host_agent.requests import model as machine
from host_agent.requests.model import Request, State, Verb
from tests.support.patience import PATIENCE
from tests.support.pipeline import (
    ASIDE,
    FETCH,
    Workbench,
    opened,
    output,
    serial_of,
)
from tests.support.site import IDENTITIES, RULES


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


async def approved(bench: Workbench) -> Request:
    """Return an approved request that nobody has started, as a crash leaves it."""
    request = await bench.held()
    said = machine.Decision(
        approver="alice",
        owner="alice",
        decision=Verb.APPROVE,
        channel="http",
        at=bench.clock.now(),
        credential=bench.who("alice").credential,
    )
    decided = machine.approve(
        request, said, roles=["approver"], digest=request.digest, now=bench.clock.now()
    )
    assert await bench.store.transition(decided, expected_version=request.version)
    return decided


async def ended(bench: Workbench, request: Request, state: State, code: str | None) -> Request:
    """Look that the request has ended so, with this code, told once; and that nothing ran."""
    stored = await bench.request(request.id)
    assert stored.state is state
    assert (None if stored.problem is None else stored.problem.code) == code
    assert stored.finished_at is not None
    assert bench.host.changes == []
    mine = [r for r in bench.records() if r.get("request_id") == request.id]
    assert mine[-1]["event"] in {"request.cancelled", "request.failed", "request.expired"}
    assert mine[-1]["code"] == code
    return stored


# -- run ------------------------------------------------------------------------------------------


async def test_an_approved_request_runs_once_and_is_verified(bench: Workbench) -> None:
    request = await approved(bench)
    done = await bench.pipeline.lifecycle.start(request)
    assert done.state is State.SUCCEEDED
    assert done.outcome is not None
    assert done.outcome["verified"] is True
    assert bench.steps() == ["request.held", "operation.started", "operation.finished"]
    started = bench.last(Event.OPERATION_STARTED)
    assert (started["request_id"], started["digest"]) == (request.id, request.digest)


@pytest.mark.promise("c29")
async def test_the_same_approval_started_many_times_runs_once(bench: Workbench) -> None:
    request = await approved(bench)
    ends = await asyncio.gather(*(bench.pipeline.lifecycle.start(request) for _ in range(20)))
    assert len(bench.host.changes) == 1
    assert {end.state for end in ends} <= {State.SUCCEEDED, State.RUNNING}
    assert await bench.state(request) is State.SUCCEEDED


async def test_who_is_slower_than_a_cancellation_does_not_run(bench: Workbench) -> None:
    request = await approved(bench)

    async def cancelled_first(_running: Request) -> None:
        await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)

    bench.store.before_transition = cancelled_first
    assert (await bench.pipeline.lifecycle.start(request)).state is State.CANCELLED
    assert bench.host.changes == []


async def test_a_failed_run_is_stored_with_its_problem(bench: Workbench) -> None:
    bench.host.answers["pull"] = output(exit_code=1, stderr="fatal: no\n")
    done = await bench.pipeline.lifecycle.start(await approved(bench))
    assert done.state is State.FAILED
    assert done.problem is not None
    assert done.problem.code == "host:failed"
    assert done.outcome is not None
    assert done.outcome["exit_code"] == 1


async def test_a_run_past_its_deadline_is_timed_out(bench: Workbench) -> None:
    bench.host.answers["pull"] = output(exit_code=-15, timed_out=True)
    done = await bench.pipeline.lifecycle.start(await approved(bench))
    assert done.state is State.TIMED_OUT
    assert done.outcome is not None
    assert done.outcome["verified"] is None


async def test_a_wrapper_that_could_not_start_has_failed_without_an_outcome(
    bench: Workbench,
) -> None:
    bench.host.answers["pull"] = SudoRefusedError("sudo would not run it; nothing ran.")
    done = await bench.pipeline.lifecycle.start(await approved(bench))
    assert (done.state, done.outcome) == (State.FAILED, None)
    assert done.problem is not None
    assert done.problem.code == "host:sudo-refused"
    assert bench.events()[-1] == "operation.finished"


@pytest.mark.promise("c4")
async def test_an_approved_request_does_not_run_where_its_start_cannot_be_written(
    bench: Workbench,
) -> None:
    bench.audit.refused = frozenset({Event.OPERATION_STARTED})
    done = await bench.pipeline.lifecycle.start(await approved(bench))
    assert (done.state, done.outcome) == (State.FAILED, None)
    assert done.problem is not None
    assert done.problem.code == "audit:unavailable"
    assert bench.host.changes == []


@pytest.mark.promise("c46")
async def test_an_end_that_cannot_be_stored_is_in_the_log_and_unknown_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as bench:
        request = await approved(bench)
        bench.store.refused = frozenset({"transition:succeeded"})
        await bench.pipeline.lifecycle.start(request)
        assert await bench.state(request) is State.RUNNING
        assert bench.last(Event.OPERATION_FINISHED)["outcome"]["state"] == "succeeded"
        assert "could not be stored" in caplog.text
    async with opened(tmp_path) as bench:
        await bench.pipeline.lifecycle.recover()
        assert await bench.state(request) is State.UNKNOWN
        assert bench.host.changes == []


@pytest.mark.promise("c46")
async def test_a_run_that_cannot_be_stored_as_begun_does_not_begin(
    bench: Workbench,
) -> None:
    request = await approved(bench)
    bench.store.refused = frozenset({"transition:running"})
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.FAILED, "store:unavailable")


@pytest.mark.promise("c46")
async def test_a_run_refused_by_a_store_that_stays_locked_is_told_in_the_log(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await approved(bench)
    bench.store.refused = frozenset({"transition"})
    with pytest.raises(StoreUnavailableError):
        await bench.pipeline.lifecycle.start(request)
    assert await bench.state(request) is State.APPROVED
    assert bench.host.changes == []
    assert request.id in caplog.text
    bench.store.refused = frozenset()
    bench.clock.advance(minutes=30)
    await bench.pipeline.lifecycle.expire_due()
    await ended(bench, request, State.EXPIRED, "approval:expired")


@pytest.mark.promise("c46")
async def test_what_was_approved_runs_once_the_store_can_be_written_again(
    bench: Workbench,
) -> None:
    request = await approved(bench)
    bench.store.refused = frozenset({"transition"})
    with pytest.raises(StoreUnavailableError):
        await bench.pipeline.lifecycle.start(request)
    bench.store.refused = frozenset()
    watching = asyncio.create_task(bench.pipeline.lifecycle.expire_forever())
    while await bench.state(request) is not State.SUCCEEDED:
        await asyncio.sleep(0)
    watching.cancel()
    assert len(bench.host.changes) == 1


async def test_an_end_that_another_process_made_stays(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await approved(bench)
    gate = bench.host.hold("pull")
    run = bench.pipeline.lifecycle.start(request)
    await bench.host.reached["pull"].wait()
    await bench.pipeline.lifecycle.recover()  # as another agent on the same store would
    gate.set()
    assert (await run).state is State.UNKNOWN
    assert "ended by another process" in caplog.text


# -- asked again ----------------------------------------------------------------------------------


@pytest.mark.promise("c27")
async def test_a_target_that_has_moved_is_not_touched(bench: Workbench) -> None:
    request = await approved(bench)
    bench.host.tip = "c" * 40
    await bench.pipeline.lifecycle.start(request)
    stored = await ended(bench, request, State.FAILED, "approval:target-changed")
    assert stored.problem is not None
    assert "target" in stored.problem.detail


@pytest.mark.promise("c27")
@pytest.mark.parametrize("what", ["wrapper", "rule", "identity", "section"])
async def test_another_policy_or_wrapper_is_a_changed_target(bench: Workbench, what: str) -> None:
    request = await approved(bench)
    match what:
        case "wrapper":
            bench.change_wrapper()
        case "rule":
            bench.reconfigure(rules=RULES.replace("pulling needs a person", "another name"))
        case "identity":
            bench.reconfigure(identities=IDENTITIES.replace('"bob"', '"bobby"', 1))
        case "section":
            section = '[[git.repositories]]\npath = "/srv/app"\nremotes = ["origin"]\n'
            bench.reconfigure(git=f'{section}branches = ["main"]')
    await bench.pipeline.lifecycle.start(request)
    stored = await ended(bench, request, State.FAILED, "approval:target-changed")
    assert stored.problem is not None
    assert "policy, the wrapper or the host" in stored.problem.detail


@pytest.mark.promise("c27")
async def test_a_rule_that_allows_by_now_is_still_another_rule(bench: Workbench) -> None:
    request = await approved(bench)
    bench.reconfigure(rules=RULES.replace('verdict = "ask"', 'verdict = "allow"', 1))
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.FAILED, "approval:target-changed")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"rules": ""}, "policy:no-rule"),
        ({"rules": RULES.replace('verdict = "ask"', 'verdict = "deny"', 1)}, "policy:denied"),
        (
            {"identities": IDENTITIES.replace('"bob"', '"bob"\nautonomy = "read_only"', 1)},
            "policy:read-only",
        ),
        ({"identities": IDENTITIES.replace('"deployer"', '"someone"')}, "identity:unknown"),
        (
            {"identities": IDENTITIES.replace('cn = "alice"', 'cn = "somebody"')},
            "identity:role-required",
        ),
        (
            {"identities": IDENTITIES.replace('roles = ["approver"]', 'roles = ["caller"]', 1)},
            "identity:role-required",
        ),
        (
            {"identities": IDENTITIES.replace('cn = "alice"', 'cn = "alice"\nowner = "zoe"')},
            "identity:role-required",
        ),
    ],
    ids=["no rule", "deny", "read only", "caller gone", "approver gone", "no role", "other owner"],
)
async def test_who_is_not_welcome_any_more_does_not_run(
    bench: Workbench, changed: dict[str, str], code: str
) -> None:
    request = await approved(bench)
    bench.reconfigure(**changed)
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.CANCELLED, code)


async def test_a_caller_revoked_after_the_approval_does_not_run(bench: Workbench) -> None:
    request = await approved(bench)
    bench.revocations.revoked.add(serial_of("deployer"))
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.CANCELLED, "identity:revoked")


async def test_an_adapter_that_is_gone_fails_it(bench: Workbench) -> None:
    request = await approved(bench)
    bench.reconfigure(git="")
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.FAILED, "adapter:unavailable")


@pytest.mark.promise("c27")
@pytest.mark.parametrize(
    ("exit_code", "code"),
    [
        (66, "approval:target-changed"),
        (77, "approval:target-changed"),
        (1, "host:failed"),
        (127, "adapter:unavailable"),
    ],
    ids=["gone", "another's", "not possible any more", "no git"],
)
async def test_a_resource_that_cannot_be_looked_at_again_is_not_touched(
    bench: Workbench, exit_code: int, code: str
) -> None:
    request = await approved(bench)
    bench.host.answers["inspect-pull"] = output(exit_code=exit_code)
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.FAILED, code)


async def test_an_operation_that_this_build_lacks_fails_it(bench: Workbench) -> None:
    request = await approved(bench)
    bench.context.catalogue = type(bench.context.catalogue)(())
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.FAILED, "request:unknown-operation")


@pytest.mark.promise("c8")
async def test_an_approval_does_not_outlive_its_time(bench: Workbench) -> None:
    request = await approved(bench)
    bench.clock.advance(minutes=30)
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.EXPIRED, "approval:expired")


@pytest.mark.promise("c8")
async def test_an_approval_that_expires_while_it_is_asked_again_does_not_run(
    bench: Workbench,
) -> None:
    request = await approved(bench)
    bench.host.before = lambda _verb: bench.clock.advance(minutes=30)
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.EXPIRED, "approval:expired")


async def test_an_approval_without_a_turn_until_it_expires_is_expired(bench: Workbench) -> None:
    gate = bench.host.hold("fetch")
    fetching = asyncio.ensure_future(bench.ask("git.fetch", FETCH))
    await bench.host.reached["fetch"].wait()
    request = await approved(bench)
    bench.clock.advance(minutes=29, seconds=59, milliseconds=950)
    run = bench.pipeline.lifecycle.start(request)
    await asyncio.sleep(0)  # it has read the clock, and waits its fifty milliseconds
    bench.clock.advance(milliseconds=50)
    assert (await run).state is State.EXPIRED
    gate.set()
    await fetching
    assert [run[0] for run in bench.host.changes] == ["fetch"]


async def test_who_is_slower_than_a_cancellation_does_not_fail_it(bench: Workbench) -> None:
    request = await approved(bench)
    bench.host.tip = "c" * 40

    async def cancelled_first(_failed: Request) -> None:
        await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)

    bench.store.before_transition = cancelled_first
    assert (await bench.pipeline.lifecycle.start(request)).state is State.CANCELLED


async def test_an_approver_revoked_after_the_approval_does_not_count(bench: Workbench) -> None:
    request = await bench.held()
    gate = bench.host.hold("inspect-pull")
    deciding = asyncio.ensure_future(bench.decide(request))
    await bench.host.reached["inspect-pull"].wait()
    bench.revocations.revoked.add(serial_of("alice"))
    gate.set()
    await deciding
    await bench.settle()
    await ended(bench, request, State.CANCELLED, "identity:role-required")


async def test_a_caller_revoked_while_it_is_asked_again_does_not_run(bench: Workbench) -> None:
    request = await approved(bench)
    bench.host.before = lambda _verb: bench.revocations.revoked.add(serial_of("deployer"))
    await bench.pipeline.lifecycle.start(request)
    await ended(bench, request, State.CANCELLED, "identity:revoked")


@pytest.mark.promise("c46")
async def test_an_end_that_could_not_be_stored_is_stored_when_it_can(
    bench: Workbench,
) -> None:
    request = await approved(bench)
    bench.store.refused = frozenset({"transition:succeeded"})
    await bench.pipeline.lifecycle.start(request)
    assert await bench.state(request) is State.RUNNING
    bench.store.refused = frozenset()
    change = bench.context.changes.watch(request.id)
    loop = asyncio.ensure_future(bench.pipeline.lifecycle.expire_forever())
    try:
        async with asyncio.timeout(PATIENCE):
            await change
        assert await bench.state(request) is State.SUCCEEDED
        assert len(bench.host.changes) == 1
    finally:
        loop.cancel()
        await asyncio.wait([loop])


# -- expire ---------------------------------------------------------------------------------------


async def test_expiry_is_at_its_instant_and_not_before(bench: Workbench) -> None:
    request = await bench.held()
    bench.clock.advance(minutes=30, microseconds=-1)
    await bench.pipeline.lifecycle.expire_due()
    assert await bench.state(request) is State.PENDING
    bench.clock.advance(microseconds=1)
    await bench.pipeline.lifecycle.expire_due()
    await ended(bench, request, State.EXPIRED, "approval:expired")


async def test_expiry_that_comes_too_late_leaves_the_decision(bench: Workbench) -> None:
    request = await bench.held()
    bench.clock.advance(minutes=29)

    async def denied_first(_expired: Request) -> None:
        bench.clock.instant = request.created_at
        await bench.decide(request, Verb.DENY)

    bench.clock.advance(minutes=1)
    bench.store.before_transition = denied_first
    assert (await bench.pipeline.lifecycle.expire(request)).state is State.DENIED
    assert "request.expired" not in bench.events()


async def test_an_expiry_that_cannot_be_written_down_holds_all_the_same(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await bench.held()
    bench.clock.advance(minutes=30)
    bench.audit.refused = frozenset({Event.REQUEST_EXPIRED})
    await bench.pipeline.lifecycle.expire_due()
    assert await bench.state(request) is State.EXPIRED
    assert "is not in the audit log" in caplog.text


async def test_the_loop_expires_what_falls_due_and_outlives_a_locked_store(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.store.refused = frozenset({"due"})
    loop = asyncio.ensure_future(bench.pipeline.lifecycle.expire_forever())
    try:
        async with asyncio.timeout(PATIENCE):
            while "expiry could not be looked at" not in caplog.text:
                await asyncio.sleep(0)
            bench.store.refused = frozenset()
            request = await bench.held()  # wakes it: there is something to expire now
            change = bench.context.changes.watch(request.id)
            bench.clock.advance(minutes=30)
            bench.pipeline.transitions.queue.changed()
            await change
            assert await bench.state(request) is State.EXPIRED
    finally:
        loop.cancel()
        await asyncio.wait([loop])


async def test_the_loop_wakes_by_itself_when_something_falls_due(bench: Workbench) -> None:
    request = await bench.held()
    bench.clock.advance(minutes=29, seconds=59, milliseconds=900)
    loop = asyncio.ensure_future(bench.pipeline.lifecycle.expire_forever())
    change = bench.context.changes.watch(request.id)
    try:
        await asyncio.sleep(0)
        bench.clock.advance(milliseconds=200)
        async with asyncio.timeout(PATIENCE):
            await change
        assert await bench.state(request) is State.EXPIRED
    finally:
        loop.cancel()
        await asyncio.wait([loop])


# -- recover --------------------------------------------------------------------------------------


@pytest.mark.promise("c1")
async def test_after_a_restart_pending_stays_and_approved_runs_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        waiting = await bench.held(operation="git.switch", params=ASIDE)
        request = await approved(bench)
    async with opened(tmp_path) as bench:
        await bench.pipeline.lifecycle.recover()
        await bench.settle()
        assert await bench.state(waiting) is State.PENDING
        assert await bench.state(request) is State.SUCCEEDED
        assert len(bench.host.changes) == 1
    async with opened(tmp_path) as bench:
        await bench.pipeline.lifecycle.recover()
        await bench.settle()
        assert bench.host.changes == []


@pytest.mark.promise("c2")
async def test_after_a_restart_what_ran_is_unknown_and_is_not_run_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench:
        request = await approved(bench)
        running = machine.start(request, now=bench.clock.now())
        assert await bench.store.transition(running, expected_version=request.version)
    async with opened(tmp_path) as bench:
        await bench.pipeline.lifecycle.recover()
        await bench.settle()
        stored = await bench.request(request.id)
        assert stored.state is State.UNKNOWN
        assert stored.problem is not None
        assert "not run again" in stored.problem.detail
        assert bench.last(Event.REQUEST_UNKNOWN)["request_id"] == request.id
        assert bench.host.ran == []


@pytest.mark.promise("c8")
async def test_what_expired_while_the_agent_was_down_does_not_run(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        waiting = await bench.held(operation="git.switch", params=ASIDE)
        request = await approved(bench)
        clock = bench.clock
    clock.advance(minutes=30)
    async with opened(tmp_path, clock=clock) as bench:
        await bench.pipeline.lifecycle.recover()
        await bench.settle()
        assert await bench.state(waiting) is State.EXPIRED
        await ended(bench, request, State.EXPIRED, "approval:expired")


@pytest.mark.promise("c29")
async def test_two_agents_that_recover_tell_of_an_unknown_outcome_once(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench:
        request = await approved(bench)
        running = machine.start(request, now=bench.clock.now())
        assert await bench.store.transition(running, expected_version=request.version)

        async def other_agent_first(_unknown: Request) -> None:
            await bench.pipeline.lifecycle.recover()

        bench.store.before_transition = other_agent_first
        await bench.pipeline.lifecycle.recover()
        assert bench.events().count("request.unknown") == 1


# -- callers that are gone ------------------------------------------------------------------------


@pytest.mark.promise("c9")
async def test_the_pending_requests_of_a_revoked_caller_are_cancelled(tmp_path: Path) -> None:
    plain = IDENTITIES.replace('autonomy = "full"\nskip_ask = true', "")
    async with opened(tmp_path, identities=plain) as bench:
        mine, others = await bench.held(), await bench.held(by="robot")
        gate = bench.host.hold("fetch")
        fetching = asyncio.ensure_future(bench.ask("git.fetch", FETCH))
        await bench.host.reached["fetch"].wait()
        bench.revocations.revoked.add(serial_of("deployer"))
        await bench.pipeline.lifecycle.cancel_callers_gone()
        assert await bench.state(mine) is State.CANCELLED
        assert await bench.state(others) is State.PENDING
        cancelled = bench.last(Event.REQUEST_CANCELLED)
        assert (cancelled["request_id"], cancelled["code"]) == (mine.id, "identity:revoked")
        gate.set()
        assert (await fetching).status == 200  # what runs is not torn down


async def test_the_pending_requests_of_a_removed_caller_are_cancelled(bench: Workbench) -> None:
    request = await bench.held()
    bench.reconfigure(identities="")
    await bench.pipeline.lifecycle.cancel_callers_gone()
    await ended(bench, request, State.CANCELLED, "identity:unknown")


@pytest.mark.promise("c11")
async def test_without_a_revocation_list_nothing_is_cancelled(bench: Workbench) -> None:
    request = await bench.held()
    bench.revocations.is_late = True
    await bench.pipeline.lifecycle.cancel_callers_gone()
    assert await bench.state(request) is State.PENDING


async def test_a_decision_that_is_quicker_than_the_revocation_is_told_once(
    bench: Workbench,
) -> None:
    request = await bench.held()
    bench.revocations.revoked.add(serial_of("deployer"))

    async def denied_first(_cancelled: Request) -> None:
        await bench.decide(request, Verb.DENY)

    bench.store.before_transition = denied_first
    await bench.pipeline.lifecycle.cancel_callers_gone()
    assert await bench.state(request) is State.DENIED
    assert "request.cancelled" not in bench.events()
