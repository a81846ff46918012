"""What was said or begun with a certificate counts as long as that would be let in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import InvalidIdentityError
from host_agent.pipeline.context import welcome
from host_agent.requests.model import GrantTerms, Request, State
from tests.support.pipeline import RESET, Workbench, opened
from tests.support.site import IDENTITIES

PLAIN = IDENTITIES.replace('autonomy = "full"\nskip_ask = true', "")
BRIEFLY = timedelta(minutes=1)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, identities=PLAIN) as bench:
        yield bench


def replaced(bench: Workbench) -> None:
    """Let another authority stand in `client_ca`: whoever comes now comes from that one."""
    bench.revocations.authorities = {"sha256:" + "0e" * 32}


def ended(bench: Workbench) -> None:
    """Let the time of certificates that were good briefly be over."""
    bench.clock.advance(minutes=2)


OVER: dict[str, Callable[[Workbench], None]] = {"replaced": replaced, "ended": ended}


def brief(bench: Workbench, cn: str) -> None:
    bench.lasts[cn] = BRIEFLY


@pytest.mark.parametrize("how", OVER)
async def test_h4_a_remembered_certificate_is_asked_as_if_it_came_now(
    bench: Workbench, how: str
) -> None:
    brief(bench, "alice")
    credential = bench.who("alice").credential
    assert welcome(bench.context, credential).cn == "alice"
    OVER[how](bench)
    with pytest.raises(InvalidIdentityError):
        welcome(bench.context, credential)


async def test_h4_what_was_remembered_without_its_authority_is_not_welcome(
    bench: Workbench,
) -> None:
    credential = bench.who("alice").credential
    for less in (replace(credential, issuer=None), replace(credential, ends=None)):
        with pytest.raises(InvalidIdentityError):
            welcome(bench.context, less)
    assert welcome(bench.context, credential).cn == "alice"


async def quorum(bench: Workbench, before_the_second: Callable[[], None]) -> Request:
    """Ask for what needs two, of whom alice is the first and erin the second."""
    request = await bench.held(operation="git.reset", params=RESET, reason="roll back")
    brief(bench, "alice")
    await bench.decide(request, by="alice")
    assert await bench.state(request) is State.PENDING
    before_the_second()
    await bench.decide(request, by="erin")
    await bench.settle()
    return request


async def test_m10_the_voice_of_an_ended_certificate_makes_no_quorum(bench: Workbench) -> None:
    request = await quorum(bench, lambda: ended(bench))
    assert await bench.state(request) is not State.SUCCEEDED
    assert not bench.host.changes


async def test_two_voices_of_certificates_that_last_make_a_quorum(bench: Workbench) -> None:
    request = await quorum(bench, lambda: None)
    assert await bench.state(request) is State.SUCCEEDED
    assert len(bench.host.changes) == 1


async def test_h4_an_approved_request_of_a_replaced_authority_does_not_run(
    bench: Workbench,
) -> None:
    request = await bench.held()
    gate = bench.host.hold("inspect-pull")
    deciding = asyncio.ensure_future(bench.decide(request))
    await bench.host.reached["inspect-pull"].wait()
    replaced(bench)
    gate.set()
    await deciding
    await bench.settle()
    assert await bench.state(request) is State.CANCELLED
    assert not bench.host.changes
    assert bench.last(Event.REQUEST_CANCELLED)["code"] == "identity:invalid"


async def granted(bench: Workbench) -> None:
    """Let alice give deployer a grant of pulls."""
    brief(bench, "alice")
    request = await bench.held()
    await bench.decide(request, grant=GrantTerms(count=5))
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


@pytest.mark.parametrize("how", OVER)
async def test_h4_a_grant_of_who_is_over_is_revoked_and_on_record(
    bench: Workbench, how: str
) -> None:
    await granted(bench)
    OVER[how](bench)
    await bench.pipeline.end_unwelcome()
    (grant,) = await bench.store.grants()
    assert (grant.revoked_by, grant.is_live(bench.clock.now())) == ("host-agent", False)
    assert bench.last(Event.GRANT_REVOKED)["by"] == "host-agent"


async def test_m10_a_grant_of_an_ended_certificate_is_not_used(bench: Workbench) -> None:
    await granted(bench)
    ended(bench)
    changes = len(bench.host.changes)
    assert (await bench.held()).state is State.PENDING
    assert len(bench.host.changes) == changes


async def test_a_grant_of_who_is_welcome_is_used_and_stays(bench: Workbench) -> None:
    await granted(bench)
    await bench.pipeline.end_unwelcome()
    assert (await bench.ask()).status == 200
    assert Event.GRANT_REVOKED not in bench.events()


@pytest.mark.parametrize("how", OVER)
async def test_h4_what_waits_for_a_caller_who_is_over_is_cancelled(
    bench: Workbench, how: str
) -> None:
    brief(bench, "deployer")
    mine = await bench.held()
    OVER[how](bench)
    await bench.pipeline.end_unwelcome()
    assert await bench.state(mine) is State.CANCELLED
    assert bench.last(Event.REQUEST_CANCELLED)["code"] == "identity:invalid"


async def test_what_waits_for_a_caller_who_is_welcome_waits_on(bench: Workbench) -> None:
    mine = await bench.held()
    await bench.pipeline.end_unwelcome()
    assert await bench.state(mine) is State.PENDING


@pytest.mark.parametrize("how", OVER)
async def test_h4_a_stream_ends_with_the_welcome_of_its_certificate(
    bench: Workbench, how: str
) -> None:
    brief(bench, "alice")
    stream = bench.pipeline.streams.open(bench.who("alice"), None)
    assert (await anext(stream)).startswith(b":")

    async def rest() -> list[bytes]:
        return [frame async for frame in stream]

    following = asyncio.ensure_future(rest())
    await asyncio.sleep(0)
    OVER[how](bench)
    bench.pipeline.events.wake_all()
    told = await asyncio.wait_for(following, 20)
    assert all(frame.startswith(b":") for frame in told)
