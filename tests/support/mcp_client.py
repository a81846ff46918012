"""The official MCP client at a server of ours: in this process, or over standard input and output.

`tasks` is a client's extension that takes a task for what it is and does not follow it by itself.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, cast

from mcp import Client, StdioServerParameters
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.types import CallToolResult, ClientRequest, Request, RequestParams, Result, TextContent

from host_agent.client import AsyncClient
from host_agent.mcp.calls import ToolCalls
from host_agent.mcp.server import HostServer
from host_agent.mcp.tasks import IDENTIFIER
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


class TaskState(TaskHandle):
    """A task as `tasks/get` answers it."""

    result_type: Literal["complete"] = "complete"  # type: ignore[assignment]
    result: dict[str, Any] | None = None


class TakesTasks(ClientExtension):
    """Declares tasks, and returns a handle as structured content."""

    identifier = IDENTIFIER

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self._resolve)]

    async def _resolve(self, handle: TaskHandle, _context: ClaimContext) -> CallToolResult:
        told = handle.model_dump(by_alias=True, exclude={"meta"})
        return CallToolResult(content=[TextContent(text="a task")], structured_content=told)


class TaskIdParams(RequestParams):
    task_id: str


class TaskRequest(Request[TaskIdParams, str]):
    method: str
    params: TaskIdParams


async def about_task(client: Client, method: str, task_id: str) -> dict[str, Any]:
    """Ask `tasks/get`, `tasks/update` or `tasks/cancel`, and return the bare result."""
    request = TaskRequest(method=method, params=TaskIdParams(task_id=task_id))
    answer = await client.session.send_request(cast("ClientRequest", request), _Bare)
    return answer.model_dump(by_alias=True)


class _Bare(Result, extra="allow"):
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


def command(site: Site, url: str, cn: str = "deployer", *, wait: int = 0) -> Sequence[str]:
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
