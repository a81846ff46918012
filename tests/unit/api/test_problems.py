"""Every error has one body, and what it carries cannot shadow what it is."""

import json

import pytest

from host_agent.api.problems import (
    problem_body,
    render,
    render_unready,
    to_bytes,
)
from host_agent.api.wire.host import Readiness
from host_agent.client.exchange import problem_from
from host_agent.errors import (
    BY_CODE,
    AlreadyDecidedError,
    HostAgentError,
    InternalError,
    ProblemError,
    RateLimitedError,
)
from host_agent.http.exchange import new_exchange_id
from tests.support.answers import parts


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE.keys())
def test_every_code_renders(kind: type[HostAgentError]) -> None:
    rendered = render(kind("Do this next."), "abc")
    body = json.loads(rendered.body)
    assert body == {
        "type": f"urn:host-agent:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": "Do this next.",
        "code": kind.code,
        "recovery": body["recovery"],
        "exchange_id": "abc",
        "request_id": "abc",
    }
    told = problem_from(int(kind.status), body)
    assert isinstance(told, ProblemError)
    assert told.recovery == kind("Do this next.").recovery
    assert rendered.status == kind.status
    assert dict(rendered.headers) == {b"content-type": b"application/problem+json"}


@pytest.mark.parametrize(("seconds", "shown"), [(0, 1), (0.01, 1), (1, 1), (1.01, 2), (59.5, 60)])
def test_retry_after_is_rounded_up(seconds: float, shown: int) -> None:
    rendered = render(RateLimitedError("Later.", retry_after_seconds=seconds), "abc")
    assert dict(rendered.headers)[b"retry-after"] == str(shown).encode()
    assert json.loads(rendered.body)["retry_after_seconds"] == shown


def test_members_are_shown_and_never_replace_the_standard_ones() -> None:
    error = AlreadyDecidedError(
        "Decided.", members={"request": {"state": "denied"}, "status": 200, "code": "ok"}
    )
    body = problem_body(error, "abc")
    assert body["request"] == {"state": "denied"}
    assert (body["status"], body["code"]) == (409, "approval:already-decided")


def test_text_without_a_utf8_form_is_escaped() -> None:
    assert json.loads(to_bytes({"a": "\ud800"})) == {"a": "\ud800"}
    assert to_bytes({"a": "ä"}) == '{"a":"ä"}'.encode()


def test_exchange_ids_are_of_one_form_and_differ() -> None:
    ids = {new_exchange_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in ids)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("store", "store:unavailable"),
        ("audit", "audit:unavailable"),
        ("crl", "identity:revocation-unavailable"),
        ("certificate", "adapter:unavailable"),
    ],
)
def test_unreadiness_names_its_cause(part: str, code: str) -> None:
    rendered = render_unready(Readiness.parse(parts(**{part: "broken"})), "abc")
    body = json.loads(rendered.body)
    assert (rendered.status, body["code"], body[part]) == (503, code, "broken")


def test_a_defect_says_nothing_of_the_inside() -> None:
    assert InternalError("Tell the administrator.").status == 500
