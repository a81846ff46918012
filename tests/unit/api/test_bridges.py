"""The routes of bridges: who may post, what is signed, and what reaches the pipeline."""

from typing import Any

import pytest

from tests.support.fake_pipeline import DIGEST
from tests.unit.api.test_app import Door

SAID = {"request_id": "abc", "user": "U1", "decision": "approve", "digest": DIGEST}
GOOD = {"webhook-id": "m1", "webhook-timestamp": "1", "webhook-signature": "good"}
LINE: dict[str, Any] = {"jsonrpc": "2.0", "method": "receive", "params": {"envelope": {}}}


@pytest.fixture
def door() -> Door:
    return Door()


async def test_a_signed_answer_reaches_the_pipeline_with_its_bytes(door: Door) -> None:
    reply = await door("POST", "/webhook/decision", "chat-bridge", body=SAID, headers=GOOD)
    assert (reply.status, reply.json) == (200, {"request_id": "abc"})
    signed, decided = door.agent.pipeline.administered
    assert '"user"' in signed[1]
    assert decided == ("chat-bridge", "abc", "U1")


@pytest.mark.parametrize("signature", ["", "bad"])
async def test_a_bad_signature_is_401_and_nothing_is_decided(door: Door, signature: str) -> None:
    headers = {**GOOD, "webhook-signature": signature}
    reply = await door("POST", "/webhook/decision", "chat-bridge", body=SAID, headers=headers)
    assert (reply.status, reply.code) == (401, "bridge:bad-signature")
    assert len(door.agent.pipeline.administered) == 1


@pytest.mark.parametrize("who", ["librarian", "alice", "root-admin"])
@pytest.mark.parametrize("path", ["/webhook/decision", "/webhook/signal"])
async def test_nobody_but_a_bridge_posts(door: Door, who: str, path: str) -> None:
    reply = await door("POST", path, who, body=SAID, headers=GOOD)
    assert (reply.status, reply.code) == (403, "identity:role-required")
    assert not door.agent.pipeline.administered


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
    door: Door, change: dict[str, object], code: str
) -> None:
    reply = await door(
        "POST", "/webhook/decision", "chat-bridge", body={**SAID, **change}, headers=GOOD
    )
    assert (reply.status, reply.code) == (400, code)
    assert len(door.agent.pipeline.administered) == 1  # the signature only


async def test_both_forms_of_an_arriving_message_are_taken(door: Door) -> None:
    for body in (LINE, {"envelope": {}, "account": "+431234"}):
        reply = await door("POST", "/webhook/signal", "chat-bridge", body=body)
        assert (reply.status, reply.json) == (200, {"answer": None})
    assert [seen[1] for seen in door.agent.pipeline.administered] == ["envelope", "envelope"]


@pytest.mark.parametrize(
    "body", [{}, {**LINE, "envelope": {}}, {**LINE, "method": "send"}, {**LINE, "approved": True}]
)
async def test_what_is_no_arriving_message_is_refused(door: Door, body: dict[str, Any]) -> None:
    reply = await door("POST", "/webhook/signal", "chat-bridge", body=body)
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert not door.agent.pipeline.administered
