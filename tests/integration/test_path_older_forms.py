"""The older body form and routes: the same operation, the same digest, the same pipeline."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.audit_files import HeldClock
from tests.support.certificates import wall_clock
from tests.support.site import make_site
from tests.support.visit import Visit, problem, visited


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    clock = HeldClock(wall_clock())
    async with visited(make_site(tmp_path / "site"), clock=clock) as visit:
        yield visit


async def older(visit: Visit, *args: str, by: str = "deployer", **metadata: str) -> httpx.Response:
    body = {
        "kind": "git",
        "resource": str(visit.site.repository.path),
        "args": list(args),
        "metadata": metadata,
    }
    return await visit.who(by).post("/host/op", json=body)


async def approve(
    visit: Visit, request_id: str, token: str, *, by: str = "alice"
) -> httpx.Response:
    body = {"approval_id": request_id, "token": token}
    return await visit.who(by).post("/approve", json=body)


async def test_a_read_of_the_older_form_runs_the_same(visit: Visit) -> None:
    typed = (await visit.status()).json()
    answer = await older(visit, "status")
    assert answer.status_code == 200
    assert answer.json()["digest"] == typed["digest"]
    assert answer.json()["outcome"]["data"] == typed["outcome"]["data"]
    log = await older(visit, "log", "1")
    assert len(log.json()["outcome"]["data"]["commits"]) == 1


async def test_an_ask_of_the_older_form_attaches_to_the_typed_one(visit: Visit) -> None:
    held = await visit.held(reason="deploy")
    again = await visit.held(reason="again")
    assert again["request_id"] == held["request_id"]
    answer = await older(visit, "pull", "origin", "main", reason="again")
    assert (answer.status_code, answer.json()) == (202, again)
    # Its token is taken, and carries no authority.
    answer = await older(visit, "pull", "origin", "main", approval_token=held["digest"])
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    assert "operation.started" not in visit.site.events()


async def test_the_older_form_is_refused_as_the_typed_one_is(visit: Visit) -> None:
    world = visit.world()
    for args, code in (
        (("push",), "request:unknown-operation"),
        (("status", "--porcelain"), "request:invalid-parameter"),
        (("pull", "origin"), "request:invalid-parameter"),
        (("pull", "--upload-pack=/bin/sh", "main"), "request:invalid-parameter"),
        (("pull", "upstream", "main"), "policy:denied"),
        (("reset", "main"), "request:reason-required"),
    ):
        assert problem(await older(visit, *args)) == code, args
    assert problem(await older(visit, "pull", "origin", "main", by="watcher")) == "policy:read-only"
    mixed = {"kind": "git", "args": ["status"], "operation": "git.status", "params": {}}
    assert problem(await visit.who("deployer").post("/host/op", json=mixed)) == "request:malformed"
    assert visit.world() == world


async def test_approving_by_the_digest_runs_it(visit: Visit) -> None:
    held = await visit.held()
    answer = await approve(visit, held["request_id"][:8], held["digest"])
    assert answer.status_code == 200
    done = await visit.ended(held)
    assert (done["state"], done["decisions"][0]["approver"]) == ("succeeded", "alice")
    again = await approve(visit, held["request_id"], held["digest"])
    assert (again.status_code, problem(again)) == (409, "approval:already-decided")
    assert again.json()["request"]["state"] == "succeeded"


async def test_approving_by_the_older_route_is_for_the_same_people(visit: Visit) -> None:
    held = await visit.held()
    world = visit.world()
    for by, code in (
        ("deployer", "identity:role-required"),
        ("bobs-phone", "approval:self-approval"),
        ("stranger", "identity:unknown"),
    ):
        answer = await approve(visit, held["request_id"], held["digest"], by=by)
        assert problem(answer) == code
    assert problem(await approve(visit, "f" * 32, held["digest"])) == "request:not-found"
    assert visit.world() == world


@pytest.mark.promise("c28")
async def test_five_wrong_tokens_mute_their_sender(visit: Visit) -> None:
    held = await visit.held()
    world = visit.world()
    digest = held["digest"]
    for wrong in ("ABCDEFGHJKLMNPQR", digest[:-1], digest.upper(), "", "sha256:" + "0" * 64):
        answer = await approve(visit, held["request_id"], wrong)
        assert (answer.status_code, problem(answer)) == (409, "approval:digest-mismatch")
    answer = await approve(visit, held["request_id"], digest)
    assert (answer.status_code, problem(answer)) == (429, "rate:limited")
    assert int(answer.headers["retry-after"]) == 600
    assert visit.world() == world
    codes = [record["code"] for record in visit.site.records() if "code" in record]
    assert codes == ["approval:digest-mismatch"] * 5 + ["rate:limited"]
    assert (await approve(visit, held["request_id"], digest, by="erin")).status_code == 200


async def test_pending_is_ones_own_and_admin_pending_is_everybodys(visit: Visit) -> None:
    held = await visit.held()

    async def ids(by: str, path: str) -> list[str]:
        answer = await visit.who(by).get(path)
        return [entry["request_id"] for entry in answer.json()["requests"]]

    assert await ids("deployer", "/pending") == [held["request_id"]]
    assert await ids("robot", "/pending") == []
    assert await ids("alice", "/pending") == []
    assert await ids("root-admin", "/admin/pending") == [held["request_id"]]
    for by in ("deployer", "alice"):
        assert problem(await visit.who(by).get("/admin/pending")) == "identity:role-required"
    await visit.decide(held, "deny")
    assert await ids("deployer", "/pending") == await ids("root-admin", "/admin/pending") == []
