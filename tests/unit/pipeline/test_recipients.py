"""Who could say yes to a request, and who is told of it: never its caller's own owner."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import UnreachableError
from host_agent.pipeline import recipients
from host_agent.requests.model import State, Terms, Verb
from host_agent.requests.notification import DeliveryState, Failure, Kind
from tests.support.people import (
    ALICE,
    ALICE_ENTRY,
    BOB_ENTRY,
    BRIDGE,
    CHANNELS,
    ERIN_ENTRY,
    IDENTITIES_AND_BRIDGE,
    PEOPLE,
)
from tests.support.pipeline import ASIDE, RESET, Workbench, opened
from tests.support.site import IDENTITIES

ONE = Terms()
OFF = "command_line = false"
NOBODY_CERTIFIED = """
[[identities]]
cn = "deployer"
owner = "bob"
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, people=PEOPLE) as bench:
        yield bench


def able(bench: Workbench, terms: Terms = ONE, owner: str = "bob") -> set[str]:
    return set(recipients.eligible(bench.context, terms, owner))


# -- who could say yes ----------------------------------------------------------------------------


async def test_without_channels_everybody_with_a_certificate_could(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        assert able(bench) == {"alice", "erin", "frank"}
        assert able(bench, owner="ALICE") == {"bob", "erin", "frank"}
        assert able(bench, Terms(approver_role="admin")) == {"frank"}
        assert able(bench, Terms(approvers=frozenset({"erin", "bob"}))) == {"erin"}


async def test_a_channel_takes_nobody_with_a_certificate_away(bench: Workbench) -> None:
    assert able(bench) == {"alice", "erin", "frank"}
    assert able(bench, owner="Alice") == {"bob", "erin", "frank"}


async def test_switched_off_only_who_is_reached_could(bench: Workbench) -> None:
    await bench.reload(people=PEOPLE, approvals=OFF)
    assert able(bench) == {"alice", "erin"}
    assert able(bench, owner="Alice") == {"bob", "erin"}
    assert able(bench, Terms(approver_role="admin")) == set()
    assert able(bench, Terms(approvers=frozenset({"erin", "frank"}))) == {"erin"}
    await bench.reload(people=PEOPLE, approvals="command_line = true")
    assert able(bench) == {"alice", "erin", "frank"}


async def test_a_channel_that_only_tells_needs_another_way_to_say_yes(tmp_path: Path) -> None:
    told = CHANNELS + ALICE_ENTRY.replace('"signal", "ntfy"', '"ntfy"').replace(
        f'signal = "{ALICE}"', ""
    )
    async with opened(tmp_path, people=told, approvals=OFF) as bench:
        assert able(bench) == {"alice"}  # she has a certificate
        await bench.reload(people=told, identities=NOBODY_CERTIFIED, approvals=OFF)
        assert able(bench) == set()


async def test_a_webhook_needs_a_bridge_that_speaks_for_the_owner(tmp_path: Path) -> None:
    relayed = CHANNELS + ERIN_ENTRY.replace('"signal", "webhook"', '"webhook"').replace(
        'signal = "3f0a1b2c-0000-4000-8000-00000000e419"', ""
    )
    identities = IDENTITIES_AND_BRIDGE.replace('cn = "erin"', 'cn = "not-erin"\nowner = "x"')
    async with opened(tmp_path, people=relayed, identities=identities, approvals=OFF) as bench:
        assert able(bench) == set()
        await bench.reload(people=relayed + BRIDGE, identities=identities, approvals=OFF)
        assert able(bench) == {"erin"}
        own = identities.replace('owner = "chat"', 'owner = "BOB"')  # the caller's
        await bench.reload(people=relayed + BRIDGE, identities=own, approvals=OFF)
        assert able(bench) == set()
        reached = ALICE_ENTRY.replace('"ntfy"', '"webhook"')
        other = reached + BRIDGE.replace('"Erin"', '"alice"')
        await bench.reload(people=relayed + other, identities=identities, approvals=OFF)
        assert able(bench) == {"alice"}


async def test_a_disabled_approver_is_not_reached(bench: Workbench) -> None:
    await bench.pipeline.enrolment.identity_changed("alice", "signal", ALICE)
    assert bench.context.contacts.channels_of("alice") == ("ntfy",)
    await bench.reload(
        people=CHANNELS + ALICE_ENTRY.replace(', "ntfy"', ""), identities=NOBODY_CERTIFIED
    )
    assert able(bench) == set()


async def test_what_nobody_could_approve_is_refused_at_once(bench: Workbench) -> None:
    only_bob = CHANNELS + BOB_ENTRY
    await bench.reload(people=only_bob, approvals=OFF)
    with pytest.raises(UnreachableError) as refused:
        await bench.held()
    assert "3 more with a certificate would" in refused.value.detail
    assert "`approvals.command_line` of its configuration is false" in refused.value.detail
    await bench.reload(people=only_bob + ALICE_ENTRY, approvals=OFF)
    with pytest.raises(UnreachableError):  # two are needed
        await bench.held(operation="git.reset", params=RESET, reason="because")
    await bench.reload(people=only_bob, identities=NOBODY_CERTIFIED)
    with pytest.raises(UnreachableError) as refused:
        await bench.held()
    assert "command_line" not in refused.value.detail
    assert await bench.store.live() == []
    assert bench.host.changes == []
    assert await bench.store.next_notification() is None


# -- who is told ----------------------------------------------------------------------------------


async def test_everybody_is_told_over_one_channel_after_the_other(bench: Workbench) -> None:
    request = await bench.held()
    rows = await bench.store.notifications_of(request.id)
    pause = timedelta(seconds=bench.context.snapshot.config.approvals.escalate_seconds)
    now = bench.clock.now()
    assert {(row.owner, row.channel, row.next_at) for row in rows} == {
        ("alice", "signal", now),
        ("alice", "ntfy", now + pause),
        ("erin", "signal", now),
        ("erin", "webhook", now + pause),
    }
    assert {(row.kind, row.state, row.tries) for row in rows} == {
        (Kind.PROMPT, DeliveryState.WAITING, 0)
    }


@pytest.mark.promise("c33")
async def test_the_callers_own_owner_is_never_told(bench: Workbench) -> None:
    request = await bench.held()
    assert "bob" not in {row.owner for row in await bench.store.notifications_of(request.id)}
    changed = IDENTITIES.replace('owner = "bob"', 'owner = "ALICE"')
    await bench.reload(people=PEOPLE, identities=changed)
    request = await bench.held(operation="git.switch", params=ASIDE)
    owners = {row.owner for row in await bench.store.notifications_of(request.id)}
    assert owners == {"bob", "erin"}


async def test_who_does_not_count_is_not_told(bench: Workbench) -> None:
    named = Terms(approvers=frozenset({"erin"}))
    told = recipients.prompts(bench.context, named, "bob", "r" * 32, bench.clock.now())
    assert {row.owner for row in told} == {"erin"}
    admins = Terms(approver_role="admin")
    assert recipients.prompts(bench.context, admins, "bob", "r" * 32, bench.clock.now()) == ()


async def test_an_ask_that_attaches_tells_nobody_again(bench: Workbench) -> None:
    request = await bench.held()
    before = await bench.store.notifications_of(request.id)
    assert (await bench.held()).id == request.id
    assert await bench.store.notifications_of(request.id) == before


async def test_the_outbox_is_woken_by_what_there_is_to_tell(bench: Workbench) -> None:
    woken: list[State] = []
    bench.context.wake_outbox = lambda: woken.append(State.PENDING)
    request = await bench.held()
    assert woken
    for verb, end in ((Verb.DENY, State.DENIED), (Verb.APPROVE, State.SUCCEEDED)):
        woken.clear()
        await bench.decide(request, verb)
        await bench.settle()
        assert await bench.state(request) is end
        assert woken
        bench.host.head_ref = "refs/heads/main"
        request = await bench.held(operation="git.switch", params=ASIDE)
    woken.clear()
    await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
    assert woken


# -- how it is shown ------------------------------------------------------------------------------


async def test_a_request_shows_how_far_it_was_told_and_not_where(bench: Workbench) -> None:
    request = await bench.held()
    await bench.pipeline.enrolment.identity_changed("alice", "signal", ALICE)
    shown = await bench.pipeline.views.show(bench.who("erin"), request.id)
    assert len(shown.deliveries) == 4
    assert shown.deliveries[0].as_json() == {
        "approver": "alice",
        "channel": "signal",
        "kind": "prompt",
        "state": "waiting",
        "tries": 0,
        "failure": None,
        "at": None,
    }
    assert ALICE not in str(shown)
    assert "alices-long-random-topic" not in str(shown)
    assert str(shown.preview_sha256).startswith("sha256:")
    assert shown.preview_sha256 == bench.last(Event.REQUEST_HELD)["preview_sha256"]
    assert Failure.IDENTITY_CHANGED.value not in str(shown)
