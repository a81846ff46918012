"""What is asked for over MCP outlasts the server, the program that asks and the host's agent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import ToolListChangedNotification

from host_agent.mcp import tools
from host_agent.mcp.calls import ToolCalls
from host_agent.mcp.tools import ToolDeclaration
from tests.support.mcp_client import (
    ERAS,
    LEGACY,
    MODERN,
    Bare,
    command,
    inside,
    members,
    over_stdio,
)
from tests.support.patience import PATIENCE
from tests.support.site import RULES, Served, Site, make_site
from tests.support.visit import Visit, Visitors, rows, until, visited

era = pytest.mark.parametrize("era", ERAS)


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    async with visited(make_site(tmp_path / "site")) as visit:
        yield visit


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


class Relay:
    """A door that stays where it is while the agent behind it comes and goes."""

    def __init__(self) -> None:
        self.behind = ""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"https://localhost:{self._server.sockets[0].getsockname()[1]}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            for writer in self._open:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            port = int(self.behind.rpartition(":")[2])
            beyond, onward = await asyncio.open_connection("127.0.0.1", port)
            self._open.add(onward)
            await asyncio.gather(_pass(reader, onward), _pass(beyond, writer))
        except OSError:
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


# -- over standard input and output ---------------------------------------------------------------


@pytest.mark.parametrize("era", [LEGACY, "auto"])
async def test_a_process_lists_reads_refuses_holds_and_withdraws(visit: Visit, era: str) -> None:
    before = visit.site.repository.head
    async with over_stdio(visit.site, visit.url, era=era) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        read = members(await client.call_tool("git_status", visit.site.status()))
        refused = await client.call_tool("git_status", {"repository": "/etc"})
        held = members(await client.call_tool("git_pull", visit.site.pull()))
        shown = members(await client.call_tool(tools.STATUS, {"request_id": held["request_id"]}))
        ended = members(await client.call_tool(tools.CANCEL, {"request_id": held["request_id"]}))
    assert {"git_status", "git_pull", tools.STATUS, tools.CANCEL, tools.REQUESTS} <= names
    assert read["state"] == "succeeded"
    assert refused.is_error
    assert members(refused)["code"] == "policy:denied"
    assert (held["state"], shown["state"], ended["state"]) == ("pending", "pending", "cancelled")
    assert visit.site.repository.head == before


# -- what ends and begins anew --------------------------------------------------------------------


async def test_asked_again_after_server_and_agent_were_killed_it_is_the_same_and_runs_once(
    site: Site,
) -> None:
    before = site.repository.head
    with Served(site) as served:
        async with Bare.started(command(site, served.url)) as first:
            held = await first.call("git_pull", site.pull())
            first.kill()
        served.kill()
        served.start()
        async with over_stdio(site, served.url) as client, Visitors(site, served.url) as people:
            again = members(await client.call_tool("git_pull", site.pull()))
            assert again["request_id"] == held["request_id"]
            assert again["state"] == "pending"
            assert site.repository.head == before
            await people.decide((await people.look(held)).json())
            ask = {"request_id": held["request_id"], "wait_seconds": 50}
            done = members(await client.call_tool(tools.STATUS, ask))
            once_more = members(await client.call_tool(tools.STATUS, ask))
    assert done["state"] == once_more["state"] == "succeeded"
    assert site.repository.head != before
    assert site.events().count("operation.started") == 1
    assert len(rows(site.store_path)) == 1


@era
async def test_a_client_that_gives_up_loses_nothing(visit: Visit, era: str) -> None:
    async with inside(visit.site, visit.url, era=era, wait=50) as client:
        with pytest.raises(MCPError, match="imed out"):
            await client.call_tool("git_pull", visit.site.pull(), read_timeout_seconds=0.5)
        await until(lambda: rows(visit.site.store_path), "the request")
        (mine,) = members(await client.call_tool(tools.REQUESTS, {}))["requests"]
        assert mine["state"] == "pending"
        await visit.decide((await visit.look(mine)).json())
        await visit.ended(mine)
        done = members(await client.call_tool(tools.STATUS, {"request_id": mine["request_id"]}))
    assert done["state"] == "succeeded"
    assert visit.site.events().count("operation.started") == 1


async def test_a_server_lives_on_while_the_agent_is_gone(site: Site) -> None:
    relay = Relay()
    with Served(site) as served:
        relay.behind = served.url
        async with relay.running(), inside(site, relay.url, wait=0) as client:
            held = members(await client.call_tool("git_pull", site.pull()))
            served.kill()
            ask = {"request_id": held["request_id"]}
            gone = await client.call_tool(tools.STATUS, ask)
            lost = await client.call_tool("git_pull", site.pull())
            assert gone.is_error
            assert lost.is_error
            assert members(gone)["code"] == members(lost)["code"] == "mcp:unreachable"
            assert members(gone)["recovery"]["kind"] == "ask_again_after"
            assert "my_requests" in members(lost)["message"]
            assert "my_requests" not in members(gone)["message"]
            served.start()
            relay.behind = served.url
            back = members(await client.call_tool(tools.STATUS, ask))
            again = members(await client.call_tool("git_pull", site.pull()))
    assert back["state"] == "pending"
    assert again["request_id"] == held["request_id"]


async def test_an_agent_of_another_authority_is_not_believed(visit: Visit, tmp_path: Path) -> None:
    stranger = make_site(tmp_path / "stranger")
    async with inside(stranger, visit.url) as client:
        refused = await client.call_tool("git_status", visit.site.status())
    assert refused.is_error
    assert members(refused)["code"] == "mcp:unreachable"
    assert "operation.started" not in visit.site.events()


# -- news -----------------------------------------------------------------------------------------


DENIED = RULES.replace(
    '["git.pull", "git.switch"]\nverdict = "ask"', '["git.pull"]\nverdict = "deny"'
)


async def test_a_change_of_policy_is_told_in_the_era_before(visit: Visit) -> None:
    told = asyncio.Event()

    async def on_message(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            told.set()

    site, url = visit.site, visit.url
    async with inside(site, url, era=LEGACY, look_seconds=0.05, on_message=on_message) as client:
        assert "git_pull" in await _names(client)
        site.configure(rules=DENIED)
        assert await visit.agent.reload()
        await asyncio.wait_for(told.wait(), PATIENCE)
        assert "git_pull" not in await _names(client)
        refused = await client.call_tool("git_pull", site.pull())
    assert members(refused)["code"] == "request:unknown-operation"


async def test_a_change_of_policy_is_told_to_who_listens(visit: Visit) -> None:
    async with inside(visit.site, visit.url, era=MODERN, look_seconds=0.05) as client:
        assert "git_pull" in await _names(client)
        async with client.listen(tools_list_changed=True) as news:
            visit.site.configure(rules=DENIED)
            assert await visit.agent.reload()
            async with asyncio.timeout(PATIENCE):
                await anext(aiter(news))
        assert "git_pull" not in await _names(client)


async def test_a_refusal_by_policy_has_the_tools_looked_at_at_once(visit: Visit) -> None:
    told = asyncio.Event()

    async def on_message(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            told.set()

    async with inside(
        visit.site, visit.url, era=LEGACY, look_seconds=PATIENCE * 10, on_message=on_message
    ) as client:
        assert "git_pull" in await _names(client)
        visit.site.configure(rules=DENIED)
        assert await visit.agent.reload()
        refused = await client.call_tool("git_pull", visit.site.pull())
        assert members(refused)["code"] == "policy:denied"
        await asyncio.wait_for(told.wait(), PATIENCE)
    assert not rows(visit.site.store_path)


async def test_nothing_is_told_where_nothing_has_changed(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    looks: list[str] = []
    real = ToolCalls.declarations

    async def on_message(message: object) -> None:
        told.append(message)

    async def counted(calls: ToolCalls) -> tuple[ToolDeclaration, ...]:
        looks.append("looked")
        return await real(calls)

    monkeypatch.setattr(ToolCalls, "declarations", counted)
    async with inside(
        visit.site, visit.url, era=LEGACY, look_seconds=0.01, on_message=on_message
    ) as client:
        assert "git_pull" in await _names(client)
        await until(lambda: len(looks) > 5, "another look")
    assert not told


async def _names(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}
