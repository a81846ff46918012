"""The official MCP client at a server of ours: in this process, or over standard input and output.

`tasks` is a client's extension that takes a task for what it is and does not follow it by itself.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Self, cast

from mcp import Client, StdioServerParameters
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.types import CallToolResult, ClientRequest, Request, RequestParams, Result, TextContent

from host_agent.client import AsyncClient
from host_agent.mcp.calls import ToolCalls
from host_agent.mcp.server import HostServer
from host_agent.mcp.tasks import IDENTIFIER
from tests.support.patience import PATIENCE
from tests.support.site import Site

LEGACY, MODERN = "legacy", "2026-07-28"
ERAS = (LEGACY, MODERN)


class TaskHandle(Result):
    """A task as it is answered in place of a result."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    status_message: str
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int


class TakesTasks(ClientExtension):
    """Declares tasks; `as_task` is how a test calls for one."""

    identifier = IDENTIFIER

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self._resolve)]

    async def _resolve(self, handle: TaskHandle, _context: ClaimContext) -> CallToolResult:
        message = f"nobody follows the task {handle.task_id} here"
        raise AssertionError(message)


async def as_task(client: Client, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call a tool that must answer with a task, and return the task."""
    answer = await client.session.call_tool(tool, dict(arguments), allow_claimed=True)
    assert isinstance(answer, TaskHandle), answer
    return answer.model_dump(by_alias=True)


class TaskIdParams(RequestParams):
    task_id: str


class TaskRequest(Request[TaskIdParams, str]):
    method: str
    params: TaskIdParams


async def about_task(client: Client, method: str, task_id: str) -> dict[str, Any]:
    """Ask `tasks/get`, `tasks/update` or `tasks/cancel`, and return the bare result."""
    request = TaskRequest(method=method, params=TaskIdParams(task_id=task_id))
    answer = await client.session.send_request(cast("ClientRequest", request), AnyResult)
    return answer.model_dump(by_alias=True)


class AnyResult(Result, extra="allow"):
    """Any result."""


def api_client(site: Site, url: str, cn: str) -> AsyncClient:
    """Return the API's client with the certificate of `cn`."""
    leaf = site.client(cn)
    return AsyncClient(url=url, cert=leaf.certificate_path, key=leaf.key_path, ca=site.pki.ca_path)


@contextlib.asynccontextmanager
async def inside(
    site: Site,
    url: str,
    cn: str = "deployer",
    *,
    era: str = MODERN,
    wait: float = 0,
    look_seconds: float = 30.0,
    tasks: bool = False,
    on_message: Any = None,  # noqa: ANN401 - as the SDK has it
) -> AsyncIterator[Client]:
    """Yield a client of a server in this process that acts as `cn`."""
    async with api_client(site, url, cn) as api:
        server = HostServer(api, ToolCalls(api, wait_seconds=wait), look_seconds=look_seconds)
        async with Client(
            server.protocol,
            mode=era,
            extensions=[TakesTasks()] if tasks else None,
            message_handler=on_message,
        ) as client:
            yield client


def command(site: Site, url: str, cn: str = "deployer", *, wait: int = 0) -> tuple[str, ...]:
    """Return the command line of a server that acts as `cn`."""
    leaf = site.client(cn)
    options: Mapping[str, object] = {
        "--url": url,
        "--cert": leaf.certificate_path,
        "--key": leaf.key_path,
        "--ca": site.pki.ca_path,
        "--wait": wait,
    }
    words = [str(word) for pair in options.items() for word in pair]
    return (sys.executable, "-m", "host_agent", "mcp", *words)


@contextlib.asynccontextmanager
async def over_stdio(
    site: Site, url: str, cn: str = "deployer", *, era: str = "auto", wait: int = 0
) -> AsyncIterator[Client]:
    """Yield a client of a server that is a process of its own."""
    program, *arguments = command(site, url, cn, wait=wait)
    parameters = StdioServerParameters(command=program, args=arguments)
    async with Client(parameters, mode=era) as client:
        yield client


def members(result: CallToolResult) -> dict[str, Any]:
    """Return what a call was answered, having looked that the words say the same."""
    told: dict[str, Any] = result.structured_content
    (block,) = result.content
    assert isinstance(block, TextContent)
    assert block.text.startswith(told["message"])
    assert told.get("host_text", "") in block.text
    assert told["state"]
    return told


class Bare:
    """A server as a process, spoken to line by line in the era before; it can be killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._number = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls, words: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[Self]:
        """Yield a server that was greeted; it is ended on the way out."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *words, stdin=pipe, stdout=pipe, env=environment
        )
        bare = cls(process)
        try:
            about = {"name": "bare", "version": "1"}
            version = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": about}
            await bare.ask("initialize", version)
            bare.send({"method": "notifications/initialized"})
            yield bare
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its result."""
        assert self.process.stdout is not None
        self._number += 1
        self.send({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE):
            while True:
                line = await self.process.stdout.readline()
                assert line, "the server has ended"
                message = json.loads(line)
                if message.get("id") == self._number:
                    result: dict[str, Any] = message["result"]
                    return result

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool and return its structured content."""
        result = await self.ask("tools/call", {"name": tool, "arguments": dict(arguments)})
        told: dict[str, Any] = result["structuredContent"]
        return told

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self.process.kill()
