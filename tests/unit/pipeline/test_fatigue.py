"""No second door to what was denied or waits, and no end of asking for who is held off."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    AuditUnavailableError,
    HostAgentError,
    PolicyDeniedError,
    RateLimitedError,
    RequestNotFoundError,
    RoleRequiredError,
)
from host_agent.requests.model import GrantTerms, State, Verb
from host_agent.store.refusals import AskContext
from tests.support.pipeline import ASIDE, FETCH, RESET, STATUS, Workbench, opened
from tests.support.site import IDENTITIES, RULES

RESETTING = RULES.replace("approvals = 2\nrequire_reason = true", "")
FREE = RESETTING.replace('"git.reset"]\nverdict = "ask"', '"git.reset"]\nverdict = "allow"')
PLAIN = IDENTITIES.replace('autonomy = "full"\nskip_ask = true', "")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, rules=RESETTING, identities=PLAIN) as bench:
        yield bench


async def braked(
    bench: Workbench, operation: str = "git.reset", params: dict[str, JsonValue] | None = None
) -> HostAgentError:
    """Ask, and see that it is denied, and that nothing was run, held or even looked at."""
    before, ran = await bench.store.live(), list(bench.host.ran)
    with pytest.raises(PolicyDeniedError, match="equivalent act of yours") as caught:
        await bench.ask(operation, params or dict(RESET))
    assert await bench.store.live() == before
    assert bench.host.ran == ran
    return caught.value


# -- by another door ------------------------------------------------------------------------------


async def test_what_waits_is_not_had_through_another_operation(bench: Workbench) -> None:
    waiting = await bench.held()
    error = await braked(bench)
    assert "is waiting" in error.detail
    assert error.about["cause"] == f"equivalent to request {waiting.id}"
    assert error.about["operation"] == "git.reset"
    await bench.decide(waiting)
    await bench.settle()
    assert (await bench.ask("git.reset", RESET)).status == 202


async def test_what_was_denied_is_not_had_through_another_operation_for_a_while(
    bench: Workbench,
) -> None:
    await bench.decide(await bench.held(), Verb.DENY)
    error = await braked(bench)
    assert "was denied" in error.detail
    bench.clock.advance(seconds=599)
    await braked(bench)
    bench.clock.advance(seconds=2)
    assert (await bench.ask("git.reset", RESET)).status == 202


async def test_a_rule_that_allows_the_other_operation_does_not_open_the_door(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, rules=FREE, identities=PLAIN) as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        await braked(bench)
        bench.clock.advance(seconds=601)
        assert (await bench.ask("git.reset", RESET)).status == 200


async def test_a_grant_for_the_other_operation_does_not_open_the_door(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET)
    await bench.decide(request, grant=GrantTerms(count=3))
    await bench.settle()
    assert "grant" in (await bench.ask("git.reset", RESET)).body
    await bench.decide(await bench.held(), Verb.DENY)
    await braked(bench)
    assert (await bench.store.grants())[0].used == 1


async def test_the_same_operation_may_be_asked_again_after_a_denial(bench: Workbench) -> None:
    await bench.decide(await bench.held(), Verb.DENY)
    assert (await bench.held()).state is State.PENDING


async def test_other_acts_are_not_held_up(bench: Workbench) -> None:
    await bench.decide(await bench.held(), Verb.DENY)
    assert (await bench.ask("git.switch", ASIDE)).status == 202
    assert (await bench.ask("git.fetch", FETCH)).status == 200
    assert (await bench.ask("git.status", STATUS)).status == 200


async def test_another_caller_is_not_held_up(bench: Workbench) -> None:
    await bench.decide(await bench.held(), Verb.DENY)
    assert (await bench.ask("git.reset", RESET, by="robot")).status == 202


async def test_what_waits_no_longer_is_no_reason(bench: Workbench) -> None:
    waiting = await bench.held()
    await bench.pipeline.decisions.cancel(bench.who("deployer"), waiting.id, reason=None)
    assert (await bench.ask("git.reset", RESET)).status == 202


async def test_what_is_expired_and_not_yet_noticed_is_no_reason(bench: Workbench) -> None:
    waiting = await bench.held()
    bench.clock.advance(minutes=30)
    assert await bench.state(waiting) is State.PENDING
    assert (await bench.ask("git.reset", RESET)).status == 202


async def test_what_no_version_takes_any_more_is_no_reason(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await bench.held()

    async def renamed(caller: str, operation: str, **_: object) -> AskContext:
        """Return what is stored, as an operation that this version does not have."""
        assert (caller, operation) == ("deployer", "git.reset")
        return AskContext(refusals=0, others=[replace(waiting, operation="git.push")], grants=[])

    monkeypatch.setattr(bench.store, "ask_context", renamed)
    assert (await bench.ask("git.reset", RESET)).status == 202


# -- too many -------------------------------------------------------------------------------------


async def test_who_is_held_off_may_read_and_run_what_is_allowed(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        with pytest.raises(RateLimitedError) as caught:
            await bench.ask()
        assert caught.value.retry_after_seconds == 300
        assert (await bench.ask("git.status", STATUS)).status == 200
        assert (await bench.ask("git.fetch", FETCH)).status == 200


async def test_who_is_held_off_may_still_use_a_grant(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(), grant=GrantTerms(count=1))
        await bench.settle()
        await bench.decide(await bench.held(operation="git.switch", params=ASIDE), Verb.DENY)
        assert (await bench.ask()).status == 200
        with pytest.raises(RateLimitedError):
            await bench.ask()


# -- an admin lets go -----------------------------------------------------------------------------


async def test_an_admin_ends_a_hold_off(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        with pytest.raises(RateLimitedError):
            await bench.ask()
        answer = await bench.pipeline.fatigue.release(bench.who("root-admin"), "deployer")
        assert answer.as_json() == {"cn": "deployer", "released": True}
        record = bench.last(Event.IDENTITY_RELEASED)
        assert (record["caller"], record["by"]) == ("deployer", "root-admin")
        bench.clock.advance(seconds=1)
        assert (await bench.ask()).status == 202


async def test_a_release_ends_the_cooldown_too(bench: Workbench) -> None:
    await bench.decide(await bench.held(), Verb.DENY)
    await braked(bench)
    bench.clock.advance(seconds=1)
    await bench.pipeline.fatigue.release(bench.who("root-admin"), "deployer")
    assert (await bench.ask("git.reset", RESET)).status == 202


async def test_what_comes_to_nothing_after_a_release_counts_anew(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        bench.clock.advance(seconds=1)
        await bench.pipeline.fatigue.release(bench.who("root-admin"), "deployer")
        bench.clock.advance(seconds=1)
        await bench.decide(await bench.held(), Verb.DENY)
        with pytest.raises(RateLimitedError):
            await bench.ask()


@pytest.mark.parametrize("cn", ["alice", "deployer"])
async def test_nobody_but_an_admin_releases(tmp_path: Path, cn: str) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        with pytest.raises(RoleRequiredError):
            await bench.pipeline.fatigue.release(bench.who(cn), "deployer")
        with pytest.raises(RateLimitedError):
            await bench.ask()
        assert "identity.released" not in bench.events()


@pytest.mark.parametrize("cn", ["nobody", "Deployer", "deploy", "bob"])
async def test_only_a_registered_identity_is_released(bench: Workbench, cn: str) -> None:
    with pytest.raises(RequestNotFoundError):
        await bench.pipeline.fatigue.release(bench.who("root-admin"), cn)
    assert "identity.released" not in bench.events()


async def test_a_release_that_cannot_be_written_down_does_not_happen(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        bench.audit.refused = frozenset({Event.IDENTITY_RELEASED})
        with pytest.raises(AuditUnavailableError):
            await bench.pipeline.fatigue.release(bench.who("root-admin"), "deployer")
        with pytest.raises(RateLimitedError):
            await bench.ask()
