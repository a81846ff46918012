"""The Tasks extension (`io.modelcontextprotocol/tasks`): a held request is the task, by its own id.

For clients that declare it, and in the protocol that knows it (2026-07-28) alone. Nothing is kept
here: each answer is made of the request as the agent has it.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, CallToolRequestParams, RequestParams
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import JsonValue

from host_agent.client import (
    AsyncClient,
    ConnectionFailedError,
    InvalidAnswerError,
    ProblemError,
    RequestView,
)
from host_agent.mcp import answers, tools
from host_agent.mcp.calls import ToolCalls
from host_agent.mcp.results import result_of

IDENTIFIER = "io.modelcontextprotocol/tasks"
POLL_MILLISECONDS = 5000
"""A person decides: asking more often tells nothing sooner."""
_OVER = frozenset({"approval:already-decided", "approval:expired"})

TaskContext: TypeAlias = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    """What every method of the extension names; members for input are passed over."""

    task_id: str


class HeldTasks(Extension):
    """Answers a call that is held with a task, and the questions about it."""

    identifier = IDENTIFIER

    def __init__(self, client: AsyncClient, calls: ToolCalls) -> None:
        self._client = client
        self._calls = calls

    def methods(self) -> Sequence[MethodBinding]:
        """Return the extension's methods."""
        versions = frozenset(MODERN_PROTOCOL_VERSIONS)
        handlers = {
            "tasks/get": self._get,
            "tasks/update": self._update,
            "tasks/cancel": self._cancel,
        }
        return [
            MethodBinding(method, TaskParams, handler, protocol_versions=versions)
            for method, handler in handlers.items()
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: TaskContext, call_next: CallNext
    ) -> HandlerResult:
        """Return a task at once where the client declares tasks and the ask is held."""
        if not _is_declared(ctx) or tools.is_of_requests(params.name):
            return await call_next(ctx)
        answer = await self._calls.call(params.name, params.arguments or {}, wait_seconds=0)
        if isinstance(answer, RequestView) and not answer.is_finished:
            return {"resultType": "task", **_task(answer)}
        return result_of(answer)

    async def _get(self, ctx: TaskContext, params: TaskParams) -> HandlerResult:
        require_client_extension(ctx, IDENTIFIER)
        view = await self._found(params.task_id)
        task = _task(view)
        if task["status"] == "completed":
            result = result_of(view)
            task["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return task

    async def _update(self, ctx: TaskContext, params: TaskParams) -> HandlerResult:
        """Take no input: nothing is asked of the client, least of all consent."""
        require_client_extension(ctx, IDENTIFIER)
        await self._found(params.task_id)
        return {}

    async def _cancel(self, ctx: TaskContext, params: TaskParams) -> HandlerResult:
        require_client_extension(ctx, IDENTIFIER)
        view = await self._found(params.task_id)
        if view.is_finished:
            return {}
        try:
            await self._client.cancel(view.request_id)
        except ProblemError as problem:
            if problem.code not in _OVER:  # it ran, or ended, before it could be withdrawn
                raise _refused(problem) from None
        except (ConnectionFailedError, InvalidAnswerError) as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from None
        return {}

    async def _found(self, task_id: str) -> RequestView:
        """Return the request that a task is.

        Raises:
            MCPError: there is none, or the agent does not answer.
        """
        try:
            view = await self._client.request(task_id)
        except ProblemError as problem:
            raise _refused(problem) from None
        except ValueError as error:
            raise MCPError(INVALID_PARAMS, f"There is no such task: {error}.") from None
        except (ConnectionFailedError, InvalidAnswerError) as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from None
        if view.request_id != task_id:  # the beginning of an id is no id here
            raise MCPError(INVALID_PARAMS, "There is no such task.")
        return view


def _is_declared(ctx: TaskContext) -> bool:
    declared = ctx.session.client_capabilities
    is_known = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    return is_known and declared is not None and IDENTIFIER in (declared.extensions or {})


def _refused(problem: ProblemError) -> MCPError:
    code = INVALID_PARAMS if problem.code == "request:not-found" else INTERNAL_ERROR
    recovery: JsonValue = problem.body.get("recovery")
    return MCPError(code, problem.detail, {"code": problem.code, "recovery": recovery})


def _task(view: RequestView) -> dict[str, JsonValue]:
    created = str(view.body["created_at"])
    times = [decision.get("at") for decision in _objects(view.body.get("decisions"))]
    newest = max(filter(None, [created, *map(str, times), view.body.get("finished_at")]), key=str)
    return {
        "taskId": view.request_id,
        "status": _status(view),
        "statusMessage": answers.words_of(view),
        "createdAt": created,
        "lastUpdatedAt": str(newest),
        "ttlMs": None,
        "pollIntervalMs": POLL_MILLISECONDS,
    }


def _status(view: RequestView) -> str:
    if not view.is_finished:
        return "working"
    return "cancelled" if view.state == "cancelled" else "completed"


def _objects(value: JsonValue) -> list[dict[str, JsonValue]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
