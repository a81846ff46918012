"""The way of a request, end to end: asked for, held, decided, run, probed, told, written down."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.audit_files import HeldClock
from tests.support.certificates import wall_clock
from tests.support.site import IDENTITIES, RULES, make_site
from tests.support.visit import Visit, problem, rows, visited


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    async with visited(make_site(tmp_path / "site")) as visit:
        yield visit


# -- allow ----------------------------------------------------------------------------------------


async def test_an_allowed_read_is_answered_with_its_data(visit: Visit) -> None:
    world = visit.world()
    answer = await visit.status()
    body = answer.json()
    assert answer.status_code == 200
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["outcome"]["data"]["branch"]["name"] == "main"
    assert body["outcome"]["data"]["branch"]["commit"] == visit.site.repository.head
    assert visit.site.events()[-2:] == ["operation.started", "operation.finished"]
    assert visit.world() == world


async def test_an_allowed_change_is_run_with_a_durable_row(visit: Visit) -> None:
    tip = visit.site.repository.push_elsewhere()
    params = {**visit.site.status(), "remote": "origin"}
    answer = await visit.ask("git.fetch", params)
    assert answer.status_code == 200
    assert visit.site.repository.git("rev-parse", "refs/remotes/origin/main") == tip
    shown = (await visit.look(answer.json())).json()
    assert (shown["state"], shown["decisions"]) == ("succeeded", [])
    assert len(rows(visit.site.store_path)) == 1


async def test_full_autonomy_runs_what_others_must_ask_for(visit: Visit) -> None:
    answer = await visit.ask("git.pull", visit.site.pull(), by="robot")
    assert answer.status_code == 200
    assert answer.json()["outcome"]["verified"] is True


@pytest.mark.parametrize("by", ["watcher", "stranger"])
async def test_who_may_not_change_anything_does_not(visit: Visit, by: str) -> None:
    world = visit.world()
    answer = await visit.ask("git.pull", visit.site.pull(), by=by)
    assert problem(answer) in {"policy:read-only", "identity:unknown"}
    assert visit.world() == world


# -- ask ------------------------------------------------------------------------------------------


async def test_a_held_pull_is_approved_run_once_and_verified(visit: Visit) -> None:
    repository = visit.site.repository
    before = repository.head
    asked = await visit.ask("git.pull", visit.site.pull(), reason="deploy the fix")
    held = asked.json()
    assert asked.status_code == 202
    assert asked.headers["location"] == f"/requests/{held['request_id']}"
    assert asked.headers["retry-after"] == str(held["poll_after_seconds"])
    assert repository.head == before
    seen = (await visit.look(held, by="alice")).json()
    assert (seen["caller"], seen["owner"], seen["reason"]) == ("deployer", "bob", "deploy the fix")
    assert seen["params"] == visit.site.pull()
    assert seen["precondition"]["head"] == before
    decided = await visit.decide(held, reason="fine")
    assert decided.status_code == 200
    assert decided.json()["decisions"][0]["approver"] == "alice"
    done = await visit.ended(held)
    assert (done["state"], done["outcome"]["verified"]) == ("succeeded", True)
    assert repository.head == seen["precondition"]["target"] != before
    assert visit.site.events()[-6:] == [
        "operation.inspected",
        "request.held",
        "request.decided",
        "operation.inspected",
        "operation.started",
        "operation.finished",
    ]
    digests = {r["digest"] for r in visit.site.records()[-6:] if "digest" in r}
    assert digests == {held["digest"]}


async def test_a_denied_pull_does_not_run(visit: Visit) -> None:
    held = await visit.held()
    repository = visit.site.repository.snapshot()
    decided = await visit.decide(held, "deny", by="erin", reason="not now")
    assert (decided.status_code, decided.json()["state"]) == (200, "denied")
    seen = (await visit.look(held)).json()
    assert seen["problem"]["code"] == "approval:denied"
    assert seen["decisions"][0]["reason"] == "not now"
    assert visit.site.repository.snapshot() == repository
    assert "operation.started" not in visit.site.events()


async def test_a_failed_change_is_told_with_its_output(visit: Visit) -> None:
    visit.site.repository.write("file.txt", "work in progress\n")
    held = await visit.held()
    await visit.decide(held)
    done = await visit.ended(held)
    assert (done["state"], done["problem"]["code"]) == ("failed", "host:failed")
    assert "overwritten" in done["outcome"]["stderr"]
    assert (visit.site.repository.path / "file.txt").read_text() == "work in progress\n"


async def test_a_quorum_needs_two_owners_and_a_reason(visit: Visit) -> None:
    repository = visit.site.repository
    lost = repository.commit()
    params = {**visit.site.status(), "ref": "topic"}
    assert problem(await visit.ask("git.reset", params)) == "request:reason-required"
    asked = await visit.ask("git.reset", params, reason="undo")
    held = asked.json()
    first = await visit.decide(held)
    assert (first.json()["state"], first.json()["approvals"]["given"]) == ("pending", 1)
    assert problem(await visit.decide(held)) == "approval:already-decided"
    assert repository.head == lost
    await visit.decide(held, by="erin")
    assert (await visit.ended(held))["state"] == "succeeded"
    assert repository.head != lost


async def test_one_denial_ends_a_quorum(visit: Visit) -> None:
    params = {**visit.site.status(), "ref": "topic"}
    held = (await visit.ask("git.reset", params, reason="undo")).json()
    repository = visit.site.repository.snapshot()
    await visit.decide(held)
    assert (await visit.decide(held, "deny", by="erin")).json()["state"] == "denied"
    assert problem(await visit.decide(held, by="root-admin")) == "approval:already-decided"
    assert visit.site.repository.snapshot() == repository


# -- who counts -----------------------------------------------------------------------------------


@pytest.mark.promise("c33")
async def test_nobody_approves_their_own_with_another_certificate(visit: Visit) -> None:
    """bobs-phone is owner `Bob`, deployer is owner `bob`."""
    held = await visit.held()
    world = visit.world()
    for decision in ("approve", "deny"):
        answer = await visit.decide(held, decision, by="bobs-phone")
        assert (answer.status_code, problem(answer)) == (403, "approval:self-approval")
    assert visit.world() == world
    refused = visit.site.records()[-1]
    assert (refused["code"], refused["caller"]) == ("approval:self-approval", "bobs-phone")
    assert refused["digest"] == held["digest"]


@pytest.mark.promise("c33")
async def test_an_admin_is_not_exempt(tmp_path: Path) -> None:
    identities = IDENTITIES.replace('owner = "frank"', 'owner = "BOB"')
    async with visited(make_site(tmp_path / "site", identities=identities)) as visit:
        held = await visit.held()
        answer = await visit.decide(held, by="root-admin")
        assert problem(answer) == "approval:self-approval"
        assert "operation.started" not in visit.site.events()


@pytest.mark.parametrize(
    "terms", ['approvers = ["erin"]', 'approver_role = "admin"'], ids=["named", "role"]
)
async def test_only_who_the_rule_asks_for_counts(tmp_path: Path, terms: str) -> None:
    rules = RULES.replace('verdict = "ask"', f'verdict = "ask"\n{terms}', 1)
    async with visited(make_site(tmp_path / "site", rules=rules)) as visit:
        held = await visit.held()
        world = visit.world()
        answer = await visit.decide(held, by="alice")
        assert (answer.status_code, problem(answer)) == (403, "identity:role-required")
        assert visit.world() == world


async def test_callers_do_not_decide(visit: Visit) -> None:
    held = await visit.held()
    world = visit.world()
    for by in ("deployer", "robot"):
        assert problem(await visit.decide(held, by=by)) == "identity:role-required"
    assert visit.world() == world


@pytest.mark.promise("c28")
async def test_an_approval_is_for_one_digest(visit: Visit) -> None:
    held = await visit.held()
    world = visit.world()
    digest = held["digest"]
    for wrong, code in (
        ("sha256:" + "0" * 64, "approval:digest-mismatch"),
        (digest[:-1], "request:malformed"),
        (digest.upper(), "request:malformed"),
        (None, "request:invalid-parameter"),
    ):
        assert problem(await visit.decide(held, digest=wrong)) == code
    assert visit.world() == world


async def test_a_second_decision_shows_the_request(visit: Visit) -> None:
    held = await visit.held()
    await visit.decide(held, "deny")
    answer = await visit.decide(held, by="erin")
    assert (answer.status_code, problem(answer)) == (409, "approval:already-decided")
    assert answer.json()["request"]["state"] == "denied"
    assert answer.json()["request"]["decisions"][0]["approver"] == "alice"


async def test_every_id_may_be_shortened_while_it_is_unique(visit: Visit) -> None:
    held = await visit.held()
    short = {**held, "request_id": held["request_id"][:6]}
    assert (await visit.look(short)).json()["request_id"] == held["request_id"]
    assert (await visit.decide(short, "deny")).status_code == 200
    for wrong in ("ffffffffff", "not-hex", "%2e%2e"):
        assert problem(await visit.look({"request_id": wrong})) == "request:not-found"


# -- cancel and expire ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["deployer", "root-admin"])
async def test_its_caller_or_an_admin_withdraws_a_request(visit: Visit, by: str) -> None:
    held = await visit.held()
    answer = await visit.cancel(held, by=by)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert problem(await visit.decide(held)) == "approval:already-decided"
    assert problem(await visit.cancel(held, by=by)) == "approval:already-decided"
    record = [r for r in visit.site.records() if r["event"] == "request.cancelled"][-1]
    assert record["cancelled_by"] == by


async def test_a_stranger_neither_sees_nor_withdraws_it(visit: Visit) -> None:
    held = await visit.held()
    world = visit.world()
    for by in ("watcher", "robot"):
        assert problem(await visit.look(held, by=by)) == "request:not-found"
        assert problem(await visit.cancel(held, by=by)) == "request:not-found"
    assert problem(await visit.cancel(held, by="alice")) == "request:not-found"
    assert visit.world() == world


async def test_an_expired_request_is_gone_for_everybody(tmp_path: Path) -> None:
    clock = HeldClock(wall_clock())
    async with visited(make_site(tmp_path / "site"), clock=clock) as visit:
        held = await visit.held()
        clock.advance(minutes=30, microseconds=-1)
        assert (await visit.look(held)).json()["state"] == "pending"
        clock.advance(microseconds=1)
        answer = await visit.decide(held)
        assert (answer.status_code, problem(answer)) == (410, "approval:expired")
        seen = (await visit.look(held)).json()
        assert (seen["state"], seen["problem"]["code"]) == ("expired", "approval:expired")
        assert "Ask again" in seen["problem"]["detail"]
        assert visit.site.events().count("request.expired") == 1
        assert "operation.started" not in visit.site.events()


# -- the same again -------------------------------------------------------------------------------


async def test_the_same_ask_attaches_while_it_waits(visit: Visit) -> None:
    first = await visit.held(reason="deploy")
    again = await visit.held(reason="please")
    assert {**again, "message": ""} == {**first, "message": ""}
    assert "People see the reason that it was first asked with" in again["message"]
    assert (await visit.look(first)).json()["reason"] == "deploy"
    assert visit.site.steps()[-2:] == ["request.held", "request.attached"]


async def test_another_caller_gets_a_request_of_its_own(tmp_path: Path) -> None:
    plain = IDENTITIES.replace('autonomy = "full"\nskip_ask = true', "")
    async with visited(make_site(tmp_path / "site", identities=plain)) as visit:
        mine, yours = await visit.held(), await visit.held(by="robot")
        assert mine["request_id"] != yours["request_id"]
        assert mine["digest"] != yours["digest"]
        assert problem(await visit.look(mine, by="robot")) == "request:not-found"


async def test_the_same_request_for_another_commit_supersedes_the_older_one(visit: Visit) -> None:
    older = await visit.held()
    visit.site.repository.push_elsewhere(text="once more\n")
    newer = await visit.held()
    assert newer["request_id"] != older["request_id"]
    seen = (await visit.look(older)).json()
    assert (seen["state"], seen["problem"]["code"]) == ("cancelled", "approval:target-changed")
    assert problem(await visit.decide(older)) == "approval:already-decided"
    assert visit.site.steps()[-3:-1] == ["request.cancelled", "request.held"]


async def test_after_a_denial_it_is_a_new_request(visit: Visit) -> None:
    first = await visit.held()
    await visit.decide(first, "deny")
    second = await visit.held()
    assert second["request_id"] != first["request_id"]
    assert second["digest"] == first["digest"]


# -- who sees the output --------------------------------------------------------------------------


async def test_output_is_for_the_caller_admins_and_those_who_decided(visit: Visit) -> None:
    held = await visit.held()
    await visit.decide(held)
    await visit.ended(held)
    for by in ("deployer", "root-admin", "alice"):
        outcome = (await visit.look(held, by=by)).json()["outcome"]
        assert "Fast-forward" in outcome["stdout"]
    assert (await visit.look(held, by="erin")).json()["outcome"] == {
        "exit_code": 0,
        "verified": True,
    }
    for by in ("deployer", "alice", "root-admin"):
        assert '"stdout"' not in (await visit.who(by).get("/requests")).text


async def test_listings_are_ones_own_or_everything(visit: Visit) -> None:
    held = await visit.held()

    async def ids(by: str, path: str) -> list[str]:
        answer = await visit.who(by).get(path)
        return [entry["request_id"] for entry in answer.json()["requests"]]

    assert await ids("deployer", "/requests") == [held["request_id"]]
    assert await ids("robot", "/requests") == []
    assert await ids("alice", "/requests?state=pending") == [held["request_id"]]
    assert await ids("alice", "/requests?state=denied") == []
    for query in ("state=open", "limit=0", "limit=201", "limit=x", "cursor=x", "who=me"):
        answer = await visit.who("alice").get(f"/requests?{query}")
        assert problem(answer) == "request:invalid-parameter", query


# -- a client that goes away ----------------------------------------------------------------------


async def test_a_client_that_goes_away_does_not_stop_its_operation(visit: Visit) -> None:
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(visit.ask("git.pull", visit.site.pull(), by="robot"))
        while "operation.started" not in visit.site.events():
            await asyncio.sleep(0)
        asking.cancel()
    await visit.settle()
    finished = visit.site.records()[-1]
    assert finished["event"] == "operation.finished"
    assert finished["outcome"]["state"] == "succeeded"
    assert visit.site.repository.head == visit.site.repository.git("rev-parse", "origin/main")
