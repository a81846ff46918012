"""The outbox: durable, at least once, never in anybody's way."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.errors import AuditUnavailableError
from host_agent.notify.channel import ChannelError
from host_agent.notify.outbox import CONCURRENCY, LANE_ROOM
from host_agent.requests import codes
from host_agent.requests.model import Request, State, Terms, Verb, approve, cancel, deny
from host_agent.requests.notification import DeliveryState, Failure, Kind, Purpose
from tests.support.outbox import Bench, ScriptedChannel, bench, running
from tests.support.stored_requests import a_decision

DOWN = ChannelError(Failure.UNREACHABLE, "nobody answers there")
HIDDEN_WORDS = "do-not-log-me"


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def end(at: Bench, request: Request) -> Request:
    """Let bob deny the request."""
    ended = deny(request, a_decision("bob", Verb.DENY), roles={"approver"}, now=at.clock.now())
    assert await at.store.transition(ended, expected_version=request.version)
    at.outbox.wake()
    return ended


# -- what is sent ---------------------------------------------------------------------------------


async def test_a_prompt_goes_out_with_a_fresh_code(at: Bench) -> None:
    signal = ScriptedChannel()
    at.use(signal)
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "delivered")])
    message = signal.sent[0]
    row = await at.row(request)
    assert (row.state, row.reference, row.tries) == (DeliveryState.DELIVERED, "signal-1", 1)
    assert row.delivered_at == at.clock.now()
    assert (message.id, message.owner, message.address) == (row.id, "bob", "address-of-bob")
    assert message.code is not None
    assert message.prompt.answer == f"CONFIRM {codes.spaced(message.code)}"
    assert message.code not in message.prompt.text
    (kept,) = await at.store.codes(request.id)
    assert (kept.owner, kept.channel, kept.purpose) == ("bob", "signal", Purpose.CONFIRM)
    assert codes.matches(message.code, kept.code_hash)


async def test_a_channel_without_codes_gets_none(at: Bench) -> None:
    webhook = ScriptedChannel("webhook", purpose=None)
    at.use(webhook)
    request = await at.hold(1, ("bob", "webhook", 0))
    await at.until(lambda: at.results == [("webhook", "delivered")])
    assert webhook.codes == [None]
    assert await at.store.codes(request.id) == []


async def test_a_text_that_is_not_whole_carries_no_code(at: Bench) -> None:
    signal = ScriptedChannel()
    at.use(signal)
    request = await at.hold(params={"value": "x" * 5000})
    await at.until(lambda: at.results == [("signal", "delivered")])
    assert not signal.sent[0].prompt.is_whole
    assert signal.codes == [None]
    assert await at.store.codes(request.id) == []


async def test_a_decided_request_is_not_told(at: Bench) -> None:
    signal = ScriptedChannel()
    request = await at.hold(1, ("bob", "signal", 0), ("carol", "signal", 0))
    await at.store.transition(
        cancel(request, problem=None, now=at.clock.now()), expected_version=request.version
    )
    at.use(signal)
    await at.until_settled(request, DeliveryState.WITHDRAWN, 1)
    second = await at.hold(2)
    await at.until(lambda: at.results_of("signal") == ["delivered"])
    assert [message.request.id for message in signal.sent] == [second.id]


async def test_an_owner_who_has_spoken_gets_no_prompt(at: Bench) -> None:
    signal = ScriptedChannel()
    request = await at.hold(1, ("bob", "signal", 0), terms=Terms(approvals=2))
    spoken = approve(
        request, a_decision("bob"), roles={"approver"}, digest=request.digest, now=at.clock.now()
    )
    assert await at.store.transition(spoken, expected_version=request.version)
    at.use(signal)
    await at.until(lambda: at.results == [("signal", "withdrawn")])
    assert signal.sent == []
    assert (await at.row(request)).state is DeliveryState.WITHDRAWN


async def test_the_callers_own_owner_gets_no_prompt(at: Bench) -> None:
    signal = ScriptedChannel()
    at.use(signal)
    await at.hold(1, ("Alice", "signal", 0))
    await at.until(lambda: at.results == [("signal", "withdrawn")])
    assert signal.sent == []


async def test_what_is_decided_while_the_code_is_made_is_not_sent(at: Bench) -> None:
    signal = ScriptedChannel()
    request = await at.hold()

    async def decide() -> None:
        await end(at, request)

    at.store.before_code = decide
    at.use(signal)
    await at.until(lambda: at.results == [("signal", "withdrawn")])
    assert signal.sent == []
    assert await at.store.codes(request.id) == []


async def test_an_answer_to_either_message_of_a_prompt_is_an_answer_to_it(at: Bench) -> None:
    signal = ScriptedChannel()
    at.use(signal)
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "delivered")])
    row = await at.row(request)
    assert (row.reference, row.answer_reference) == ("signal-1", "signal-1-code")
    for reference in ("signal-1", "signal-1-code"):
        assert await at.store.prompt_by_reference("bob", "signal", reference) == row
    assert await at.store.prompt_by_reference("carol", "signal", "signal-1-code") is None


async def test_the_prompt_tells_what_was_denied_before(at: Bench) -> None:
    signal = ScriptedChannel()
    at.use(signal)
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "delivered")])
    await end(at, request)
    await at.until(lambda: at.results == [("signal", "delivered")] * 2)
    again = await at.hold(2, resource=request.resource, params=request.params)
    await at.until(lambda: at.results == [("signal", "delivered")] * 3)
    assert "Denied once in 24 h, last 0 s ago by bob" in signal.sent[2].prompt.text
    other = await at.hold(3)
    assert other.resource != again.resource
    await at.until(lambda: at.results == [("signal", "delivered")] * 4)
    assert "Denied" not in signal.sent[3].prompt.text


async def test_the_outcome_answers_the_prompt(at: Bench) -> None:
    signal = ScriptedChannel()
    at.use(signal)
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "delivered")])
    await end(at, request)
    await at.until(lambda: at.results == [("signal", "delivered")] * 2)
    outcome = signal.sent[1]
    assert (outcome.kind, outcome.reply_to, outcome.code) == (Kind.OUTCOME, "signal-1", None)
    assert outcome.prompt.text.startswith("Denied on host: PULL /srv/app1, main of origin; ")
    assert outcome.prompt.answer is None


async def test_an_outcome_answers_the_prompt_of_its_own_owner_and_channel(at: Bench) -> None:
    signal, ntfy = ScriptedChannel(), ScriptedChannel("ntfy", purpose=None)
    at.use(signal, ntfy)
    request = await at.hold(1, ("carol", "ntfy", 0), ("carol", "signal", 0), ("bob", "signal", 0))
    await at.until(lambda: len(at.results) == 3)
    prompts = await at.store.notifications_of(request.id)
    await end(at, request)
    await at.until(lambda: len(at.results) == 6)
    for channel in (signal, ntfy):
        answered = {one.owner: one.reply_to for one in channel.sent if one.kind is Kind.OUTCOME}
        assert answered == {
            one.owner: one.reference for one in prompts if one.channel == channel.name
        }


async def test_no_outcome_for_whom_no_prompt_reached(at: Bench) -> None:
    signal = ScriptedChannel("signal", always=DOWN)
    at.use(signal)
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "retried")])
    await end(at, request)
    assert [row.kind for row in await at.store.notifications_of(request.id)] == [Kind.PROMPT]


# -- retries and dead letters ---------------------------------------------------------------------


async def test_a_retry_has_the_same_id_and_a_new_code(at: Bench) -> None:
    signal = ScriptedChannel("signal", DOWN)
    at.use(signal)
    request = await at.hold()
    await at.until(lambda: at.results_of("signal") == ["retried"])
    row = await at.row(request)
    assert (row.tries, row.failure) == (1, Failure.UNREACHABLE)
    assert row.next_at == at.clock.now() + timedelta(seconds=2)
    at.advance(2)
    await at.until(lambda: at.results_of("signal") == ["retried", "delivered"])
    first, second = signal.sent
    assert first.id == second.id
    assert first.code != second.code
    (kept,) = await at.store.codes(request.id)
    assert second.code is not None
    assert codes.matches(second.code, kept.code_hash)
    assert (await at.row(request)).failure is None


async def test_nothing_is_tried_before_it_is_due(at: Bench) -> None:
    signal = ScriptedChannel("signal", DOWN)
    at.use(signal)
    await at.hold()
    await at.until(lambda: at.results_of("signal") == ["retried"])
    at.advance(1.9)
    await at.hold(2, ("carol", "signal", 0))
    await at.until(lambda: len(signal.sent) == 2)
    assert [message.owner for message in signal.sent] == ["bob", "carol"]


async def test_what_the_other_side_asks_for_is_waited(at: Bench) -> None:
    asked = ChannelError(Failure.RATE_LIMITED, "slower", retry_after_seconds=60)
    signal = ScriptedChannel("signal", asked)
    at.use(signal)
    request = await at.hold()
    await at.until(lambda: at.results_of("signal") == ["retried"])
    assert (await at.row(request)).next_at == at.clock.now() + timedelta(seconds=62)
    other = await at.hold(2, ("carol", "signal", 0))
    await at.until_nothing_due()
    row = await at.row(other)
    assert (row.tries, row.next_at) == (0, at.clock.now() + timedelta(seconds=70))
    at.advance(70)
    await at.until(lambda: at.results_of("signal").count("delivered") == 2)


async def test_a_wait_beyond_expiry_lets_the_next_channel_try(at: Bench) -> None:
    asked = ChannelError(Failure.RATE_LIMITED, "a captcha", retry_after_seconds=3600)
    signal, ntfy = ScriptedChannel("signal", asked), ScriptedChannel("ntfy", purpose=Purpose.DENY)
    at.use(signal, ntfy)
    request = await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: ("ntfy", "delivered") in at.results)
    assert at.results[0] == ("signal", "failed")
    assert (await at.row(request)).failure is Failure.RATE_LIMITED
    # The account is held: another request does not even try.
    await at.hold(2, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: len(ntfy.sent) == 2)
    assert len(signal.sent) == 1


async def test_after_twelve_tries_it_is_a_dead_letter(at: Bench) -> None:
    at.draw = lambda _low, _high: 0.0
    signal, ntfy = ScriptedChannel("signal", always=DOWN), ScriptedChannel("ntfy")
    at.use(signal, ntfy)
    request = await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: len(at.failed) == 1 and len(ntfy.sent) == 1)
    assert at.results_of("signal") == ["retried"] * 11 + ["failed"]
    row = await at.row(request)
    assert at.failed == [row]
    assert (row.state, row.tries, row.failure) == (DeliveryState.FAILED, 12, Failure.UNREACHABLE)
    assert await at.state(request) is State.PENDING
    assert len(set(signal.codes)) == 12


async def test_a_final_refusal_is_not_tried_again(at: Bench) -> None:
    refused = ChannelError(Failure.REFUSED, "never", is_final=True)
    signal, ntfy = ScriptedChannel("signal", refused), ScriptedChannel("ntfy")
    at.use(signal, ntfy)
    await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: len(ntfy.sent) == 1)
    assert at.results_of("signal") == ["failed"]


async def test_only_the_owner_whose_channel_failed_is_hastened(at: Bench) -> None:
    refused = ChannelError(Failure.REFUSED, "never", is_final=True)
    at.use(ScriptedChannel("signal", always=refused), ntfy := ScriptedChannel("ntfy"))
    request = await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120), ("carol", "ntfy", 120))
    await at.until(lambda: ("ntfy", "delivered") in at.results)
    assert [message.owner for message in ntfy.sent] == ["bob"]
    assert (await at.row(request, 2)).state is DeliveryState.WAITING


async def test_the_next_channel_waits_while_the_first_is_tried(at: Bench) -> None:
    at.use(ScriptedChannel("signal", DOWN), ntfy := ScriptedChannel("ntfy"))
    await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: at.results == [("signal", "retried")])
    assert ntfy.sent == []
    at.advance(120)
    await at.until(lambda: ("ntfy", "delivered") in at.results)
    assert len(ntfy.sent) == 1


async def test_a_changed_key_ends_it_and_is_told(at: Bench) -> None:
    changed = ChannelError(Failure.IDENTITY_CHANGED, "another key")
    at.use(ScriptedChannel("signal", changed), ntfy := ScriptedChannel("ntfy"))
    request = await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: len(ntfy.sent) == 1)
    assert at.changed_identities == [("bob", "signal", "address-of-bob")]
    assert (await at.row(request)).failure is Failure.IDENTITY_CHANGED
    assert at.results_of("signal") == ["failed"]


async def test_nobody_there_is_a_dead_letter_at_once(at: Bench) -> None:
    at.addresses["bob", "signal"] = None
    signal, ntfy = ScriptedChannel("signal"), ScriptedChannel("ntfy")
    at.use(signal, ntfy)
    request = await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: len(ntfy.sent) == 1)
    row = await at.row(request)
    assert (row.state, row.tries, row.failure) == (DeliveryState.FAILED, 0, Failure.NOT_ENROLLED)
    assert signal.sent == []
    assert await at.store.codes(request.id) != []  # ntfy's alone
    assert {code.channel for code in await at.store.codes(request.id)} == {"ntfy"}


async def test_a_channel_that_is_gone_is_a_dead_letter(at: Bench) -> None:
    at.use(ntfy := ScriptedChannel("ntfy"))
    request = await at.hold(1, ("bob", "signal", 0), ("bob", "ntfy", 120))
    await at.until(lambda: len(ntfy.sent) == 1)
    assert (await at.row(request)).failure is Failure.NOT_CONFIGURED


async def test_what_is_expired_is_not_sent(at: Bench) -> None:
    request = await at.hold()
    at.clock.advance(minutes=30)
    at.use(signal := ScriptedChannel())
    await at.until(lambda: at.results == [("signal", "withdrawn")])
    assert signal.sent == []
    assert at.failed == []
    assert await at.state(request) is State.PENDING


async def test_what_was_tried_until_it_expired_is_a_dead_letter(at: Bench) -> None:
    at.use(signal := ScriptedChannel("signal", DOWN))
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "retried")])
    at.advance(1800)
    await at.until(lambda: len(at.failed) == 1)
    assert (await at.row(request)).failure is Failure.UNREACHABLE
    assert len(signal.sent) == 1


async def test_an_outcome_is_given_up_after_a_day(at: Bench) -> None:
    at.use(signal := ScriptedChannel("signal", None, DOWN))
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "delivered")])
    await end(at, request)
    await at.until(lambda: at.results_of("signal") == ["delivered", "retried"])
    at.advance(86_400)
    await at.until(lambda: len(at.failed) == 1)
    assert at.failed[0].kind is Kind.OUTCOME
    assert len(signal.sent) == 2


async def test_an_audit_log_that_fails_stops_nothing(at: Bench) -> None:
    at.on_failed_raises = AuditUnavailableError("not now")
    refused = ChannelError(Failure.REFUSED, "never", is_final=True)
    at.use(signal := ScriptedChannel("signal", refused))
    await at.hold()
    await at.until(lambda: len(at.failed) == 1)
    await at.hold(2)
    await at.until(lambda: at.results_of("signal") == ["failed", "delivered"])
    assert len(signal.sent) == 2


# -- defects --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "defect", [RuntimeError(HIDDEN_WORDS), TimeoutError(HIDDEN_WORDS), asyncio.CancelledError()]
)
async def test_a_defect_of_a_channel_is_a_failed_try(
    at: Bench, defect: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    at.use(signal := ScriptedChannel("signal", defect))
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "retried")])
    assert (await at.row(request)).failure is Failure.DEFECT
    assert HIDDEN_WORDS not in caplog.text
    at.advance(2)
    await at.until(lambda: at.results_of("signal") == ["retried", "delivered"])
    assert len(signal.sent) == 2


async def test_nothing_secret_is_logged(at: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "host_agent")
    refused = ChannelError(Failure.REFUSED, "never", is_final=True)
    at.use(signal := ScriptedChannel("signal", DOWN, RuntimeError("x"), None, refused))
    request = await at.hold(reason="the caller's words")
    await at.until(lambda: at.results_of("signal") == ["retried"])
    at.advance(2)
    await at.until(lambda: at.results_of("signal") == ["retried"] * 2)
    at.advance(4)
    await at.until(lambda: at.results_of("signal") == ["retried", "retried", "delivered"])
    await at.hold(2)
    await at.until(lambda: len(at.failed) == 1)
    assert request.reason is not None
    secrets = [code for code in signal.codes if code is not None]
    assert len(secrets) == 4
    for word in [*secrets, *map(codes.hash_code, secrets), "address-of-bob", request.reason]:
        assert word not in caplog.text
    assert "channel signal failed (unreachable): nobody answers there" in caplog.text
    assert "channel signal takes messages again" in caplog.text


async def test_a_text_that_cannot_be_made_is_a_failed_try(
    at: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    at.compose_raises = RuntimeError(HIDDEN_WORDS)
    at.use(signal := ScriptedChannel())
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "retried")])
    assert signal.sent == []
    assert (await at.row(request)).failure is Failure.DEFECT
    assert await at.store.codes(request.id) == []
    assert HIDDEN_WORDS not in caplog.text


@pytest.mark.parametrize("method", ["due_notifications", "get"])
async def test_a_defect_of_the_store_ends_nothing(
    at: Bench, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    at.store.defective = {method}
    at.use(signal := ScriptedChannel())
    await at.hold()
    await at.until(lambda: at.store.refused >= 2)
    assert signal.sent == []
    assert "RuntimeError at " in caplog.text
    assert HIDDEN_WORDS not in caplog.text
    at.store.defective = set()
    await at.until(lambda: at.results == [("signal", "delivered")])


# -- a channel in trouble -------------------------------------------------------------------------


@pytest.mark.promise("c44")
async def test_a_channel_that_is_down_delays_and_then_delivers(at: Bench) -> None:
    at.use(signal := ScriptedChannel("signal", *[DOWN] * 4))
    request = await at.hold()
    for seconds in (2, 4, 8, 16):
        await at.until(lambda: "retried" in at.results_of("signal"))
        at.results.clear()
        assert (await at.row(request)).next_at == at.clock.now() + timedelta(seconds=seconds)
        at.advance(seconds)
    await at.until(lambda: ("signal", "delivered") in at.results)
    assert len(signal.sent) == 5
    assert len({message.id for message in signal.sent}) == 1
    assert await at.state(request) is State.PENDING


@pytest.mark.promise("c44")
async def test_a_channel_that_hangs_stops_no_other_and_no_request(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        gate = asyncio.Event()
        signal, ntfy = ScriptedChannel("signal", always=gate), ScriptedChannel("ntfy")
        at.use(signal, ntfy)
        held = [
            await at.hold(number, (f"owner{number}", "signal", 0)) for number in range(CONCURRENCY)
        ]
        await at.until(lambda: signal.under_way == CONCURRENCY)
        more = await at.hold(100, ("bob", "signal", 0), ("bob", "ntfy", 0))
        await at.until(lambda: at.results == [("ntfy", "delivered")])
        assert len(signal.sent) == CONCURRENCY
        assert {await at.state(request) for request in [*held, more]} == {State.PENDING}
        gate.set()
        await at.until(lambda: at.results_of("signal").count("delivered") == CONCURRENCY + 1)
        assert signal.most_under_way == CONCURRENCY


@pytest.mark.promise("c44")
async def test_a_channel_that_never_answers_is_cut_off(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        signal = ScriptedChannel("signal", asyncio.Event())
        signal.changed = at.news.set
        impatient = at.made(deadline_seconds=0.02)
        async with running(impatient):
            request = await at.hold()
            impatient.use({"signal": signal})
            await at.until(lambda: at.results == [("signal", "retried")])
            assert (await at.row(request)).failure is Failure.TIMED_OUT
            assert signal.under_way == 0
            assert await at.state(request) is State.PENDING


@pytest.mark.promise("c44")
@pytest.mark.parametrize(
    "failure", [Failure.UNREACHABLE, Failure.TIMED_OUT, Failure.REFUSED, Failure.BAD_ANSWER]
)
async def test_no_failure_approves_anything(at: Bench, failure: Failure) -> None:
    at.draw = lambda _low, _high: 0.0
    at.use(signal := ScriptedChannel("signal", always=ChannelError(failure, "no")))
    request = await at.hold()
    await at.until(lambda: len(at.failed) == 1)
    assert len(signal.sent) == 12
    assert at.failed[0].failure is failure
    found = await at.store.get(request.id)
    assert found == request


@pytest.mark.promise("c44")
async def test_rows_of_a_channel_that_hangs_hide_no_others(at: Bench) -> None:
    signal, ntfy = ScriptedChannel("signal", always=asyncio.Event()), ScriptedChannel("ntfy")
    made = await at.hold(0)
    rows = await at.store.notifications_of(made.id)
    many = [
        replace(rows[0], id=f"{number:032x}", owner=f"owner{number}")
        for number in range(LANE_ROOM * 3)
    ]
    await at.store.add_notifications(many)
    at.clock.advance(seconds=1)
    await at.hold(1, ("bob", "ntfy", 0))
    at.use(signal, ntfy)
    await at.until(lambda: at.results == [("ntfy", "delivered")])
    assert len(signal.sent) == CONCURRENCY


@pytest.mark.promise("c44")
async def test_rows_beyond_the_widest_look_are_put_off(
    at: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_agent.notify.outbox.BATCH", 10)
    monkeypatch.setattr("host_agent.notify.outbox.WIDEST_BATCH", 20)
    monkeypatch.setattr("host_agent.notify.outbox.LANE_ROOM", 10)
    signal, ntfy = ScriptedChannel("signal", always=asyncio.Event()), ScriptedChannel("ntfy")
    made = await at.hold(0)
    rows = await at.store.notifications_of(made.id)
    many = [replace(rows[0], id=f"{number:032x}", owner=f"owner{number}") for number in range(60)]
    await at.store.add_notifications(many)
    at.clock.advance(seconds=1)
    await at.hold(1, ("bob", "ntfy", 0))
    at.use(signal, ntfy)
    await at.until(lambda: at.results == [("ntfy", "delivered")])
    assert at.failed == []


# -- order, rate and memory -----------------------------------------------------------------------


async def test_an_owner_gets_one_message_after_the_other(at: Bench) -> None:
    gate = asyncio.Event()
    signal = ScriptedChannel("signal", gate)
    ids = [(await at.hold(number)).id for number in range(3)]
    at.use(signal)
    await at.until(lambda: signal.under_way == 1)
    await at.hold(9, ("carol", "signal", 0))
    await at.until(lambda: len(signal.sent) == 2)
    gate.set()
    await at.until(lambda: at.results_of("signal") == ["delivered"] * 4)
    assert [message.request.id for message in signal.sent if message.owner == "bob"] == ids


@pytest.mark.promise("c45")
async def test_an_approver_is_not_spammed(at: Bench) -> None:
    at.per_minute = 3
    signal = ScriptedChannel()
    at.use(signal)
    requests = [await at.hold(number) for number in range(8)]
    await at.hold(50, ("carol", "signal", 0))
    await at.until_nothing_due()
    await at.until(lambda: at.results_of("signal") == ["delivered"] * 4)
    assert sorted(message.owner for message in signal.sent) == ["bob"] * 3 + ["carol"]
    waiting = [await at.row(request) for request in requests[3:]]
    assert {(row.state, row.tries) for row in waiting} == {(DeliveryState.WAITING, 0)}
    for _ in range(20):
        at.advance(20)
        await at.until_nothing_due()
    await at.until(lambda: at.results_of("signal") == ["delivered"] * 9)
    assert len(await at.store.codes(requests[7].id)) == 1


@pytest.mark.promise("c45")
async def test_a_prompt_whose_turn_comes_too_late_tries_the_next_channel(at: Bench) -> None:
    at.per_minute = 1
    at.use(signal := ScriptedChannel(), ntfy := ScriptedChannel("ntfy"))
    soon = at.clock.now() + timedelta(seconds=50)
    await at.hold(1)
    await at.until(lambda: len(signal.sent) == 1)
    await at.hold(2, ("bob", "signal", 0), ("bob", "ntfy", 40), expires_at=soon)
    await at.until(lambda: len(ntfy.sent) == 1)
    assert len(signal.sent) == 1
    assert at.failed[0].failure is Failure.RATE_LIMITED


@pytest.mark.promise("c45")
async def test_outcomes_are_not_held_back(at: Bench) -> None:
    at.per_minute = 1
    at.use(signal := ScriptedChannel())
    request = await at.hold()
    await at.until(lambda: at.results == [("signal", "delivered")])
    await end(at, request)
    await at.until(lambda: len(signal.sent) == 2)
    assert signal.sent[1].kind is Kind.OUTCOME


@pytest.mark.promise("c45")
async def test_a_flood_stays_in_the_store(at: Bench) -> None:
    made = await at.hold(0)
    (row,) = await at.store.notifications_of(made.id)
    await at.store.add_notifications(
        [
            replace(row, id=f"{channel}{number}", owner=f"owner{number}", channel=channel)
            for number in range(1000)
            for channel in ("signal", "ntfy")
        ]
    )
    gate = asyncio.Event()
    signal, ntfy = ScriptedChannel("signal", always=gate), ScriptedChannel("ntfy", always=gate)
    at.use(signal, ntfy)
    await at.until(lambda: signal.under_way + ntfy.under_way == 2 * CONCURRENCY)
    assert len(at.outbox._in_hand) <= 2 * LANE_ROOM
    assert len(at.outbox._tasks) == 2 * CONCURRENCY


# -- the store ------------------------------------------------------------------------------------


async def test_a_store_that_is_gone_is_waited_for(at: Bench) -> None:
    at.store.down = {"due_notifications"}
    at.use(signal := ScriptedChannel())
    await at.hold()
    await at.until(lambda: at.store.refused >= 2)
    assert signal.sent == []
    at.store.down = set()
    await at.until(lambda: at.results == [("signal", "delivered")])


async def test_no_code_that_is_not_stored_is_sent(at: Bench) -> None:
    at.store.down = {"add_code"}
    at.use(signal := ScriptedChannel())
    request = await at.hold()
    await at.until(lambda: at.store.refused >= 2)
    assert signal.sent == []
    assert (await at.row(request)).tries == 0
    at.store.down = set()
    await at.until(lambda: at.results == [("signal", "delivered")])
    assert len(signal.sent) == 1


async def test_what_was_sent_is_not_sent_again_while_it_cannot_be_stored(at: Bench) -> None:
    at.store.down = {"settle_notification"}
    at.use(webhook := ScriptedChannel("webhook", purpose=None))
    request = await at.hold(1, ("bob", "webhook", 0))
    await at.until(lambda: at.store.refused >= 5)
    assert len(webhook.sent) == 1
    at.store.down = set()
    await at.until(lambda: at.results == [("webhook", "delivered")])
    assert len(webhook.sent) == 1
    assert (await at.row(request)).state is DeliveryState.DELIVERED


async def test_a_crash_between_sending_and_storing_means_a_repeat(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.store.down = {"settle_notification"}
        at.use(signal := ScriptedChannel())
        request = await at.hold()
        await at.until(lambda: at.store.refused >= 1)
        for task in list(at.outbox._tasks):
            task.cancel()
        await at.outbox.close()
        assert (await at.row(request)).state is DeliveryState.WAITING
        at.store.down = set()
        at.outbox = at.made()
        async with running(at.outbox):
            at.use(signal)
            await at.until(lambda: at.results == [("signal", "delivered")])
        first, second = signal.sent
        assert first.id == second.id
        assert first.code != second.code
        (kept,) = await at.store.codes(request.id)
        assert first.code is not None
        assert not codes.matches(first.code, kept.code_hash)


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ([], "delivered"),
        ([DOWN, DOWN], "retried"),
        ([ChannelError(Failure.REFUSED, "never", is_final=True)] * 2, "failed"),
    ],
)
async def test_two_outboxes_leave_one_result(
    at: Bench, script: list[ChannelError], result: str
) -> None:
    at.store.down = {"settle_notification"}  # so that neither is too late for the other
    signal = ScriptedChannel("signal", *script)
    other = at.made()
    async with running(other):
        at.use(signal)
        other.use({"signal": signal})
        request = await at.hold()
        other.wake()
        await at.until(lambda: len(signal.sent) == 2 and at.store.refused >= 4)
        at.store.down = set()
        await asyncio.gather(*at.outbox._tasks, *other._tasks)
    assert at.results == [("signal", result)]
    assert len(at.failed) == (1 if result == "failed" else 0)
    assert len({message.id for message in signal.sent}) == 1
    assert (await at.row(request)).tries == 1


async def test_a_prompt_that_another_outbox_has_delivered_is_not_withdrawn(at: Bench) -> None:
    signal = ScriptedChannel()
    request = await at.hold()
    row = await at.row(request)
    delivered = replace(
        row,
        state=DeliveryState.DELIVERED,
        tries=1,
        delivered_at=at.clock.now(),
        reference="of another",
    )

    async def meanwhile() -> None:
        assert await at.store.settle_notification(delivered, expected_tries=row.tries)
        await end(at, request)

    at.store.before_code = meanwhile
    at.use(signal)
    await at.until(lambda: at.results_of("signal") == ["delivered"])
    (outcome,) = signal.sent
    assert (outcome.kind, outcome.reply_to) == (Kind.OUTCOME, "of another")
    assert await at.row(request) == delivered


# -- start, reload and stop -----------------------------------------------------------------------


async def test_nothing_is_given_up_before_there_are_channels(at: Bench) -> None:
    request = await at.hold()
    await asyncio.sleep(0)
    at.outbox.wake()
    await at.until_settled(request, DeliveryState.WAITING)
    assert at.results == []
    at.use(ScriptedChannel())
    await at.until(lambda: at.results == [("signal", "delivered")])


async def test_a_reload_sends_over_the_new_channel(at: Bench) -> None:
    gate = asyncio.Event()
    old, new = ScriptedChannel("signal", gate), ScriptedChannel("signal")
    at.use(old)
    await at.hold(1)
    await at.hold(2)
    await at.until(lambda: old.under_way == 1)
    at.use(new)
    await at.hold(3, ("carol", "signal", 0))
    await at.until(lambda: len(new.sent) == 1)
    gate.set()
    await at.until(lambda: at.results_of("signal") == ["delivered"] * 3)
    assert (len(old.sent), len(new.sent)) == (1, 2)


async def test_a_reload_without_the_channel_gives_up_what_waits(at: Bench) -> None:
    gate = asyncio.Event()
    at.use(old := ScriptedChannel("signal", gate))
    await at.hold(1)
    second = await at.hold(2)
    await at.until(lambda: old.under_way == 1)
    at.use(ScriptedChannel("ntfy"))
    await at.until_settled(second, DeliveryState.FAILED)
    gate.set()
    await at.until(lambda: ("signal", "delivered") in at.results)
    assert (await at.row(second)).failure is Failure.NOT_CONFIGURED


async def test_a_stop_lets_what_is_under_way_end_and_begins_nothing(at: Bench) -> None:
    gate = asyncio.Event()
    await at.outbox.close()
    at.outbox = at.made(grace_seconds=20.0)
    async with running(at.outbox):
        at.use(signal := ScriptedChannel("signal", gate))
        await at.hold(1)
        second = await at.hold(2)
        await at.until(lambda: signal.under_way == 1)
        closing = asyncio.create_task(at.outbox.close())
        await asyncio.sleep(0)
        gate.set()
        await closing
    assert at.results == [("signal", "delivered")]
    assert (await at.row(second)).state is DeliveryState.WAITING
    at.outbox = at.made()
    async with running(at.outbox):
        at.use(signal)
        await at.until(lambda: at.results_of("signal") == ["delivered"] * 2)


async def test_a_stop_does_not_wait_for_a_channel_that_hangs(at: Bench) -> None:
    at.use(signal := ScriptedChannel("signal", asyncio.Event()))
    request = await at.hold()
    await at.until(lambda: signal.under_way == 1)
    await at.outbox.close()
    assert signal.under_way == 0
    assert (await at.row(request)).state is DeliveryState.WAITING
    assert at.results == []
