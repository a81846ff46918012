"""What is published to ntfy, and what of a reply topic is an answer."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.canonical import JsonValue
from host_agent.notify.ntfy import (
    MAX_BODY_BYTES,
    MAX_CHARACTERS,
    MAX_MESSAGE_BYTES,
    NtfyChannel,
    heard_in,
    publication,
)
from host_agent.notify.outbound import Outbound
from host_agent.notify.prompts import Prompt
from host_agent.requests.notification import Purpose
from tests.support.messages import CODE, a_message
from tests.support.stored_requests import NOW

LINE = {
    "id": "hwQ2YpKdmg0X",
    "time": 1795208400,
    "event": "message",
    "topic": "replies",
    "message": f"deny {CODE}",
}


def published(text: str, actions: Sequence[JsonValue] = ()) -> dict[str, Any]:
    message = a_message(prompt=Prompt(title="t" * 80, text=text))
    body = publication(message, topic="bob", actions=list(actions))
    assert len(body) <= MAX_BODY_BYTES
    told: dict[str, Any] = json.loads(body)
    assert len(told["message"].encode()) <= MAX_MESSAGE_BYTES
    return told


def test_a_text_that_fits_is_whole() -> None:
    assert published("a" * MAX_CHARACTERS)["message"] == "a" * MAX_CHARACTERS
    assert published("\u00e9\n" * 1000)["message"] == "\u00e9\n" * 1000


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u20ac", "\U0001f4a9", '"', "\\", "\n"])
def test_a_text_that_does_not_fit_says_that_it_is_cut(letter: str) -> None:
    shown = published(letter * 5_000, [{"action": "view", "label": "l", "url": "u" * 1000}])
    assert shown["message"].endswith("... cut, look at the request")
    assert shown["message"].startswith(letter * 100)


@given(st.text(max_size=MAX_CHARACTERS))
def test_every_text_makes_a_publication_that_the_server_takes(text: str) -> None:
    published(text)


def test_with_a_reply_topic_it_carries_a_no() -> None:
    outbound = Outbound("https://ntfy.example")
    assert NtfyChannel(outbound, now=lambda: NOW).purpose is None
    assert NtfyChannel(outbound, reply_topic="r", now=lambda: NOW).purpose is Purpose.DENY


def test_a_denial_is_heard() -> None:
    heard = heard_in(LINE, "replies")
    assert heard is not None
    assert (heard.channel, heard.address, heard.text) == ("ntfy", "", f"DENY {CODE}")
    assert heard.reference == "hwQ2YpKdmg0X"
    assert heard.sent_at.timestamp() == 1795208400


@pytest.mark.parametrize(
    "text", [f"DENY {CODE.lower()}", f" deny  {CODE}\n", "deny ABCD-EFGH-2345-6789"]
)
def test_forms_of_a_denial_that_are_taken(text: str) -> None:
    assert heard_in({**LINE, "message": text}, "replies") == heard_in(LINE, "replies")


@pytest.mark.parametrize(
    "changed",
    [
        {"message": f"confirm {CODE}"},
        {"message": f"approve {CODE}"},
        {"message": CODE},
        {"message": "deny"},
        {"message": "deny not-a-code"},
        {"message": f"deny {CODE}X"},
        {"message": f"deny {CODE} because"},
        {"message": f"deny {CODE}\nconfirm {CODE}"},
        {"message": f"deny\u00a0{CODE}"},
        {"message": None},
        {"message": 7},
        {"event": "open"},
        {"event": "keepalive"},
        {"event": None},
        {"topic": "other"},
        {"topic": None},
        {"id": None},
        {"id": ""},
        {"id": "a b"},
        {"id": "a" * 65},
        {"time": None},
        {"time": "1795208400"},
        {"time": True},
        {"time": -1},
        {"time": 10**20},
    ],
)
def test_everything_else_is_no_answer(changed: dict[str, Any]) -> None:
    assert heard_in({**LINE, **changed}, "replies") is None
