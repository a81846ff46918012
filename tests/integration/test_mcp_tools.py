"""The tools of a whole catalogue: how much room they take, and what they let through."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp import Client
from pydantic import JsonValue

from host_agent.mcp import tools
from host_agent.mcp.calls import ToolCalls
from host_agent.mcp.results import tool_of
from host_agent.mcp.server import HostServer
from host_agent.simulation.script import Script
from host_agent.simulation.simulation import Simulation
from tests.support.mcp_client import MODERN, members

BYTES, TOOLS = 16 * 1024, 22
"""So many tools have so much room; more have as much each."""


@pytest.fixture
async def simulation() -> AsyncIterator[Simulation]:
    async with Simulation(Script(())) as running:
        yield running


def size(declaration: tools.ToolDeclaration) -> int:
    """Return the bytes of a tool as it is listed."""
    listed = tool_of(declaration).model_dump(by_alias=True, exclude_none=True, mode="json")
    return len(json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode())


async def test_the_tools_of_every_adapter_take_little_room(simulation: Simulation) -> None:
    async with simulation.client("deployer") as client:
        found = await ToolCalls(client).declarations()
    assert len(found) > TOOLS
    assert sum(map(size, found)) / len(found) <= BYTES / TOOLS


async def test_a_schema_says_what_this_certificate_may_ask_for(simulation: Simulation) -> None:
    async with simulation.client("deployer") as api:
        server = HostServer(api, ToolCalls(api, wait_seconds=0))
        async with Client(server.protocol, mode=MODERN) as client:
            schemas = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
            good = {"repository": "/srv/app", "remote": "origin", "branch": "main"}
            jsonschema.validate(good, schemas["git_pull"])
            assert members(await client.call_tool("git_pull", good))["state"] == "pending"
            for bad in ({**good, "repository": "/etc"}, {**good, "branch": "nowhere"}):
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate(bad, schemas["git_pull"])
                refused = await client.call_tool("git_pull", bad)
                assert refused.is_error
                assert members(refused)["code"].startswith(("policy:", "request:"))
            mine = members(await client.call_tool(tools.REQUESTS, {}))
    assert len(mine["requests"]) == 1


async def test_a_registered_command_is_a_tool_of_its_own(simulation: Simulation) -> None:
    async with simulation.client("deployer") as api:
        server = HostServer(api, ToolCalls(api, wait_seconds=0))
        async with Client(server.protocol, mode=MODERN) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            assert "exec_run_greet" in listed
            assert "exec_run" not in listed
            greet: Mapping[str, JsonValue] = {"name": "greet", "arguments": {"whom": "ann"}}
            told = members(await client.call_tool("exec_run_greet", dict(greet)))
            assert (told["operation"], told["state"]) == ("exec.run", "pending")
            for bad in ({**greet, "name": "other"}, {**greet, "arguments": {"whom": "; reboot"}}):
                refused = await client.call_tool("exec_run_greet", bad)
                assert refused.is_error
                assert members(refused)["code"] in {"policy:denied", "request:invalid-parameter"}
            mine = members(await client.call_tool(tools.REQUESTS, {}))
    assert len(mine["requests"]) == 1


FAULTS: Sequence[tuple[Mapping[str, JsonValue], set[str]]] = (
    ({"repository": "/srv/app", "remote": "origin"}, {"/branch"}),
    ({"repository": 5, "remote": "origin", "branch": "main"}, {"/repository"}),
    ({"repository": "/srv/app", "remote": "origin", "branch": "main", "x": 1}, {"/x"}),
)


@pytest.mark.parametrize(("arguments", "pointers"), FAULTS)
async def test_a_wrong_argument_is_pointed_at_where_it_was_given(
    simulation: Simulation, arguments: Mapping[str, JsonValue], pointers: set[str]
) -> None:
    async with simulation.client("deployer") as api:
        server = HostServer(api, ToolCalls(api, wait_seconds=0))
        async with Client(server.protocol, mode=MODERN) as client:
            refused = await client.call_tool("git_pull", dict(arguments))
            told: dict[str, Any] = members(refused)
    assert refused.is_error
    assert told["recovery"]["kind"] == "change_parameters"
    assert {fault["pointer"] for fault in told["recovery"]["faults"]} == pointers
