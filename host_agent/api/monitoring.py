"""The plain listener for monitoring: `/metrics`, `/health`, `/ready`, and nothing that acts.

A bare ASGI application: what scrapes it has no certificate and gets no secret.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

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
    StoreUnavailableError,
)
from host_agent.http.exchange import Application, Receive, Rendered, Send, new_exchange_id
from host_agent.http.framing import field


class MetricsPort(Protocol):
    """What monitoring asks of the metrics."""

    def render(self) -> bytes:
        """Return them in the Prometheus text format."""
        ...


class GaugesPort(Protocol):
    """What monitoring asks of the pipeline."""

    async def refresh_gauges(self) -> None:
        """Bring the gauges up to date that are read from the store."""
        ...


class MonitoredPort(Protocol):
    """What monitoring asks of the agent."""

    @property
    def metrics(self) -> MetricsPort:
        """The metrics."""
        ...

    @property
    def pipeline(self) -> GaugesPort:
        """The way of a request."""
        ...

    async def ready(self) -> Readiness:
        """Return the state of each part."""
        ...


def create_metrics_app(agent: MonitoredPort) -> Application:
    """Return the ASGI application of the plain listener."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:  # noqa: ARG001
        told = scope["extensions"].get("host_agent", {})
        rendered = await _answer(agent, scope, told.get("exchange_id") or new_exchange_id())
        start = {"type": "http.response.start", "status": rendered.status}
        await send({**start, "headers": rendered.headers})
        await send({"type": "http.response.body", "body": rendered.body})

    return app


async def _answer(agent: MonitoredPort, scope: Mapping[str, Any], exchange_id: str) -> Rendered:
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
        with contextlib.suppress(StoreUnavailableError):  # the other figures matter most then
            await agent.pipeline.refresh_gauges()
        return _rendered(CONTENT_TYPE_LATEST, agent.metrics.render())
    if scope["path"] == "/health":
        return _rendered(JSON, to_bytes(HEALTH.as_json()))
    parts = await agent.ready()
    if parts.is_ready:
        return _rendered(JSON, to_bytes(parts.as_json()))
    return render_unready(parts, exchange_id)


def _rendered(content_type: str, body: bytes) -> Rendered:
    return Rendered(status=200, headers=((b"content-type", content_type.encode()),), body=body)
