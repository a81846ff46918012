"""The plain listener for monitoring: `/metrics`, `/health`, `/ready`, and nothing that acts.

A bare ASGI application: what scrapes it has no certificate and gets no secret.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from host_agent.api.problems import (
    HEALTH,
    JSON,
    render,
    render_unready,
    to_bytes,
)
from host_agent.api.wire import Readiness
from host_agent.errors import (
    ForeignOriginError,
    MethodNotAllowedError,
    RouteNotFoundError,
)
from host_agent.http.exchange import Application, Receive, Rendered, Send, new_exchange_id
from host_agent.http.framing import field

Ready: TypeAlias = Callable[[], Awaitable[Readiness]]
"""Tells the state of each part of the agent."""
Scrape: TypeAlias = Callable[[], Awaitable[bytes]]
"""Makes the metrics in the Prometheus text format; it does so also where a part is broken."""


def create_metrics_app(*, ready: Ready, scrape: Scrape) -> Application:
    """Return the ASGI application of the plain listener."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:  # noqa: ARG001
        told = scope["extensions"].get("host_agent", {})
        exchange_id = told.get("exchange_id") or new_exchange_id()
        rendered = await _answer(scope, exchange_id, ready=ready, scrape=scrape)
        start = {"type": "http.response.start", "status": rendered.status}
        await send({**start, "headers": rendered.headers})
        await send({"type": "http.response.body", "body": rendered.body})

    return app


async def _answer(
    scope: Mapping[str, Any], exchange_id: str, *, ready: Ready, scrape: Scrape
) -> Rendered:
    if field(scope["headers"], b"origin") is not None:
        message = "Pages of other origins may not use this service."
        return render(ForeignOriginError(message), exchange_id)
    if scope["path"] not in {"/metrics", "/health", "/ready"}:
        message = "There are /metrics, /health and /ready here."
        return render(RouteNotFoundError(message), exchange_id)
    if scope["method"] != "GET":
        error = MethodNotAllowedError("Use GET.")
        return render(error, exchange_id, extra=((b"allow", b"GET"),))
    if scope["path"] == "/metrics":
        return _rendered(CONTENT_TYPE_LATEST, await scrape())
    if scope["path"] == "/health":
        return _rendered(JSON, to_bytes(HEALTH.as_json()))
    parts = await ready()
    if parts.is_ready:
        return _rendered(JSON, to_bytes(parts.as_json()))
    return render_unready(parts, exchange_id)


def _rendered(content_type: str, body: bytes) -> Rendered:
    return Rendered(status=200, headers=((b"content-type", content_type.encode()),), body=body)
