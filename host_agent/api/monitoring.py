"""The plain listener for monitoring: `/metrics`, `/health`, `/ready`, and nothing that acts.

A bare ASGI application on a stock Hypercorn: what scrapes it has no certificate and gets no secret,
and monitors and browsers want an ordinary server. It is for loopback only.
"""

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self, TypeAlias

from hypercorn.asyncio import serve
from hypercorn.config import Config
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from host_agent.api.problems import (
    HEALTH,
    JSON,
    render,
    render_unready,
    to_bytes,
)
from host_agent.api.wire.host import Readiness
from host_agent.errors import (
    ForeignOriginError,
    MethodNotAllowedError,
    RequestTimeoutError,
    RouteNotFoundError,
)
from host_agent.http.exchange import Application, Receive, Rendered, Send, new_exchange_id
from host_agent.http.framing import field
from host_agent.http.listener import listening_socket

_log = logging.getLogger("host_agent.monitoring")

HEAD_SECONDS: Final = 5
"""For a header section to come, and between two requests."""
BODY_SECONDS: Final = 5
"""For a body that nobody asked for to end."""
WRITE_SECONDS: Final = 10
"""For a peer to take what it was sent."""
END_SECONDS: Final = 2.0
"""For answers under way when the agent ends."""


class MonitoringListener:
    """Serves an ASGI application of monitoring on one loopback address."""

    def __init__(self, app: Application, *, bind: tuple[str, int]) -> None:
        self._app = app
        self._bind = bind
        self._port = 0
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ConfigurationError: the address cannot be bound.
        """
        listening = listening_socket(self._bind, key="metrics.bind")
        # Hypercorn waits for good for a peer that does not read; the system does not (tcp(7)).
        # Who is accepted inherits it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_SECONDS * 1000)
        self._port = listening.getsockname()[1]
        self._serving = asyncio.create_task(
            serve(self._app, _settings(listening), shutdown_trigger=self._stop.wait, mode="asgi"),  # type: ignore[arg-type]
            name="monitoring",
        )
        self._serving.add_done_callback(_ended)

    @property
    def port(self) -> int:
        return self._port

    async def close(self) -> None:
        """Take nothing new, let answers out for a moment, then end everything."""
        self._stop.set()
        if self._serving is not None:
            await asyncio.wait((self._serving,), timeout=END_SECONDS)
            self._serving.cancel()
            await asyncio.wait((self._serving,))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _settings(listening: socket.socket) -> Config:
    settings = Config()
    settings.bind = [f"fd://{listening.detach()}"]
    settings.keep_alive_timeout = HEAD_SECONDS
    settings.graceful_timeout = END_SECONDS / 2
    settings.include_server_header = False
    _log.setLevel(logging.WARNING)  # where it listens is said by the agent
    settings.errorlog = _log
    return settings


def _ended(serving: asyncio.Task[None]) -> None:
    if not serving.cancelled() and (error := serving.exception()) is not None:
        _log.error("monitoring has ended", exc_info=error)


Ready: TypeAlias = Callable[[], Awaitable[Readiness]]
"""Tells the state of each part of the agent."""
Scrape: TypeAlias = Callable[[], Awaitable[bytes]]
"""Makes the metrics in the Prometheus text format; it does so also where a part is broken."""


def create_metrics_app(*, ready: Ready, scrape: Scrape) -> Application:
    """Return the ASGI application of monitoring.

    An offer of another protocol is not taken up: it is answered as the request that it came with.
    """
    answer = functools.partial(_answer, ready=ready, scrape=scrape)

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            exchange_id = new_exchange_id()
            rendered = await answer(scope, "GET", exchange_id)
            await _send(rendered, exchange_id, send, prefix="websocket.http.response")
        else:
            await _exchange(answer, scope, receive, send)

    return app


async def _exchange(
    answer: Callable[[Mapping[str, Any], str, str], Awaitable[Rendered]],
    scope: Mapping[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    """Answer one request; its body is read and dropped, or Hypercorn would wait to hand it over."""
    exchange_id = new_exchange_id()
    reading = asyncio.ensure_future(_skip_body(receive))
    try:
        await asyncio.wait((reading,), timeout=BODY_SECONDS)
        if reading.done():
            rendered = await answer(scope, scope["method"], exchange_id)
        else:
            error = RequestTimeoutError("The body did not arrive in time; none is needed here.")
            rendered = render(error, exchange_id, extra=((b"connection", b"close"),))
        await _send(rendered, exchange_id, send, prefix="http.response")
    finally:
        reading.cancel()
        await asyncio.wait((reading,))


async def _skip_body(receive: Receive) -> None:
    while True:
        event = await receive()
        if event["type"] != "http.request" or not event.get("more_body", False):
            return


async def _live(receive: Receive, send: Send) -> None:
    """Say that nothing needs to be begun or ended."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def _send(rendered: Rendered, exchange_id: str, send: Send, *, prefix: str) -> None:
    """Answer, or leave a peer that does not take it within `WRITE_SECONDS`.

    A peer in HTTP/2 can read its connection and let no stream send: the system sees nothing of it.
    """
    headers = [
        *rendered.headers,
        (b"content-length", b"%d" % len(rendered.body)),
        (b"x-request-id", exchange_id.encode()),
    ]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WRITE_SECONDS):
            await send({"type": f"{prefix}.start", "status": rendered.status, "headers": headers})
            await send({"type": f"{prefix}.body", "body": rendered.body})


async def _answer(
    scope: Mapping[str, Any], method: str, exchange_id: str, *, ready: Ready, scrape: Scrape
) -> Rendered:
    if field(scope["headers"], b"origin") is not None:
        message = "Pages of other origins may not use this service."
        return render(ForeignOriginError(message), exchange_id)
    path = _path(scope["path"])
    if path not in {"/metrics", "/health", "/ready"}:
        message = "There are /metrics, /health and /ready here."
        return render(RouteNotFoundError(message), exchange_id)
    if method not in {"GET", "HEAD"}:
        error = MethodNotAllowedError("Use GET.")
        return render(error, exchange_id, extra=((b"allow", b"GET, HEAD"),))
    if path == "/metrics":
        return _rendered(CONTENT_TYPE_LATEST, await scrape())
    if path == "/health":
        return _rendered(JSON, to_bytes(HEALTH.as_json()))
    parts = await ready()
    if parts.is_ready:
        return _rendered(JSON, to_bytes(parts.as_json()))
    return render_unready(parts, exchange_id)


def _path(target: str) -> str:
    """Return the path of a target in origin-form or absolute-form (RFC 9112, 3.2)."""
    if target.startswith("/"):
        return target
    return "/" + target.partition("://")[2].partition("/")[2]


def _rendered(content_type: str, body: bytes) -> Rendered:
    return Rendered(status=200, headers=((b"content-type", content_type.encode()),), body=body)
