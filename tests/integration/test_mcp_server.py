"""The official MCP client at `host-agent mcp` and a whole agent: in both eras, and over stdio."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from host_agent.mcp import tools
from tests.support.mcp_client import (
    ERAS,
    inside,
    members,
)
from tests.support.patience import PATIENCE
from tests.support.site import Site, make_site
from tests.support.visit import Gate, Visit, rows, until, visited

era = pytest.mark.parametrize("era", ERAS)


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    async with visited(make_site(tmp_path / "site")) as visit:
        yield visit


async def names(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def pulled(client: Client, site: Site, **more: Any) -> dict[str, Any]:
    return members(await client.call_tool("git_pull", {**site.pull(), **more}))


# -- what there is --------------------------------------------------------------------------------


@era
async def test_the_tools_are_what_the_certificate_may_ask_for(visit: Visit, era: str) -> None:
    async with inside(visit.site, visit.url, era=era) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    told = (await visit.who("deployer").get("/host/operations")).json()["operations"]
    asked_for = {info["name"].replace(".", "_") for info in told if info["verdict"] != "deny"}
    assert set(listed) == asked_for | {tools.STATUS, tools.CANCEL, tools.REQUESTS}
    hints = {name: tool.annotations for name, tool in listed.items()}
    for name, (is_read, is_destructive) in {
        "git_status": (True, None),
        "git_pull": (False, False),
        "git_reset": (False, True),
    }.items():
        hint = hints[name]
        assert hint is not None
        assert (hint.read_only_hint, hint.destructive_hint) == (is_read, is_destructive)
        assert hint.open_world_hint is False
    assert "reason" in listed["git_pull"].input_schema["properties"]
    assert "reason" not in listed["git_status"].input_schema["properties"]


@era
async def test_what_policy_denies_altogether_is_no_tool_and_cannot_be_called(
    visit: Visit, era: str
) -> None:
    world = visit.world()
    async with inside(visit.site, visit.url, "watcher", era=era) as client:
        assert {"git_status", "git_pull"} & await names(client) == {"git_status"}
        refused = await client.call_tool("git_pull", visit.site.pull())
    assert refused.is_error
    assert members(refused)["code"] == "request:unknown-operation"
    assert members(refused)["recovery"] == {"kind": "never"}
    assert visit.world() == world


@era
async def test_a_certificate_that_is_not_let_in_sees_no_tool(visit: Visit, era: str) -> None:
    world = visit.world()
    async with inside(visit.site, visit.url, "stranger", era=era) as client:
        with pytest.raises(MCPError, match="identity:unknown"):
            await client.list_tools()
        refused = await client.call_tool("git_status", visit.site.status())
    assert refused.is_error
    assert members(refused)["code"] == "identity:unknown"
    assert visit.world() == world


# -- what runs, and what is refused ---------------------------------------------------------------


@era
async def test_an_allowed_read_is_answered_with_its_data_between_marks(
    visit: Visit, era: str
) -> None:
    async with inside(visit.site, visit.url, era=era) as client:
        told = members(await client.call_tool("git_status", visit.site.status()))
    assert told["state"] == "succeeded"
    first, *lines, last = told["host_text"].split("\n")
    assert first.startswith("<host-text ")
    assert last.startswith("</host-text ")
    assert all(line.startswith("| ") for line in lines)
    assert visit.site.repository.head in told["host_text"]


@era
@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("git_status", {"repository": "/etc"}, "policy:denied"),
        ("git_status", {}, "request:invalid-parameter"),
        ("git_pull", {"repository": 1}, "request:invalid-parameter"),
        ("git_reset", {"ref": "HEAD"}, "request:invalid-parameter"),
        ("git_pull", {"reason": 7}, "request:invalid-parameter"),
        ("request_status", {"request_id": "f" * 32}, "request:not-found"),
        (
            "request_status",
            {"request_id": "f" * 32, "wait_seconds": 51},
            "request:invalid-parameter",
        ),
        ("request_status", {"request_id": 4}, "request:invalid-parameter"),
        ("request_status", {"request_id": "../health"}, "request:invalid-parameter"),
        ("request_cancel", {"request_id": "no id"}, "request:invalid-parameter"),
        ("git_log", {"limit": float("nan")}, "request:invalid-parameter"),
        ("git_log", {"limit": float("inf")}, "request:invalid-parameter"),
        ("request_cancel", {}, "request:invalid-parameter"),
        ("request_approve", {"request_id": "f" * 32}, "request:unknown-operation"),
    ],
)
async def test_what_http_refuses_is_a_tool_error_with_a_code_and_nothing_moves(
    visit: Visit, era: str, tool: str, arguments: dict[str, Any], code: str
) -> None:
    world = visit.world()
    async with inside(visit.site, visit.url, era=era) as client:
        refused = await client.call_tool(tool, arguments)
    assert refused.is_error
    assert members(refused)["code"] == code
    assert visit.world() == world


async def test_a_certificate_that_approves_has_no_tool_to_approve_with(visit: Visit) -> None:
    held = await visit.held()
    async with inside(visit.site, visit.url, "alice") as client:
        assert await names(client) <= {tools.STATUS, tools.CANCEL, tools.REQUESTS} | {
            name for name in await names(client) if name.startswith("git_")
        }
        assert members(await client.call_tool(tools.REQUESTS, {}))["requests"] == []
        refused = await client.call_tool(tools.CANCEL, {"request_id": held["request_id"]})
    assert refused.is_error
    assert (await visit.look(held)).json()["state"] == "pending"


# -- what is held ---------------------------------------------------------------------------------


@era
async def test_what_is_held_is_no_error_and_says_that_nothing_has_run(
    visit: Visit, era: str
) -> None:
    before = visit.site.repository.head
    async with inside(visit.site, visit.url, era=era) as client:
        asked = await client.call_tool("git_pull", {**visit.site.pull(), "reason": "the fix"})
        again = await pulled(client, visit.site)
        told = members(asked)
        shown = members(await client.call_tool(tools.STATUS, {"request_id": told["request_id"]}))
        mine = members(await client.call_tool(tools.REQUESTS, {"state": "pending"}))
    assert not asked.is_error
    assert told["state"] == "pending"
    assert told["asked"]["needed"] == 1
    assert told["expires_at"] > "2026"
    for words in ("Nothing has run", "Do not ask again", "request_status", told["request_id"]):
        assert words in told["message"]
    assert again["request_id"] == shown["request_id"] == told["request_id"]
    assert [row["request_id"] for row in mine["requests"]] == [told["request_id"]]
    assert len(rows(visit.site.store_path)) == 1
    assert visit.site.repository.head == before
    seen = (await visit.look(told, by="alice")).json()
    assert (seen["caller"], seen["reason"]) == ("deployer", "the fix")


@era
async def test_an_approval_within_the_wait_is_answered_with_the_result(
    visit: Visit, era: str
) -> None:
    before = visit.site.repository.head
    async with inside(visit.site, visit.url, era=era, wait=PATIENCE) as client:
        call = asyncio.ensure_future(client.call_tool("git_pull", visit.site.pull()))
        await until(lambda: rows(visit.site.store_path), "the request")
        (held,) = (await visit.who("alice").get("/requests")).json()["requests"]
        await visit.decide(held)
        done = members(await call)
        again = members(await client.call_tool(tools.STATUS, {"request_id": held["request_id"]}))
    assert done["state"] == again["state"] == "succeeded"
    assert done["verified"] is True
    assert visit.site.repository.head != before
    assert visit.site.events().count("operation.started") == 1


@era
async def test_a_denial_is_an_error_with_the_words_of_who_denied(visit: Visit, era: str) -> None:
    world = visit.site.repository.snapshot()
    async with inside(visit.site, visit.url, era=era) as client:
        told = await pulled(client, visit.site)
        held = (await visit.look(told)).json()
        await visit.decide(held, "deny", reason="not on a Friday")
        denied = await client.call_tool(tools.STATUS, {"request_id": told["request_id"]})
    assert denied.is_error
    assert members(denied)["code"] == "approval:denied"
    assert "| not on a Friday" in members(denied)["host_text"]
    assert visit.site.repository.snapshot() == world


@era
async def test_a_request_is_withdrawn_and_nobody_can_approve_it_then(
    visit: Visit, era: str
) -> None:
    async with inside(visit.site, visit.url, era=era) as client:
        told = await pulled(client, visit.site)
        held = (await visit.look(told)).json()
        ended = await client.call_tool(
            tools.CANCEL, {"request_id": told["request_id"], "reason": "not needed"}
        )
        once_more = await client.call_tool(tools.CANCEL, {"request_id": told["request_id"]})
    assert not ended.is_error
    assert members(ended)["state"] == "cancelled"
    assert once_more.is_error
    assert (await visit.decide(held)).status_code == 409
    assert "operation.started" not in visit.site.events()


async def test_a_request_of_another_does_not_exist_here_either(visit: Visit) -> None:
    held = await visit.held()
    async with inside(visit.site, visit.url, "watcher") as client:
        for tool in (tools.STATUS, tools.CANCEL):
            refused = await client.call_tool(tool, {"request_id": held["request_id"]})
            assert members(refused)["code"] in {"request:not-found", "identity:role-required"}
    assert (await visit.look(held)).json()["state"] == "pending"


async def test_a_run_that_outlasts_the_wait_is_a_request_to_be_followed(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    tip = site.repository.push_elsewhere()
    with Gate(site, "fetch") as gate:
        async with visited(site) as visit, inside(site, visit.url, wait=0) as client:
            fetch = {**site.status(), "remote": "origin"}
            call = asyncio.ensure_future(client.call_tool("git_fetch", fetch))
            await gate.reached()
            told = members(await call)
            assert told["state"] == "running"
            attached = members(await client.call_tool("git_fetch", fetch))
            assert attached["request_id"] == told["request_id"]
            gate.open()
            done = members(
                await client.call_tool(
                    tools.STATUS, {"request_id": told["request_id"], "wait_seconds": 50}
                )
            )
            assert done["state"] == "succeeded"
            assert site.repository.git("rev-parse", "refs/remotes/origin/main") == tip
            assert site.events().count("operation.started") == 1
