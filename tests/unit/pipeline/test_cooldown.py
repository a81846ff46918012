"""After a denial people are left alone with the same for a while, longer with each."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.agent.watch import Watch
from host_agent.audit.record import Event
from host_agent.clock import rfc3339
from host_agent.errors import HeldOffError, InvalidParameterError, PolicyDeniedError
from host_agent.pipeline.fatigue import cooled_down_at
from host_agent.requests.model import GrantTerms, Request, State, Verb
from tests.support.pipeline import ASIDE, PULL, RESET, Workbench, opened
from tests.support.site import IDENTITIES, RULES

STEPS = "[60, 300, 1800]"
PLAIN = RULES.replace("approvals = 2\nrequire_reason = true", "")
CALLERS = f"""
[[identities]]
cn = "second"
owner = "Bob"

[[identities]]
cn = "other"
owner = "zoe"
{IDENTITIES}"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, cooldowns=STEPS, rules=PLAIN, identities=CALLERS) as bench:
        yield bench


async def denied(bench: Workbench, **said: Any) -> Request:
    """Ask, and have it denied."""
    request = await bench.held()
    await bench.decide(request, Verb.DENY, **said)
    return await bench.request(request.id)


async def held_off(bench: Workbench, *, by: str = "deployer", seconds: float) -> HeldOffError:
    """Ask, and see that nobody is asked for so long, and that nothing moved."""
    before, changes = await bench.store.live(), list(bench.host.changes)
    for dry_run in (True, False):
        with pytest.raises(HeldOffError) as caught:
            await bench.ask(by=by, dry_run=dry_run)
        assert caught.value.recovery.seconds == seconds
    assert await bench.store.live() == before
    assert bench.host.changes == changes
    return caught.value


async def test_the_cooldown_grows_with_each_denial_and_then_is_a_day(bench: Workbench) -> None:
    for times, seconds in enumerate((60, 300, 1800), start=1):
        await denied(bench)
        error = await held_off(bench, seconds=seconds)
        assert (f" {times} times within a day" in error.detail) is (times > 1)
        bench.clock.advance(seconds=seconds - 1)
        await held_off(bench, seconds=1)
        bench.clock.advance(seconds=1)
    await denied(bench)
    await held_off(bench, seconds=24 * 3600)
    bench.clock.advance(hours=24)
    assert (await bench.held()).state is State.PENDING


async def test_denials_of_yesterday_do_not_make_it_longer(bench: Workbench) -> None:
    await denied(bench)
    bench.clock.advance(hours=25)
    await denied(bench)
    await held_off(bench, seconds=60)


async def test_it_is_in_the_store_and_survives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path, cooldowns=STEPS) as bench:
        await denied(bench, reason="not today")
        clock = bench.clock
    async with opened(tmp_path, cooldowns=STEPS, clock=clock) as bench:
        error = await held_off(bench, seconds=60)
        assert error.members == {"decision_reason": "not today"}


async def test_who_denied_may_say_another_time(bench: Workbench) -> None:
    until = bench.clock.now() + timedelta(hours=2)
    request = await denied(bench, reason="after the release", not_before=until)
    assert request.decisions[-1].not_before == until
    assert bench.last(Event.REQUEST_DECIDED)["not_before"] == rfc3339(until)
    error = await held_off(bench, seconds=7200)
    assert rfc3339(until) in error.detail
    shown = await bench.pipeline.views.show(bench.who("deployer"), request.id)
    assert shown.problem is not None
    assert shown.problem.recovery is not None
    assert (shown.problem.recovery.kind, shown.problem.recovery.seconds) == (
        "ask_again_after",
        7200,
    )
    assert shown.decisions[-1].not_before == until
    bench.clock.advance(hours=2)
    assert (await bench.ask()).status == 202


async def test_a_time_before_the_cooldown_is_over_does_not_shorten_it(bench: Workbench) -> None:
    await denied(bench, not_before=bench.clock.now() + timedelta(seconds=5))
    await held_off(bench, seconds=60)


@pytest.mark.parametrize(
    "away", [timedelta(0), timedelta(seconds=-1), timedelta(days=7, seconds=1)]
)
async def test_a_time_that_cannot_be_held_to_denies_nothing(
    bench: Workbench, away: timedelta
) -> None:
    request = await bench.held()
    with pytest.raises(InvalidParameterError, match="not_before"):
        await bench.decide(request, Verb.DENY, not_before=bench.clock.now() + away)
    assert await bench.state(request) is State.PENDING


async def test_the_longest_time_counts_for_all_of_it(bench: Workbench) -> None:
    await denied(bench, not_before=bench.clock.now() + timedelta(days=7))
    bench.clock.advance(days=6)
    await held_off(bench, seconds=24 * 3600)
    bench.clock.advance(days=1)
    assert (await bench.ask()).status == 202


async def test_a_denial_is_kept_for_as_long_as_it_may_hold(tmp_path: Path) -> None:
    short = "[audit]\nretain_days = 1"
    async with opened(tmp_path, cooldowns=STEPS, approvals=short) as bench:
        watch = Watch(bench.pipeline, bench.audit)
        request = await denied(bench, not_before=bench.clock.now() + timedelta(days=7))
        bench.clock.advance(days=6)
        await watch.purge()
        await held_off(bench, seconds=24 * 3600)
        bench.clock.advance(days=1, seconds=1)
        await watch.purge()
        assert await bench.store.get(request.id) is None


async def test_another_caller_of_the_same_owner_is_held_off_too(bench: Workbench) -> None:
    await denied(bench)
    await held_off(bench, by="second", seconds=60)


async def test_another_owner_asks_for_itself(bench: Workbench) -> None:
    await denied(bench)
    assert (await bench.ask(by="other")).status == 202


async def test_another_act_is_another_question(bench: Workbench) -> None:
    await denied(bench)
    assert (await bench.ask("git.switch", ASIDE)).status == 202
    assert (await bench.ask(params={**PULL, "branch": "topic"})).status == 202


async def test_another_way_to_the_same_is_closed_for_as_long(bench: Workbench) -> None:
    until = bench.clock.now() + timedelta(hours=2)
    await denied(bench, reason="we deploy", not_before=until)
    bench.clock.advance(minutes=90)
    with pytest.raises(PolicyDeniedError, match="equivalent") as caught:
        await bench.ask("git.reset", RESET)
    assert caught.value.recovery.seconds == 1800
    assert caught.value.members == {"decision_reason": "we deploy"}
    bench.clock.advance(minutes=30)
    assert (await bench.ask("git.reset", RESET)).status == 202


async def test_one_no_of_a_quorum_is_a_denial_and_a_yes_before_it_changes_nothing(
    tmp_path: Path,
) -> None:
    two = RULES.replace(
        '"git.switch"]\nverdict = "ask"', '"git.switch"]\nverdict = "ask"\napprovals = 2'
    )
    async with opened(tmp_path, cooldowns=STEPS, rules=two) as bench:
        request = await bench.held()
        await bench.decide(request, Verb.APPROVE, by="alice")
        await bench.decide(request, Verb.DENY, by="erin")
        await held_off(bench, seconds=60)


async def test_what_expired_or_was_withdrawn_was_not_denied(bench: Workbench) -> None:
    request = await bench.held()
    await bench.pipeline.decisions.cancel(bench.who("deployer"), request.id, reason=None)
    assert (await bench.ask()).status == 202
    bench.clock.advance(hours=1)
    await bench.pipeline.lifecycle.expire_due()
    assert (await bench.ask()).status == 202


async def test_an_admin_lets_go(bench: Workbench) -> None:
    await denied(bench)
    await held_off(bench, seconds=60)
    bench.clock.advance(seconds=1)
    await bench.pipeline.fatigue.release(bench.who("root-admin"), "deployer")
    assert (await bench.ask()).status == 202


async def test_what_waits_already_is_attached_to(bench: Workbench) -> None:
    await denied(bench)
    await bench.pipeline.fatigue.release(bench.who("root-admin"), "deployer")
    bench.clock.advance(seconds=1)
    await bench.decide(await bench.held(by="second"), Verb.DENY)
    bench.clock.advance(seconds=400)
    waiting = await bench.held()
    await bench.decide(await bench.held(by="second"), Verb.DENY)
    assert (await bench.ask()).body["request_id"] == waiting.id


async def test_a_grant_needs_no_person_and_is_not_held_off(bench: Workbench) -> None:
    await bench.decide(await bench.held(), grant=GrantTerms(count=2))
    await bench.settle()
    bench.host.tip = "c" * 40
    await bench.decide(await bench.held(by="second"), Verb.DENY)
    assert "grant" in (await bench.ask()).body


async def test_what_is_allowed_by_now_is_not_held_off(bench: Workbench) -> None:
    await denied(bench)
    free = PLAIN.replace('"git.switch"]\nverdict = "ask"', '"git.switch"]\nverdict = "allow"')
    bench.reconfigure(rules=free, cooldowns=STEPS, identities=CALLERS)
    assert (await bench.ask()).status == 200


async def test_without_cooldowns_it_may_be_asked_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        request = await denied(bench)
        assert request.decisions[-1].not_before is None
        assert "not_before" not in bench.last(Event.REQUEST_DECIDED)
        assert (await bench.ask()).status == 202


async def test_an_operation_that_is_not_had_any_more_can_still_be_denied(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await bench.held()
    until = bench.clock.now() + timedelta(hours=1)
    others = {spec.name: spec for spec in bench.context.catalogue if spec.name != "git.pull"}
    monkeypatch.setattr(bench.context.catalogue, "_specs", others)
    await bench.decide(request, Verb.DENY, not_before=until)
    monkeypatch.undo()
    assert (await bench.request(request.id)).decisions[-1].not_before == until


def test_a_cooldown_is_by_its_number(bench: Workbench) -> None:
    now = bench.clock.now()
    assert cooled_down_at((), 0, now) is None
    assert cooled_down_at((60,), 0, now) == now + timedelta(seconds=60)
    assert cooled_down_at((60,), 1, now) == now + timedelta(days=1)
