"""What the request store promises: requests, answers, codes, and one winner of each race."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.errors import (
    IdempotencyConflictError,
    InvalidParameterError,
    QueueFullError,
    RequestNotFoundError,
    StoreUnavailableError,
)
from host_agent.requests import model as machine
from host_agent.requests.model import Problem, Request, RequestId, State, Terms, Verb
from host_agent.requests.notification import Purpose
from host_agent.store import answers, transitions
from host_agent.store import store as store_module
from host_agent.store.admission import Inserted
from host_agent.store.answers import KEY_LIFETIME, IdempotencyKey
from host_agent.store.store import RequestStore
from tests.support.request_stores import a_code, approved, put, refusals, step
from tests.support.store_ground import opened
from tests.support.stored_requests import NOW, TTL, a_decision, a_request

SECOND = timedelta(seconds=1)
DONE: dict[str, Any] = {
    "exit_code": 0,
    "stdout": "out" * 500,
    "stderr": "",
    "data": {"a": [1]},
    "verified": True,
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RequestStore]:
    async with opened(tmp_path) as store:
        yield store


def running(request: Request) -> Request:
    return machine.start(request, now=NOW)


def ended(request: Request, state: State = State.SUCCEEDED) -> Request:
    return machine.finish(request, state=state, outcome=DONE, problem=None, now=NOW + SECOND)


def cancelled(request: Request) -> Request:
    return machine.cancel(request, problem=None, now=NOW + SECOND)


async def run_through(store: RequestStore, request: Request) -> Request:
    await put(store, request)
    for forward in (approved, running, ended):
        request = await step(store, request, forward(request))
    return request


# -- insert ---------------------------------------------------------------------------------------


async def test_inserted_request_is_there(store: RequestStore) -> None:
    request = a_request()
    inserted = await put(store, request)
    assert inserted == Inserted(request=request, created=True)
    assert await store.get(request.id) == request
    assert await store.get("nothing") is None


async def test_same_request_attaches_to_the_live_request(store: RequestStore) -> None:
    first = a_request(0, reason="first words")
    await put(store, first)
    again = replace(first, id=RequestId("another"), reason="other words")
    for forward in (None, approved, running):
        if forward is not None:
            first = await step(store, first, forward(first))
        inserted = await put(store, again)
        assert (inserted.created, inserted.request) == (False, first)
    assert await store.get("another") is None
    assert [one.id for one in await store.live()] == [first.id]


async def test_same_request_after_the_end_is_a_new_request(store: RequestStore) -> None:
    first = await run_through(store, a_request(0))
    again = replace(a_request(0), id=RequestId("another"))
    assert (await put(store, again)).created
    assert await store.live() == [again]
    assert (await store.find(first.id)).state is State.SUCCEEDED


async def test_callers_never_attach_to_each_other(store: RequestStore) -> None:
    mine = a_request(0)
    theirs = replace(
        mine,
        id=RequestId("theirs"),
        caller="other",
        credential=replace(mine.credential, cn="other"),
    )
    await put(store, mine)
    assert (await put(store, theirs)).created
    assert await store.live_by_digest("other", mine.digest) == theirs
    assert await store.live_by_digest("librarian", mine.digest) == mine
    assert await store.live_by_digest("nobody", mine.digest) is None


async def test_changed_target_supersedes_the_pending_request(store: RequestStore) -> None:
    old = a_request(0)
    await put(store, old)
    await store.add_code(a_code(old))
    new = a_request(0, precondition="b" * 40, id=RequestId("new"), created_at=NOW + SECOND)
    inserted = await put(store, new)
    assert inserted.created
    (gone,) = inserted.superseded
    assert (gone.id, gone.state, gone.version) == (old.id, State.CANCELLED, 2)
    assert gone.problem is not None
    assert gone.problem.code == "approval:target-changed"
    assert "uperseded by request new" in gone.problem.detail
    assert gone.finished_at == new.created_at
    assert await store.get(old.id) == gone
    assert await store.codes(old.id) == []
    assert await store.live() == [new]


async def test_changed_target_leaves_what_is_decided_alone(store: RequestStore) -> None:
    old = a_request(0)
    await put(store, old)
    old = await step(store, old, approved(old))
    new = a_request(0, precondition="b" * 40, id=RequestId("new"))
    inserted = await put(store, new)
    assert (inserted.created, inserted.superseded) == (True, ())
    assert await store.get(old.id) == old


async def test_other_parameters_supersede_nothing(store: RequestStore) -> None:
    await put(store, a_request(0))
    assert (await put(store, a_request(1))).superseded == ()
    assert len(await store.live()) == 2


@pytest.mark.parametrize("is_approved", [False, True])
async def test_nobody_attaches_to_what_has_expired_unnoticed(
    store: RequestStore, is_approved: bool
) -> None:
    old = a_request(0)
    await put(store, old)
    if is_approved:
        old = await step(store, old, approved(old))
    new = a_request(0, id=RequestId("new"), created_at=old.expires_at, expires_at=NOW + 2 * TTL)
    inserted = await put(store, new)
    assert (inserted.created, inserted.request) == (True, new)
    (gone,) = inserted.superseded
    assert (gone.id, gone.state) == (old.id, State.EXPIRED)
    assert await store.get(old.id) == gone
    assert await store.live() == [new]


async def test_running_request_is_attached_to_past_its_expiry(store: RequestStore) -> None:
    old = a_request(0, state=State.RUNNING)
    await put(store, old)
    inserted = await put(store, a_request(0, id=RequestId("new"), created_at=old.expires_at))
    assert (inserted.created, inserted.request) == (False, old)


async def test_full_queue_refuses_and_nothing_moves(store: RequestStore) -> None:
    for number in range(3):
        await put(store, a_request(number), total=3)
    with pytest.raises(QueueFullError) as refused:
        await put(store, a_request(9, created_at=NOW + TTL / 2), total=3)
    assert refused.value.retry_after_seconds == (TTL / 2).total_seconds()
    assert [one.id for one in await store.live()] == [a_request(n).id for n in range(3)]


async def test_one_caller_cannot_fill_the_queue(store: RequestStore) -> None:
    await put(store, a_request(0), each=2)
    await put(store, a_request(1), each=2)
    with pytest.raises(QueueFullError):
        await put(store, a_request(2), each=2)
    assert (await put(store, a_request(2, caller="other"), each=2)).created


async def test_caps_count_pending_requests_only(store: RequestStore) -> None:
    first = a_request(0)
    await put(store, first, total=1, each=1)
    await step(store, first, approved(first))
    assert (await put(store, a_request(1), total=1, each=1)).created
    change = a_request(2, state=State.RUNNING)
    assert (await put(store, change, total=1, each=1)).created


async def test_request_that_attaches_needs_no_room(store: RequestStore) -> None:
    await put(store, a_request(0), total=1, each=1)
    again = a_request(0, id=RequestId("again"))
    assert not (await put(store, again, total=1, each=1)).created


async def test_superseding_makes_room(store: RequestStore) -> None:
    await put(store, a_request(0), total=1, each=1)
    new = a_request(0, precondition="b" * 40, id=RequestId("new"))
    assert (await put(store, new, total=1, each=1)).created


async def test_refused_request_supersedes_nothing(store: RequestStore) -> None:
    old = a_request(0)
    await put(store, old)
    await put(store, a_request(1))
    new = a_request(0, precondition="b" * 40, id=RequestId("new"))
    with pytest.raises(QueueFullError):
        await put(store, new, total=1)
    assert await store.get(old.id) == old
    assert await store.get("new") is None


@pytest.mark.parametrize(("total", "each"), [(5, 100), (100, 5)])
async def test_caps_hold_within_one_group_of_writes(
    store: RequestStore, total: int, each: int
) -> None:
    tries = [put(store, a_request(number), total=total, each=each) for number in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    made = [result for result in results if isinstance(result, Inserted)]
    assert len(made) == 5
    assert all(isinstance(result, Inserted | QueueFullError) for result in results)
    assert (await store.pending_stats())[0] == 5


async def test_same_request_at_the_same_time_is_one_request(store: RequestStore) -> None:
    tries = [put(store, a_request(0, id=RequestId(f"id-{n}"))) for n in range(20)]
    results = await asyncio.gather(*tries)
    assert sum(result.created for result in results) == 1
    assert len({result.request.id for result in results}) == 1
    assert len(await store.live()) == 1


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DENIED, State.EXPIRED])
async def test_ended_request_is_never_inserted(store: RequestStore, state: State) -> None:
    with pytest.raises(RuntimeError):
        await put(store, a_request(0, state=state, finished_at=NOW))
    assert await store.get(a_request(0).id) is None


async def test_bad_neighbour_does_not_fail_the_group(store: RequestStore) -> None:
    await put(store, a_request(0))
    stolen = a_request(1, id=a_request(0).id)
    results = await asyncio.gather(
        put(store, a_request(2)),
        put(store, stolen),
        put(store, a_request(3, reason="\ud800")),
        put(store, a_request(4)),
        return_exceptions=True,
    )
    assert isinstance(results[0], Inserted)
    assert isinstance(results[1], StoreUnavailableError)
    assert isinstance(results[2], UnicodeEncodeError)
    assert isinstance(results[3], Inserted)
    assert len(await store.live()) == 3


async def test_caller_who_is_gone_before_the_turn_stores_nothing(store: RequestStore) -> None:
    task = asyncio.ensure_future(put(store, a_request(0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.ping()
    live = await store.live()
    assert live in ([], [a_request(0)])


# -- transitions ----------------------------------------------------------------------------------


async def test_request_goes_its_way(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    for forward in (approved, running, ended):
        request = await step(store, request, forward(request))
        assert await store.get(request.id) == request
    assert request.outcome == DONE
    assert await store.live() == []


async def test_quorum_is_kept_voice_by_voice(store: RequestStore) -> None:
    request = a_request(terms=Terms(approvals=2, approvers=frozenset({"bob", "carol"})))
    await put(store, request)
    once = await step(store, request, approved(request))
    assert once.state is State.PENDING
    assert await store.get(request.id) == once
    twice = machine.approve(
        once, a_decision("carol"), roles=["approver"], digest=once.digest, now=NOW
    )
    await step(store, once, twice)
    assert await store.get(request.id) == twice


async def test_stale_version_loses_and_nothing_moves(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    winner = await step(store, request, approved(request))
    denied = machine.deny(request, a_decision("carol", Verb.DENY), roles=["approver"], now=NOW)
    assert not await store.transition(denied, expected_version=request.version)
    assert not await store.transition(cancelled(request), expected_version=request.version)
    assert await store.get(request.id) == winner


async def test_unknown_request_cannot_move(store: RequestStore) -> None:
    request = a_request()
    assert not await store.transition(approved(request), expected_version=request.version)
    assert await store.get(request.id) is None


@pytest.mark.promise("c29")
async def test_many_decisions_at_once_have_one_winner(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    denials = [
        machine.deny(request, a_decision(f"o{n}", Verb.DENY), roles=["approver"], now=NOW)
        for n in range(30)
    ]
    late = machine.expire(request, now=request.expires_at)
    wishes = [*[approved(request)] * 30, *denials, *[cancelled(request)] * 30, *[late] * 10]
    won = await asyncio.gather(
        *(store.transition(wish, expected_version=request.version) for wish in wishes)
    )
    assert sum(won) == 1
    assert await store.get(request.id) == wishes[won.index(True)]


@pytest.mark.promise("c28")
async def test_running_is_entered_once(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    request = await step(store, request, approved(request))
    tries = [
        store.transition(running(request), expected_version=request.version) for _ in range(50)
    ]
    assert sum(await asyncio.gather(*tries)) == 1


@pytest.mark.parametrize(
    "after",
    [
        {"state": State.RUNNING},
        {"state": State.SUCCEEDED, "finished_at": NOW},
        {"state": State.UNKNOWN, "finished_at": NOW},
    ],
)
async def test_illegal_step_is_a_defect_and_nothing_moves(
    store: RequestStore, after: dict[str, Any]
) -> None:
    request = a_request()
    await put(store, request)
    with pytest.raises(RuntimeError):
        await store.transition(replace(request, version=2, **after), expected_version=1)
    assert await store.get(request.id) == request


async def test_ended_request_never_moves_again(store: RequestStore) -> None:
    request = await run_through(store, a_request())
    for state in State:
        again = replace(request, state=state, version=request.version + 1)
        with pytest.raises(RuntimeError):
            await store.transition(again, expected_version=request.version)
    assert await store.get(request.id) == request


async def test_version_that_does_not_follow_is_a_defect(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    with pytest.raises(RuntimeError):
        await store.transition(replace(approved(request), version=3), expected_version=1)
    assert await store.get(request.id) == request


async def test_what_was_asked_for_never_changes(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    forged = replace(
        approved(request),
        params={"repository": "/srv/other"},
        digest=a_request(7).digest,
        caller="mallory",
        unix_user="root",
        operation="git.reset",
        expires_at=NOW + 10 * TTL,
        terms=Terms(approvals=0),
        reason="other",
    )
    await step(store, request, forged)
    assert await store.get(request.id) == approved(request)


# -- what is asked of the queue -------------------------------------------------------------------


async def test_find_takes_ids_and_unique_prefixes(store: RequestStore) -> None:
    for name in ("abc-1", "abc-2", "abd", "abd-longer"):
        await put(store, a_request(len(name), id=RequestId(name), caller=name))
    assert (await store.find("abc-1")).id == "abc-1"
    assert (await store.find("abd")).id == "abd"
    assert (await store.find("abd-")).id == "abd-longer"
    for prefix in ("abc", "a", "zzz", "", "abc-1x", "%", "abc_1", "x" * 65, "ABC-1", "é"):
        with pytest.raises(RequestNotFoundError):
            await store.find(prefix)


async def test_find_can_look_at_one_caller_only(store: RequestStore) -> None:
    await put(store, a_request(0, id=RequestId("abc-1"), caller="one"))
    await put(store, a_request(1, id=RequestId("abc-2"), caller="two"))
    assert (await store.find("abc", caller="one")).id == "abc-1"
    with pytest.raises(RequestNotFoundError):
        await store.find("abc-1", caller="two")


async def test_find_returns_output(store: RequestStore) -> None:
    request = await run_through(store, a_request())
    assert (await store.find(request.id[:8])).outcome == DONE


async def test_due_and_next_expiry(store: RequestStore) -> None:
    assert await store.next_expiry() is None
    early, late = a_request(0), a_request(1, expires_at=NOW + 2 * TTL)
    busy = a_request(2, state=State.RUNNING, expires_at=NOW)
    for request in (late, early, busy):
        await put(store, request)
    assert await store.next_expiry() == early.expires_at
    assert await store.due(early.expires_at - timedelta(microseconds=1)) == []
    assert await store.due(early.expires_at) == [early]
    assert await store.due(late.expires_at) == [early, late]
    early = await step(store, early, approved(early))
    assert await store.due(early.expires_at) == [early]
    await step(store, early, machine.expire(early, now=early.expires_at))
    assert await store.due(early.expires_at) == []
    assert await store.next_expiry() == late.expires_at


async def test_live_is_in_the_order_of_arrival(store: RequestStore) -> None:
    for number in (3, 1, 2):
        await put(store, a_request(number))
    assert [one.id for one in await store.live()] == [a_request(n).id for n in (3, 1, 2)]


async def test_pending_stats(store: RequestStore) -> None:
    assert await store.pending_stats() == (0, None)
    first = a_request(0, created_at=NOW - SECOND)
    await put(store, first)
    await put(store, a_request(1))
    assert await store.pending_stats() == (2, NOW - SECOND)
    await step(store, first, approved(first))
    assert await store.pending_stats() == (1, NOW)


async def test_refusals_are_counted_by_caller_and_time(store: RequestStore) -> None:
    spoken = a_decision("bob", Verb.DENY)
    for number, end in enumerate((NOW, NOW + SECOND, NOW + 2 * SECOND)):
        request = a_request(number)
        await put(store, request)
        await step(store, request, machine.deny(request, spoken, roles=["approver"], now=end))
    late = a_request(8)
    await put(store, late)
    await step(store, late, machine.expire(late, now=late.expires_at))
    gone = a_request(9)
    await put(store, gone)
    await step(store, gone, cancelled(gone))
    assert await refusals(store, "librarian", NOW) == 4
    assert await refusals(store, "librarian", NOW + SECOND) == 3
    assert await refusals(store, "librarian", late.expires_at + SECOND) == 0
    assert await refusals(store, "other", NOW) == 0


async def test_newest_time_is_a_floor_for_the_clock(store: RequestStore) -> None:
    assert await store.newest_time() is None
    request = a_request(terms=Terms(approvals=2))
    await put(store, request)
    assert await store.newest_time() == NOW
    spoken = a_decision(at=NOW + SECOND)
    voiced = machine.approve(
        request, spoken, roles=["approver"], digest=request.digest, now=NOW + SECOND
    )
    await step(store, request, voiced)
    assert await store.newest_time() == NOW + SECOND
    gone = machine.cancel(voiced, problem=None, now=NOW + 5 * SECOND)
    await step(store, voiced, gone)
    assert await store.newest_time() == NOW + 5 * SECOND


async def test_purge_takes_only_what_ended_before(store: RequestStore) -> None:
    old, young = a_request(0), a_request(1)
    await run_through(store, old)
    await put(store, young)
    await step(store, young, machine.cancel(young, problem=None, now=NOW + 9 * SECOND))
    await put(store, a_request(2, created_at=NOW - 9 * TTL))
    assert await store.purge(NOW + SECOND) == 0
    assert await store.purge(NOW + 2 * SECOND) == 1
    assert await store.get(old.id) is None
    assert await store.get(young.id) is not None
    assert len(await store.live()) == 1


async def test_purge_of_many_takes_them_all(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await run_through(store, a_request(number))
    monkeypatch.setattr(transitions, "PURGE_AT_ONCE", 1)
    assert await store.purge(NOW + 2 * SECOND) == 3


async def test_room_is_told_of_by_the_next_expiry(store: RequestStore) -> None:
    with pytest.raises(QueueFullError) as refused:
        await put(store, a_request(0), total=0, each=0)
    assert refused.value.retry_after_seconds == 3600


# -- pages ----------------------------------------------------------------------------------------


async def pages(store: RequestStore, **wanted: Any) -> list[list[str]]:
    found: list[list[str]] = []
    cursor = None
    while True:
        page, cursor = await store.list(
            **{"state": None, "caller": None, "limit": 2, **wanted}, cursor=cursor
        )
        found.append([request.id for request in page])
        if cursor is None:
            return found


async def test_pages_are_newest_first_without_gap_or_overlap(store: RequestStore) -> None:
    ids = [a_request(number).id for number in range(5)]
    assert await pages(store) == [[]]
    for number in range(5):
        await put(store, a_request(number))
    assert await pages(store) == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    assert await pages(store, limit=5) == [list(reversed(ids))]


async def test_new_requests_do_not_shift_later_pages(store: RequestStore) -> None:
    for number in range(3):
        await put(store, a_request(number))
    page, cursor = await store.list(state=None, caller=None, limit=2, cursor=None)
    await put(store, a_request(9))
    rest, end = await store.list(state=None, caller=None, limit=2, cursor=cursor)
    assert [one.id for one in page + rest] == [a_request(n).id for n in (2, 1, 0)]
    assert end is None


async def test_pages_of_a_state_and_a_caller(store: RequestStore) -> None:
    first, other = a_request(0), a_request(1, caller="other")
    await put(store, first)
    await put(store, other)
    await step(store, first, cancelled(first))
    assert await pages(store, state=State.PENDING) == [[other.id]]
    assert await pages(store, state=State.CANCELLED) == [[first.id]]
    assert await pages(store, caller="librarian") == [[first.id]]
    assert await pages(store, caller="librarian", state=State.PENDING) == [[]]
    assert await pages(store, caller="nobody") == [[]]


async def test_pages_leave_output_out(store: RequestStore) -> None:
    await run_through(store, a_request())
    (page, _) = await store.list(state=None, caller=None, limit=1, cursor=None)
    assert page[0].outcome == {"exit_code": 0, "verified": True}


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!!", "MA", "LTE", "MQ==\n", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTA", "é", "MSAr"]
)
async def test_foreign_cursor_is_refused(store: RequestStore, cursor: str) -> None:
    with pytest.raises(InvalidParameterError):
        await store.list(state=None, caller=None, limit=1, cursor=cursor)


# -- codes ----------------------------------------------------------------------------------------


async def test_codes_are_one_an_approver_and_channel_and_the_newest_counts(
    store: RequestStore,
) -> None:
    request = a_request()
    await put(store, request)
    assert await store.codes(request.id) == []
    first = a_code(request, "sha256:1", owner="Bob")
    other = a_code(request, "sha256:2", owner="carol", purpose=Purpose.DENY)
    elsewhere = a_code(request, "sha256:3", channel="ntfy", purpose=Purpose.DENY)
    for code in (first, other, elsewhere):
        assert await store.add_code(code)
    again = a_code(request, "sha256:4")
    assert await store.add_code(again)
    assert await store.codes(request.id) == [elsewhere, again, other]
    assert await store.code("sha256:1") is None
    assert await store.code("sha256:2") == other
    assert await store.codes("other") == []


@pytest.mark.promise("c28")
async def test_code_belongs_to_one_request(store: RequestStore) -> None:
    await put(store, a_request(0))
    await put(store, a_request(1))
    code = a_code(a_request(0))
    await store.add_code(code)
    assert await store.codes(a_request(1).id) == []
    assert await store.code(code.code_hash) == code


@pytest.mark.promise("c28")
@pytest.mark.parametrize("end", ["approve", "deny", "cancel", "expire"])
async def test_codes_die_with_the_decision(store: RequestStore, end: str) -> None:
    request, code = a_request(), a_code(a_request())
    await put(store, request)
    await store.add_code(code)
    spoken = a_decision("carol", Verb.DENY)
    after = {
        "approve": lambda: approved(request),
        "deny": lambda: machine.deny(request, spoken, roles=["approver"], now=NOW),
        "cancel": lambda: cancelled(request),
        "expire": lambda: machine.expire(request, now=request.expires_at),
    }[end]()
    await step(store, request, after)
    assert await store.codes(request.id) == []
    assert await store.code(code.code_hash) == replace(code, is_spent=True)
    assert not await store.add_code(a_code(request, "sha256:2"))
    assert await store.codes(request.id) == []
    assert await store.code("sha256:2") is None


async def test_codes_live_through_an_open_quorum(store: RequestStore) -> None:
    request = a_request(terms=Terms(approvals=2))
    await put(store, request)
    code = a_code(request, owner="carol")
    await store.add_code(code)
    await step(store, request, approved(request))
    assert await store.codes(request.id) == [code]


async def test_codes_of_others_outlive_a_decision(store: RequestStore) -> None:
    request, other = a_request(0), a_request(1)
    await put(store, request)
    await put(store, other)
    code = a_code(other, "sha256:2")
    await store.add_code(a_code(request))
    await store.add_code(code)
    await step(store, request, cancelled(request))
    assert await store.codes(other.id) == [code]


async def test_code_for_no_request_is_not_kept(store: RequestStore) -> None:
    assert not await store.add_code(a_code(a_request()))
    assert await store.code("sha256:1") is None


async def test_purge_takes_codes_along(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    await store.add_code(a_code(request))
    await step(store, request, cancelled(request))
    assert await store.code("sha256:1") is not None
    assert await store.purge(NOW + 2 * SECOND) == 1
    assert await store.code("sha256:1") is None


# -- idempotency ----------------------------------------------------------------------------------


def key_for(request: Request, *, name: str = "key", body: str = "body") -> IdempotencyKey:
    return IdempotencyKey(key=name, body_sha256=body, request_id=request.id, now=request.created_at)


async def put_once(store: RequestStore, request: Request, key: IdempotencyKey) -> Inserted:
    return await store.insert(request, max_pending=100, max_pending_per_caller=100, idempotency=key)


async def tell(store: RequestStore, body: dict[str, Any], **changes: Any) -> None:
    said: dict[str, Any] = {"body_sha256": "body", "status": 200, "request_id": "r", "now": NOW}
    await store.remember("librarian", "key", body=body, **{**said, **changes})


async def test_key_is_bound_with_the_insert(store: RequestStore) -> None:
    request = a_request()
    assert await store.recall("librarian", "key", NOW) is None
    await put_once(store, request, key_for(request))
    known = await store.recall("librarian", "key", NOW)
    assert known is not None
    assert (known.body_sha256, known.status, known.body) == ("body", 202, None)
    assert known.request_id == request.id


async def test_same_key_and_body_is_the_same_request_even_after_its_end(
    store: RequestStore,
) -> None:
    request = a_request(state=State.RUNNING)
    await put_once(store, request, key_for(request))
    request = await step(store, request, ended(request, State.UNKNOWN))
    again = a_request(id=RequestId("again"), state=State.RUNNING)
    inserted = await put_once(store, again, key_for(again))
    assert not inserted.created
    assert (inserted.request.id, inserted.request.state) == (request.id, State.UNKNOWN)
    assert await store.get("again") is None


async def test_same_key_with_another_body_is_refused(store: RequestStore) -> None:
    request = a_request(0)
    await put_once(store, request, key_for(request))
    other = a_request(1)
    with pytest.raises(IdempotencyConflictError):
        await put_once(store, other, key_for(other, body="another"))
    assert await store.get(other.id) is None
    with pytest.raises(IdempotencyConflictError):
        await tell(store, {"a": 1}, body_sha256="another")


async def test_key_of_an_attached_ask_is_bound_to_what_it_attached_to(
    store: RequestStore,
) -> None:
    first = a_request(0)
    await put(store, first)
    again = a_request(0, id=RequestId("again"))
    await put_once(store, again, key_for(again))
    known = await store.recall("librarian", "key", NOW)
    assert known is not None
    assert known.request_id == first.id


async def test_refused_insert_binds_no_key(store: RequestStore) -> None:
    await put(store, a_request(0))
    request = a_request(1)
    with pytest.raises(QueueFullError):
        await store.insert(
            request, max_pending=1, max_pending_per_caller=1, idempotency=key_for(request)
        )
    assert await store.recall("librarian", "key", NOW) is None


async def test_answer_is_kept_for_a_day(store: RequestStore) -> None:
    body = {"request_id": "r", "outcome": {"stdout": "x" * 10_000}}
    await tell(store, body)
    known = await store.recall("librarian", "key", NOW + KEY_LIFETIME - SECOND)
    assert known is not None
    assert (known.status, known.body, known.request_id) == (200, body, "r")
    assert await store.recall("librarian", "key", NOW + KEY_LIFETIME) is None
    await tell(store, {"new": 1}, body_sha256="another", now=NOW + KEY_LIFETIME)
    renewed = await store.recall("librarian", "key", NOW + KEY_LIFETIME)
    assert renewed is not None
    assert renewed.body == {"new": 1}


async def test_answer_takes_the_place_of_the_reservation(store: RequestStore) -> None:
    request = a_request()
    await put_once(store, request, key_for(request))
    await tell(store, {"state": "pending"}, status=202, request_id=request.id)
    known = await store.recall("librarian", "key", NOW)
    assert known is not None
    assert known.body == {"state": "pending"}


async def test_keys_belong_to_their_caller(store: RequestStore) -> None:
    await tell(store, {"mine": 1})
    assert await store.recall("other", "key", NOW) is None
    theirs = a_request(caller="other")
    assert (await put_once(store, theirs, key_for(theirs, body="theirs"))).created


async def test_caller_with_too_many_keys_loses_the_oldest(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_KEYS_PER_CALLER", 30)
    monkeypatch.setattr(store_module, "TRIM_EVERY", 50)
    for number in range(50):
        await store.remember(
            "librarian" if number else "other",
            f"key-{number}",
            body_sha256="body",
            status=200,
            body={},
            request_id=None,
            now=NOW,
        )
    kept = [n for n in range(50) if await store.recall("librarian", f"key-{n}", NOW)]
    assert kept == list(range(20, 50))
    assert await store.recall("other", "key-0", NOW) is not None


async def test_caller_with_too_many_bytes_loses_the_oldest(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_BYTES_PER_CALLER", 2000)
    monkeypatch.setattr(store_module, "TRIM_EVERY", 4)
    for number in range(4):
        await store.remember(
            "librarian",
            f"key-{number}",
            body_sha256="body",
            status=200,
            body={"stdout": random.Random(number).randbytes(400).hex()},
            request_id=None,
            now=NOW + number * KEY_LIFETIME / 3,
        )
    now = NOW + KEY_LIFETIME
    kept = [n for n in range(4) if await store.recall("librarian", f"key-{n}", now)]
    assert kept[-1] == 3
    assert 0 not in kept


# -- life -----------------------------------------------------------------------------------------


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    pending, other = a_request(0), a_request(1)
    async with opened(tmp_path) as store:
        await put(store, pending)
        await store.add_code(a_code(pending))
        await put(store, other)
        consented = await step(store, other, approved(other))
        done = await run_through(store, a_request(2))
        await tell(store, {"a": 1})
    async with opened(tmp_path) as store:
        assert await store.live() == [pending, consented]
        assert await store.codes(pending.id) == [a_code(pending)]
        assert await store.get(done.id) == done
        assert await store.recall("librarian", "key", NOW) is not None
        assert not (await put(store, a_request(0, id=RequestId("again")))).created


async def test_problem_is_kept(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    request = await step(store, request, approved(request))
    problem = Problem(code="approval:target-changed", detail="It moved.")
    await step(store, request, machine.fail(request, problem=problem, now=NOW))
    stored = await store.find(request.id)
    assert (stored.state, stored.problem) == (State.FAILED, problem)


async def test_closed_store_refuses(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.ping()
    calls: list[Awaitable[object]] = [
        store.ping(),
        store.get("x"),
        put(store, a_request()),
        store.live(),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError):
            await call
    await store.close()
