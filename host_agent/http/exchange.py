"""One request and its response as ASGI (https://asgi.readthedocs.io, 3.0) sees them.

The body is handed over only as fast as the application asks for it, its deadline and its faults
are raised inside the application that waits for it, and whatever happens there is an answer.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from host_agent.errors import HostAgentError, InternalError

_log = logging.getLogger("host_agent.http")

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI application of the type `http`: no lifespan, no WebSocket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A response ready to be sent: status, header fields but for the length, and body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


Render: TypeAlias = Callable[[HostAgentError, str], Rendered]
"""Makes the response to a failure that no handler answered; the text is the exchange's id."""
Refused: TypeAlias = Callable[[HostAgentError, str, object], Awaitable[None]]
"""Told of every refusal that the server itself answers: the error, the exchange's id, the peer."""


def new_exchange_id() -> str:
    """Return the name of one exchange of request and response: 128 random bits in hex."""
    return secrets.token_hex(16)


class Transmitter(Protocol):
    """The HTTP connection below an exchange."""

    async def invite_body(self, exchange: "Exchange") -> None:
        """Say `100 Continue` where the client waits for it."""
        ...

    def consumed(self) -> None:
        """Note that the application has taken what there was of the body."""
        ...

    async def respond(
        self,
        exchange: "Exchange",
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        is_last: bool,
    ) -> None:
        """Send the head of the response and the first piece of its body.

        Raises:
            ConnectionError: the peer is gone, or does not read.
        """
        ...

    async def respond_more(self, exchange: "Exchange", body: bytes, *, is_last: bool) -> None:
        """Send another piece of the body.

        Raises:
            ConnectionError: the peer is gone, or does not read.
        """
        ...

    def finished(self, exchange: "Exchange", *, is_whole: bool) -> None:
        """Note that the exchange is over; `is_whole` says whether the response was sent fully."""
        ...


class Exchange:
    """An ASGI HTTP exchange."""

    def __init__(
        self,
        transmitter: Transmitter,
        scope: dict[str, Any],
        *,
        peer: object,
        render: Render,
        refused: Refused | None,
    ) -> None:
        self.id = new_exchange_id()
        self.scope = scope
        self.buffered = 0
        self.has_whole_body = False
        self.has_started = False
        self._transmitter = transmitter
        self._peer = peer
        self._render = render
        self._refused = refused
        self._chunks: list[bytes] = []
        self._body_was_told = False
        self._body_fault: HostAgentError | None = None
        self._is_gone = False
        self._waiter: asyncio.Future[None] | None = None
        self._start: Mapping[str, Any] | None = None
        self._has_ended = False

    # -- from the wire -------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        if not self._has_ended and self._body_fault is None:
            self._chunks.append(data)
            self.buffered += len(data)
            self._wake()

    def feed_end(self) -> None:
        """Note that the body is whole."""
        self.has_whole_body = True
        self._wake()

    def fail_body(self, error: HostAgentError) -> None:
        """Raise `error` in the application once it waits for the rest of the body."""
        if self._body_fault is None and not self.has_whole_body:
            self._body_fault = error
            self._chunks.clear()
            self.buffered = 0
            self._wake()

    def disconnect(self) -> None:
        """Note that the peer is gone."""
        self._is_gone = True
        self._wake()

    # -- the application -----------------------------------------------------------------------

    async def run(self, app: Application) -> None:
        """Run the application; answer with a problem where it does not."""
        try:
            await app(self.scope, self.receive, self.send)
        except ConnectionError:
            _log.debug("exchange %s: the peer is gone", self.id)
        except HostAgentError as error:
            await self.refuse(error)
        except Exception:  # noqa: BLE001 - the outermost edge: whatever it is, it is answered
            _log.exception("exchange %s failed", self.id)
            await self.refuse(_defect())
        else:
            if not self._has_ended and not self.has_started:
                _log.error("exchange %s was left without an answer", self.id)
                await self.refuse(_defect())
        finally:
            self._end(is_whole=False)

    async def refuse(self, error: HostAgentError) -> None:
        """Answer with a problem, unless a response has begun; the exchange is over then."""
        if not self.has_started and not self._has_ended:
            if self._refused is not None:
                await self._refused(error, self.id, self._peer)
            rendered = self._render(error, self.id)
            self.has_started = True
            try:
                await self._transmitter.respond(
                    self,
                    rendered.status,
                    self._fields(rendered.headers),
                    rendered.body,
                    is_last=True,
                )
            except ConnectionError:
                self._end(is_whole=False)
            else:
                self._end(is_whole=True)
        else:
            self._end(is_whole=False)

    async def receive(self) -> dict[str, Any]:
        """Return the next ASGI event: a piece of the body, then the peer's leaving.

        Raises:
            HostAgentError: the rest of the body will not come: too late, too large, malformed.
        """
        while True:
            if self._chunks:
                return self._next_chunk()
            if self.has_whole_body and not self._body_was_told:
                self._body_was_told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._body_fault is not None and not self._body_was_told:
                self._body_was_told = True
                raise self._body_fault
            if self._is_gone or self._has_ended:
                return {"type": "http.disconnect"}
            if not self.has_whole_body:
                await self._transmitter.invite_body(self)
            await self._wait()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take an ASGI event of the response; its head goes out with the first piece of body.

        Raises:
            ConnectionError: the peer is gone, or does not read.
        """
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body" or self._start is None or self._has_ended:
            text = f"unexpected ASGI message {message['type']}"
            raise RuntimeError(text)
        body = message.get("body", b"")
        is_last = not message.get("more_body", False)
        if self.has_started:
            await self._transmitter.respond_more(self, body, is_last=is_last)
        else:
            self.has_started = True
            headers = self._fields(self._start.get("headers", ()))
            await self._transmitter.respond(
                self, self._start["status"], headers, body, is_last=is_last
            )
        if is_last:
            self._end(is_whole=True)

    # -- inside --------------------------------------------------------------------------------

    def _next_chunk(self) -> dict[str, Any]:
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.buffered = 0
        is_last = self._body_was_told = self.has_whole_body
        self._transmitter.consumed()
        return {"type": "http.request", "body": body, "more_body": not is_last}

    def _fields(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [*headers, (b"x-request-id", self.id.encode())]

    def _end(self, *, is_whole: bool) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._chunks.clear()
            self._wake()
            self._transmitter.finished(self, is_whole=is_whole)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _defect() -> InternalError:
    return InternalError(
        "The agent failed to answer. Tell the administrator of this host the request id."
    )
