"""What breaks under a serving agent: audit file, clock, revocation, target, store."""

import asyncio
import contextlib
import errno
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from host_agent.clock import SystemClock
from tests.support.certificates import wall_clock
from tests.support.site import IDENTITIES, RULES, Site, make_site
from tests.support.visit import Gate, Visit, problem, require_whole, until, visited


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
async def visit(site: Site) -> AsyncIterator[Visit]:
    async with visited(site, sync_fails=True) as visit:
        yield visit


# -- the audit log --------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(visit: Visit) -> Iterator[None]:
    """Let every sync of the audit file fail."""

    def no_room(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = visit.agent._audit._file
    sync, file._fsync = file._fsync, no_room
    try:
        yield
    finally:
        file._fsync = sync


@pytest.mark.promise("c4")
async def test_without_room_for_the_log_nothing_runs_and_it_recovers_alone(
    visit: Visit,
) -> None:
    held = await visit.held()
    repository = visit.site.repository.snapshot()
    with full_disk(visit):
        for operation, params, by in (
            ("git.status", visit.site.status(), "deployer"),
            ("git.fetch", {**visit.site.status(), "remote": "origin"}, "deployer"),
            ("git.pull", visit.site.pull(), "robot"),
            ("git.switch", {**visit.site.status(), "branch": "topic"}, "deployer"),
        ):
            answer = await visit.ask(operation, params, by=by)
            assert (answer.status_code, problem(answer)) == (503, "audit:unavailable"), operation
        answer = await visit.decide(held)
        assert (answer.status_code, problem(answer)) == (503, "audit:unavailable")
        ready = await visit.who("alice").get("/ready")
        assert (ready.status_code, ready.json()["audit"]) == (503, "cannot be written")
    assert visit.site.repository.snapshot() == repository
    assert (await visit.status()).status_code == 200
    assert (await visit.who("alice").get("/ready")).status_code == 200
    # The yes that could not be written down was none, and the same may be asked again.
    assert (await visit.look(held)).json()["state"] == "failed"
    again = await visit.held()
    await visit.decide(again)
    assert (await visit.ended(again))["state"] == "succeeded"


@pytest.mark.promise("c4")
async def test_what_has_happened_is_told_where_its_end_cannot_be_written(site: Site) -> None:
    with Gate(site, "status") as gate:
        async with visited(site, sync_fails=True) as visit:
            asking = asyncio.ensure_future(visit.status())
            await gate.reached()
            with full_disk(visit):
                gate.open()
                answer = await asking
            assert answer.status_code == 200
            assert answer.json()["outcome"]["audited"] is False


@pytest.mark.promise("c6")
@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
async def test_a_log_that_is_taken_away_is_noticed_and_the_chain_goes_on(
    site: Site, how: str
) -> None:
    path, aside = site.audit_path, site.audit_path.with_name("audit-0.jsonl")
    async with visited(site) as visit:
        await visit.status()
        last = site.records()[-1]
        if how == "removed":
            path.unlink()
        else:
            path.rename(aside)
        if how == "replaced":
            path.write_text("")
        assert (await visit.status()).status_code == 200
        rotated, started, finished = site.records()[-3:]
        assert (rotated["event"], rotated["previous"]) == ("audit.rotated", last["hash"])
        assert rotated["cause"] == {"removed": "unlinked"}.get(how, how)
        assert [started["event"], finished["event"]] == ["operation.started", "operation.finished"]
        assert rotated["sequence"] == last["sequence"] + 1


# -- the clock ------------------------------------------------------------------------------------


class Shifted:
    """A host whose wall clock can be set; `spent` moves both clocks on."""

    def __init__(self) -> None:
        self.set_by = self.spent = 0.0
        base = wall_clock().timestamp()
        self.clock = SystemClock(
            wall=lambda: base + self.set_by + self.spent, monotonic=lambda: 1000.0 + self.spent
        )


@pytest.mark.promise("c8")
@pytest.mark.parametrize("hours", [-1, -24 * 365 * 50])
async def test_a_clock_set_back_revives_nothing(site: Site, hours: int) -> None:
    host = Shifted()
    async with visited(site, clock=host.clock) as visit:
        held = await visit.held()
        host.set_by = hours * 3600.0
        host.spent = 1799.0
        assert (await visit.look(held)).json()["state"] == "pending"
        host.spent = 1800.0
        assert problem(await visit.decide(held)) == "approval:expired"
        host.set_by -= 3600.0
        assert (await visit.look(held)).json()["state"] == "expired"
        await visit.agent.watch.look()
        jumped = [record for record in site.records() if record["event"] == "clock.jumped"]
        # The agent looks by itself as well, perhaps in between.
        assert sum(record["seconds"] for record in jumped) == hours * 3600 - 3600
        times = [record["time"] for record in site.records()]
        assert times == sorted(times)
        assert "operation.started" not in site.events()


@pytest.mark.promise("c8")
async def test_a_clock_set_forward_accepts_nothing_late(site: Site) -> None:
    host = Shifted()
    async with visited(site, clock=host.clock) as visit:
        held = await visit.held()
        host.set_by = 3600.0
        answer = await visit.decide(held)
        assert (answer.status_code, problem(answer)) == (410, "approval:expired")
        host.set_by = 0.0
        assert (await visit.look(held)).json()["state"] == "expired"
        assert "operation.started" not in site.events()


@pytest.mark.promise("c8")
async def test_a_clock_set_back_while_the_agent_is_down_revives_nothing(site: Site) -> None:
    host = Shifted()
    async with visited(site, clock=host.clock) as visit:
        held = await visit.held()
        host.spent = 1799.0
        await visit.status(key="later")  # so that the store knows how late it is
        await visit.decide(await other(visit), "deny")
    host = Shifted()
    host.set_by = -240.0  # the certificates are good then as well
    async with visited(site, clock=host.clock) as visit:
        assert (await visit.look(held)).json()["state"] == "pending"
        host.spent = 1.0
        assert problem(await visit.decide(held)) == "approval:expired"


async def other(visit: Visit) -> dict[str, object]:
    """Return another held request."""
    params = {**visit.site.status(), "branch": "topic"}
    body: dict[str, object] = (await visit.ask("git.switch", params)).json()
    return body


# -- revocation -----------------------------------------------------------------------------------


def local_port(answer: object) -> int:
    stream = answer.extensions["network_stream"]  # type: ignore[attr-defined]
    return int(stream.get_extra_info("client_addr")[1])


@pytest.mark.promise("c9")
async def test_revocation_bites_on_the_next_request_of_an_open_connection(
    visit: Visit,
) -> None:
    held = await visit.held()
    first = await visit.status()
    world = visit.site.repository.snapshot()
    visit.site.pki.revoke(visit.site.client("deployer"))
    await visit.agent.watch.look()
    answer = await visit.status()
    assert (answer.status_code, problem(answer)) == (403, "identity:revoked")
    assert local_port(answer) == local_port(first)
    refused = visit.site.records()[-1]
    assert (refused["event"], refused["code"]) == ("identity.refused", "identity:revoked")
    assert refused["caller"] == "deployer"
    seen = (await visit.look(held, by="alice")).json()
    assert (seen["state"], seen["problem"]["code"]) == ("cancelled", "identity:revoked")
    assert problem(await visit.decide(held)) == "approval:already-decided"
    assert visit.site.repository.snapshot() == world
    assert (await visit.status(by="watcher")).status_code == 200


@pytest.mark.promise("c9")
async def test_the_list_is_looked_at_by_itself(visit: Visit) -> None:
    assert (await visit.status()).status_code == 200
    visit.site.pki.revoke(visit.site.client("deployer"))
    await until(lambda: visit.site.events()[-1] == "config.loaded", "the new list")
    assert problem(await visit.status()) == "identity:revoked"


@pytest.mark.promise("c9")
async def test_a_revoked_identity_stops_waiting(visit: Visit) -> None:
    held = await visit.held()
    polls = visit.agent.pipeline.views._polls
    poll = asyncio.ensure_future(visit.look(held, wait=60))
    theirs = asyncio.ensure_future(visit.look(held, by="alice", wait=60))
    await until(lambda: len(polls) == 2, "the long polls")
    visit.site.pki.revoke(visit.site.client("deployer"))
    await visit.agent.watch.look()  # cancels the request, which wakes both
    assert problem(await poll) == "identity:revoked"
    assert (await theirs).json()["state"] == "cancelled"


@pytest.mark.promise("c9")
async def test_an_identity_that_is_removed_is_unknown_on_its_next_request(
    visit: Visit,
) -> None:
    held = await visit.held()
    visit.site.configure(identities=IDENTITIES.replace('"deployer"', '"somebody"'))
    assert await visit.agent.reload()
    assert problem(await visit.status()) == "identity:unknown"
    seen = (await visit.look(held, by="alice")).json()
    assert (seen["state"], seen["problem"]["code"]) == ("cancelled", "identity:unknown")


# -- what was approved is what runs ---------------------------------------------------------------


def push_once_more(site: Site) -> None:
    site.repository.push_elsewhere(text="once more\n")


def step_back(site: Site) -> None:
    site.repository.git("reset", "-q", "--hard", "HEAD~1")


def change_wrapper(site: Site) -> None:
    wrapper = site.directory / "wrappers" / "git"
    fresh = wrapper.with_suffix(".new")
    fresh.write_bytes(wrapper.read_bytes() + b"# changed\n")
    fresh.chmod(0o755)
    fresh.rename(wrapper)


def change_rule(site: Site) -> None:
    site.configure(rules=RULES.replace("pulling needs a person", "pulling needs somebody"))


def change_identity(site: Site) -> None:
    site.configure(identities=IDENTITIES.replace('owner = "bob"', 'owner = "bobby"'))


def change_section(site: Site) -> None:
    site.configure(branches=("main",))


CHANGES: dict[str, Callable[[Site], None]] = {
    "remote": push_once_more,
    "head": step_back,
    "wrapper": change_wrapper,
    "policy": change_rule,
    "identity": change_identity,
    "section": change_section,
}


@pytest.mark.promise("c27")
@pytest.mark.parametrize("what", CHANGES)
async def test_what_changes_after_the_ask_is_not_run_over(visit: Visit, what: str) -> None:
    held = await visit.held()
    CHANGES[what](visit.site)
    assert await visit.agent.reload()
    repository = visit.site.repository.snapshot()
    answer = await visit.decide(held)
    assert (answer.status_code, problem(answer)) == (409, "approval:target-changed")
    assert answer.json()["request"]["state"] == "failed"
    seen = (await visit.look(held)).json()
    assert (seen["outcome"], seen["problem"]["code"]) == (None, "approval:target-changed")
    assert visit.site.repository.snapshot() == repository
    assert "operation.started" not in visit.site.events()


@pytest.mark.promise("c27")
@pytest.mark.parametrize("what", CHANGES)
async def test_what_changes_after_the_approval_is_not_run_over(site: Site, what: str) -> None:
    with Gate(site, "fetch") as gate:
        async with visited(site) as visit:
            held = await visit.held()
            fetch = {**site.status(), "remote": "origin"}
            fetching = asyncio.ensure_future(visit.ask("git.fetch", fetch, by="robot"))
            await gate.reached()  # the repository's turn is taken
            assert (await visit.decide(held)).json()["state"] == "approved"
            CHANGES[what](site)
            assert await visit.agent.reload()
            gate.open()
            await fetching
            seen = await visit.ended(held)
            assert (seen["state"], seen["outcome"]) == ("failed", None)
            assert seen["problem"]["code"] == "approval:target-changed"
            started = [r for r in site.records() if r["event"] == "operation.started"]
            assert [record["operation"] for record in started] == ["git.fetch"]


@pytest.mark.promise("c27")
async def test_a_branch_that_has_left_its_remote_meanwhile_is_not_run_over(
    visit: Visit,
) -> None:
    """The second look cannot say what would happen: git's own refusal is told then."""
    held = await visit.held()
    visit.site.repository.git("fetch", "-q", "origin")
    mine = visit.site.repository.commit("other.txt")
    await visit.decide(held)
    seen = await visit.ended(held)
    assert (seen["state"], seen["outcome"]) == ("failed", None)
    assert seen["problem"]["code"] == "host:failed"
    assert "fast-forwarded" in seen["problem"]["detail"]
    assert visit.site.repository.head == mine
    assert "operation.started" not in visit.site.events()


@pytest.mark.promise("c27")
async def test_a_reload_that_changes_nothing_for_it_leaves_it_alone(visit: Visit) -> None:
    """The twin: other limits, and one more identity."""
    held = await visit.held()
    visit.site.configure(
        extra="[limits]\nask_burst = 7",
        identities=IDENTITIES + '[[identities]]\ncn = "newcomer"\nowner = "zoe"\n',
    )
    assert await visit.agent.reload()
    await visit.decide(held)
    assert (await visit.ended(held))["state"] == "succeeded"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (
            {"rules": RULES.replace('verdict = "ask"', 'verdict = "deny"', 1)},
            "policy:denied",
        ),
        (
            {"identities": IDENTITIES.replace('"bob"', '"bob"\nautonomy = "read_only"')},
            "policy:read-only",
        ),
    ],
    ids=["deny", "read only"],
)
async def test_what_policy_denies_by_now_is_cancelled(
    visit: Visit, changed: dict[str, str], code: str
) -> None:
    held = await visit.held()
    visit.site.configure(**changed)
    assert await visit.agent.reload()
    decided = (await visit.decide(held)).json()
    assert (decided["state"], decided["problem"]["code"]) == ("cancelled", code)
    assert "operation.started" not in visit.site.events()


# -- the store ------------------------------------------------------------------------------------


@pytest.mark.promise("c46")
async def test_a_locked_store_refuses_and_loses_nothing(visit: Visit) -> None:
    held = await visit.held()
    repository = visit.site.repository.snapshot()
    with contextlib.closing(sqlite3.connect(visit.site.store_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(
            visit.ask("git.switch", {**visit.site.status(), "branch": "topic"}),
            visit.ask("git.fetch", {**visit.site.status(), "remote": "origin"}, by="robot"),
            visit.decide(held),
            visit.cancel(held),
        )
        for answer in answers:
            assert (answer.status_code, problem(answer)) == (503, "store:unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert (await visit.look(held)).json()["state"] == "pending"
        assert (await visit.status()).status_code == 200  # a read needs no row
        other.execute("ROLLBACK")
    assert visit.site.repository.snapshot() == repository
    await visit.decide(held)
    assert (await visit.ended(held))["state"] == "succeeded"


@pytest.mark.promise("c46")
async def test_a_store_that_is_replaced_is_not_written(site: Site) -> None:
    async with visited(site) as visit:
        held = await visit.held()
        aside = site.store_path.with_suffix(".aside")
        site.store_path.rename(aside)
        site.store_path.write_bytes(aside.read_bytes())
        answer = await visit.decide(held)
        assert (answer.status_code, problem(answer)) == (503, "store:unavailable")
        ready = await visit.who("alice").get("/ready")
        assert ready.status_code == 503
        assert ready.json()["code"] == "store:unavailable"
        aside.rename(site.store_path)
        assert (await visit.who("alice").get("/ready")).status_code == 200
        await visit.decide(held)
        assert (await visit.ended(held))["state"] == "succeeded"
    require_whole(site)


async def test_metrics_are_shown_while_the_store_cannot_be_read(visit: Visit) -> None:
    await visit.held()
    counted = 'host_agent_refusals_total{code="store:unavailable"}'
    async with httpx.AsyncClient(base_url=visit.agent.metrics_address) as scraper:
        visit.site.store_path.rename(visit.site.store_path.with_suffix(".aside"))
        assert (await scraper.get("/ready")).status_code == 503
        scraped = await scraper.get("/metrics")
        assert scraped.status_code == 200
        assert "host_agent_requests_pending 1.0" in scraped.text
        held = await visit.ask("git.switch", {**visit.site.status(), "branch": "topic"})
        assert (held.status_code, problem(held)) == (503, "store:unavailable")
        assert f"{counted} 1.0" in (await scraper.get("/metrics")).text
