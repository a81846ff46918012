"""Tool calls, followed through the client: each ends within the caller's patience.

No state of its own: what waits is the agent's, and every call finds it there again, also after this
process, the caller or the agent was started anew. The list of tools is kept for their names alone
and read anew where a name is not in it.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from pydantic import JsonValue

from host_agent.client import (
    REASON,
    AsyncClient,
    ConnectionFailedError,
    Held,
    InvalidAnswerError,
    ProblemError,
    RequestView,
)
from host_agent.mcp import LONGEST_WAIT_SECONDS, WAIT_SECONDS, answers, tools
from host_agent.mcp.answers import ToolAnswer
from host_agent.mcp.tools import ToolDeclaration
from host_agent.text import ID

GRACE_SECONDS = 5.0
"""For the exchange around what is waited for."""
POLICY, INVALID = "policy:", "request:invalid-parameter"

Arguments = Mapping[str, JsonValue]


class ToolCalls:
    """Follows calls. One instance serves as long as the process; any number of calls at once.

    `on_stale` is told where an answer shows that the tools may be others by now.
    """

    def __init__(self, client: AsyncClient, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._client = client
        self.wait_seconds = min(wait_seconds, LONGEST_WAIT_SECONDS)
        self._known: dict[str, ToolDeclaration] = {}
        self._cn: str | None = None
        self.on_stale: Callable[[], None] = lambda: None

    async def declarations(self) -> tuple[ToolDeclaration, ...]:
        """Return the tools as they are now.

        Raises:
            ProblemError: this certificate is not let in.
            ConnectionFailedError: the agent does not answer.
        """
        found = tools.declarations(await self._client.operations())
        self._known = {tool.name: tool for tool in found}
        return found

    async def call(
        self, name: str, arguments: Arguments, *, wait_seconds: float | None = None
    ) -> ToolAnswer | RequestView:
        """Return the answer to a call; a request that has not ended is returned as it is.

        `wait_seconds` is how long the call waits for an end, as configured where None.
        """
        wait = self.wait_seconds if wait_seconds is None else wait_seconds
        tool: ToolDeclaration | None = None
        if not _is_json(arguments):
            return answers.own_refusal(INVALID, "JSON has no such number.", pointer="")
        try:
            tool = await self._tool(name)
            if tool is None:
                words = f"There is no tool {name!a} for this certificate."
                return answers.own_refusal("request:unknown-operation", words)
            if tool.operation is None:
                return await self._of_requests(name, arguments)
            return await self._asked(tool, tool.operation, arguments, wait)
        except ProblemError as problem:
            if problem.code.startswith(POLICY):
                self.on_stale()
            return answers.refused(problem)
        except (ConnectionFailedError, InvalidAnswerError) as error:
            may_have_run = tool is not None and not tool.is_repeatable
            return answers.unanswered(error, may_have_run=may_have_run)

    async def _tool(self, name: str) -> ToolDeclaration | None:
        own = {tool.name: tool for tool in tools.request_tools()}
        if name not in self._known and name not in own:
            await self.declarations()
        return own.get(name) or self._known.get(name)

    # -- asking -----------------------------------------------------------------------------------

    async def _asked(
        self, tool: ToolDeclaration, operation: str, arguments: Arguments, wait: float
    ) -> ToolAnswer | RequestView:
        params, reason = tool.params(dict(arguments))
        if reason is not None and not isinstance(reason, str):
            return answers.own_refusal(INVALID, "A reason is a string.", pointer=f"/{REASON}")
        for name, value in tool.fixed.items():
            if params.get(name, value) != value:
                words = f"{name} is {value!a} in this tool; another has a tool of its own."
                return answers.own_refusal(INVALID, words, pointer=f"/{name}")
        ends_at = time.monotonic() + wait
        try:
            async with asyncio.timeout(max(wait, GRACE_SECONDS)):
                answer = await self._client.submit(operation, params, reason=reason)
        except TimeoutError:
            return await self._outlasted(tool, operation, params)
        if not isinstance(answer, Held):
            return answers.ran(answer)
        view = await self._followed(answer.request_id, ends_at - time.monotonic())
        return answers.held(answer) if view is None else view

    async def _followed(self, request_id: str, seconds: float) -> RequestView | None:
        """Return a held request after at most `seconds`; None where that cannot be seen now."""
        wait = max(0.0, seconds)
        # Whatever becomes of the look, it is held all the same.
        with contextlib.suppress(
            TimeoutError, ConnectionFailedError, InvalidAnswerError, ProblemError
        ):
            async with asyncio.timeout(wait + GRACE_SECONDS):
                return await self._client.follow(request_id, wait)
        return None

    async def _outlasted(
        self, tool: ToolDeclaration, operation: str, params: Arguments
    ) -> ToolAnswer | RequestView:
        """Return the request of a run that goes on, or that there is none to be seen."""
        if not tool.is_read:
            for view in await self._own("running", limit=tools.LISTED_REQUESTS):
                if view.operation == operation and _is_same(view.params, params):
                    return view
        return answers.still_running(operation, is_read=tool.is_read)

    # -- requests ---------------------------------------------------------------------------------

    async def _of_requests(self, name: str, arguments: Arguments) -> ToolAnswer | RequestView:
        follow: dict[str, Callable[[Arguments], Awaitable[ToolAnswer | RequestView]]] = {
            tools.STATUS: self._status,
            tools.CANCEL: self._cancelled,
            tools.REQUESTS: self._listed,
        }
        try:
            return await follow[name](arguments)
        except _ArgumentError as error:
            return answers.own_refusal(INVALID, str(error), pointer=error.name)

    async def _status(self, arguments: Arguments) -> RequestView:
        request_id = _request_id(arguments)
        longest = LONGEST_WAIT_SECONDS
        wait = arguments.get("wait_seconds", self.wait_seconds)
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= longest:
            raise _ArgumentError("wait_seconds", f"is 0 to {longest} seconds.")
        view = await self._client.request(request_id)
        if view.is_finished or not wait:
            return view
        return await self._followed(view.request_id, wait) or view

    async def _cancelled(self, arguments: Arguments) -> ToolAnswer:
        reason = _text(arguments, REASON) if REASON in arguments else None
        view = await self._client.request(_request_id(arguments))
        return answers.withdrawn(await self._client.cancel(view.request_id, reason))

    async def _listed(self, arguments: Arguments) -> ToolAnswer:
        state = _text(arguments, "state") if "state" in arguments else None
        limit = tools.LISTED_REQUESTS
        found = await self._own(state, limit=limit)
        return answers.rows(found, has_more=len(found) == limit)

    async def _own(self, state: str | None, *, limit: int) -> list[RequestView]:
        """Return this certificate's own newest requests; an approver is shown others' too."""
        if self._cn is None:
            self._cn = (await self._client.whoami()).cn
        page = await self._client.requests(state=state, limit=limit)
        return [view for view in page.requests if view.caller == self._cn]


class _ArgumentError(ValueError):
    """An argument of a tool for requests is not what it should be; `name` points at it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} {what}")
        self.name = f"/{name}"


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise _ArgumentError(name, "is a string.")
    return value


def _is_json(arguments: Arguments) -> bool:
    """Return whether JSON has all of it: infinite numbers and NaN come through some parsers."""
    try:
        json.dumps(arguments, allow_nan=False)
    except ValueError:
        return False
    return True


def _request_id(arguments: Arguments) -> str:
    value = _text(arguments, "request_id")
    if re.fullmatch(ID, value) is None:
        raise _ArgumentError("request_id", "is 1 to 64 letters, digits, `_` and `-`.")
    return value


def _is_same(stored: Arguments, given: Arguments) -> bool:
    """Return whether a stored request has what was given; it has defaults beside it."""
    return all(stored.get(name) == value for name, value in given.items())
