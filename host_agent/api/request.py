"""Between ASGI and Quart's routes: who sent a request, a body on demand, a response in pieces.

Quart's own ASGI side reads ahead, cancels what a peer that leaves has asked for, and gives a
response up after a minute. So a request is made here, from Quart's class, and handed to
`Quart.handle_request`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, cast

from quart import Quart, Request, Response
from werkzeug.datastructures import Headers

from host_agent.api import body as bodies
from host_agent.errors import (
    FaultPlace,
    InvalidIdentityError,
    InvalidParameterError,
    MalformedRequestError,
    correct,
)
from host_agent.http.exchange import Receive, Rendered, Send, new_exchange_id
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal


class AgentRequest(Request):
    """A request with who sent it, by the certificate.

    `principal`, `large_bodies` and `parameters`, those of the query, are set before a handler runs.
    """

    principal: Principal
    large_bodies: asyncio.Semaphore
    receive: Receive
    exchange_id: str
    peer: PeerCertificate | InvalidIdentityError | None
    operation: str | None = None
    parameters: Mapping[str, str]

    async def read_body(self) -> bytes:
        """Return the body; see `body.read_body`."""
        length = self.headers.get("Content-Length")
        return await bodies.read_body(self.receive, length, self.large_bodies)

    async def read_json(self) -> bytes:
        """Return the body of a request that must have one, declared as JSON."""
        bodies.check_length(self.headers.get("Content-Length"))
        bodies.require_json(self.headers.get("Content-Type"), self.headers.get("Content-Encoding"))
        return await self.read_body()

    async def read_nothing(self) -> None:
        """Refuse a body where the path says it all.

        Raises:
            MalformedRequestError: there is one.
        """
        if await self.read_body():
            message = "This takes no body; the path says it all."
            raise MalformedRequestError(message)

    def query(self, names: Collection[str]) -> dict[str, str]:
        """Return the query parameters, which may be `names`, each once.

        Raises:
            InvalidParameterError: another name, or one twice.
        """
        found: dict[str, str] = {}
        for name, value in self.args.items(multi=True):
            if name not in names or name in found:
                message = f"query: only {', '.join(names) or 'no parameters'}, each once."
                fix = correct(message, name, place=FaultPlace.QUERY)
                raise InvalidParameterError(message, recovery=fix)
            found[name] = value
        return found


def current() -> AgentRequest:
    """Return the request of this task."""
    return _current.get()


_current: ContextVar[AgentRequest] = ContextVar("host_agent.api.request")


class StreamedResponse(Response):
    """A response whose body is `pieces`, sent as they come."""

    def __init__(self, pieces: AsyncGenerator[bytes], *, content_type: str) -> None:
        super().__init__(status=HTTPStatus.OK, content_type=content_type)
        self.pieces = pieces


def rendered(answer: Rendered) -> Response:
    """Return what is rendered already as Quart's response."""
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


async def serve(app: Quart, scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer one request in one task, without reading ahead.

    The body is read when a route asks for it. A peer that leaves does not cancel its request:
    what was asked for is carried through; only long polls and streams look for the peer.
    """
    request = _request(scope, receive)
    token = _current.set(request)
    try:
        response = await app.handle_request(request)
    finally:
        _current.reset(token)
    fields = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
    if isinstance(response, StreamedResponse):
        fields = [(name, value) for name, value in fields if name != b"content-length"]
    await send({"type": "http.response.start", "status": response.status_code, "headers": fields})
    if isinstance(response, StreamedResponse):
        if request.method == "HEAD":
            await response.pieces.aclose()
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            await send({"type": "http.response.body"})
            return
        await _stream(response.pieces, receive, send)
        return
    data = await cast("Response", response).get_data(as_text=False)
    await send({"type": "http.response.body", "body": data, "more_body": False})


def _request(scope: dict[str, Any], receive: Receive) -> AgentRequest:
    request = AgentRequest(
        scope["method"],
        scope["scheme"],
        scope["path"],
        scope["query_string"],
        Headers(
            [(name.decode("latin1"), value.decode("latin1")) for name, value in scope["headers"]]
        ),
        scope["root_path"],
        scope["http_version"],
        cast("Any", scope),
        send_push_promise=_push_nothing,
    )
    told = scope["extensions"].get("host_agent", {})
    request.receive = receive
    request.peer = told.get("peer")
    request.exchange_id = told.get("exchange_id") or new_exchange_id()
    return request


async def _push_nothing(path: str, headers: Headers) -> None:
    """HTTP/1.1 has no server push."""


async def until_gone(receive: Receive) -> None:
    """Return once the peer is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stream(pieces: AsyncGenerator[bytes], receive: Receive, send: Send) -> None:
    """Send pieces as they come, until there are no more or the peer is gone.

    Sending waits for a peer that reads slowly, so nothing piles up here.
    """
    sending = asyncio.ensure_future(_send_all(pieces, send))
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        sending.cancel()
        gone.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)


async def _send_all(pieces: AsyncGenerator[bytes], send: Send) -> None:
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
