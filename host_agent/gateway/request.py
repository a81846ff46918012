"""Quart's request and its ASGI side made to fit: who sent it, and a body read on demand."""

import asyncio
from typing import cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Request, Response
from quart.asgi import ASGIHTTPConnection
from quart.globals import request_ctx
from quart.utils import encode_headers
from quart.wrappers.response import IterableBody

from host_agent.errors import InvalidIdentityError, InvalidParameterError
from host_agent.gateway import body as bodies
from host_agent.gateway.problems import new_exchange_id
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Principal


class AgentRequest(Request):
    """A request with who sent it. `principal` and `large_bodies` are set before a route runs."""

    principal: Principal
    large_bodies: asyncio.Semaphore
    receive: bodies.Receive
    exchange_id: str
    peer: PeerCertificate | InvalidIdentityError | None
    operation: str | None = None

    async def read_body(self) -> bytes:
        """Return the body; see `body.read_body`."""
        length = self.headers.get("Content-Length")
        return await bodies.read_body(self.receive, length, self.large_bodies)

    async def read_json(self) -> bytes:
        """Return the body of a request that must have one, declared as JSON; no query."""
        self.query()
        bodies.check_length(self.headers.get("Content-Length"))
        bodies.require_json(self.headers.get("Content-Type"), self.headers.get("Content-Encoding"))
        return await self.read_body()

    def query(self, *names: str) -> dict[str, str]:
        """Return the query parameters, which may be `names`, each once.

        Raises:
            InvalidParameterError: another name, or one twice.
        """
        found: dict[str, str] = {}
        for name, value in self.args.items(multi=True):
            if name not in names or name in found:
                message = f"query: only {', '.join(names) or 'no parameters'}, each once."
                raise InvalidParameterError(message)
            found[name] = value
        return found


def current() -> AgentRequest:
    """Return the request of this task."""
    return cast("AgentRequest", request_ctx.request)


async def until_gone(receive: bodies.Receive) -> None:
    """Return once the peer is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stream(body: IterableBody, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Send pieces as they come, until there are no more or the peer is gone.

    Sending waits for a peer that reads slowly, so nothing piles up here.
    """
    sending = asyncio.ensure_future(_send_all(body, send))
    gone = asyncio.ensure_future(until_gone(cast("bodies.Receive", receive)))
    try:
        await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        sending.cancel()
        gone.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)


async def _send_all(body: IterableBody, send: ASGISendCallable) -> None:
    async with body as pieces:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class AgentConnection(ASGIHTTPConnection):
    """Quart's ASGI side without its tasks: one request, one task, no reading ahead.

    The body is read when a route asks for it. A peer that leaves does not cancel its request:
    what was asked for is carried through; only long polls look for the peer.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        request = cast("AgentRequest", self._create_request_from_scope(send))
        told = (self.scope.get("extensions") or {}).get("host_agent", {})
        request.receive = cast("bodies.Receive", receive)
        request.peer = told.get("peer")
        request.exchange_id = told.get("exchange_id") or new_exchange_id()
        response = cast("Response", await self.app.handle_request(request))
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": encode_headers(response.headers),
            }
        )
        if isinstance(response.response, IterableBody):
            await _stream(response.response, receive, send)
            return
        data = await response.get_data(as_text=False)
        await send({"type": "http.response.body", "body": data, "more_body": False})
