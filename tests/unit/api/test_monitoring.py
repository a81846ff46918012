"""The plain listener shows metrics and health, and nothing that acts."""

import pytest

from host_agent.http.exchange import Application
from tests.support.answers import parts
from tests.support.asgi import ask
from tests.support.monitored import BODY, metrics_app


@pytest.fixture
def app() -> Application:
    return metrics_app()


async def test_metrics_are_in_the_prometheus_text_format(app: Application) -> None:
    reply = await ask(app, "GET", "/metrics")
    assert (reply.status, reply.body) == (200, BODY)
    assert reply.headers["content-type"].startswith("text/plain; version=")


async def test_health_and_readiness(app: Application) -> None:
    assert (await ask(app, "GET", "/health")).json["status"] == "ok"
    assert (await ask(app, "GET", "/ready")).json == parts()
    reply = await ask(metrics_app(store="gone"), "GET", "/ready")
    assert (reply.status, reply.code, reply.json["store"]) == (503, "store:unavailable", "gone")


@pytest.mark.parametrize("target", ["/", "/host/op", "/requests", "/metrics/", "/openapi.json"])
async def test_nothing_else_is_there(app: Application, target: str) -> None:
    reply = await ask(app, "GET", target)
    assert (reply.status, reply.code) == (404, "route:not-found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
async def test_nothing_can_be_done(app: Application, method: str) -> None:
    reply = await ask(app, method, "/metrics")
    assert (reply.status, reply.code) == (405, "route:method-not-allowed")
    assert reply.headers["allow"] == "GET, HEAD"


async def test_pages_may_not_look(app: Application) -> None:
    reply = await ask(app, "GET", "/metrics", headers={"origin": "https://evil.test"})
    assert (reply.status, reply.code) == (403, "request:foreign-origin")
