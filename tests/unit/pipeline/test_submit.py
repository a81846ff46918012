"""An ask runs, is held, attaches to a live request, or is refused; and nothing else happens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    AdapterUnavailableError,
    AuditUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    IdempotencyConflictError,
    InvalidParameterError,
    NoRuleError,
    PolicyDeniedError,
    QueueFullError,
    RateLimitedError,
    ReadOnlyError,
    ReasonRequiredError,
    StoreUnavailableError,
    TargetChangedError,
    UnknownIdentityError,
    UnknownOperationError,
    UnreachableError,
)
from host_agent.pipeline import Submission
from host_agent.pipeline.responses import Failed
from host_agent.requests.model import Request, RequestId, State, Terms, Verb
from host_agent.store.admission import Inserted
from tests.support.pipeline import (
    ASIDE,
    FETCH,
    PULL,
    REPOSITORY,
    RESET,
    STATUS,
    Workbench,
    opened,
    output,
)
from tests.support.site import IDENTITIES, RULES

ALL_ALLOWED = """
[[rules]]
name = "everything is free"
operations = ["git.*"]
verdict = "allow"
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


async def refused(bench: Workbench, error: type[HostAgentError], **asked: object) -> HostAgentError:
    """Ask, expect the refusal, and look that nothing has moved and nothing was run."""
    before, changes = await bench.store.live(), list(bench.host.changes)
    with pytest.raises(error) as caught:
        await bench.ask(**asked)  # type: ignore[arg-type]
    assert await bench.store.live() == before
    assert bench.host.changes == changes
    return caught.value


# -- allow ----------------------------------------------------------------------------------------


async def test_an_allowed_read_runs_and_leaves_no_row(bench: Workbench) -> None:
    answer = await bench.ask("git.status", STATUS)
    assert answer.status == 200
    assert answer.body["state"] == "succeeded"
    outcome = answer.body["outcome"]
    assert isinstance(outcome, dict)
    assert outcome["data"]["branch"]["name"] == "main"
    assert outcome["verified"] is None
    assert bench.events() == ["operation.started", "operation.finished"]
    page, _ = await bench.store.list(state=None, caller=None, limit=10, cursor=None)
    assert page == []


async def test_an_allowed_change_runs_with_a_row_of_its_own(bench: Workbench) -> None:
    bench.reconfigure(rules=ALL_ALLOWED)
    answer = await bench.ask()
    assert answer.status == 200
    stored = await bench.request(str(answer.body["request_id"]))
    assert stored.state is State.SUCCEEDED
    assert stored.outcome is not None
    assert stored.outcome["verified"] is True
    assert stored.decisions == ()
    assert bench.host.head == bench.host.tip
    assert [run[0] for run in bench.host.changes] == ["pull"]


async def test_the_row_of_an_allowed_change_is_there_before_it_runs(bench: Workbench) -> None:
    bench.reconfigure(rules=ALL_ALLOWED)
    gate = bench.host.hold("pull")
    asking = asyncio.ensure_future(bench.ask(exchange_id="ab" * 16))
    await bench.host.reached["pull"].wait()
    assert (await bench.request("ab" * 16)).state is State.RUNNING
    assert bench.steps() == ["operation.started"]
    gate.set()
    assert (await asking).status == 200


async def test_the_same_change_while_it_runs_attaches_and_runs_once(bench: Workbench) -> None:
    gate = bench.host.hold("fetch")
    asking = asyncio.ensure_future(bench.ask("git.fetch", FETCH))
    await bench.host.reached["fetch"].wait()
    again = await bench.ask("git.fetch", FETCH, reason="impatient")
    assert again.status == 202
    assert again.body["state"] == "running"
    assert "does not run it again" in str(again.body["message"])
    gate.set()
    first = await asking
    assert first.body["request_id"] == again.body["request_id"]
    assert len(bench.host.changes) == 1
    assert bench.last(Event.REQUEST_ATTACHED)["reason"] == "impatient"


@pytest.mark.promise("c29")
async def test_the_same_change_by_another_agent_on_the_store_is_not_run_twice(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await bench.ask("git.fetch", FETCH)
    done = await bench.request(str(first.body["request_id"]))

    insert = bench.store.insert

    async def insert_second(request: Request, **named: Any) -> Inserted:
        """Let the other agent store it right before."""
        running = replace(
            done,
            id=RequestId(done.id[::-1]),
            state=State.RUNNING,
            outcome=None,
            finished_at=None,
            version=1,
        )
        await insert(running, max_pending=9, max_pending_per_caller=9)
        return await insert(request, **named)

    monkeypatch.setattr(bench.store, "insert", insert_second)
    again = await bench.ask("git.fetch", FETCH)
    assert again.status == 202
    assert again.body["request_id"] == done.id[::-1]
    assert len(bench.host.changes) == 1


async def test_a_failed_change_is_answered_with_its_outcome_and_stored(bench: Workbench) -> None:
    bench.host.answers["fetch"] = output(exit_code=1, stderr="fatal: no\n")
    with pytest.raises(HostFailedError) as caught:
        await bench.ask("git.fetch", FETCH, exchange_id="cd" * 16)
    assert caught.value.members["outcome"]["exit_code"] == 1
    stored = await bench.request("cd" * 16)
    assert stored.state is State.FAILED
    assert stored.problem is not None
    assert stored.problem.code == "host:failed"
    assert bench.last(Event.OPERATION_FINISHED)["code"] == "host:failed"


async def test_a_failed_run_is_an_answer_and_no_refusal_and_counted_as_its_code(
    bench: Workbench,
) -> None:
    bench.host.answers["status"] = output(exit_code=1, stderr="fatal: no\n")
    ask = Submission(operation="git.status", params=STATUS, exchange_id="ab" * 16, body_sha256="")
    answer = await bench.pipeline.asks.submit(bench.who("deployer"), ask)
    assert isinstance(answer, Failed)
    assert isinstance(answer.error, HostFailedError)
    assert answer.error.members["outcome"]["exit_code"] == 1
    assert bench.events() == ["operation.started", "operation.finished"]
    assert 'refusals_total{code="host:failed"} 1.0' in bench.context.metrics.render().decode()


async def test_an_allowed_change_that_cannot_be_written_down_does_not_run(
    bench: Workbench,
) -> None:
    bench.audit.refused = frozenset({Event.OPERATION_STARTED})
    with pytest.raises(AuditUnavailableError):
        await bench.ask("git.fetch", FETCH, exchange_id="cd" * 16)
    assert bench.host.changes == []
    stored = await bench.request("cd" * 16)
    assert (stored.state, stored.outcome) == (State.FAILED, None)


async def test_a_read_that_cannot_be_written_down_does_not_run(bench: Workbench) -> None:
    bench.audit.refused = frozenset({Event.OPERATION_STARTED})
    with pytest.raises(AuditUnavailableError):
        await bench.ask("git.status", STATUS)
    assert bench.host.ran == []


async def test_an_allowed_change_supersedes_a_pending_one_and_says_so(bench: Workbench) -> None:
    older = await bench.held()
    bench.reconfigure(rules=ALL_ALLOWED)
    assert (await bench.ask()).status == 200
    stored = await bench.request(older.id)
    assert stored.state is State.CANCELLED
    cancelled = bench.last(Event.REQUEST_CANCELLED)
    assert (cancelled["request_id"], cancelled["code"]) == (older.id, "approval:target-changed")


async def test_a_client_that_goes_away_does_not_stop_what_runs(bench: Workbench) -> None:
    gate = bench.host.hold("fetch")
    asking = asyncio.ensure_future(bench.ask("git.fetch", FETCH, exchange_id="ef" * 16))
    await bench.host.reached["fetch"].wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.set()
    await bench.settle()
    assert (await bench.request("ef" * 16)).state is State.SUCCEEDED
    assert bench.events()[-1] == "operation.finished"


async def test_a_client_that_goes_away_while_it_is_held_leaves_a_whole_request(
    bench: Workbench,
) -> None:
    asking = asyncio.ensure_future(bench.ask(exchange_id="ef" * 16))
    while not bench.context.tasks:
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await bench.settle()
    assert (await bench.request("ef" * 16)).state is State.PENDING
    assert bench.steps() == ["request.held"]


async def test_two_changes_of_one_resource_take_turns(bench: Workbench) -> None:
    bench.reconfigure(rules=ALL_ALLOWED)
    gate = bench.host.hold("fetch")
    fetching = asyncio.ensure_future(bench.ask("git.fetch", FETCH))
    await bench.host.reached["fetch"].wait()
    switching = asyncio.ensure_future(bench.ask("git.switch", ASIDE))
    reading = await bench.ask("git.status", STATUS)
    assert reading.status == 200
    assert not switching.done()
    gate.set()
    assert (await fetching).status == (await switching).status == 200
    assert [run[0] for run in bench.host.changes] == ["fetch", "switch"]


async def test_a_change_that_does_not_wait_is_looked_at_once(bench: Workbench) -> None:
    await bench.ask("git.fetch", FETCH)
    assert [run[0] for run in bench.host.ran] == ["inspect-fetch", "fetch"]


async def test_a_change_that_waited_is_bound_to_what_is_there_after_the_wait(
    bench: Workbench,
) -> None:
    bench.reconfigure(rules=ALL_ALLOWED)
    gate = bench.host.hold("fetch")
    fetching = asyncio.ensure_future(bench.ask("git.fetch", FETCH))
    await bench.host.reached["fetch"].wait()
    pulling = asyncio.ensure_future(bench.ask())
    while "inspect-pull" not in [run[0] for run in bench.host.ran]:
        await asyncio.sleep(0)
    bench.host.tip = "c" * 40
    gate.set()
    assert (await fetching).status == (await pulling).status == 200
    assert [run[0] for run in bench.host.ran].count("inspect-pull") == 2
    assert bench.host.changes[-1][-1] == "c" * 40


async def test_one_caller_with_slow_reads_leaves_a_place_to_another(tmp_path: Path) -> None:
    async with opened(tmp_path, execution="max_concurrent = 2") as bench:
        gate = bench.host.hold("status")
        bench.host.answers["log"] = output()
        slow = [asyncio.ensure_future(bench.ask("git.status", STATUS)) for _ in range(3)]
        await bench.host.reached["status"].wait()
        assert (await bench.ask("git.log", STATUS, by="watcher")).status == 200
        assert (await bench.ask("git.fetch", FETCH)).status == 200
        gate.set()
        assert [(await asking).status for asking in slow] == [200] * 3


async def test_a_change_that_gets_no_turn_is_busy_and_leaves_nothing(bench: Workbench) -> None:
    gate = bench.host.hold("fetch")
    fetching = asyncio.ensure_future(bench.ask("git.fetch", FETCH))
    await bench.host.reached["fetch"].wait()
    bench.reconfigure(rules=ALL_ALLOWED, execution="timeout_seconds = 0.05")
    await refused(bench, HostBusyError, operation="git.switch", params=ASIDE)
    gate.set()
    await fetching


# -- ask ------------------------------------------------------------------------------------------


async def test_what_needs_a_person_is_held_and_written_down(bench: Workbench) -> None:
    answer = await bench.ask(reason="deploy")
    assert answer.status == 202
    assert answer.body["state"] == "pending"
    assert answer.body["rule"] == "pulling needs a person"
    assert answer.body["expires_at"] == "2026-11-20T22:30:00.000000Z"
    assert "Nothing has run" in str(answer.body["message"])
    stored = await bench.request(str(answer.body["request_id"]))
    assert stored.preview is not None
    assert stored.precondition is not None
    assert stored.precondition["target"] == bench.host.tip
    assert bench.host.changes == []
    record = bench.last(Event.REQUEST_HELD)
    assert (record["reason"], record["digest"]) == ("deploy", stored.digest)


async def test_the_same_ask_attaches_and_the_first_reason_stays(bench: Workbench) -> None:
    first = await bench.ask(reason="deploy")
    again = await bench.ask(reason="please")
    told = f"{first.body['message']} People see the reason that it was first asked with; "
    assert again.body == {
        **first.body,
        "message": told + "the one given now is written down, and not shown to them.",
    }
    for reason in ("deploy", None):
        assert (await bench.ask(reason=reason)).body == first.body
    assert (await bench.request(str(first.body["request_id"]))).reason == "deploy"
    assert bench.steps() == ["request.held", *["request.attached"] * 3]
    attached = [r for r in bench.records() if r["event"] == "request.attached"]
    assert attached[0]["reason"] == "please"


async def test_callers_never_attach_to_each_others_requests(bench: Workbench) -> None:
    mine = await bench.ask()
    bench.reconfigure(identities=IDENTITIES.replace('autonomy = "full"\nskip_ask = true', ""))
    yours = await bench.ask(by="robot")
    assert yours.status == 202
    assert mine.body["request_id"] != yours.body["request_id"]
    assert mine.body["digest"] != yours.body["digest"]


async def test_the_same_for_another_state_supersedes_the_older_one(
    bench: Workbench,
) -> None:
    older = await bench.held()
    bench.host.tip = "c" * 40
    newer = await bench.held()
    assert newer.id != older.id
    stored = await bench.request(older.id)
    assert stored.state is State.CANCELLED
    assert stored.problem is not None
    assert "Superseded" in stored.problem.detail
    assert bench.steps() == ["request.held", "request.cancelled", "request.held"]


async def test_after_a_denial_the_same_may_be_asked_again(bench: Workbench) -> None:
    first = await bench.held()
    await bench.decide(first, Verb.DENY)
    second = await bench.held()
    assert second.id != first.id
    assert second.state is State.PENDING


async def test_a_held_ask_that_cannot_be_written_down_is_withdrawn(bench: Workbench) -> None:
    bench.audit.refused = frozenset({Event.REQUEST_HELD})
    with pytest.raises(AuditUnavailableError):
        await bench.ask(exchange_id="ab" * 16)
    assert (await bench.request("ab" * 16)).state is State.CANCELLED
    bench.audit.refused = frozenset()
    assert (await bench.ask()).status == 202


async def test_a_held_ask_that_can_be_neither_written_nor_withdrawn_is_still_refused(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.audit.refused = frozenset({Event.REQUEST_HELD})
    bench.store.refused = frozenset({"transition"})
    with pytest.raises(AuditUnavailableError):
        await bench.ask()
    assert "could not be withdrawn" in caplog.text


async def test_the_rules_own_time_comes_before_the_configured(tmp_path: Path) -> None:
    rules = RULES.replace('verdict = "ask"', 'verdict = "ask"\nttl_seconds = 90', 1)
    async with opened(tmp_path, rules=rules) as bench:
        request = await bench.held()
        assert request.expires_at - request.created_at == timedelta(seconds=90)


async def test_full_autonomy_skips_a_plain_ask(bench: Workbench) -> None:
    assert (await bench.ask(by="robot")).status == 200


async def test_full_autonomy_does_not_skip_what_always_asks(bench: Workbench) -> None:
    bench.reconfigure(rules=RULES.replace('verdict = "ask"', 'verdict = "ask"\nalways_ask = true'))
    assert (await bench.ask(by="robot")).status == 202
    assert bench.host.changes == []


# -- refusals -------------------------------------------------------------------------------------


async def test_a_refusal_names_what_was_asked_for(bench: Workbench) -> None:
    error = await refused(bench, ReadOnlyError, by="watcher", reason="why not")
    assert error.about["operation"] == "git.pull"
    assert error.about["resource"] == REPOSITORY
    assert error.about["params"] == dict(PULL)
    assert error.about["reason"] == "why not"


async def test_a_refused_name_or_parameter_names_no_operation(bench: Workbench) -> None:
    error = await refused(bench, UnknownOperationError, operation="git.push", params={})
    assert "operation" not in error.about
    error = await refused(bench, InvalidParameterError, params={**PULL, "branch": "-x"})
    assert "params" not in error.about


async def test_what_is_not_on_the_allow_list_is_denied(bench: Workbench) -> None:
    await refused(bench, PolicyDeniedError, params={**PULL, "branch": "secret"})
    await refused(bench, PolicyDeniedError, params={**PULL, "repository": "/srv/other"})


async def test_what_no_rule_covers_is_denied(bench: Workbench) -> None:
    bench.reconfigure(rules="")
    await refused(bench, NoRuleError)


async def test_what_a_rule_denies_is_denied_by_its_name(bench: Workbench) -> None:
    bench.reconfigure(rules=RULES.replace('verdict = "ask"', 'verdict = "deny"', 1))
    error = await refused(bench, PolicyDeniedError)
    assert "pulling needs a person" in error.detail


async def test_a_reason_is_required_where_the_rule_wants_one(bench: Workbench) -> None:
    await refused(bench, ReasonRequiredError, operation="git.reset", params=RESET)
    await refused(bench, ReasonRequiredError, operation="git.reset", params=RESET, reason="")
    assert (await bench.ask("git.reset", RESET, reason="undo")).status == 202


async def test_an_adapter_that_is_not_configured_is_unavailable(bench: Workbench) -> None:
    bench.reconfigure(git="")
    await refused(bench, AdapterUnavailableError)
    await refused(bench, AdapterUnavailableError, operation="git.status", params=STATUS)


async def test_a_wrapper_that_is_gone_is_unavailable(bench: Workbench) -> None:
    (bench.directory / "wrappers" / "git").unlink()
    await refused(bench, AdapterUnavailableError)
    await refused(bench, AdapterUnavailableError, operation="git.status", params=STATUS)


async def test_what_does_not_exist_is_refused_and_never_held(bench: Workbench) -> None:
    bench.host.answers["inspect-pull"] = output(exit_code=66, stderr="host-agent: no branch\n")
    await refused(bench, HostNotFoundError)


async def test_what_is_missing_is_pointed_at_where_it_can_be_nothing_else(bench: Workbench) -> None:
    gone = output(exit_code=66, stderr="host-agent: gone\n")
    for verb in ("status", "log", "inspect-pull"):
        bench.host.answers[verb] = gone
    asked: list[tuple[str, Mapping[str, JsonValue], str]] = [
        ("git.status", STATUS, "/params/repository"),
        ("git.log", {**STATUS, "limit": 3}, "/params/repository"),
        ("git.log", {**STATUS, "ref": "v1"}, "/params"),
        ("git.pull", PULL, "/params"),
    ]
    for operation, params, pointer in asked:
        with pytest.raises(HostNotFoundError) as caught:
            await bench.ask(operation, params)
        (fault,) = caught.value.recovery.faults
        assert (fault.pointer, fault.message) == (pointer, caught.value.detail)


async def test_a_state_that_cannot_be_read_in_time_is_refused(bench: Workbench) -> None:
    bench.host.answers["inspect-pull"] = output(exit_code=-15, timed_out=True)
    await refused(bench, HostTimedOutError)


async def test_a_caller_removed_while_it_asks_is_refused(bench: Workbench) -> None:
    bench.host.before = lambda _verb: bench.reconfigure(identities="")
    principal = bench.who("deployer")
    assert principal.cn == "deployer"
    # What it saw at its beginning is judged again once it has looked.
    await refused(bench, UnknownIdentityError)
    assert bench.steps() == []
    with pytest.raises(UnknownIdentityError):
        bench.who("deployer")


# -- too many, nobody -----------------------------------------------------------------------------


async def test_one_caller_cannot_fill_the_queue(tmp_path: Path) -> None:
    async with opened(tmp_path, approvals="max_pending_per_caller = 1") as bench:
        await bench.ask()
        error = await refused(bench, QueueFullError, operation="git.switch", params=ASIDE)
        assert error.retry_after_seconds == 1800
        assert (await bench.ask()).status == 202  # attaches: nothing new


async def test_the_queue_has_an_end_for_all_callers_together(tmp_path: Path) -> None:
    plain = IDENTITIES.replace('autonomy = "full"\nskip_ask = true', "")
    async with opened(tmp_path, identities=plain, approvals="max_pending = 1") as bench:
        first = await bench.held()
        await refused(bench, QueueFullError, by="robot")
        await bench.decide(first, Verb.DENY)
        assert (await bench.ask(by="robot")).status == 202


async def test_a_full_queue_does_not_stop_what_is_allowed(tmp_path: Path) -> None:
    async with opened(tmp_path, approvals="max_pending = 1") as bench:
        await bench.ask()
        assert (await bench.ask("git.fetch", FETCH)).status == 200


async def test_a_flood_of_denied_asks_is_held_off_for_an_hour(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 2") as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        expired = await bench.held()
        bench.clock.advance(minutes=30)
        await bench.pipeline.lifecycle.expire_due()
        assert await bench.state(expired) is State.EXPIRED
        error = await refused(bench, RateLimitedError)
        assert error.retry_after_seconds
        assert (await bench.ask("git.status", STATUS)).status == 200
        bench.clock.advance(minutes=61)
        assert (await bench.ask()).status == 202


async def test_who_is_held_off_still_attaches_to_what_waits(tmp_path: Path) -> None:
    other = {"repository": "/srv/app", "branch": "topic"}
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        waiting = await bench.ask()
        denied = await bench.held(operation="git.switch", params=other)
        await bench.decide(denied, Verb.DENY)
        again = await bench.ask()
        assert again.body["request_id"] == waiting.body["request_id"]
        await refused(bench, RateLimitedError, operation="git.switch", params=other)


@pytest.mark.parametrize(
    ("rules", "approvals"),
    [
        ('verdict = "ask"\napprovals = 4', ""),
        ('verdict = "ask"\napprovers = ["bob"]', ""),
        ('verdict = "ask"\napprovers = ["nobody"]', ""),
        ('verdict = "ask"\napprovals = 2\napprover_role = "admin"', ""),
        ('verdict = "ask"', "command_line = false"),
    ],
    ids=["too many", "only the caller's owner", "nobody of them", "one admin", "no channel"],
)
async def test_where_nobody_could_approve_the_caller_is_told_at_once(
    tmp_path: Path, rules: str, approvals: str
) -> None:
    changed = RULES.replace('verdict = "ask"', rules, 1)
    async with opened(tmp_path, rules=changed, approvals=approvals) as bench:
        await refused(bench, UnreachableError)
        assert bench.host.ran == []


async def test_a_store_that_is_gone_refuses_and_nothing_runs(bench: Workbench) -> None:
    await bench.store.close()
    with pytest.raises(StoreUnavailableError):
        await bench.ask()
    with pytest.raises(StoreUnavailableError):
        await bench.ask("git.fetch", FETCH)
    assert bench.host.changes == []


# -- idempotency ----------------------------------------------------------------------------------


async def test_the_same_key_and_body_give_the_same_answer_and_run_once(bench: Workbench) -> None:
    first = await bench.ask("git.fetch", FETCH, key="k1")
    again = await bench.ask("git.fetch", FETCH, key="k1")
    assert again == first
    assert list(again.body) == list(first.body)  # the same bytes, so the same order
    assert len(bench.host.changes) == 1


async def test_the_same_key_with_another_body_is_a_conflict(bench: Workbench) -> None:
    await bench.ask(key="k1")
    await refused(bench, IdempotencyConflictError, key="k1", reason="another body")
    await refused(bench, IdempotencyConflictError, key="k1", operation="git.status", params=STATUS)


async def test_keys_belong_to_their_caller(bench: Workbench) -> None:
    mine = await bench.ask("git.status", STATUS, key="k1")
    yours = await bench.ask("git.status", STATUS, key="k1", by="watcher")
    assert mine.body["request_id"] != yours.body["request_id"]


async def test_a_held_answer_stays_what_it_was(bench: Workbench) -> None:
    first = await bench.ask(key="k1")
    request = await bench.request(str(first.body["request_id"]))
    await bench.decide(request)
    await bench.settle()
    assert await bench.ask(key="k1") == first
    assert len(bench.host.changes) == 1


async def test_refusals_are_not_stored(bench: Workbench) -> None:
    bench.host.answers["inspect-pull"] = output(exit_code=66)
    await refused(bench, HostNotFoundError, key="k1")
    del bench.host.answers["inspect-pull"]
    assert (await bench.ask(key="k1")).status == 202


async def test_policy_is_asked_before_a_stored_answer_is_given(bench: Workbench) -> None:
    await bench.ask("git.status", STATUS, key="k1")
    bench.reconfigure(rules="")
    await refused(bench, NoRuleError, operation="git.status", params=STATUS, key="k1")


async def test_a_key_is_forgotten_after_a_day(bench: Workbench) -> None:
    first = await bench.ask("git.status", STATUS, key="k1")
    bench.clock.advance(hours=24)
    again = await bench.ask("git.status", STATUS, key="k1")
    assert again.body["request_id"] != first.body["request_id"]


async def test_a_second_with_the_same_key_waits_for_the_first(bench: Workbench) -> None:
    gate = bench.host.hold("status")
    first = asyncio.ensure_future(bench.ask("git.status", STATUS, key="k1"))
    await bench.host.reached["status"].wait()
    others = [asyncio.ensure_future(bench.ask("git.status", STATUS, key="k1")) for _ in range(3)]
    conflict = asyncio.ensure_future(bench.ask("git.status", STATUS, key="k1", body="another"))
    done, _ = await asyncio.wait(others, timeout=0.05)
    assert not done
    gate.set()
    answers = [await first, *[await other for other in others]]
    assert len({str(answer) for answer in answers}) == 1
    assert len(bench.host.ran) == 1
    with pytest.raises(IdempotencyConflictError):
        await conflict


async def test_a_second_waits_for_a_first_whose_client_has_gone(bench: Workbench) -> None:
    gate = bench.host.hold("fetch")
    first = asyncio.ensure_future(bench.ask("git.fetch", FETCH, key="k1", exchange_id="ab" * 16))
    await bench.host.reached["fetch"].wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.ensure_future(bench.ask("git.fetch", FETCH, key="k1"))
    done, _ = await asyncio.wait([second], timeout=0.05)
    assert not done
    gate.set()
    answer = await second
    assert (answer.status, answer.body["request_id"]) == (200, "ab" * 16)
    assert len(bench.host.changes) == 1


async def test_a_key_survives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        read = await bench.ask("git.status", STATUS, key="k1")
        held = await bench.ask(key="k2")
    async with opened(tmp_path) as bench:
        assert await bench.ask("git.status", STATUS, key="k1") == read
        assert await bench.ask(key="k2") == held
        assert bench.host.ran == []


@pytest.mark.promise("c46")
async def test_an_answer_that_could_not_be_kept_is_found_by_its_request(
    bench: Workbench,
) -> None:
    bench.store.refused = frozenset({"remember"})
    first = await bench.ask("git.fetch", FETCH, key="k1")
    held = await bench.ask(key="k2")
    bench.store.refused = frozenset()
    assert await bench.ask("git.fetch", FETCH, key="k1") == first
    assert await bench.ask(key="k2") == held
    assert len(bench.host.changes) == 1


@pytest.mark.promise("c46")
async def test_a_failure_whose_answer_was_not_kept_is_told_again(bench: Workbench) -> None:
    bench.host.answers["fetch"] = output(exit_code=1, stderr="fatal: no\n")
    with pytest.raises(HostFailedError) as first:
        await bench.ask("git.fetch", FETCH, key="k1")
    del bench.host.answers["fetch"]
    with pytest.raises(HostFailedError) as again:
        await bench.ask("git.fetch", FETCH, key="k1")
    assert again.value.detail == first.value.detail
    assert again.value.members == first.value.members
    assert len(bench.host.changes) == 1


@pytest.mark.promise("c4")
@pytest.mark.parametrize(
    ("operation", "params", "event"),
    [
        ("git.fetch", FETCH, Event.OPERATION_STARTED),
        ("git.pull", PULL, Event.REQUEST_HELD),
    ],
)
async def test_a_refusal_is_not_stored_where_the_audit_log_was_why(
    bench: Workbench, operation: str, params: dict[str, str], event: Event
) -> None:
    bench.audit.refused = frozenset({event})
    with pytest.raises(AuditUnavailableError):
        await bench.ask(operation, params, key="k1", exchange_id="ab" * 16)
    assert (await bench.request("ab" * 16)).was_refused
    bench.audit.refused = frozenset()
    again = await bench.ask(operation, params, key="k1", exchange_id="cd" * 16)
    assert again.body["request_id"] == "cd" * 16
    assert await bench.ask(operation, params, key="k1") == again


@pytest.mark.promise("c46")
@pytest.mark.parametrize("verb", list(Verb))
async def test_a_held_answer_that_was_not_kept_says_how_it_stands_by_now(
    bench: Workbench, verb: Verb
) -> None:
    bench.store.refused = frozenset({"remember"})
    request = await bench.held(key="k1")
    bench.store.refused = frozenset()
    bench.host.tip = "c" * 40  # so that an approval meets a changed target
    with contextlib.suppress(TargetChangedError):
        await bench.decide(request, verb)
    if verb is Verb.APPROVE:
        with pytest.raises(TargetChangedError) as caught:
            await bench.ask(key="k1")
        assert "outcome" not in caught.value.members
    else:
        again = await bench.ask(key="k1")
        assert (again.status, again.body["state"]) == (202, "denied")
        assert "ended as denied" in str(again.body["message"])


@pytest.mark.promise("c46")
async def test_a_held_answer_that_was_not_kept_says_that_it_was_withdrawn(
    bench: Workbench,
) -> None:
    bench.store.refused = frozenset({"remember"})
    request = await bench.held(key="k1")
    bench.store.refused = frozenset()
    await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
    again = await bench.ask(key="k1")
    assert (again.status, again.body["state"]) == (202, "cancelled")
    assert str(again.body["message"]).endswith(
        f"ended as cancelled; see GET /requests/{request.id}."
    )
    assert bench.host.changes == []


async def test_a_key_whose_request_is_purged_may_ask_anew(bench: Workbench) -> None:
    bench.store.refused = frozenset({"remember"})
    await bench.ask("git.fetch", FETCH, key="k1")
    bench.store.refused = frozenset()
    assert await bench.store.purge(bench.clock.now() + timedelta(seconds=1)) == 1
    assert (await bench.ask("git.fetch", FETCH, key="k1")).status == 200
    assert len(bench.host.changes) == 2


async def test_the_key_is_in_the_transaction_that_stores_its_request(bench: Workbench) -> None:
    answer = await bench.ask(key="k1")
    stored = await bench.store.recall("deployer", "k1", bench.clock.now())
    assert stored is not None
    assert stored.request_id == answer.body["request_id"]
    request = await bench.request(str(answer.body["request_id"]))
    assert request.terms == Terms()
