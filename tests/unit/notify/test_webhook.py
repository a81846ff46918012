"""The event of a webhook: its envelope, what is in it, and what is not."""

import json
from typing import Any

from host_agent.canonical import canonical_json
from host_agent.notify.channel import Message
from host_agent.notify.prompts import Prompt
from host_agent.notify.webhook import HELD, OUTCOME, SCHEMAS, TYPES, event
from host_agent.requests.notification import Kind
from tests.support.messages import CODE, a_message, an_outcome, ended
from tests.support.stored_requests import NOW, a_request


def sent(message: Message | None = None, host: str = "host") -> dict[str, Any]:
    made = event(message or a_message(), host=host, now=NOW)
    result: dict[str, Any] = json.loads(canonical_json(made))
    return result


def test_the_envelope_of_a_held_request() -> None:
    told = sent()
    data = told.pop("data")
    assert told == {
        "specversion": "1.0",
        "id": "5c1ab1d6ad9e4c8e9b1ce8a7e3c0f3aa",
        "source": "/host-agent/host",
        "type": "host_agent.request.held",
        "time": "2026-11-20T21:00:00.123456Z",
        "subject": "00000000-0000-4000-8000-000000000000",
        "datacontenttype": "application/json",
        "dataschema": "urn:host-agent:schema:request-held:1",
    }
    assert data["approver"] == "bob"
    assert data["digest"] == data["request"]["digest"] == a_request().digest
    assert data["expires_at"] == data["request"]["expires_at"]
    assert data["prompt"]["title"] == "host: git.pull /srv/app0"
    assert data["prompt"]["is_whole"] is True
    assert "reply_to" not in data


def test_the_envelope_of_an_outcome() -> None:
    told = sent(an_outcome())
    assert told["type"] == "host_agent.request.outcome"
    assert told["time"] == told["data"]["request"]["finished_at"]
    assert told["data"]["reply_to"] == "prompt-1"
    assert told["data"]["request"]["outcome"] == {"exit_code": 0, "verified": True}
    assert "secret output" not in json.dumps(told)


def test_types_and_schemas_are_complete() -> None:
    assert set(TYPES) == set(Kind)
    assert set(SCHEMAS) == set(TYPES.values()) == {HELD, OUTCOME}


def test_no_code_is_in_it() -> None:
    assert CODE not in json.dumps(sent(a_message(code=CODE)))


def test_the_same_message_has_the_same_bytes_at_every_try() -> None:
    one, other = (canonical_json(event(a_message(), host="host", now=NOW)) for _ in range(2))
    assert one == other


def test_words_of_a_caller_stay_inside_their_members() -> None:
    hostile = '","type":"evil","data":{"approver":"mallory"},"x":"'
    params = {"type": "evil", "specversion": "9", "branch": hostile}
    request = a_request(params=params, reason=hostile, resource=hostile)
    told = sent(a_message(request=request))
    assert told["type"] == HELD
    assert told["data"]["approver"] == "bob"
    assert told["data"]["request"]["params"] == params
    assert told["data"]["request"]["reason"] == hostile
    assert set(told) == {
        "specversion", "id", "source", "type", "time", "subject", "datacontenttype",
        "dataschema", "data",
    }  # fmt: skip


def test_a_text_that_is_not_whole_says_so() -> None:
    told = sent(a_message(prompt=Prompt(title="t", text="NOT WHOLE", is_whole=False)))
    assert told["data"]["prompt"]["is_whole"] is False


def test_a_host_name_cannot_leave_its_place_in_the_source() -> None:
    assert sent(host="a/../b?c#d")["source"] == "/host-agent/a%2F..%2Fb%3Fc%23d"


def test_an_outcome_without_an_end_has_the_time_of_its_sending() -> None:
    told = sent(an_outcome(), host="host")
    unended = a_message(kind=Kind.OUTCOME, request=ended(finished_at=None))
    assert sent(unended)["time"] == told["time"]
