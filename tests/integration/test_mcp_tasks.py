"""Tasks over MCP: a held request is the task, for clients that declare them and for no others."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY

from host_agent.mcp.tasks import IDENTIFIER
from tests.support.mcp_client import LEGACY, about_task, as_task, inside, members
from tests.support.site import make_site
from tests.support.visit import Visit, rows, visited


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    async with visited(make_site(tmp_path / "site")) as visit:
        yield visit


async def task_of(client: Client, visit: Visit) -> dict[str, Any]:
    """Ask for a pull, and return the task that it is answered with."""
    return await as_task(client, "git_pull", visit.site.pull())


async def test_what_is_held_is_a_task_with_the_requests_own_id(visit: Visit) -> None:
    async with inside(visit.site, visit.url, tasks=True) as client:
        task = await task_of(client, visit)
        assert task["status"] == "working"
        assert task["pollIntervalMs"] > 0
        assert "Nothing has run" in task["statusMessage"]
        seen = (await visit.who("deployer").get(f"/requests/{task['taskId']}")).json()
        assert (seen["request_id"], seen["state"]) == (task["taskId"], "pending")
        assert (await task_of(client, visit))["taskId"] == task["taskId"]
        shown = await about_task(client, "tasks/get", task["taskId"])
        assert (shown["resultType"], shown["status"]) == ("complete", "working")
        assert len(rows(visit.site.store_path)) == 1


async def test_a_task_ends_with_the_result_of_the_one_run(visit: Visit) -> None:
    async with inside(visit.site, visit.url, tasks=True) as client:
        before = visit.site.repository.head
        task = await task_of(client, visit)
        held = (await visit.who("deployer").get(f"/requests/{task['taskId']}")).json()
        await visit.decide(held)
        await visit.ended(held)
        shown = await about_task(client, "tasks/get", task["taskId"])
        assert shown["status"] == "completed"
        assert shown["result"]["structuredContent"]["state"] == "succeeded"
        assert not shown["result"].get("isError")
        assert await about_task(client, "tasks/get", task["taskId"]) | {"result": {}} == shown | {
            "result": {}
        }
        assert visit.site.repository.head != before
        assert visit.site.events().count("operation.started") == 1


async def test_a_denied_task_is_completed_with_an_error_and_nothing_has_run(visit: Visit) -> None:
    async with inside(visit.site, visit.url, tasks=True) as client:
        task = await task_of(client, visit)
        world = visit.site.repository.snapshot()
        held = (await visit.who("deployer").get(f"/requests/{task['taskId']}")).json()
        await visit.decide(held, "deny", reason="no")
        shown = await about_task(client, "tasks/get", task["taskId"])
        assert shown["status"] == "completed"
        assert shown["result"]["isError"] is True
        assert shown["result"]["structuredContent"]["code"] == "approval:denied"
        assert visit.site.repository.snapshot() == world


async def test_a_task_is_cancelled_once_and_for_all(visit: Visit) -> None:
    async with inside(visit.site, visit.url, tasks=True) as client:
        task = await task_of(client, visit)
        held = (await visit.who("deployer").get(f"/requests/{task['taskId']}")).json()
        for _ in range(2):
            await about_task(client, "tasks/cancel", task["taskId"])
        assert (await about_task(client, "tasks/get", task["taskId"]))["status"] == "cancelled"
        assert (await visit.decide(held)).status_code == 409
        assert "operation.started" not in visit.site.events()


async def test_a_task_takes_no_input_and_no_consent_of_its_client(visit: Visit) -> None:
    async with inside(visit.site, visit.url, tasks=True) as client:
        task = await task_of(client, visit)
        assert set(await about_task(client, "tasks/update", task["taskId"])) <= {
            "resultType",
            "_meta",
        }
        assert (await about_task(client, "tasks/get", task["taskId"]))["status"] == "working"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_what_is_no_task_of_this_certificate_is_not_found(visit: Visit, method: str) -> None:
    async with inside(visit.site, visit.url, tasks=True) as client:
        task = await task_of(client, visit)
        foreign = await visit.ask(
            "git.fetch", {**visit.site.status(), "remote": "origin"}, by="robot"
        )
        others = foreign.json()["request_id"]
        for task_id in ("f" * 32, "no id", task["taskId"][:8], others):
            with pytest.raises(MCPError) as refused:
                await about_task(client, method, task_id)
            assert refused.value.code == INVALID_PARAMS
        assert (await about_task(client, "tasks/get", task["taskId"]))["status"] == "working"


async def test_what_runs_or_is_refused_at_once_is_no_task(visit: Visit) -> None:
    async with inside(visit.site, visit.url, tasks=True) as client:
        done = members(await client.call_tool("git_status", visit.site.status()))
        assert done["state"] == "succeeded"
        refused = await client.call_tool("git_status", {"repository": "/etc"})
        assert refused.is_error
        assert members(refused)["code"] == "policy:denied"
        mine = members(await client.call_tool("my_requests", {}))
        assert mine["requests"] == []


async def test_tasks_are_for_who_declares_them_in_the_era_that_knows_them(visit: Visit) -> None:
    async with inside(visit.site, visit.url, era="auto", tasks=True) as knows:
        assert knows.server_capabilities.extensions == {IDENTIFIER: {}}
        task = await task_of(knows, visit)
    async with inside(visit.site, visit.url) as silent:
        assert members(await silent.call_tool("git_pull", visit.site.pull()))["state"] == "pending"
        with pytest.raises(MCPError) as undeclared:
            await about_task(silent, "tasks/get", task["taskId"])
        assert undeclared.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
    async with inside(visit.site, visit.url, era=LEGACY, tasks=True) as older:
        assert not older.server_capabilities.extensions
        assert members(await older.call_tool("git_pull", visit.site.pull()))["state"] == "pending"
        with pytest.raises(MCPError) as unknown:
            await about_task(older, "tasks/get", task["taskId"])
        assert unknown.value.code == METHOD_NOT_FOUND
