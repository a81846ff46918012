"""The routes of bridges: who may post, what is signed, and what it moves."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.notify.signing import sign
from tests.support.api import SECRET, Api, api
from tests.support.asgi import Reply

LINE: dict[str, Any] = {"jsonrpc": "2.0", "method": "receive", "params": {"envelope": {}}}


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Api]:
    async with api(tmp_path) as opened:
        yield opened


def said(held: dict[str, Any], **change: object) -> dict[str, Any]:
    told = {"request_id": held["request_id"], "digest": held["digest"], "user": "U1"}
    return {**told, "decision": "approve", **change}


async def relay(
    door: Api, body: dict[str, Any], *, by: str = "chat-bridge", secret: bytes | None = SECRET
) -> Reply:
    """Post `body` as a bridge does, signed with `secret`."""
    data = json.dumps(body).encode()
    stamp = int(door.bench.clock.wall().timestamp())
    headers = {"content-type": "application/json", "webhook-id": "m1"}
    headers["webhook-timestamp"] = str(stamp)
    if secret is not None:
        headers["webhook-signature"] = sign([secret], "m1", stamp, data)
    reply = await door("POST", "/webhook/decision", by, body=data, headers=headers)
    await door.bench.settle()
    return reply


async def test_a_signed_answer_decides(door: Api) -> None:
    held = await door.held()
    reply = await relay(door, said(held))
    assert (reply.status, reply.json["request_id"]) == (200, held["request_id"])
    assert await door.state(held["request_id"]) == "succeeded"


@pytest.mark.parametrize("secret", [None, b"x" * 32])
async def test_a_bad_signature_is_401_and_nothing_is_decided(
    door: Api, secret: bytes | None
) -> None:
    held = await door.held()
    reply = await relay(door, said(held), secret=secret)
    assert (reply.status, reply.code) == (401, "bridge:bad-signature")
    assert await door.state(held["request_id"]) == "pending"


@pytest.mark.parametrize("who", ["deployer", "alice", "root-admin"])
async def test_nobody_but_a_bridge_posts(door: Api, who: str) -> None:
    held = await door.held()
    reply = await relay(door, said(held), by=who)
    assert (reply.status, reply.code) == (403, "identity:role-required")
    reply = await door("POST", "/webhook/signal", who, body=LINE)
    assert (reply.status, reply.code) == (403, "identity:role-required")
    assert await door.state(held["request_id"]) == "pending"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"approver": "alice"}, "request:malformed"),
        ({"user": "two words"}, "request:malformed"),
        ({"user": None}, "request:malformed"),
        ({"decision": "maybe"}, "request:malformed"),
        ({"digest": None}, "request:invalid-parameter"),
        ({"decision": "deny", "grant": {"count": 3}}, "request:invalid-parameter"),
    ],
)
async def test_a_body_that_does_not_fit_decides_nothing(
    door: Api, change: dict[str, object], code: str
) -> None:
    held = await door.held()
    reply = await relay(door, said(held, **change))
    assert (reply.status, reply.code) == (400, code)
    assert await door.state(held["request_id"]) == "pending"


async def test_both_forms_of_an_arriving_message_are_taken(door: Api) -> None:
    for body in (LINE, {"envelope": {}, "account": "+431234567"}):
        reply = await door("POST", "/webhook/signal", "chat-bridge", body=body)
        assert (reply.status, reply.json) == (200, {"answer": None})


@pytest.mark.parametrize(
    "body", [{}, {**LINE, "envelope": {}}, {**LINE, "method": "send"}, {**LINE, "approved": True}]
)
async def test_what_is_no_arriving_message_is_refused(door: Api, body: dict[str, Any]) -> None:
    reply = await door("POST", "/webhook/signal", "chat-bridge", body=body)
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert door.bench.events() == ["request.refused"]
