"""An approver that answers by a script: a client of the API with an approver's certificate.

It decides as a person would over the command line, so that certificate, role, digest and quorum are
asked of it like of anybody.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from host_agent.client import AsyncClient, RequestView
from host_agent.errors import ConnectionFailedError, ProblemError
from host_agent.simulation.script import AnswerKind, Script, ScriptedAnswer

_log = logging.getLogger("host_agent.simulation")
HELD = "request.held"


class ScriptedApprover:
    """Answers what is held until it is cancelled; `listens` is set once it does.

    `expire` ends a request as its time would.
    """

    def __init__(
        self,
        name: str,
        client: AsyncClient,
        script: Script,
        expire: Callable[[str], Awaitable[None]],
    ) -> None:
        self._name = name
        self._client = client
        self._script = script
        self._expire = expire
        self._answered: set[str] = set()
        self._exchanges: set[asyncio.Task[RequestView]] = set()
        self.listens = asyncio.Event()

    async def answer_forever(self) -> None:
        """Answer each request that is held, now and from now on."""
        async with (
            asyncio.TaskGroup() as answers,
            contextlib.aclosing(self._client.events(on_state=self._turned)) as events,
        ):
            async for event in events:
                if event.name == HELD:
                    request_id = str(event.data.body["request_id"])
                    if request_id not in self._answered:
                        self._answered.add(request_id)
                        answers.create_task(self._answer(request_id))

    async def settle(self) -> None:
        """Wait until what was on its way when this was cancelled has been answered."""
        await asyncio.gather(*self._exchanges, return_exceptions=True)

    async def _exchange(self, steps: Coroutine[Any, Any, RequestView]) -> RequestView:
        """Take `steps` to their end, cancelled or not: half a handshake leaves its socket open."""
        exchange = asyncio.create_task(steps)
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        return await asyncio.shield(exchange)

    def _turned(self, is_open: bool) -> None:  # noqa: FBT001 - as the client calls it
        if is_open:
            self.listens.set()

    async def _answer(self, request_id: str) -> None:
        try:
            request = await self._exchange(self._client.request(request_id))
            answer = self._script.answer(request_id, request.operation, request.resource)
            if answer is None:
                return
            await asyncio.sleep(answer.after)
            await self._give(request_id, request.digest, answer)
        except (ProblemError, ConnectionFailedError) as error:
            # Decided by the other approver, withdrawn meanwhile, or not this one's to decide.
            _log.info("%s did not decide %s: %s", self._name, request_id, error)

    async def _give(self, request_id: str, digest: str, answer: ScriptedAnswer) -> None:
        match answer.answer:
            case AnswerKind.APPROVE:
                await self._exchange(self._client.approve(request_id, digest, answer.words))
            case AnswerKind.DENY:
                await self._exchange(self._client.deny(request_id, answer.words))
            case AnswerKind.EXPIRE:
                await self._expire(request_id)
            case AnswerKind.LEAVE:
                return
