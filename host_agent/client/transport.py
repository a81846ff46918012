"""The two clients: `exchange` says what to do, this module does it over httpx.

Nothing of the environment counts: no proxies, no netrc, no `SSL_CERT_FILE`. Redirects are not
followed.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, overload

import httpx
from pydantic import JsonValue

from host_agent.api.wire.dry_run import DryRun
from host_agent.api.wire.host import Health, Readiness
from host_agent.api.wire.model import Json
from host_agent.api.wire.operations import Held, OperationInfo, Ran
from host_agent.api.wire.people import GrantBody, OwnIdentity
from host_agent.api.wire.requests import RequestPage, RequestView
from host_agent.api.wire.tools import ToolForm
from host_agent.client.connection import (
    ClientFiles,
    Received,
    checked_url,
    headers_of,
    timeout_of,
    translating,
)
from host_agent.client.events import AgentEvent, OnState, Position
from host_agent.client.exchange import Call, Pause, Protocol, Reply, Steps
from host_agent.client.streaming import follow, follow_async
from host_agent.errors import ConnectionFailedError, InvalidAnswerError

TIMEOUT_SECONDS = 30.0
"""For an exchange that starts nothing on the host."""

RUN_TIMEOUT_SECONDS = 300.0
"""For an ask: an allowed operation waits for its turn and runs before it is answered."""

MAX_RESPONSE_BYTES = 16 * 1024 * 1024

T = TypeVar("T")


class _ClientSettings:
    """What both clients are made of."""

    def __init__(
        self,
        *,
        url: str,
        cert: Path,
        key: Path,
        ca: Path,
        timeout_seconds: float = TIMEOUT_SECONDS,
        run_timeout_seconds: float = RUN_TIMEOUT_SECONDS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        self._url = checked_url(url)
        self._files = ClientFiles(cert=cert, key=key, ca=ca)
        self._max_response_bytes = max_response_bytes
        self._protocol = Protocol(
            timeout_seconds=timeout_seconds,
            run_timeout_seconds=run_timeout_seconds,
            monotonic=time.monotonic,
            make_key=lambda: uuid.uuid4().hex,
        )

    def _received(self, response: httpx.Response, deadline: float) -> Received:
        return Received(response, limit=self._max_response_bytes, deadline=deadline)


class Client(_ClientSettings):
    """The blocking client; a context manager that owns its connections. Not for several threads."""

    def __init__(
        self,
        *,
        url: str,
        cert: Path,
        key: Path,
        ca: Path,
        timeout_seconds: float = TIMEOUT_SECONDS,
        run_timeout_seconds: float = RUN_TIMEOUT_SECONDS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        super().__init__(
            url=url,
            cert=cert,
            key=key,
            ca=ca,
            timeout_seconds=timeout_seconds,
            run_timeout_seconds=run_timeout_seconds,
            max_response_bytes=max_response_bytes,
        )
        self._http = self._connections()
        self._left: list[httpx.Client] = []

    def _connections(self) -> httpx.Client:
        return httpx.Client(verify=self._files.context, trust_env=False, follow_redirects=False)

    def _renewed(self) -> httpx.Client:
        """Return the connections to use: new ones once the certificate's files have changed."""
        if self._files.have_changed():
            self._left.append(self._http)  # a stream may still be read
            self._http = self._connections()
        return self._http

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for http in (self._http, *self._left):
            http.close()

    @overload
    def submit(
        self,
        operation: str,
        params: Mapping[str, JsonValue],
        *,
        reason: str | None = None,
        wait: None = None,
    ) -> Ran | Held: ...
    @overload
    def submit(
        self,
        operation: str,
        params: Mapping[str, JsonValue],
        *,
        reason: str | None = None,
        wait: float,
    ) -> Ran | RequestView: ...
    def submit(
        self,
        operation: str,
        params: Mapping[str, JsonValue],
        *,
        reason: str | None = None,
        wait: float | None = None,
    ) -> Ran | Held | RequestView:
        """Ask for `operation`: it ran, or it is held.

        With `wait`, a held request is followed for that many seconds, and its newest view is
        returned, whatever its state: `RequestView.is_finished` tells.

        Raises:
            ProblemError: refused, or it failed.
            ConnectionFailedError: no answer; the ask carries a key, so asking again is safe only
                through the same call's own retries.
        """
        answer = self._run(self._protocol.submit(operation, params, reason))
        if wait is None or isinstance(answer, Ran):
            return answer
        return self.follow(answer.request_id, wait)

    def dry_run(
        self, operation: str, params: Mapping[str, JsonValue], *, reason: str | None = None
    ) -> DryRun:
        """Ask what an ask for `operation` would come to; nothing happens.

        Raises:
            ProblemError: the ask itself would be refused with this.
        """
        return self._run(self._protocol.dry_run(operation, params, reason))

    def operations(self) -> tuple[OperationInfo, ...]:
        """Return what this certificate may ask for."""
        return self._run(self._protocol.operations())

    def tools(self, form: ToolForm) -> tuple[Json, ...]:
        """Return the same as tools, as the API that `form` names takes them."""
        return self._run(self._protocol.tools(form))

    def requests(
        self, *, state: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> RequestPage:
        """Return one page of the requests that this principal may see, newest first."""
        return self._run(self._protocol.requests(state, limit, cursor))

    def request(self, request_id: str, *, wait: int = 0) -> RequestView:
        """Return a request by its id or a unique prefix, at once or at its next change.

        Raises:
            ValueError: `wait` is not 0 to 60 seconds, or the id has other characters than ids have.
        """
        return self._run(self._protocol.request(request_id, wait))

    def approve(
        self,
        request_id: str,
        digest: str,
        reason: str | None = None,
        *,
        grant: GrantBody | None = None,
    ) -> RequestView:
        """Approve exactly what `digest` names; returns at once, not after the run.

        With `grant`, further runs like it too.
        """
        return self._run(self._protocol.decide(request_id, "approve", digest, reason, grant))

    def deny(
        self, request_id: str, reason: str | None = None, *, not_before: datetime | None = None
    ) -> RequestView:
        """Deny a request; people are not asked for the same before `not_before`, which is aware."""
        steps = self._protocol.decide(request_id, "deny", None, reason, not_before=not_before)
        return self._run(steps)

    def cancel(self, request_id: str, reason: str | None = None) -> RequestView:
        """Withdraw a request of one's own."""
        return self._run(self._protocol.cancel(request_id, reason))

    def administer(self, steps: Callable[[Protocol], Steps[T]]) -> T:
        """Do one of the exchanges of `host_agent.client.administration`."""
        return self._run(steps(self._protocol))

    def whoami(self) -> OwnIdentity:
        """Return who this client is to the agent."""
        return self._run(self._protocol.whoami())

    def health(self) -> Health:
        """Return what the agent says of itself."""
        return self._run(self._protocol.health())

    def ready(self) -> Readiness:
        """Return whether the agent would run something now."""
        return self._run(self._protocol.ready())

    def follow(
        self,
        request_id: str,
        timeout: float,
        *,
        on_view: Callable[[RequestView], None] | None = None,
    ) -> RequestView:
        """Return the request once it is finished, or its newest view after `timeout` seconds.

        `on_view` sees each view as it comes. Lost connections, 429 and 503 are waited out.
        """
        return self._run(self._protocol.follow(request_id, timeout, on_view))

    def events(
        self, *, after: int | None = None, on_state: OnState | None = None
    ) -> Generator[AgentEvent, None, None]:
        """Return what happens, after the event `after` where it is given, until it is closed.

        A stream that ends or breaks is begun again after the last event that was seen. `on_state`
        is told when one has begun or ended: without `after`, what happened between is missing.

        Raises:
            ProblemError: refused for a reason that waiting does not mend.
        """
        return follow(self._renewed, self._url, Position(after, on_state=on_state))

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    reply = self._do(step)
                except (ConnectionFailedError, InvalidAnswerError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Call | Pause) -> Reply | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        deadline = time.monotonic() + step.seconds
        with (
            translating(self._url, step),
            self._renewed().stream(
                step.method,
                self._url + step.target,
                content=step.content,
                headers=headers_of(step),
                timeout=timeout_of(step),
            ) as response,
        ):
            received = self._received(response, deadline)
            for chunk in response.iter_raw():
                received.add(chunk)
            return received.reply()


class AsyncClient(_ClientSettings):
    """The same client for asyncio; see `Client` for what each method promises."""

    def __init__(
        self,
        *,
        url: str,
        cert: Path,
        key: Path,
        ca: Path,
        timeout_seconds: float = TIMEOUT_SECONDS,
        run_timeout_seconds: float = RUN_TIMEOUT_SECONDS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        super().__init__(
            url=url,
            cert=cert,
            key=key,
            ca=ca,
            timeout_seconds=timeout_seconds,
            run_timeout_seconds=run_timeout_seconds,
            max_response_bytes=max_response_bytes,
        )
        self._http = self._connections()
        self._left: list[httpx.AsyncClient] = []

    def _connections(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._files.context, trust_env=False, follow_redirects=False
        )

    def _renewed(self) -> httpx.AsyncClient:
        """Return the connections to use: new ones once the certificate's files have changed."""
        if self._files.have_changed():
            self._left.append(self._http)  # a stream may still be read
            self._http = self._connections()
        return self._http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for http in (self._http, *self._left):
            await http.aclose()

    @overload
    async def submit(
        self,
        operation: str,
        params: Mapping[str, JsonValue],
        *,
        reason: str | None = None,
        wait: None = None,
    ) -> Ran | Held: ...
    @overload
    async def submit(
        self,
        operation: str,
        params: Mapping[str, JsonValue],
        *,
        reason: str | None = None,
        wait: float,
    ) -> Ran | RequestView: ...
    async def submit(
        self,
        operation: str,
        params: Mapping[str, JsonValue],
        *,
        reason: str | None = None,
        wait: float | None = None,
    ) -> Ran | Held | RequestView:
        """Ask for `operation`: it ran, or it is held (see `Client.submit`)."""
        answer = await self._run(self._protocol.submit(operation, params, reason))
        if wait is None or isinstance(answer, Ran):
            return answer
        return await self.follow(answer.request_id, wait)

    async def dry_run(
        self, operation: str, params: Mapping[str, JsonValue], *, reason: str | None = None
    ) -> DryRun:
        """Ask what an ask for `operation` would come to; nothing happens."""
        return await self._run(self._protocol.dry_run(operation, params, reason))

    async def operations(self) -> tuple[OperationInfo, ...]:
        """Return what this certificate may ask for."""
        return await self._run(self._protocol.operations())

    async def tools(self, form: ToolForm) -> tuple[Json, ...]:
        """Return the same as tools, as the API that `form` names takes them."""
        return await self._run(self._protocol.tools(form))

    async def requests(
        self, *, state: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> RequestPage:
        """Return one page of the requests that this principal may see, newest first."""
        return await self._run(self._protocol.requests(state, limit, cursor))

    async def request(self, request_id: str, *, wait: int = 0) -> RequestView:
        """Return a request by its id or a unique prefix, at once or at its next change."""
        return await self._run(self._protocol.request(request_id, wait))

    async def approve(
        self,
        request_id: str,
        digest: str,
        reason: str | None = None,
        *,
        grant: GrantBody | None = None,
    ) -> RequestView:
        """Approve exactly what `digest` names; returns at once, not after the run."""
        return await self._run(self._protocol.decide(request_id, "approve", digest, reason, grant))

    async def deny(
        self, request_id: str, reason: str | None = None, *, not_before: datetime | None = None
    ) -> RequestView:
        """Deny a request; people are not asked for the same before `not_before`, which is aware."""
        steps = self._protocol.decide(request_id, "deny", None, reason, not_before=not_before)
        return await self._run(steps)

    async def cancel(self, request_id: str, reason: str | None = None) -> RequestView:
        """Withdraw a request of one's own."""
        return await self._run(self._protocol.cancel(request_id, reason))

    async def administer(self, steps: Callable[[Protocol], Steps[T]]) -> T:
        """Do one of the exchanges of `host_agent.client.administration`."""
        return await self._run(steps(self._protocol))

    async def whoami(self) -> OwnIdentity:
        """Return who this client is to the agent."""
        return await self._run(self._protocol.whoami())

    async def health(self) -> Health:
        """Return what the agent says of itself."""
        return await self._run(self._protocol.health())

    async def ready(self) -> Readiness:
        """Return whether the agent would run something now."""
        return await self._run(self._protocol.ready())

    async def follow(
        self,
        request_id: str,
        timeout: float,
        *,
        on_view: Callable[[RequestView], None] | None = None,
    ) -> RequestView:
        """Return the request once it is finished, or its newest view after `timeout` seconds."""
        return await self._run(self._protocol.follow(request_id, timeout, on_view))

    def events(
        self, *, after: int | None = None, on_state: OnState | None = None
    ) -> AsyncGenerator[AgentEvent, None]:
        """Yield what happens, until it is closed (see `Client.events`)."""
        return follow_async(self._renewed, self._url, Position(after, on_state=on_state))

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    reply = await self._do(step)
                except (ConnectionFailedError, InvalidAnswerError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _do(self, step: Call | Pause) -> Reply | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        deadline = time.monotonic() + step.seconds
        with translating(self._url, step):
            async with self._renewed().stream(
                step.method,
                self._url + step.target,
                content=step.content,
                headers=headers_of(step),
                timeout=timeout_of(step),
            ) as response:
                received = self._received(response, deadline)
                async for chunk in response.aiter_raw():
                    received.add(chunk)
                return received.reply()
