"""Quart's request and its ASGI side made to fit: who sent it, and a body read on demand."""

import asyncio
from typing import cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Request, Response
from quart.asgi import ASGIHTTPConnection
from quart.globals import request_ctx
from quart.utils import encode_headers

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
        data = await response.get_data(as_text=False)
        await send({"type": "http.response.body", "body": data, "more_body": False})
