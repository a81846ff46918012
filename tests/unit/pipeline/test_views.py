"""Who sees which request, and how much of it; long polls end on a change, in time, at shutdown."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.errors import (
    InvalidParameterError,
    RateLimitedError,
    RequestNotFoundError,
    RevokedIdentityError,
    UnknownIdentityError,
)
from host_agent.pipeline import views
from host_agent.requests.model import State, Verb
from tests.support.patience import PATIENCE
from tests.support.pipeline import ASIDE, Workbench, opened, output, serial_of
from tests.support.site import IDENTITIES


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


async def waiting(bench: Workbench, count: int = 1) -> None:
    """Return once so many long polls wait for a change."""
    async with asyncio.timeout(PATIENCE):
        while sum(map(len, bench.context.changes._waiters.values())) < count:
            await asyncio.sleep(0)


# -- who sees what --------------------------------------------------------------------------------


async def test_a_caller_sees_its_own_and_nobody_elses(bench: Workbench) -> None:
    request = await bench.held()
    assert (await bench.pipeline.views.show(bench.who("deployer"), request.id)).caller == "deployer"
    for stranger in ("watcher", "robot"):
        with pytest.raises(RequestNotFoundError):
            await bench.pipeline.views.show(bench.who(stranger), request.id)


async def test_another_certificate_of_the_same_owner_is_another_caller(tmp_path: Path) -> None:
    identities = IDENTITIES.replace('owner = "carol"', 'owner = "bob"')
    async with opened(tmp_path, identities=identities) as bench:
        request = await bench.held()
        with pytest.raises(RequestNotFoundError):
            await bench.pipeline.views.show(bench.who("watcher"), request.id)


async def test_output_is_for_the_caller_admins_and_those_who_decided(bench: Workbench) -> None:
    bench.host.answers["pull"] = output("secret words\n", stderr="and more\n")
    request = await bench.held()
    await bench.decide(request)
    await bench.settle()
    for cn in ("deployer", "root-admin", "alice"):
        outcome = (await bench.pipeline.views.show(bench.who(cn), request.id)).outcome
        assert outcome is not None
        assert outcome.stdout == "secret words\n"
    for cn in ("erin", "bobs-phone"):
        shown = (await bench.pipeline.views.show(bench.who(cn), request.id)).as_json()
        assert shown["outcome"] == {"exit_code": 0, "verified": False}
        assert "secret" not in str(shown)


async def test_looking_notices_an_expiry(bench: Workbench) -> None:
    request = await bench.held()
    bench.clock.advance(minutes=30)
    shown = await bench.pipeline.views.show(bench.who("alice"), request.id)
    assert shown.state == "expired"
    assert bench.events()[-1] == "request.expired"


# -- listing --------------------------------------------------------------------------------------


async def listed(bench: Workbench, by: str, **named: Any) -> list[str]:
    wanted: dict[str, Any] = {"state": None, "limit": 50, "cursor": None, **named}
    page = await bench.pipeline.views.list_requests(bench.who(by), **wanted)
    return [entry.request_id for entry in page.requests]


async def test_a_listing_is_ones_own_or_all(bench: Workbench) -> None:
    request = await bench.held()
    assert await listed(bench, "deployer") == [request.id]
    assert await listed(bench, "robot") == []
    for cn in ("alice", "root-admin"):
        assert await listed(bench, cn) == [request.id]
        assert await listed(bench, cn, own=True) == []
    assert await listed(bench, "deployer", own=True) == [request.id]


async def test_a_listing_never_holds_output(bench: Workbench) -> None:
    bench.host.answers["pull"] = output("secret words\n")
    await bench.decide(await bench.held())
    await bench.settle()
    page = await bench.pipeline.views.list_requests(
        bench.who("deployer"), state=None, limit=1, cursor=None
    )
    assert "secret" not in str(page)


async def test_a_listing_by_state_and_page(bench: Workbench) -> None:
    first = await bench.held()
    second = await bench.held(operation="git.switch", params=ASIDE)
    await bench.decide(first, Verb.DENY)
    assert await listed(bench, "alice", state="pending") == [second.id]
    assert await listed(bench, "alice", state="denied") == [first.id]
    page = await bench.pipeline.views.list_requests(
        bench.who("alice"), state=None, limit=1, cursor=None
    )
    cursor = page.next_cursor
    assert await listed(bench, "alice", cursor=cursor) == [first.id]


async def test_listing_notices_expiries(bench: Workbench) -> None:
    request = await bench.held()
    bench.clock.advance(minutes=30)
    assert await listed(bench, "alice", state="pending") == []
    assert await bench.state(request) is State.EXPIRED


@pytest.mark.parametrize(
    "named",
    [{"state": "open"}, {"state": ""}, {"limit": 0}, {"limit": 201}, {"cursor": "not one"}],
    ids=str,
)
async def test_a_listing_of_something_else_is_refused(
    bench: Workbench, named: dict[str, object]
) -> None:
    with pytest.raises(InvalidParameterError):
        await listed(bench, "alice", **named)


# -- long polls -----------------------------------------------------------------------------------


async def test_a_long_poll_returns_when_the_request_changes(bench: Workbench) -> None:
    request = await bench.held()
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    await bench.decide(request, Verb.DENY)
    assert (await poll).state == "denied"
    assert bench.context.changes._waiters == {}


async def test_a_long_poll_returns_at_a_voice_of_a_quorum(bench: Workbench) -> None:
    request = await bench.held(
        operation="git.reset", params={"repository": "/srv/app", "ref": "main"}, reason="undo"
    )
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    await bench.decide(request)
    shown = await poll
    assert shown.state == "pending"
    assert len(shown.decisions) == 1


async def test_what_has_ended_is_not_waited_for(bench: Workbench) -> None:
    request = await bench.held()
    await bench.decide(request, Verb.DENY)
    shown = await bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    assert shown.state == "denied"


async def test_a_change_between_the_look_and_the_wait_is_not_missed(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await bench.held()
    find = bench.store.find

    async def and_then_denied(prefix: str, *, caller: str | None = None) -> object:
        found = await find(prefix, caller=caller)
        monkeypatch.undo()
        await bench.decide(request, Verb.DENY)
        return found

    monkeypatch.setattr(bench.store, "find", and_then_denied)
    shown = await bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    assert shown.state == "denied"


async def test_a_long_poll_ends_when_its_time_is_over(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "RECHECK_SECONDS", 0.001)
    request = await bench.held()
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    bench.clock.advance(seconds=59.9)
    done, _ = await asyncio.wait([poll], timeout=0.05)
    assert not done
    bench.clock.advance(seconds=0.1)
    assert (await poll).state == "pending"


async def test_a_long_poll_ends_at_shutdown(bench: Workbench) -> None:
    request = await bench.held()
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    bench.context.is_draining = True
    bench.context.changes.tell_all()
    assert (await poll).state == "pending"
    # And none begins then.
    shown = await bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    assert shown.state == "pending"


async def test_a_long_poll_of_somebody_revoked_meanwhile_ends_with_that(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "RECHECK_SECONDS", 0.001)
    request = await bench.held()
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("alice"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    bench.revocations.revoked.add(serial_of("alice"))
    with pytest.raises(RevokedIdentityError):
        await poll


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (IDENTITIES.replace('cn = "alice"', 'cn = "alice-2"'), UnknownIdentityError),
        (
            IDENTITIES.replace('roles = ["approver"]', 'roles = ["caller"]', 1),
            RequestNotFoundError,
        ),
    ],
    ids=["removed", "no role"],
)
async def test_a_long_poll_sees_no_more_than_its_identity_may_by_then(
    bench: Workbench, changed: str, error: type[Exception]
) -> None:
    request = await bench.held()
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("alice"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    bench.reconfigure(identities=changed)
    await bench.decide(request, Verb.DENY, by="erin")
    with pytest.raises(error):
        await poll


async def test_a_long_poll_ends_when_its_identity_may_not_see_it_any_more(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "RECHECK_SECONDS", 0.001)
    request = await bench.held()
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("alice"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    bench.reconfigure(
        identities=IDENTITIES.replace('roles = ["approver"]', 'roles = ["caller"]', 1)
    )
    async with asyncio.timeout(PATIENCE):  # nothing happens to the request
        with pytest.raises(RequestNotFoundError):
            await poll


async def test_an_admin_who_is_none_any_more_gets_no_output_from_a_long_poll(
    bench: Workbench,
) -> None:
    bench.host.answers["pull"] = output("secret words\n")
    request = await bench.held()
    gate = bench.host.hold("pull")
    await bench.decide(request)
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("root-admin"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    bench.reconfigure(identities=IDENTITIES.replace('["admin"]', '["approver"]'))
    gate.set()
    shown = await poll
    assert shown.state == "succeeded"
    assert "secret" not in str(shown)


@pytest.mark.promise("c45")
async def test_the_seventeenth_long_poll_of_an_identity_is_refused(bench: Workbench) -> None:
    request = await bench.held()
    polls = [
        asyncio.ensure_future(
            bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
        )
        for _ in range(16)
    ]
    await waiting(bench, 16)
    with pytest.raises(RateLimitedError) as caught:
        await bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=1)
    assert caught.value.retry_after_seconds == 5
    await bench.pipeline.views.show(bench.who("deployer"), request.id)  # a plain look is none
    other = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("alice"), request.id, wait_seconds=60)
    )
    await waiting(bench, 17)
    await bench.decide(request, Verb.DENY)
    assert {(await poll).state for poll in (*polls, other)} == {"denied"}
    assert not bench.pipeline.views._polls


async def test_a_long_poll_whose_client_has_gone_leaves_nothing(bench: Workbench) -> None:
    request = await bench.held()
    poll = asyncio.ensure_future(
        bench.pipeline.views.show(bench.who("deployer"), request.id, wait_seconds=60)
    )
    await waiting(bench)
    poll.cancel()
    await asyncio.wait([poll])
    assert not bench.pipeline.views._polls
    assert bench.context.changes._waiters == {}
