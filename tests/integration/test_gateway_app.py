"""The routes over real TLS: what holds for a connection that stays open."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.errors import RequestTooLargeError
from host_agent.requests.model import Verb
from tests.support.api import LOOK, PULL, Api, api
from tests.support.certificates import Leaf
from tests.support.door import Door, Wire, post
from tests.support.patience import PATIENCE

ASK = json.dumps(PULL).encode()
JSON = b"Content-Type: application/json"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Api]:
    async with api(tmp_path / "agent") as opened:
        yield opened


@pytest.fixture
async def door(agent: Api, tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path / "pki", agent.app) as opened:
        yield opened


@pytest.fixture
def deployer(door: Door) -> Leaf:
    return door.pki.client("deployer")


async def hold(wire: Wire) -> bytes:
    """Have a request held and return its path."""
    reply = await wire.ask(post(ASK, JSON, path=b"/host/op"))
    assert reply.status == 202
    return reply.headers["location"].encode()


async def until_polled(agent: Api, *, times: int = 1) -> None:
    """Return once so many long polls wait."""
    async with asyncio.timeout(PATIENCE):
        while sum(agent.bench.pipeline.views._polls.values()) != times:
            await asyncio.sleep(0)


@pytest.mark.promise("c9")
async def test_revocation_bites_on_the_next_request_of_an_open_connection(
    door: Door, agent: Api, deployer: Leaf
) -> None:
    async with door.dial(deployer) as wire:
        assert (await wire.ask(HEALTH)).status == 200
        agent.bench.revocations.revoked.add(deployer.serial)
        reply = await wire.ask(HEALTH)
        assert (reply.status, reply.code) == (403, "identity:revoked")
        refused = await wire.ask(post(ASK, JSON, path=b"/host/op"))
        assert (refused.status, refused.code) == (403, "identity:revoked")
        agent.bench.revocations.revoked.clear()
        assert (await wire.ask(HEALTH)).status == 200
    assert await agent.is_untouched()


async def test_ids_of_response_problem_and_record_are_one(
    door: Door, agent: Api, deployer: Leaf
) -> None:
    async with door.dial(deployer) as wire:
        reply = await wire.ask(post(b"{", JSON, path=b"/host/op"))
    exchange_id = reply.headers["x-request-id"]
    assert (reply.json["exchange_id"], reply.json["request_id"]) == (exchange_id, exchange_id)
    record = agent.bench.records()[-1]
    assert (record["exchange_id"], record.get("request_id")) == (exchange_id, None)


async def test_what_was_asked_for_is_carried_through_without_its_caller(
    door: Door, agent: Api, deployer: Leaf
) -> None:
    gate = agent.bench.host.hold("status")
    async with door.dial(deployer) as wire:
        wire.send(post(json.dumps(LOOK).encode(), JSON, path=b"/host/op"))
        async with asyncio.timeout(PATIENCE):
            while not agent.bench.host.ran:
                await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(PATIENCE):
        while "operation.finished" not in agent.bench.events():
            await asyncio.sleep(0)


async def test_a_long_poll_ends_with_its_caller(door: Door, agent: Api, deployer: Leaf) -> None:
    async with door.dial(deployer) as wire:
        path = await hold(wire)
        wire.send(b"GET " + path + b"?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until_polled(agent)
    await until_polled(agent, times=0)


async def test_a_long_poll_is_answered_on_a_change(door: Door, agent: Api, deployer: Leaf) -> None:
    async with door.dial(deployer) as wire:
        path = await hold(wire)
        wire.send(b"GET " + path + b"?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until_polled(agent)
        request = await agent.bench.request(path.decode().rpartition("/")[2])
        await agent.bench.decide(request, Verb.DENY)
        assert (await wire.reply()).json["state"] == "denied"


async def test_headers_claim_no_identity(door: Door, agent: Api) -> None:
    claims = (
        b"X-User-Override: root-admin",
        b"X-Forwarded-For: 10.0.0.1",
        b"X-SSL-Client-CN: alice",
        b"Forwarded: for=alice",
    )
    async with door.dial(door.pki.client("stranger")) as wire:
        reply = await wire.ask(post(ASK, JSON, *claims, path=b"/host/op"))
    assert (reply.status, reply.code) == (403, "identity:unknown")
    assert agent.refusals() == [("identity:unknown", "stranger", None)]
    assert await agent.is_untouched()


async def test_a_prefix_of_a_name_is_another_name(door: Door) -> None:
    for cn in ("deployer-evil", "deployer.", "deploye", "deployer2"):
        async with door.dial(door.pki.client(cn)) as wire:
            reply = await wire.ask(HEALTH)
            assert (reply.status, reply.code) == (403, "identity:unknown")


@pytest.mark.promise("c17")
async def test_a_body_over_the_limit_is_counted_and_refused(
    door: Door, agent: Api, deployer: Leaf
) -> None:
    async with door.dial(deployer) as wire:
        reply = await wire.ask(post(b"a" * (2**20 + 1), JSON, path=b"/host/op"))
        assert (reply.status, reply.code) == (413, RequestTooLargeError.code)
        assert await wire.rest() == b""
    assert await agent.is_untouched()


async def test_head_says_what_get_would_and_asks_nothing_more(door: Door, agent: Api) -> None:
    async with door.dial(door.pki.client("deployer")) as wire:
        for path in (b"/health", b"/whoami", b"/openapi.json"):
            request = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
            said = await wire.ask(request)
            wire.send(request.replace(b"GET", b"HEAD"))
            head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), PATIENCE)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"content-length: %d\r\n" % len(said.body) in head
        assert (await wire.ask(HEALTH)).status == 200
        wire.send(b"HEAD /host/op HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert head.startswith(b"HTTP/1.1 405 ")
        assert b"allow: POST\r\n" in head
        assert (await wire.ask(HEALTH)).status == 200
    assert await agent.is_untouched()


async def test_head_of_the_event_stream_ends(door: Door) -> None:
    async with door.dial(door.pki.client("root-admin")) as wire:
        wire.send(b"HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"text/event-stream" in head
        assert b"content-length" not in head
        assert (await wire.ask(HEALTH)).status == 200
