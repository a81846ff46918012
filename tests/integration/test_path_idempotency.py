"""One key, one answer: byte for byte, for two at once, after a restart, and not for everybody."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.site import RULES, Site, make_site
from tests.support.visit import Gate, Visit, problem, visited


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
async def visit(site: Site) -> AsyncIterator[Visit]:
    async with visited(site) as visit:
        yield visit


async def test_the_same_key_and_body_give_the_same_bytes_and_run_once(visit: Visit) -> None:
    fetch = {**visit.site.status(), "remote": "origin"}
    for operation, params in (
        ("git.status", visit.site.status()),
        ("git.pull", visit.site.pull()),
        ("git.fetch", fetch),
    ):
        first = await visit.ask(operation, params, key=operation)
        before = visit.sequence
        again = await visit.ask(operation, params, key=operation)
        assert again.content == first.content
        assert again.status_code == first.status_code
        assert again.headers.get("location") == first.headers.get("location")
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        assert visit.since(before) == []


async def test_another_body_under_the_same_key_is_a_conflict(visit: Visit) -> None:
    await visit.ask("git.pull", visit.site.pull(), key="k1")
    world = visit.world()
    for operation, params, reason in (
        ("git.pull", visit.site.pull(), "with a reason"),
        ("git.status", visit.site.status(), None),
    ):
        answer = await visit.ask(operation, params, reason=reason, key="k1")
        assert (answer.status_code, problem(answer)) == (409, "request:idempotency-conflict")
    assert visit.world() == world
    assert (await visit.status(by="watcher", key="k1")).status_code == 200  # its own key


async def test_a_malformed_key_is_refused(visit: Visit) -> None:
    client, world = visit.who("deployer"), visit.world()
    body = {"operation": "git.pull", "params": visit.site.pull()}
    for keys in (["a b"], ["k" * 65], [""], ["k1", "k2"]):
        headers = [("Idempotency-Key", key) for key in keys]
        answer = await client.post("/host/op", json=body, headers=headers)
        assert (answer.status_code, problem(answer)) == (400, "request:malformed"), keys
    assert visit.world() == world


async def test_a_second_with_the_same_key_waits_for_the_first(site: Site) -> None:
    with Gate(site, "status") as gate:
        async with visited(site) as visit:
            first = asyncio.ensure_future(visit.status(key="k1"))
            await gate.reached()
            second = asyncio.ensure_future(visit.status(key="k1"))
            other = await visit.ask("git.log", site.status(), key="k2")
            assert other.status_code == 200
            assert not second.done()
            gate.open()
            assert (await second).content == (await first).content
            assert site.events().count("operation.started") == 2


async def test_a_key_is_good_after_a_restart(site: Site) -> None:
    async with visited(site) as visit:
        read = await visit.status(key="k1")
        held = await visit.ask("git.pull", site.pull(), key="k2")
    async with visited(site) as visit:
        assert (await visit.status(key="k1")).content == read.content
        assert (await visit.ask("git.pull", site.pull(), key="k2")).content == held.content
        assert problem(await visit.status(key="k2")) == "request:idempotency-conflict"


async def test_refusals_are_not_stored(site: Site) -> None:
    site.configure(rules="")
    async with visited(site) as visit:
        assert problem(await visit.status(key="k1")) == "policy:no-rule"
        site.configure(rules=RULES)
        assert await visit.agent.reload()
        assert (await visit.status(key="k1")).status_code == 200


async def test_who_is_not_welcome_any_more_gets_no_stored_answer(visit: Visit) -> None:
    assert (await visit.status(key="k1")).status_code == 200
    visit.site.pki.revoke(visit.site.client("deployer"))
    await visit.agent.watch.look()
    answer = await visit.status(key="k1")
    assert (answer.status_code, problem(answer)) == (403, "identity:revoked")


async def test_what_policy_denies_by_now_gives_no_stored_answer(visit: Visit) -> None:
    assert (await visit.status(key="k1")).status_code == 200
    visit.site.configure(rules="")
    assert await visit.agent.reload()
    assert problem(await visit.status(key="k1")) == "policy:no-rule"
