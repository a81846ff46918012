"""The plain listener shows metrics and health, and nothing that acts."""

import pytest

from host_agent.api.monitoring import create_metrics_app
from host_agent.errors import StoreUnavailableError
from host_agent.http.exchange import Application
from tests.support.asgi import ask
from tests.support.fake_pipeline import FakeAgent, FakePipeline


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def app(agent: FakeAgent) -> Application:
    return create_metrics_app(agent)


async def test_metrics_are_in_the_prometheus_text_format(app: Application) -> None:
    reply = await ask(app, "GET", "/metrics")
    assert (reply.status, reply.body) == (200, b"host_agent_up 1\n")
    assert reply.headers["content-type"].startswith("text/plain; version=")


class BrokenStore(FakePipeline):
    async def refresh_gauges(self) -> None:
        raise StoreUnavailableError("The store cannot be read.")


async def test_metrics_are_shown_when_the_store_is_broken() -> None:
    app = create_metrics_app(FakeAgent(pipeline=BrokenStore()))
    assert (await ask(app, "GET", "/metrics")).status == 200


async def test_health_and_readiness(app: Application, agent: FakeAgent) -> None:
    assert (await ask(app, "GET", "/health")).json["status"] == "ok"
    assert (await ask(app, "GET", "/ready")).status == 200
    agent.parts["store"] = "gone"
    reply = await ask(app, "GET", "/ready")
    assert (reply.status, reply.code, reply.json["store"]) == (503, "store:unavailable", "gone")


@pytest.mark.parametrize("target", ["/", "/host/op", "/requests", "/metrics/", "/openapi.json"])
async def test_nothing_else_is_there(app: Application, target: str) -> None:
    reply = await ask(app, "GET", target)
    assert (reply.status, reply.code) == (404, "route:not-found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_nothing_can_be_done(app: Application, method: str) -> None:
    reply = await ask(app, method, "/metrics")
    assert (reply.status, reply.code) == (405, "route:method-not-allowed")
    assert reply.headers["allow"] == "GET"


async def test_pages_may_not_look(app: Application) -> None:
    reply = await ask(app, "GET", "/metrics", headers={"origin": "https://evil.test"})
    assert (reply.status, reply.code) == (403, "request:foreign-origin")
