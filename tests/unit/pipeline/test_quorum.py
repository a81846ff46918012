"""A quorum is of people: voices that one person could have made up count once."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import combinations, count, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.audit.record import Event
from host_agent.errors import AlreadyDecidedError, UnreachableError
from host_agent.pipeline.approver_identity import still_counts
from host_agent.requests.model import Request, State, Terms, Verb, agreeing
from tests.support.people import (
    BRIDGE,
    CHANNELS,
    IDENTITIES_AND_BRIDGE,
    PEOPLE,
    STRANGER,
    Chat,
)
from tests.support.pipeline import RESET, Workbench, opened

CAROL = """
[[approvers]]
owner = "Carol"
channels = ["signal"]
"""
CAROLS_OWN = """
[[identities]]
cn = "carols-phone"
owner = "carol"
roles = ["approver"]
"""
BOTH = 'U1 = "Erin"\nU2 = "alice"'
TABLE = (
    (PEOPLE + CAROL + BRIDGE.replace('U1 = "Erin"', BOTH))
    .replace('channels = ["signal", "webhook"]', 'channels = ["webhook", "signal"]')
    .replace('channels = ["signal", "ntfy"]', 'channels = ["signal", "ntfy", "webhook"]')
)
TWO = Terms(approvals=2)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    identities = IDENTITIES_AND_BRIDGE + CAROLS_OWN
    async with opened(tmp_path, people=TABLE, identities=identities) as bench:
        yield bench


@pytest.fixture
async def request_of_two(bench: Workbench) -> Request:
    """Return a request that needs two people; frank's admin has enrolled a phone as carol's."""
    offered = await bench.pipeline.enrolment.offer_enrolment(
        bench.who("root-admin"), "carol", "signal"
    )
    assert "answers for carol" in str(await Chat(bench).say(f"ENROL {offered.code}", by=STRANGER))
    return await bench.held(operation="git.reset", params=RESET, reason="so")


async def frank(bench: Workbench, request: Request) -> None:
    await bench.decide(request, by="root-admin")
    await bench.settle()


async def carols_phone(bench: Workbench, request: Request) -> None:
    chat = Chat(bench, references=count(100))  # not those of the enrolment
    said = await chat.say(f"CONFIRM {await chat.code(request, 'carol')}", by=STRANGER)
    assert re.match("Taken|Approved|You have answered", said or "")


async def alice(bench: Workbench, request: Request) -> None:
    await bench.decide(request, by="alice")
    await bench.settle()


async def by_bridge(bench: Workbench, request: Request, user: str) -> None:
    await bench.pipeline.bridges.decide_by_bridge(
        bench.who("chat-bridge"),
        request.id,
        user=user,
        decision=Verb.APPROVE,
        digest=request.digest,
        reason=None,
    )
    await bench.settle()


async def still_waits(bench: Workbench, request: Request, given: int = 1) -> None:
    stored = await bench.request(request.id)
    assert (stored.state, stored.agreeing) == (State.PENDING, given)
    assert bench.host.changes == []
    assert Event.OPERATION_STARTED not in bench.events()


@pytest.mark.promise("c33")
@pytest.mark.parametrize("order", [(frank, carols_phone), (carols_phone, frank)])
async def test_an_admin_and_the_phone_that_they_enrolled_are_one_voice(
    bench: Workbench, request_of_two: Request, order: tuple[object, object]
) -> None:
    for speak in order:
        await speak(bench, request_of_two)  # type: ignore[operator]
    await still_waits(bench, request_of_two)
    shown = await bench.pipeline.views.show(bench.who("alice"), request_of_two.id)
    assert shown.approvals.given == 1
    await alice(bench, request_of_two)
    assert await bench.state(request_of_two) is State.SUCCEEDED
    vouched = [
        r for r in bench.records() if r["event"] == Event.REQUEST_DECIDED and "vouchers" in r
    ]
    assert [(r["approver_owner"], r["vouchers"]) for r in vouched] == [("carol", ["frank"])]


@pytest.mark.parametrize("other", [alice, frank])
async def test_the_twin_with_somebody_else_or_with_her_own_certificate_is_two(
    bench: Workbench, request_of_two: Request, other: object
) -> None:
    if other is alice:
        await carols_phone(bench, request_of_two)
    else:
        await bench.decide(request_of_two, by="carols-phone")
    await other(bench, request_of_two)  # type: ignore[operator]
    assert await bench.state(request_of_two) is State.SUCCEEDED


@pytest.mark.parametrize("verb", list(Verb))
async def test_what_somebody_else_said_in_her_name_does_not_keep_her_from_speaking(
    bench: Workbench, request_of_two: Request, verb: Verb
) -> None:
    await frank(bench, request_of_two)
    await carols_phone(bench, request_of_two)
    await still_waits(bench, request_of_two)
    await bench.decide(request_of_two, verb, by="carols-phone")
    await bench.settle()
    ended = await bench.state(request_of_two)
    assert ended is (State.SUCCEEDED if verb is Verb.APPROVE else State.DENIED)


async def test_after_her_own_certificate_the_phone_says_nothing_more(
    bench: Workbench, request_of_two: Request
) -> None:
    await bench.decide(request_of_two, by="carols-phone")
    await carols_phone(bench, request_of_two)
    with pytest.raises(AlreadyDecidedError):
        await bench.decide(request_of_two, by="carols-phone")
    await still_waits(bench, request_of_two)


@pytest.mark.promise("c33")
async def test_two_users_of_one_bridge_are_one_voice(
    bench: Workbench, request_of_two: Request
) -> None:
    await by_bridge(bench, request_of_two, "U1")
    await by_bridge(bench, request_of_two, "U2")
    await still_waits(bench, request_of_two)
    await frank(bench, request_of_two)
    assert await bench.state(request_of_two) is State.SUCCEEDED


async def test_what_could_only_come_from_one_person_is_not_asked_of_two(tmp_path: Path) -> None:
    both = "".join(
        f'[[approvers]]\nowner = "{owner}"\nchannels = ["webhook"]\n' for owner in ("alice", "erin")
    )
    only = CHANNELS + both + BRIDGE.replace('U1 = "Erin"', BOTH)
    entries = {"deployer": 'owner = "bob"', "chat-bridge": 'owner = "chat"\nroles = ["bridge"]'}
    identities = "".join(f'[[identities]]\ncn = "{cn}"\n{x}\n' for cn, x in entries.items())
    async with opened(tmp_path, people=only, identities=identities) as bench:
        with pytest.raises(UnreachableError, match="only 1 could"):
            await bench.held(operation="git.reset", params=RESET, reason="so")
        assert await bench.store.live() == []
        assert (await bench.held()).state is State.PENDING  # one is enough for this


async def test_consents_of_before_are_judged_by_who_vouches_now(
    bench: Workbench, request_of_two: Request
) -> None:
    """Rows of an older agent name no vouchers."""
    await carols_phone(bench, request_of_two)
    await frank(bench, request_of_two)
    spoken = (await bench.request(request_of_two.id)).consents
    older = [replace(consent, vouchers=frozenset()) for consent in spoken]
    assert len(older) == 2
    assert not still_counts(bench.context, "bob", older, TWO)
    assert still_counts(bench.context, "bob", older, Terms())


# -- counting --------------------------------------------------------------------------------------

_MAKERS = st.frozensets(st.sampled_from("abcdef"), min_size=1, max_size=3)
_VOICES = st.lists(st.sets(_MAKERS, min_size=1, max_size=2), max_size=5)


@given(_VOICES, st.integers(1, 5))
def test_the_most_that_do_not_meet_count(voices: list[set[frozenset[str]]], needed: int) -> None:
    """Held to the plain definition: the largest choice whose makers are pairwise apart."""
    best = 0
    for size in range(len(voices) + 1):
        for chosen in combinations(voices, size):
            for ways in product(*chosen):
                if sum(map(len, ways)) == len(frozenset().union(*ways)):
                    best = max(best, size)
    assert agreeing([frozenset(ways) for ways in voices], needed) == min(best, needed)


def test_many_voices_are_counted_at_once() -> None:
    apart = [(frozenset({f"owner-{number}"}),) for number in range(200)]
    assert agreeing(apart, 200) == 200
    assert agreeing(apart, 201) == 200
    bridged = [(frozenset({f"owner-{number}", "bridge"}),) for number in range(200)]
    assert agreeing(bridged, 2) == 1
    several = [
        tuple(frozenset({f"owner-{n}", f"bridge-{(n + way) % 8}"}) for way in range(3))
        for n in range(60)
    ]
    assert agreeing(several, 8) == 8
    assert agreeing(several, 9) == 8  # each bridge is one voice; not each of 60^8 choices is tried
