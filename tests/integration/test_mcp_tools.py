"""The tools of a whole catalogue: how much room they take, and what they let through."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from unittest.mock import AsyncMock

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp import Client
from pydantic import JsonValue

from host_agent.client import (
    ConnectionFailedError,
    InvalidAnswerError,
    ProblemError,
    RequestView,
)
from host_agent.mcp import tools
from host_agent.mcp.answers import ToolAnswer
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


async def test_a_tool_of_one_command_asks_for_no_other(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People let a tool run by its name: what it does must be what it is called."""
    greet: dict[str, JsonValue] = {"name": "greet", "arguments": {"whom": "ann"}}
    async with simulation.client("deployer") as api:
        (info,) = [info for info in await api.operations() if info.tool == "exec_run_greet"]
        properties = info.parameters["properties"]
        assert isinstance(properties, dict)
        assert properties["name"] == {"type": "string", "const": "greet"}
        named = {"properties": {**properties, "name": {"const": "wave"}}}
        parameters = {**info.parameters, **named}
        wave = info.model_copy(update={"tool": "exec_run_wave", "parameters": parameters})
        monkeypatch.setattr(api, "operations", AsyncMock(return_value=(info, wave)))
        calls = ToolCalls(api, wait_seconds=0)
        refused = await calls.call("exec_run_wave", greet)
        assert isinstance(refused, ToolAnswer)
        assert (refused.is_error, refused.members["code"]) == (True, "request:invalid-parameter")
        assert (await api.requests()).requests == ()
        held = await calls.call("exec_run_greet", greet)
        assert isinstance(held, RequestView)
        assert (held.operation, held.state) == ("exec.run", "pending")


@pytest.mark.parametrize(
    "error",
    [
        ProblemError(code="rate:limited", status=429, detail="Slower.", body={}),
        InvalidAnswerError("What?"),
        ConnectionFailedError("Gone."),
    ],
)
async def test_what_is_held_is_told_as_held_though_it_cannot_be_looked_at(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pull = {"repository": "/srv/app", "remote": "origin", "branch": "main"}
    async with simulation.client("deployer") as api:
        monkeypatch.setattr(api, "follow", AsyncMock(side_effect=error))
        told = await ToolCalls(api).call("git_pull", pull)
        assert isinstance(told, ToolAnswer)
        assert (told.is_error, told.members["state"]) == (False, "pending")
        (request,) = (await api.requests()).requests
        assert told.members["request_id"] == request.request_id
        refused = await ToolCalls(api).call("git_pull", {**pull, "branch": "nowhere"})
    assert isinstance(refused, ToolAnswer)
    assert refused.is_error


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
