"""Too many, too often, nobody there: what stops a flood, and what it does not stop."""

import asyncio
from pathlib import Path

import pytest

from tests.support.audit_files import HeldClock
from tests.support.certificates import wall_clock
from tests.support.site import IDENTITIES, RULES, make_site
from tests.support.visit import Visit, problem, until, visited

PLAIN = IDENTITIES.replace('autonomy = "full"\nskip_ask = true', "")


def switch(visit: Visit) -> dict[str, object]:
    return {**visit.site.status(), "branch": "topic"}


async def test_one_caller_has_room_for_so_many(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    site.configure(extra="[approvals]\nmax_pending_per_caller = 1")
    async with visited(site) as visit:
        held = await visit.held()
        world = visit.world()
        answer = await visit.ask("git.switch", switch(visit))
        assert (answer.status_code, problem(answer)) == (429, "approval:queue-full")
        assert int(answer.headers["retry-after"]) == answer.json()["retry_after_seconds"] > 0
        assert visit.world() == world
        assert (await visit.held()) == held  # the same one attaches
        assert (await visit.status()).status_code == 200
        await visit.cancel(held)
        assert (await visit.ask("git.switch", switch(visit))).status_code == 202


async def test_all_callers_have_room_for_so_many(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    site.configure(identities=PLAIN, extra="[approvals]\nmax_pending = 1")
    async with visited(site) as visit:
        held = await visit.held()
        world = visit.world()
        answer = await visit.ask("git.pull", site.pull(), by="robot")
        assert (answer.status_code, problem(answer)) == (429, "approval:queue-full")
        assert visit.world() == world
        await visit.decide(held, "deny")
        assert (await visit.held(by="robot"))["state"] == "pending"


async def test_denials_hold_a_caller_off_and_nobody_else(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    site.configure(identities=PLAIN, extra="[limits]\nheld_off_after = 2")
    clock = HeldClock(wall_clock())
    async with visited(site, clock=clock) as visit:
        for _ in range(2):
            await visit.decide(await visit.held(), "deny")
        world = visit.world()
        answer = await visit.ask("git.pull", site.pull())
        assert (answer.status_code, problem(answer)) == (429, "rate:limited")
        assert "retry-after" in answer.headers
        assert visit.world() == world
        assert (await visit.status()).status_code == 200
        assert (await visit.held(by="robot"))["state"] == "pending"
        clock.advance(hours=1, seconds=1)
        assert (await visit.held())["state"] == "pending"


@pytest.mark.parametrize(
    ("terms", "extra"),
    [
        ("approvals = 4", ""),
        ('approvers = ["Bob"]', ""),
        ("approvals = 1", "[approvals]\ncommand_line = false"),
    ],
    ids=["too many", "only the caller's own", "no channel"],
)
async def test_where_nobody_can_approve_the_caller_is_told_at_once(
    tmp_path: Path, terms: str, extra: str
) -> None:
    site = make_site(tmp_path / "site")
    rules = RULES.replace('verdict = "ask"', f'verdict = "ask"\n{terms}', 1)
    site.configure(rules=rules, extra=extra)
    async with visited(site) as visit:
        world = visit.world()
        answer = await visit.ask("git.pull", site.pull())
        assert (answer.status_code, problem(answer)) == (503, "approval:unreachable")
        assert visit.world() == world


async def test_asking_too_often_is_429_and_does_not_cost_others(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    site.configure(extra="[limits]\nasks_per_second = 1\nask_burst = 2")
    clock = HeldClock(wall_clock())
    async with visited(site, clock=clock) as visit:
        for _ in range(2):
            assert (await visit.status()).status_code == 200
        before = visit.sequence
        answer = await visit.status()
        assert (answer.status_code, problem(answer)) == (429, "rate:limited")
        assert answer.headers["retry-after"] == "1"
        assert [record["code"] for record in visit.since(before)] == ["rate:limited"]
        assert (await visit.status(by="watcher")).status_code == 200
        clock.advance(seconds=1)
        assert (await visit.status()).status_code == 200


async def test_deciding_has_a_rate_of_its_own(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    site.configure(extra="[limits]\ndecisions_per_second = 1\ndecision_burst = 1")
    async with visited(site, clock=HeldClock(wall_clock())) as visit:
        held = await visit.held()
        assert problem(await visit.decide(held, digest="sha256:" + "0" * 64)) == (
            "approval:digest-mismatch"
        )
        world = visit.world()
        assert problem(await visit.decide(held)) == "rate:limited"
        assert visit.world() == world
        assert (await visit.status()).status_code == 200
        assert (await visit.decide(held, "deny", by="erin")).status_code == 200


@pytest.mark.promise("c45")
async def test_a_flood_of_the_same_ask_is_one_request_and_one_prompt(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    async with visited(site) as visit:
        answers = await asyncio.gather(
            *(visit.ask("git.pull", site.pull()) for _ in range(60)), return_exceptions=False
        )
        held = [answer.json()["request_id"] for answer in answers if answer.status_code == 202]
        assert len(set(held)) == 1
        assert {answer.status_code for answer in answers} <= {202, 429}
        events = site.events()
        assert events.count("request.held") == 1
        assert events.count("request.attached") == len(held) - 1


# -- long polls -----------------------------------------------------------------------------------


async def test_a_long_poll_returns_when_its_request_is_decided(tmp_path: Path) -> None:
    async with visited(make_site(tmp_path / "site")) as visit:
        held = await visit.held()
        polls = visit.agent.pipeline.views._polls
        poll = asyncio.ensure_future(visit.look(held, wait=60))
        await until(lambda: polls["deployer"], "the long poll")
        await visit.decide(held, "deny")
        assert (await poll).json()["state"] == "denied"


async def test_a_long_poll_ends_when_its_time_is_over(tmp_path: Path) -> None:
    async with visited(make_site(tmp_path / "site")) as visit:
        held = await visit.held()
        loop = asyncio.get_running_loop()
        began = loop.time()
        shown = (await visit.look(held, wait=1)).json()
        assert shown["state"] == "pending"
        assert loop.time() - began >= 0.99


async def test_a_long_poll_is_a_minute_at_most(tmp_path: Path) -> None:
    async with visited(make_site(tmp_path / "site")) as visit:
        held = await visit.held()
        for wait in (61, 10**9):
            answer = await visit.look(held, wait=wait)
            assert (answer.status_code, problem(answer)) == (400, "request:invalid-parameter")
        for query in ("wait=-1", "wait=1.5", "wait=", "wait=1&wait=2", "Wait=1"):
            answer = await visit.who("deployer").get(f"/requests/{held['request_id']}?{query}")
            assert problem(answer) == "request:invalid-parameter", query


@pytest.mark.promise("c45")
async def test_the_seventeenth_long_poll_is_refused(tmp_path: Path) -> None:
    async with visited(make_site(tmp_path / "site")) as visit:
        held = await visit.held()
        polls = visit.agent.pipeline.views._polls
        waiting = [asyncio.ensure_future(visit.look(held, wait=60)) for _ in range(16)]
        await until(lambda: polls["deployer"] == 16, "sixteen long polls")
        answer = await visit.look(held, wait=60)
        assert (answer.status_code, problem(answer)) == (429, "rate:limited")
        assert answer.headers["retry-after"] == "5"
        assert (await visit.look(held)).status_code == 200
        assert (await visit.look(held, by="alice", wait=1)).status_code == 200
        await visit.decide(held, "deny")
        assert {(await poll).json()["state"] for poll in waiting} == {"denied"}
        assert not polls


async def test_a_long_poll_whose_client_has_gone_is_over(tmp_path: Path) -> None:
    async with visited(make_site(tmp_path / "site")) as visit:
        held = await visit.held()
        polls = visit.agent.pipeline.views._polls
        poll = asyncio.ensure_future(visit.look(held, wait=60))
        await until(lambda: polls["deployer"], "the long poll")
        poll.cancel()
        await asyncio.wait([poll])
        await until(lambda: not polls, "the end of the long poll")
