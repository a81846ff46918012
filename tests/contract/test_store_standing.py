"""What the request store promises of what outlives a request: contacts, one-time ids, grants."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.requests import model as machine
from host_agent.requests.grant import Grant
from host_agent.requests.model import GrantTerms, Problem, Request, State, Terms, Verb
from host_agent.requests.notification import Contact, DeliveryState, Failure
from host_agent.store.nonces import Spent
from host_agent.store.store import RequestStore
from tests.support.request_stores import (
    a_prompt,
    approved,
    others,
    put,
    refusals,
    step,
)
from tests.support.store_ground import opened
from tests.support.stored_requests import NOW, a_decision, a_request

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
ACI, OTHER = "3f0a-aci", "77bb-aci"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RequestStore]:
    async with opened(tmp_path) as store:
        yield store


# -- contacts -------------------------------------------------------------------------------------


def a_contact(owner: str = "bob", address: str = ACI, **changes: Any) -> Contact:
    contact = Contact(owner=owner, channel="signal", address=address, since=NOW)
    return replace(contact, **changes)


def met(owner: str = "bob", address: str = ACI) -> Contact:
    """Return a contact as it is enrolled by the code that `offer` offers."""
    return a_contact(owner, address, offered_by="root", disabled=Failure.UNRECORDED)


async def disable(store: RequestStore, contact: Contact) -> bool:
    return await store.disable_contact(
        contact.owner,
        contact.channel,
        contact.address,
        failure=Failure.IDENTITY_CHANGED,
        now=NOW + SECOND,
    )


async def test_contact_takes_the_place_of_the_older_one(store: RequestStore) -> None:
    assert await store.contacts() == []
    assert await store.put_contact(a_contact("Bob"))
    assert await store.contacts() == [a_contact()]
    moved = a_contact(address=OTHER, since=NOW + DAY)
    assert await store.put_contact(moved)
    assert await store.put_contact(a_contact(channel="webhook"))
    assert await store.contacts() == [moved, a_contact(channel="webhook")]


async def test_address_of_another_owner_is_refused(store: RequestStore) -> None:
    await store.put_contact(a_contact())
    await store.put_contact(a_contact("carol", OTHER))
    assert not await store.put_contact(a_contact("carol"))
    assert await store.contacts() == [a_contact(), a_contact("carol", OTHER)]
    # On another channel the same word is another address.
    assert await store.put_contact(a_contact("carol", channel="webhook"))


async def test_contact_is_disabled_until_it_is_stored_anew(store: RequestStore) -> None:
    await store.put_contact(a_contact())
    assert await disable(store, a_contact("BOB"))
    gone = a_contact(disabled=Failure.IDENTITY_CHANGED)
    assert await store.contacts() == [gone]
    assert not await disable(store, a_contact())
    assert await store.contacts() == [gone]
    assert await store.put_contact(a_contact(since=NOW + DAY))
    assert await store.contacts() == [a_contact(since=NOW + DAY)]


async def test_address_that_only_the_configuration_names_is_disabled(store: RequestStore) -> None:
    assert await disable(store, a_contact())
    gone = a_contact(since=NOW + SECOND, disabled=Failure.IDENTITY_CHANGED)
    assert await store.contacts() == [gone]
    assert not await disable(store, a_contact())
    # Enrolling another address does not say that this one is trusted again.
    assert await store.put_contact(a_contact(address=OTHER))
    assert await store.contacts() == [gone, a_contact(address=OTHER)]
    assert not await store.put_contact(a_contact("carol"))
    assert await store.put_contact(a_contact())
    assert await store.contacts() == [a_contact()]


async def test_disabled_contact_is_replaced_by_a_new_address(store: RequestStore) -> None:
    await store.put_contact(a_contact())
    await disable(store, a_contact())
    assert await store.put_contact(a_contact(address=OTHER))
    assert await store.contacts() == [a_contact(address=OTHER)]


# -- enrolment ------------------------------------------------------------------------------------


async def offer(store: RequestStore, owner: str = "bob", code_hash: str = "sha256:1") -> None:
    await store.offer_enrolment(
        owner, "signal", code_hash=code_hash, expires_at=NOW + DAY, by="root"
    )


async def enrol(
    store: RequestStore, address: str = ACI, code_hash: str = "sha256:1", **changes: Any
) -> Contact | None:
    said: dict[str, Any] = {"channel": "signal", "now": NOW, **changes}
    return await store.enrol(said["channel"], address, code_hash=code_hash, now=said["now"])


async def test_enrolment_is_used_up_by_success(store: RequestStore) -> None:
    await offer(store, "Bob")
    assert await enrol(store) == met()
    assert await store.contacts() == [met()]
    assert await enrol(store, OTHER) is None
    assert await store.contacts() == [met()]


@pytest.mark.parametrize(
    "wrong", [{"code_hash": "sha256:2"}, {"channel": "webhook"}, {"now": NOW + DAY}]
)
async def test_wrong_or_expired_enrolment_moves_nothing(
    store: RequestStore, wrong: dict[str, Any]
) -> None:
    await offer(store)
    assert await enrol(store, **wrong) is None
    assert await store.contacts() == []
    assert await enrol(store, now=NOW + DAY - SECOND) is not None


async def test_enrolment_with_the_address_of_another_owner_moves_nothing(
    store: RequestStore,
) -> None:
    await store.put_contact(a_contact("carol"))
    await offer(store)
    assert await enrol(store) is None
    assert await store.contacts() == [a_contact("carol")]
    assert await enrol(store, OTHER) == met(address=OTHER)


async def test_newer_offer_takes_the_place_of_the_older(store: RequestStore) -> None:
    await offer(store)
    await offer(store, "BOB", "sha256:2")
    await offer(store, "carol", "sha256:3")
    assert await enrol(store) is None
    assert await enrol(store, code_hash="sha256:2") == met()
    assert await enrol(store, OTHER, "sha256:3") == met("carol", OTHER)


async def test_enrolment_ends_that_a_contact_is_disabled(store: RequestStore) -> None:
    await disable(store, a_contact())
    await offer(store)
    assert await enrol(store) == met()
    assert await store.contacts() == [met()]


async def test_many_enrol_with_one_code_and_one_does(store: RequestStore) -> None:
    await offer(store)
    tries = await asyncio.gather(*(enrol(store, f"aci-{number}") for number in range(20)))
    (contact,) = [one for one in tries if one is not None]
    assert await store.contacts() == [contact]


# -- one-time ids ---------------------------------------------------------------------------------


async def spend(
    store: RequestStore, nonce: str = "n", *, scope: str = "bridge", **changes: Any
) -> Spent:
    said: dict[str, Any] = {"expires_at": NOW + 300 * SECOND, "now": NOW, "capacity": 10, **changes}
    return await store.spend_nonce(scope, nonce, **said)


async def test_one_time_id_is_new_once(store: RequestStore) -> None:
    assert await spend(store) is Spent.NEW
    assert await spend(store) is Spent.REPLAYED
    assert await spend(store, "m") is Spent.NEW
    assert await spend(store, scope="other") is Spent.NEW
    assert await spend(store, "N") is Spent.NEW


async def test_one_time_id_lives_through_its_last_instant(store: RequestStore) -> None:
    last = NOW + 300 * SECOND
    await spend(store, expires_at=last)
    assert await spend(store, now=last) is Spent.REPLAYED
    gone = last + timedelta(hours=1, microseconds=1)
    assert await spend(store, now=gone) is Spent.NEW


async def test_one_time_id_is_spent_also_where_the_clock_is_set_back(store: RequestStore) -> None:
    last = NOW + 300 * SECOND
    await spend(store, expires_at=last)
    ahead = last + 400 * SECOND
    assert await spend(store, "other", expires_at=ahead, now=ahead) is Spent.NEW
    assert await spend(store, expires_at=last, now=NOW) is Spent.REPLAYED


async def test_full_scope_refuses_until_some_expire(store: RequestStore) -> None:
    soon, late = NOW + SECOND, NOW + 9 * SECOND
    assert await spend(store, "1", expires_at=soon, capacity=2) is Spent.NEW
    assert await spend(store, "2", expires_at=late, capacity=2) is Spent.NEW
    assert await spend(store, "3", expires_at=late, capacity=2) is Spent.FULL
    assert await spend(store, "2", expires_at=late, capacity=2) is Spent.REPLAYED
    assert await spend(store, "3", scope="other", expires_at=late, capacity=2) is Spent.NEW
    # Nothing within its time made room, and what was refused is not used up.
    assert await spend(store, "1", now=soon, capacity=2) is Spent.REPLAYED
    after = soon + timedelta(microseconds=1)
    assert await spend(store, "3", expires_at=late, now=after, capacity=2) is Spent.NEW
    assert await spend(store, "4", expires_at=late, now=after, capacity=2) is Spent.FULL


@pytest.mark.promise("c44")
async def test_replays_at_the_same_time_are_new_once(store: RequestStore) -> None:
    spent = await asyncio.gather(*(spend(store) for _ in range(30)))
    assert sorted(spent) == [Spent.NEW, *[Spent.REPLAYED] * 29]


async def test_capacity_holds_within_one_group_of_writes(store: RequestStore) -> None:
    spent = await asyncio.gather(*(spend(store, str(n), capacity=7) for n in range(30)))
    assert spent.count(Spent.NEW) == 7
    assert spent.count(Spent.FULL) == 23


# -- grants ---------------------------------------------------------------------------------------


def a_grant(number: int = 0, **changes: Any) -> Grant:
    terms = GrantTerms(for_seconds=1800, resource="/srv/app[0-9]+")
    consent = replace(a_decision(), channel="signal", address=ACI, grant=terms)
    grant = Grant(
        id=f"{number:08x}" + "f" * 24,
        request_id=a_request(number).id,
        caller="librarian",
        operation="git.pull",
        resource="/srv/app[0-9]+",
        params={"remote": "origin", "branch": "main", "depth": None},
        terms=Terms(approvals=1, approvers=frozenset({"bob", "carol"})),
        consents=(consent,),
        created_at=NOW,
        expires_at=NOW + 1800 * SECOND,
    )
    return replace(grant, **changes)


async def give(store: RequestStore, *grants: Grant) -> None:
    """Store each grant with the approval of a request of its own."""
    for number, grant in enumerate(grants):
        request = a_request(1000 + number, caller="granted", created_at=grant.created_at)
        await put(store, request)
        assert await store.transition(approved(request), expected_version=1, grant=grant)
        gone = machine.cancel(approved(request), problem=None, now=grant.created_at)
        await step(store, approved(request), gone)


async def test_grant_is_stored_with_the_approval(store: RequestStore) -> None:
    request, grant = a_request(), a_grant()
    assert await store.grants() == []
    await put(store, request)
    assert await store.grants() == []
    assert await store.transition(approved(request), expected_version=1, grant=grant)
    assert await store.grants() == [grant]


async def test_grant_is_live_once_what_it_was_given_with_has_begun(store: RequestStore) -> None:
    request, grant = a_request(), a_grant()
    await put(store, request)
    assert await store.transition(approved(request), expected_version=1, grant=grant)
    assert await store.live_grants("librarian", "git.pull", NOW) == []
    assert not await store.use_grant(grant.id, NOW)
    await step(store, approved(request), machine.start(approved(request), now=NOW))
    assert await store.live_grants("librarian", "git.pull", NOW) == [grant]
    assert await store.use_grant(grant.id, NOW)


async def test_grant_of_what_never_began_is_revoked_with_it(store: RequestStore) -> None:
    request, grant = a_request(), a_grant()
    await put(store, request)
    assert await store.transition(approved(request), expected_version=1, grant=grant)
    problem = Problem(code="approval:target-changed", detail="It changed.")
    await step(store, approved(request), machine.fail(approved(request), problem=problem, now=NOW))
    (found,) = await store.grants()
    assert (found.revoked_at, found.revoked_by) == (NOW, "host-agent")
    assert not await store.use_grant(grant.id, NOW)


async def test_lost_race_gives_no_grant(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    denied = machine.deny(request, a_decision("carol", Verb.DENY), roles=["approver"], now=NOW)
    await step(store, request, denied)
    assert not await store.transition(approved(request), expected_version=1, grant=a_grant())
    assert await store.grants() == []


async def test_live_grants_are_those_of_caller_operation_and_time(store: RequestStore) -> None:
    first, longer = a_grant(0), a_grant(1, expires_at=NOW + DAY)
    counted = a_grant(2, uses_left=1)
    used_up = a_grant(3, uses_left=0, used=3)
    revoked = a_grant(4, revoked_at=NOW, revoked_by="root-admin")
    others = [a_grant(5, caller="other"), a_grant(6, operation="git.fetch")]
    await give(store, longer, first, counted, used_up, revoked, *others)
    last = first.expires_at - timedelta(microseconds=1)
    assert await store.live_grants("librarian", "git.pull", last) == [first, counted, longer]
    assert await store.live_grants("librarian", "git.pull", first.expires_at) == [longer]
    assert await store.live_grants("librarian", "git.pull", NOW + DAY) == []
    assert await store.live_grants("nobody", "git.pull", NOW) == []


async def test_uses_are_counted_down(store: RequestStore) -> None:
    counted, timed = a_grant(0, uses_left=2), a_grant(1)
    await give(store, counted, timed)
    used = [await store.use_grant(counted.id, NOW) for _ in range(3)]
    assert used == [True, True, False]
    assert [await store.use_grant(timed.id, NOW) for _ in range(3)] == [True] * 3
    by_id = {grant.id: grant for grant in await store.grants()}
    assert by_id == {
        counted.id: replace(counted, uses_left=0, used=2),
        timed.id: replace(timed, used=3),
    }


async def test_grant_is_never_used_by_a_prefix_after_its_end_or_by_nobody(
    store: RequestStore,
) -> None:
    grant = a_grant(uses_left=1)
    await give(store, grant)
    assert not await store.use_grant(grant.id[:12], NOW)
    assert not await store.use_grant("", NOW)
    assert not await store.use_grant(grant.id, grant.expires_at)
    assert await store.grants() == [grant]
    assert await store.use_grant(grant.id, grant.expires_at - timedelta(microseconds=1))


async def test_last_use_of_a_grant_has_one_winner(store: RequestStore) -> None:
    grant = a_grant(uses_left=3)
    await give(store, grant)
    used = await asyncio.gather(*(store.use_grant(grant.id, NOW) for _ in range(30)))
    assert sum(used) == 3
    assert await store.grants() == [replace(grant, uses_left=0, used=3)]


async def test_revoked_grant_is_used_no_more(store: RequestStore) -> None:
    grant, other = a_grant(0), a_grant(1)
    await give(store, grant, other)
    gone = replace(grant, revoked_at=NOW + SECOND, revoked_by="root-admin")
    assert await store.revoke_grant(grant.id[:8], by="root-admin", now=NOW + SECOND) == gone
    assert not await store.use_grant(grant.id, NOW + SECOND)
    assert await store.live_grants("librarian", "git.pull", NOW) == [other]
    assert await store.revoke_grant(grant.id, by="erin", now=NOW + 2 * SECOND) is None
    assert {one.id: one for one in await store.grants()}[grant.id] == gone


async def test_only_one_live_grant_can_be_revoked_by_its_prefix(store: RequestStore) -> None:
    one, other, short = a_grant(0xAB), a_grant(0xAC), a_grant(1, id="0000")
    await give(store, one, other, short)
    for prefix in ("00", "000000a", "", "%", "zz", "000000AB", "é", "0" * 65):
        assert await store.revoke_grant(prefix, by="erin", now=NOW) is None
    assert await store.revoke_grant(one.id[:9], by="erin", now=one.expires_at) is None
    assert all(grant.revoked_at is None for grant in await store.grants())
    # An id that is also a prefix of others is that id.
    revoked = await store.revoke_grant("0000", by="erin", now=NOW)
    assert revoked is not None
    assert revoked.id == "0000"


async def test_grants_are_listed_for_a_month_and_while_they_live(store: RequestStore) -> None:
    long_gone = a_grant(0, created_at=NOW - 31 * DAY, expires_at=NOW - 30 * DAY)
    standing = a_grant(1, created_at=NOW - 90 * DAY, expires_at=NOW + 90 * DAY)
    ended = a_grant(2, created_at=NOW - 29 * DAY, expires_at=NOW - 28 * DAY)
    fresh = a_grant(3)
    await give(store, long_gone, standing, ended, fresh)
    assert await store.grants() == [fresh, ended, standing]


async def test_grants_survive_the_purge_of_their_request(store: RequestStore) -> None:
    grant = a_grant()
    await give(store, grant)
    assert await store.purge(NOW + SECOND) == 1
    assert await store.grants() == [grant]
    assert await store.use_grant(grant.id, NOW)


async def test_purge_forgets_what_no_list_shows(store: RequestStore) -> None:
    old = a_grant(0, created_at=NOW - 90 * DAY, expires_at=NOW - 89 * DAY)
    standing = a_grant(1, created_at=NOW - 90 * DAY, expires_at=NOW + DAY)
    await give(store, old, standing)
    await store.purge(NOW - 58 * DAY)
    # Its id is free again: it is gone, not only left out.
    await give(store, replace(old, expires_at=NOW + DAY))
    assert {grant.id for grant in await store.grants()} == {old.id, standing.id}


async def test_decision_keeps_where_it_came_from(store: RequestStore) -> None:
    request = a_request()
    await put(store, request)
    spoken = replace(
        a_decision(),
        channel="webhook",
        address="U123",
        through="chat-bridge",
        grant=GrantTerms(count=3),
    )
    after = machine.approve(request, spoken, roles=["approver"], digest=request.digest, now=NOW)
    await step(store, request, after)
    assert await store.get(request.id) == after


# -- the brake ------------------------------------------------------------------------------------


def denied(request: Request, seconds: int = 0) -> Request:
    spoken = a_decision("carol", Verb.DENY)
    return machine.deny(request, spoken, roles=["approver"], now=NOW + seconds * SECOND)


async def refuse(store: RequestStore, number: int, seconds: int) -> Request:
    request = a_request(number)
    await put(store, request)
    return await step(store, request, denied(request, seconds))


async def withdraw(
    store: RequestStore, number: int, *, was_asked: bool = True, problem: Problem | None = None
) -> None:
    request = a_request(number)
    prompt = a_prompt(request)
    await put(store, request, notifications=[prompt])
    if was_asked:
        sent = replace(prompt, state=DeliveryState.DELIVERED, tries=1, delivered_at=NOW)
        await store.settle_notification(sent, expected_tries=0)
    await step(store, request, machine.cancel(request, problem=problem, now=NOW))


async def test_withdrawing_after_somebody_was_asked_is_counted(store: RequestStore) -> None:
    await withdraw(store, 0)
    assert await refusals(store, "librarian", NOW) == 1
    await withdraw(store, 1, was_asked=False)
    await withdraw(store, 2, problem=Problem(code="identity:revoked", detail="It is gone."))
    assert await refusals(store, "librarian", NOW) == 1
    # The same was asked for again, of something else by then: people were prompted twice.
    moved = Problem(code="approval:target-changed", detail="It moved.")
    await withdraw(store, 3, problem=moved, was_asked=False)
    assert await refusals(store, "librarian", NOW) == 1
    await withdraw(store, 4, problem=moved)
    assert await refusals(store, "librarian", NOW) == 2
    assert await refusals(store, "librarian", NOW + SECOND) == 0


async def test_release_forgets_what_was_until_then(store: RequestStore) -> None:
    for number in range(3):
        await refuse(store, number, number)
    assert await refusals(store, "librarian", NOW) == 3
    await store.release("other", by="root-admin", now=NOW + 9 * SECOND)
    assert await refusals(store, "librarian", NOW) == 3
    await store.release("librarian", by="root-admin", now=NOW + SECOND)
    assert await refusals(store, "librarian", NOW) == 1
    # An older release takes nothing back.
    await store.release("librarian", by="root-admin", now=NOW)
    assert await refusals(store, "librarian", NOW) == 1
    await store.release("librarian", by="root-admin", now=NOW + 2 * SECOND)
    assert await refusals(store, "librarian", NOW) == 0
    await refuse(store, 9, 3)
    assert await refusals(store, "librarian", NOW) == 1


async def test_refused_or_waiting_is_of_the_caller_and_since_then(store: RequestStore) -> None:
    assert await others(store, NOW, but="git.log") == []
    await refuse(store, 0, 0)
    late = await refuse(store, 1, 5)
    pending = a_request(2)
    await put(store, pending)
    await put(store, a_request(3, caller="other"))
    await put(store, a_request(4, state=State.RUNNING))
    consented = a_request(5)
    await put(store, consented)
    await step(store, consented, approved(consented))
    await withdraw(store, 6)
    assert await others(store, NOW + SECOND, but="git.log") == [
        late,
        pending,
    ]
    assert len(await others(store, NOW, but="git.log")) == 3
    assert await others(store, NOW + 6 * SECOND, but="git.log") == [pending]
    assert await others(store, NOW, but=pending.operation) == []


async def test_release_forgets_denials_not_what_waits(store: RequestStore) -> None:
    await refuse(store, 0, 0)
    pending = a_request(1)
    await put(store, pending)
    await store.release("librarian", by="root-admin", now=NOW)
    assert await others(store, NOW, but="git.log") == [pending]


# -- life -----------------------------------------------------------------------------------------


async def test_what_stands_survives_a_restart(tmp_path: Path) -> None:
    grant = a_grant(uses_left=2)
    async with opened(tmp_path) as store:
        await store.put_contact(a_contact())
        await disable(store, a_contact())
        await offer(store, "carol")
        await spend(store)
        await give(store, grant)
        await store.use_grant(grant.id, NOW)
        await refuse(store, 0, 0)
        await store.release("librarian", by="root-admin", now=NOW)
    async with opened(tmp_path) as store:
        assert await store.contacts() == [a_contact(disabled=Failure.IDENTITY_CHANGED)]
        assert await spend(store) is Spent.REPLAYED
        assert await store.grants() == [replace(grant, uses_left=1, used=1)]
        assert await refusals(store, "librarian", NOW) == 0
        assert await enrol(store, OTHER) == met("carol", OTHER)
