"""Bodies are read once, strictly and within bounds."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.api.body import (
    MAX_BODY_BYTES,
    MAX_DEPTH,
    SMALL_BODY_BYTES,
    DecisionBody,
    OlderAsk,
    TypedAsk,
    check_length,
    fit,
    parse_decision,
    parse_object,
    read_body,
    require_json,
)
from host_agent.errors import (
    HostAgentError,
    InvalidParameterError,
    MalformedRequestError,
    NotJsonError,
    RateLimitedError,
    RequestTooLargeError,
)

DEEP = b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1)

C18: Mapping[str, bytes] = {
    "depth 17": b'{"a":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH,
    "depth 100,000 of arrays": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth 100,000 of objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "depth 100,000, unfinished": b"[" * 100_000,
    "many containers": b'{"a":[' + b",".join([b"[]"] * 2000) + b"]}",
    "a number of 5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "a negative number of 5,000 digits": b'{"a":-' + b"9" * 5000 + b"}",
    "a fraction": b'{"a":1.5}',
    "an exponent": b'{"a":1e999}',
    "a key twice": b'{"a":1,"a":2}',
    "a key twice, inside": b'{"a":{"b":1,"b":2}}',
    "a key twice, once escaped": b'{"a":1,"\\u0061":2}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "a lone surrogate": b'{"a":"\\ud800"}',
    "a lone low surrogate in a key": b'{"\\udc00":1}',
    "an encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "NUL, escaped": b'{"a":"\\u0000"}',
    "NUL, bare": b'{"a":"\x00"}',
    "NUL in a list": b'{"a":["b","\\u0000"]}',
    "a bare newline in a text": b'{"a":"\n"}',
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "not UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "an array": b"[1]",
    "a text": b'"a"',
    "a number": b"1",
    "null": b"null",
    "nothing": b"",
    "spaces": b"  ",
    "two objects": b"{}{}",
    "a comment": b"{}//",
    "single quotes": b"{'a':1}",
    "a trailing comma": b'{"a":1,}',
    "an unfinished text": b'{"a":"' + b'\\"' * 200_000,
    "an unfinished escape": b'{"a":[[[[[[[[[[[[[[[[["' + b'\\"' * 200_000 + b"\\",
    "brackets in an unfinished text": b'{"a":"' + b"[" * 1000,
}


@pytest.mark.promise("c18")
@pytest.mark.parametrize("data", C18.values(), ids=C18.keys())
def test_invalid_json_is_malformed_and_quickly_so(data: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(MalformedRequestError):
        parse_object(data)
    assert time.process_time() - begin < 1


@pytest.mark.promise("c18")
def test_a_text_of_50_mb_is_too_large_before_it_is_read() -> None:
    with pytest.raises(RequestTooLargeError):
        check_length(str(50 * 1024 * 1024))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' {"a" : [1, "b", null, true]}\n', {"a": [1, "b", None, True]}),
        (b'{"a":"[[[[[[[[[[[[[[[[[[[[[["}', {"a": "[" * 22}),
        (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        ('{"ä":"ö"}'.encode(), {"ä": "ö"}),
        (DEEP, json.loads(DEEP)),
    ],
)
def test_good_json_is_taken(data: bytes, value: object) -> None:
    assert parse_object(data) == value


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from("abcdef"), JSON_VALUES, max_size=4), st.booleans())
def test_what_json_writes_is_read_back(value: dict[str, Any], as_ascii: bool) -> None:
    data = json.dumps(value, ensure_ascii=as_ascii).encode()
    try:
        assert parse_object(data) == value
    except MalformedRequestError:
        # Depth, and what keys may hold, are the only reasons left.
        assert data.count(b"{") + data.count(b"[") > MAX_DEPTH or b"\\u" in data or b"\0" in data


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(MalformedRequestError):
        assert isinstance(parse_object(data), dict)


# -- type and length ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=UTF-8"],
)
def test_json_is_taken_as_json(content_type: str) -> None:
    require_json(content_type, None)
    require_json(content_type, "identity")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/json5",
        "application/problem+json",
        "application/json, text/plain",
    ],
)
def test_other_types_are_refused(content_type: str | None) -> None:
    with pytest.raises(NotJsonError):
        require_json(content_type, None)


@pytest.mark.promise("c17")
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
def test_an_encoded_body_is_refused(encoding: str) -> None:
    with pytest.raises(NotJsonError):
        require_json("application/json", encoding)


class Chunks:
    """An ASGI `receive` that counts how often it is asked."""

    def __init__(self, *chunks: bytes, leaves: bool = False) -> None:
        self.chunks = list(chunks)
        self.asked = 0
        self.leaves = leaves

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if not self.chunks:
            return {"type": "http.disconnect"}
        chunk = self.chunks.pop(0)
        more = bool(self.chunks) or self.leaves
        return {"type": "http.request", "body": chunk, "more_body": more}


class SlowChunks:
    """A body that stays unfinished until `rest` is set."""

    def __init__(self, size: int) -> None:
        self.rest = asyncio.Event()
        self._size = size

    async def __call__(self) -> dict[str, Any]:
        if self._size:
            size, self._size = self._size, 0
            return {"type": "http.request", "body": b"a" * size, "more_body": True}
        await self.rest.wait()
        return {"type": "http.request", "body": b"b", "more_body": False}


def places(number: int = 1) -> asyncio.Semaphore:
    return asyncio.Semaphore(number)


async def test_a_body_is_joined() -> None:
    assert await read_body(Chunks(b"ab", b"", b"c"), None, places()) == b"abc"


async def test_a_body_of_the_largest_size_is_taken() -> None:
    assert (
        len(await read_body(Chunks(b"a" * MAX_BODY_BYTES), str(MAX_BODY_BYTES), places())) == 2**20
    )


@pytest.mark.promise("c17")
async def test_an_announced_size_is_refused_unread() -> None:
    chunks = Chunks(b"a")
    with pytest.raises(RequestTooLargeError):
        await read_body(chunks, str(2 * 1024**3), places())
    assert chunks.asked == 0


@pytest.mark.promise("c17")
async def test_a_body_without_a_length_is_counted() -> None:
    chunks = Chunks(*[b"a" * 65536] * 100)
    with pytest.raises(RequestTooLargeError):
        await read_body(chunks, None, places())
    assert chunks.asked == 17


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", "٣", "9" * 19])
async def test_a_length_that_is_no_number_is_malformed(length: str) -> None:
    with pytest.raises(MalformedRequestError):
        await read_body(Chunks(b""), length, places())


async def test_a_peer_that_leaves_in_the_middle_is_no_body() -> None:
    with pytest.raises(MalformedRequestError):
        await read_body(Chunks(b"{}", leaves=True), None, places())


@pytest.mark.promise("c16")
async def test_slow_senders_of_large_bodies_hold_a_bounded_amount_of_memory() -> None:
    large = places(2)
    halves = [SlowChunks(SMALL_BODY_BYTES + 1) for _ in range(2)]
    reading = [asyncio.ensure_future(read_body(half, None, large)) for half in halves]
    await asyncio.sleep(0)
    chunks = Chunks(b"a" * SMALL_BODY_BYTES, b"b", b"c")
    with pytest.raises(RateLimitedError):
        await read_body(chunks, None, large)
    assert await read_body(Chunks(b"a" * SMALL_BODY_BYTES), None, large)  # a small one is welcome
    for half in halves:
        half.rest.set()
    assert [len(body) for body in await asyncio.gather(*reading)] == [SMALL_BODY_BYTES + 2] * 2
    assert len(await read_body(Chunks(b"a" * SMALL_BODY_BYTES, b"b", b"c"), None, large)) > 2**14


# -- shapes ------------------------------------------------------------------------------------

C19: Mapping[str, dict[str, Any]] = {
    "approved": {"operation": "git.status", "approved": True},
    "caller": {"operation": "git.status", "caller": "alice"},
    "agent_id": {"operation": "git.status", "agent_id": "alice"},
    "user": {"operation": "git.status", "user": "root"},
    "argv": {"operation": "git.status", "argv": ["sh"]},
    "grant": {"operation": "git.status", "grant": {}},
    "both forms": {"operation": "git.status", "kind": "git", "args": ["status"]},
    "no operation": {"params": {}},
    "operation is a number": {"operation": 1},
    "operation is null": {"operation": None},
    "operation is long": {"operation": "a" * 200},
    "params is a list": {"operation": "git.status", "params": []},
    "params is null": {"operation": "git.status", "params": None},
    "reason is a list": {"operation": "git.status", "reason": ["a"]},
    "reason is true": {"operation": "git.status", "reason": True},
    "reason is long": {"operation": "git.status", "reason": "a" * 3000},
}


@pytest.mark.promise("c19")
@pytest.mark.parametrize("value", C19.values(), ids=C19.keys())
def test_unknown_fields_and_wrong_types_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequestError):
        fit(TypedAsk, value)


C19_OLDER: Mapping[str, dict[str, Any]] = {
    "X-User-Override": {"kind": "git", "args": ["status"], "user": "root"},
    "metadata.caller": {"kind": "git", "args": ["status"], "metadata": {"caller": "alice"}},
    "metadata.approved": {"kind": "git", "args": ["status"], "metadata": {"approved": True}},
    "no args": {"kind": "git"},
    "empty args": {"kind": "git", "args": []},
    "args is a string": {"kind": "git", "args": "status"},
    "an arg is a number": {"kind": "git", "args": ["log", 20]},
    "resource is a list": {"kind": "git", "args": ["status"], "resource": ["/srv"]},
}


@pytest.mark.promise("c19")
@pytest.mark.parametrize("value", C19_OLDER.values(), ids=C19_OLDER.keys())
def test_the_older_form_is_as_strict(value: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequestError):
        fit(OlderAsk, value)


def test_good_shapes_fit() -> None:
    typed = fit(TypedAsk, {"operation": "git.status", "params": {"a": 1}, "reason": "why"})
    assert (typed.operation, typed.params, typed.reason) == ("git.status", {"a": 1}, "why")
    older = fit(OlderAsk, {"kind": "git", "args": ["status"], "metadata": {"reason": "why"}})
    assert older.metadata.reason == "why"


GOOD_DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({}, MalformedRequestError),
        ({"decision": "yes"}, MalformedRequestError),
        ({"decision": True}, MalformedRequestError),
        ({"decision": "approve"}, InvalidParameterError),
        ({"decision": "approve", "digest": None}, InvalidParameterError),
        ({"decision": "approve", "digest": "sha256:0"}, MalformedRequestError),
        ({"decision": "approve", "digest": GOOD_DIGEST + "\n"}, MalformedRequestError),
        ({"decision": "approve", "digest": GOOD_DIGEST.upper()}, MalformedRequestError),
        ({"decision": "approve", "digest": GOOD_DIGEST, "approver": "a"}, MalformedRequestError),
        ({"decision": "approve", "digest": GOOD_DIGEST, "grant": {"by": 1}}, MalformedRequestError),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(
    value: dict[str, Any], error: type[HostAgentError]
) -> None:
    with pytest.raises(error):
        parse_decision(json.dumps(value).encode())


def test_a_denial_need_not_repeat_the_digest() -> None:
    assert parse_decision(b'{"decision":"deny"}') == DecisionBody(decision="deny")
    approval = parse_decision(json.dumps({"decision": "approve", "digest": GOOD_DIGEST}).encode())
    assert approval.digest == GOOD_DIGEST


SOON = "2026-11-20T22:00:00+01:00"


def test_a_denial_may_say_when_to_ask_again() -> None:
    said = parse_decision(json.dumps({"decision": "deny", "not_before": SOON}).encode())
    assert said.not_before == datetime(2026, 11, 20, 21, tzinfo=UTC)


@pytest.mark.parametrize("not_before", [1, "tomorrow", "2026-11-20T22:00:00", True, [SOON]])
def test_what_is_no_instant_is_no_time_to_ask_again(not_before: object) -> None:
    with pytest.raises(MalformedRequestError) as caught:
        parse_decision(json.dumps({"decision": "deny", "not_before": not_before}).encode())
    assert [fault.pointer for fault in caught.value.recovery.faults] == ["/not_before"]


def test_an_approval_says_nothing_of_when_to_ask_again() -> None:
    digest = "sha256:" + "ab" * 32
    body = {"decision": "approve", "digest": digest, "not_before": SOON}
    with pytest.raises(InvalidParameterError, match="only a denial"):
        parse_decision(json.dumps(body).encode())
