"""The routes over real TLS: what holds for a connection that stays open."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.api.app import create_app
from host_agent.api.monitoring import create_metrics_app
from host_agent.errors import RequestTooLargeError
from tests.support.door import Door, Wire, post
from tests.support.fake_pipeline import FakeAgent
from tests.support.patience import PATIENCE

ASK = json.dumps({"operation": "git.pull", "params": {"repository": "/srv/app"}}).encode()
JSON = b"Content-Type: application/json"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
async def door(agent: FakeAgent, tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path / "pki", create_app(agent)) as opened:
        yield opened


async def hold(wire: Wire) -> bytes:
    """Have a request held and return its path."""
    reply = await wire.ask(post(ASK, JSON, path=b"/host/op"))
    assert reply.status == 202
    return reply.headers["location"].encode()


async def test_c9_revocation_bites_on_the_next_request_of_an_open_connection(
    door: Door, agent: FakeAgent
) -> None:
    async with door.dial() as wire:
        assert (await wire.ask(HEALTH)).status == 200
        agent.pipeline.revoked.add("librarian")
        reply = await wire.ask(HEALTH)
        assert (reply.status, reply.code) == (403, "identity:revoked")
        refused = await wire.ask(post(ASK, JSON, path=b"/host/op"))
        assert (refused.status, refused.code) == (403, "identity:revoked")
        agent.pipeline.revoked.clear()
        assert (await wire.ask(HEALTH)).status == 200
    assert not agent.pipeline.asks


async def test_ids_of_response_problem_and_record_are_one(door: Door, agent: FakeAgent) -> None:
    async with door.dial() as wire:
        reply = await wire.ask(post(b"{", JSON, path=b"/host/op"))
    assert reply.headers["x-request-id"] == reply.json["request_id"]
    assert agent.pipeline.refusals[0].exchange_id == reply.json["request_id"]


async def test_what_was_asked_for_is_carried_through_without_its_caller(
    door: Door, agent: FakeAgent
) -> None:
    async with door.dial() as wire:
        wire.send(post(ASK, JSON, path=b"/host/op"))
    async with asyncio.timeout(PATIENCE):
        while not agent.pipeline.asks:
            await asyncio.sleep(0)
    assert agent.pipeline.asks[0].operation == "git.pull"


async def test_a_long_poll_ends_with_its_caller(door: Door, agent: FakeAgent) -> None:
    async with door.dial() as wire:
        path = await hold(wire)
        wire.send(b"GET " + path + b"?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            while not agent.pipeline.waiting:
                await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        while agent.pipeline.waiting:
            await asyncio.sleep(0)


async def test_a_long_poll_is_answered_on_a_change(door: Door, agent: FakeAgent) -> None:
    async with door.dial() as wire:
        path = await hold(wire)
        wire.send(b"GET " + path + b"?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            while not agent.pipeline.waiting:
                await asyncio.sleep(0)
        agent.pipeline.changed.set()
        assert (await wire.reply()).json["state"] == "pending"


async def test_headers_claim_no_identity(door: Door, agent: FakeAgent) -> None:
    claims = (
        b"X-User-Override: root-admin",
        b"X-Forwarded-For: 10.0.0.1",
        b"X-SSL-Client-CN: alice",
        b"Forwarded: for=alice",
    )
    async with door.dial(door.pki.client("stranger")) as wire:
        reply = await wire.ask(post(ASK, JSON, *claims, path=b"/host/op"))
    assert (reply.status, reply.code) == (403, "identity:unknown")
    assert agent.pipeline.refusals[0].caller == "stranger"


async def test_a_prefix_of_a_name_is_another_name(door: Door) -> None:
    for cn in ("librarian-evil", "librarian.", "libraria", "librarian2"):
        async with door.dial(door.pki.client(cn)) as wire:
            reply = await wire.ask(HEALTH)
            assert (reply.status, reply.code) == (403, "identity:unknown")


async def test_c17_a_body_over_the_limit_is_counted_and_refused(
    door: Door, agent: FakeAgent
) -> None:
    async with door.dial() as wire:
        reply = await wire.ask(post(b"a" * (2**20 + 1), JSON, path=b"/host/op"))
        assert (reply.status, reply.code) == (413, RequestTooLargeError.code)
        assert await wire.rest() == b""
    assert not agent.pipeline.asks


async def test_the_plain_listener_shows_metrics_and_nothing_that_acts(tmp_path: Path) -> None:
    app = create_metrics_app(FakeAgent())
    async with Door(tmp_path / "pki", app, is_plain=True) as door, door.plain() as wire:
        reply = await wire.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (reply.status, reply.body) == (200, b"host_agent_up 1\n")
        assert reply.headers["x-request-id"]
        reply = await wire.ask(post(ASK, JSON, path=b"/host/op"))
        assert (reply.status, reply.code) == (404, "route:not-found")
