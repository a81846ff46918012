"""What the request store promises of notifications: due, tried, settled, withdrawn, owed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.errors import QueueFullError
from host_agent.requests import model as machine
from host_agent.requests.model import Request, RequestId, State, Terms, Verb
from host_agent.requests.notification import (
    DeliveryState,
    Failure,
    Kind,
    Notification,
)
from host_agent.store.store import RequestStore
from tests.support.request_stores import a_prompt, approved, put, step
from tests.support.store_ground import opened
from tests.support.stored_requests import NOW, a_decision, a_request

SECOND = timedelta(seconds=1)
LATER = NOW + 120 * SECOND


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RequestStore]:
    async with opened(tmp_path) as store:
        yield store


def denied(request: Request) -> Request:
    spoken = a_decision("carol", Verb.DENY)
    return machine.deny(request, spoken, roles=["approver"], now=NOW)


def finished(request: Request) -> Request:
    return machine.finish(
        request, state=State.SUCCEEDED, outcome={"exit_code": 0}, problem=None, now=NOW + SECOND
    )


def delivered(one: Notification, reference: str | None = "1763672400123") -> Notification:
    return replace(
        one,
        state=DeliveryState.DELIVERED,
        tries=one.tries + 1,
        delivered_at=NOW + SECOND,
        reference=reference,
        failure=None,
    )


def retried(one: Notification) -> Notification:
    return replace(
        one, tries=one.tries + 1, next_at=one.next_at + 2 * SECOND, failure=Failure.UNREACHABLE
    )


async def deliver(store: RequestStore, one: Notification, reference: str) -> Notification:
    after = delivered(one, reference)
    assert await store.settle_notification(after, expected_tries=one.tries)
    return after


async def states(store: RequestStore, request: Request) -> list[tuple[str, str, str, str]]:
    """Return kind, owner, channel and state of each."""
    return [
        (one.kind.value, one.owner, one.channel, one.state.value)
        for one in await store.notifications_of(request.id)
    ]


# -- made -----------------------------------------------------------------------------------------


async def test_prompts_come_with_their_request(store: RequestStore) -> None:
    request = a_request()
    prompts = [a_prompt(request), a_prompt(request, "carol", "ntfy", at=LATER)]
    assert (await put(store, request, notifications=prompts)).created
    assert await store.notifications_of(request.id) == prompts
    assert await store.notifications_of("other") == []


async def test_request_that_attaches_prompts_nobody(store: RequestStore) -> None:
    request, twin = a_request(), a_request(id=RequestId("twin"))
    prompts = [a_prompt(request)]
    await put(store, request, notifications=prompts)
    attached = await put(store, twin, notifications=[a_prompt(twin), a_prompt(twin, "carol")])
    assert not attached.created
    assert await store.notifications_of(request.id) == prompts
    assert await store.notifications_of("twin") == []


async def test_refused_request_prompts_nobody(store: RequestStore) -> None:
    await put(store, a_request(0))
    refused = a_request(1)
    with pytest.raises(QueueFullError):
        await put(store, refused, notifications=[a_prompt(refused)], total=1)
    assert await store.waiting_notifications() == {}


async def test_prompt_about_another_request_is_a_defect(store: RequestStore) -> None:
    await put(store, a_request(0))
    request = a_request(1)
    with pytest.raises(RuntimeError):
        await put(store, request, notifications=[a_prompt(a_request(0))])
    assert await store.get(request.id) is None
    assert await store.waiting_notifications() == {}


async def test_request_that_is_running_at_once_prompts_nobody(store: RequestStore) -> None:
    request = a_request(state=State.RUNNING)
    await put(store, request, notifications=[a_prompt(request)])
    assert await states(store, request) == [("prompt", "bob", "signal", "withdrawn")]


async def test_added_notification_never_replaces_one(store: RequestStore) -> None:
    request = a_request()
    first = a_prompt(request)
    await put(store, request, notifications=[first])
    again, other = a_prompt(request, "Bob", at=LATER), a_prompt(request, "carol")
    await store.add_notifications([again, other])
    assert await store.notifications_of(request.id) == [first, other]
    await store.add_notifications([])


async def test_added_prompt_for_what_is_decided_is_not_sent(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    await step(store, request, approved(request))
    await store.add_notifications([a_prompt(request), a_prompt(a_request(5))])
    assert await states(store, request) == [("prompt", "bob", "signal", "withdrawn")]
    assert await store.notifications_of(a_request(5).id) == []
    assert await store.waiting_notifications() == {}


# -- due ------------------------------------------------------------------------------------------


async def test_what_is_due_comes_longest_due_first(store: RequestStore) -> None:
    assert await store.next_notification() is None
    assert await store.due_notifications(LATER, limit=9) == []
    request, other = a_request(0), a_request(1)
    late, early = a_prompt(request, at=LATER), a_prompt(request, "carol", at=NOW)
    same = a_prompt(other, at=NOW)
    await put(store, request, notifications=[late, early])
    await put(store, other, notifications=[same])
    assert await store.next_notification() == NOW
    assert await store.due_notifications(NOW - SECOND, limit=9) == []
    assert await store.due_notifications(NOW, limit=9) == [early, same]
    assert await store.due_notifications(NOW, limit=1) == [early]
    assert await store.due_notifications(LATER, limit=9) == [early, same, late]
    await deliver(store, early, "1")
    await deliver(store, same, "2")
    assert await store.next_notification() == LATER
    assert await store.due_notifications(LATER, limit=9) == [late]
    assert await store.waiting_notifications() == {"signal": 1}


async def test_waiting_are_counted_by_channel(store: RequestStore) -> None:
    request = a_request()
    prompts = [
        a_prompt(request),
        a_prompt(request, "carol"),
        a_prompt(request, "carol", "ntfy"),
    ]
    await put(store, request, notifications=prompts)
    assert await store.waiting_notifications() == {"signal": 2, "ntfy": 1}


async def test_next_way_to_an_owner_is_hastened(store: RequestStore) -> None:
    request, other = a_request(0), a_request(1)
    second = a_prompt(request, "bob", "webhook", at=LATER)
    third = a_prompt(request, "bob", "ntfy", at=LATER + 120 * SECOND)
    theirs = a_prompt(request, "carol", "ntfy", at=LATER)
    elsewhere = a_prompt(other, "bob", "ntfy", at=LATER)
    await put(store, request, notifications=[third, second, theirs])
    await put(store, other, notifications=[elsewhere])
    now = NOW + 7 * SECOND
    await store.hasten_notifications(request.id, "BOB", now)
    hastened = replace(second, next_at=now)
    assert await store.notifications_of(request.id) == [third, hastened, theirs]
    assert await store.notifications_of(other.id) == [elsewhere]
    # It is due already: nothing is hastened beyond it, and it is not put off.
    await store.hasten_notifications(request.id, "bob", now + SECOND)
    assert await store.notifications_of(request.id) == [third, hastened, theirs]
    await deliver(store, hastened, "1")
    await store.hasten_notifications(request.id, "bob", now)
    assert (await store.notifications_of(request.id))[0] == replace(third, next_at=now)
    await store.hasten_notifications(request.id, "dave", now)
    await store.hasten_notifications("nothing", "bob", now)


# -- tried ----------------------------------------------------------------------------------------


async def test_try_is_settled_once(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    once = retried(one)
    assert await store.settle_notification(once, expected_tries=0)
    assert not await store.settle_notification(delivered(one), expected_tries=0)
    assert await store.notifications_of(request.id) == [once]
    twice = delivered(once)
    assert await store.settle_notification(twice, expected_tries=1)
    assert await store.notifications_of(request.id) == [twice]
    for late in (retried(once), retried(twice), replace(twice, state=DeliveryState.FAILED)):
        assert not await store.settle_notification(late, expected_tries=late.tries - 1)
        assert not await store.settle_notification(late, expected_tries=late.tries)
    assert await store.notifications_of(request.id) == [twice]


async def test_many_settle_one_try_and_one_counts(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    tries = [delivered(one, str(number)) for number in range(20)]
    won = await asyncio.gather(
        *(store.settle_notification(tried, expected_tries=0) for tried in tries)
    )
    assert sum(won) == 1
    assert await store.notifications_of(request.id) == [tries[won.index(True)]]


async def test_putting_off_is_no_try(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    off = replace(one, next_at=LATER)
    assert await store.settle_notification(off, expected_tries=0)
    assert await store.notifications_of(request.id) == [off]
    assert await store.next_notification() == LATER


async def test_dead_letter_stays_dead(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    dead = replace(one, state=DeliveryState.FAILED, failure=Failure.NOT_ENROLLED)
    assert await store.settle_notification(dead, expected_tries=0)
    assert not await store.settle_notification(delivered(one), expected_tries=0)
    assert await store.notifications_of(request.id) == [dead]
    assert await store.next_notification() is None


async def test_settling_moves_nothing_but_what_a_try_may(store: RequestStore) -> None:
    request, other = a_request(0), a_request(1)
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    await put(store, other)
    forged = replace(
        delivered(one), owner="mallory", channel="ntfy", request_id=other.id, created_at=LATER
    )
    assert await store.settle_notification(forged, expected_tries=0)
    assert await store.notifications_of(request.id) == [delivered(one)]
    assert await store.notifications_of(other.id) == []


async def test_unknown_notification_cannot_be_settled(store: RequestStore) -> None:
    await put(store, a_request())
    assert not await store.settle_notification(delivered(a_prompt(a_request())), expected_tries=0)
    assert await store.notifications_of(a_request().id) == []


async def test_delivered_prompt_is_found_by_its_reference(store: RequestStore) -> None:
    request = a_request()
    one, other = a_prompt(request), a_prompt(request, "carol")
    await put(store, request, notifications=[one, other])
    assert await store.prompt_by_reference("bob", "signal", "1001") is None
    sent = await deliver(store, one, "1001")
    assert await store.prompt_by_reference("Bob", "signal", "1001") == sent
    for owner, channel, reference in (
        ("carol", "signal", "1001"),
        ("bob", "webhook", "1001"),
        ("bob", "signal", "1002"),
    ):
        assert await store.prompt_by_reference(owner, channel, reference) is None


async def test_prompt_is_found_by_the_message_that_holds_its_code(store: RequestStore) -> None:
    request = a_request()
    one, other = a_prompt(request), a_prompt(request, "carol")
    await put(store, request, notifications=[one, other])
    sent = replace(delivered(one, "1001"), answer_reference="1002")
    assert await store.settle_notification(sent, expected_tries=0)
    for reference in ("1001", "1002"):
        assert await store.prompt_by_reference("bob", "signal", reference) == sent
        assert await store.prompt_by_reference("carol", "signal", reference) is None


async def test_outcome_is_no_prompt_to_answer(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    await deliver(store, one, "1001")
    await step(store, request, denied(request))
    (_, outcome) = await store.notifications_of(request.id)
    await deliver(store, outcome, "1002")
    assert await store.prompt_by_reference("bob", "signal", "1002") is None
    assert await store.prompt_by_reference("bob", "signal", "1001") is not None


# -- withdrawn, and what is owed ------------------------------------------------------------------


@pytest.mark.parametrize("end", ["approve", "deny", "cancel", "expire"])
async def test_prompts_that_wait_are_withdrawn_with_the_decision(
    store: RequestStore, end: str
) -> None:
    request, other = a_request(0), a_request(1)
    waiting = a_prompt(request, at=LATER)
    await put(store, request, notifications=[waiting])
    await put(store, other, notifications=[a_prompt(other)])
    after = {
        "approve": lambda: approved(request),
        "deny": lambda: denied(request),
        "cancel": lambda: machine.cancel(request, problem=None, now=NOW),
        "expire": lambda: machine.expire(request, now=request.expires_at),
    }[end]()
    await step(store, request, after)
    gone = replace(waiting, state=DeliveryState.WITHDRAWN)
    assert await store.notifications_of(request.id) == [gone]
    assert await states(store, other) == [("prompt", "bob", "signal", "waiting")]


async def test_one_voice_of_a_quorum_withdraws_nothing(store: RequestStore) -> None:
    request = a_request(terms=Terms(approvals=2))
    await put(store, request, notifications=[a_prompt(request, "carol")])
    await step(store, request, approved(request))
    assert await states(store, request) == [("prompt", "carol", "signal", "waiting")]


async def test_lost_race_withdraws_nothing(store: RequestStore) -> None:
    request = a_request(terms=Terms(approvals=2))
    await put(store, request, notifications=[a_prompt(request)])
    await step(store, request, approved(request))
    assert not await store.transition(denied(request), expected_version=1)
    assert await states(store, request) == [("prompt", "bob", "signal", "waiting")]


async def test_superseded_request_withdraws_its_prompts(store: RequestStore) -> None:
    old = a_request(0)
    sent, waiting = a_prompt(old), a_prompt(old, "carol")
    await put(store, old, notifications=[sent, waiting])
    await deliver(store, sent, "1")
    new = a_request(0, precondition="b" * 40, id=RequestId("new"), created_at=NOW + SECOND)
    await put(store, new, notifications=[a_prompt(new)])
    assert await states(store, old) == [
        ("prompt", "bob", "signal", "delivered"),
        ("prompt", "carol", "signal", "withdrawn"),
        ("outcome", "bob", "signal", "waiting"),
    ]
    assert await states(store, new) == [("prompt", "bob", "signal", "waiting")]


async def test_outcome_is_owed_to_whom_a_prompt_has_reached(store: RequestStore) -> None:
    request = a_request()
    reached = a_prompt(request)
    failed, waiting = a_prompt(request, "bob", "ntfy"), a_prompt(request, "carol")
    await put(store, request, notifications=[reached, failed, waiting])
    await deliver(store, reached, "1001")
    dead = replace(failed, state=DeliveryState.FAILED, tries=12, failure=Failure.TIMED_OUT)
    await store.settle_notification(dead, expected_tries=0)
    request = await step(store, request, approved(request))
    request = await step(store, request, machine.start(request, now=NOW))
    assert len(await store.notifications_of(request.id)) == 3
    await step(store, request, finished(request))
    *_, outcome = found = await store.notifications_of(request.id)
    assert len(found) == 4
    assert outcome == Notification(
        id=outcome.id,
        request_id=request.id,
        kind=Kind.OUTCOME,
        owner="bob",
        channel="signal",
        state=DeliveryState.WAITING,
        created_at=NOW + SECOND,
        next_at=NOW + SECOND,
    )
    assert len(outcome.id) == 32
    assert await store.due_notifications(NOW + SECOND, limit=9) == [outcome]


async def test_request_that_nobody_was_told_of_owes_nothing(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    await step(store, request, denied(request))
    assert await store.notifications_of(request.id) == []
    assert await store.next_notification() is None


async def test_approval_that_expires_owes_the_outcome_too(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    await deliver(store, one, "1")
    request = await step(store, request, approved(request))
    await step(store, request, machine.expire(request, now=request.expires_at))
    assert (await states(store, request))[1:] == [("outcome", "bob", "signal", "waiting")]


async def test_prompt_that_arrives_after_the_end_is_answered_as_well(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    ended = await step(store, request, denied(request))
    late = delivered(one)
    assert await store.settle_notification(late, expected_tries=0)
    stored, outcome = await store.notifications_of(request.id)
    assert stored == late
    assert (outcome.kind, outcome.owner, outcome.channel) == (Kind.OUTCOME, "bob", "signal")
    assert outcome.next_at == ended.finished_at
    assert not await store.settle_notification(delivered(one, "other"), expected_tries=0)
    assert len(await store.notifications_of(request.id)) == 2


async def test_prompt_that_arrives_between_decision_and_end_is_answered_once(
    store: RequestStore,
) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    request = await step(store, request, approved(request))
    await deliver(store, one, "1")
    assert await states(store, request) == [("prompt", "bob", "signal", "delivered")]
    request = await step(store, request, machine.start(request, now=NOW))
    await step(store, request, finished(request))
    assert (await states(store, request))[1:] == [("outcome", "bob", "signal", "waiting")]


@pytest.mark.parametrize("state", [DeliveryState.WAITING, DeliveryState.FAILED])
async def test_try_that_failed_after_the_end_stays_withdrawn(
    store: RequestStore, state: DeliveryState
) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    await step(store, request, denied(request))
    tried = replace(retried(one), state=state)
    assert await store.settle_notification(tried, expected_tries=0)
    assert await store.notifications_of(request.id) == [
        replace(tried, state=DeliveryState.WITHDRAWN)
    ]
    assert await store.next_notification() is None


async def test_outcome_that_is_delivered_owes_no_other(store: RequestStore) -> None:
    request = a_request()
    one = a_prompt(request)
    await put(store, request, notifications=[one])
    await deliver(store, one, "1")
    await step(store, request, denied(request))
    (_, outcome) = await store.notifications_of(request.id)
    await deliver(store, outcome, "2")
    assert (await states(store, request))[1:] == [("outcome", "bob", "signal", "delivered")]


# -- life -----------------------------------------------------------------------------------------


async def test_purge_takes_notifications_along(store: RequestStore) -> None:
    old, young = a_request(0), a_request(1)
    await put(store, old, notifications=[a_prompt(old)])
    await put(store, young, notifications=[a_prompt(young)])
    await step(store, old, denied(old))
    assert await store.purge(NOW + SECOND) == 1
    assert await store.notifications_of(old.id) == []
    assert await states(store, young) == [("prompt", "bob", "signal", "waiting")]


async def test_notifications_survive_a_restart(tmp_path: Path) -> None:
    request = a_request()
    one, other = a_prompt(request), a_prompt(request, "carol", at=LATER)
    async with opened(tmp_path) as store:
        await put(store, request, notifications=[one, other])
        sent = await deliver(store, one, "1001")
    async with opened(tmp_path) as store:
        assert await store.notifications_of(request.id) == [sent, other]
        assert await store.due_notifications(LATER, limit=9) == [other]
        assert await store.prompt_by_reference("bob", "signal", "1001") == sent
