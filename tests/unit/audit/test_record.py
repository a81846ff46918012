"""One record: what is in it, what is made visible, and how it links."""

import json
import re
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from host_agent.audit.record import (
    CHAIN_FIELDS,
    GENESIS,
    MAX_RECORD_BYTES,
    MAX_TEXT_CHARACTERS,
    ORIGIN,
    Event,
    Link,
    NotARecordError,
    build,
    digest_of,
    link,
    read,
)
from host_agent.canonical import JsonValue
from host_agent.text import is_hidden, visible
from tests.support.audit_files import lines

TIME = "2026-11-20T22:00:00.000000Z"


def made(**members: Any) -> dict[str, Any]:
    line, _ = link(build(Event.REQUEST_HELD, TIME, members), ORIGIN)
    value: dict[str, Any] = json.loads(line)
    return value


def test_hash_is_of_the_canonical_record_without_hash() -> None:
    record = made(caller="librarian", params={"b": 1, "a": [True, None]})
    hashed = record.pop("hash")
    assert hashed == f"sha256:{sha256(rfc8785.dumps(record)).hexdigest()}"


def test_line_is_canonical_and_has_place_time_and_event() -> None:
    line, after = link(build(Event.REQUEST_HELD, TIME, {"caller": "a", "zone": "z"}), ORIGIN)
    record = json.loads(line)
    assert line == rfc8785.dumps(record)
    assert (record["sequence"], record["previous"]) == (1, GENESIS)
    assert (record["time"], record["event"]) == (TIME, "request.held")
    assert after == Link(sequence=1, hash=record["hash"])


def test_first_previous_is_64_zeros() -> None:
    assert GENESIS == "sha256:" + 64 * "0"


def test_records_link_to_the_one_before() -> None:
    chain, last = lines(5)
    records = [json.loads(line) for line in chain]
    assert [record["sequence"] for record in records] == [1, 2, 3, 4, 5]
    assert [r["previous"] for r in records[1:]] == [r["hash"] for r in records[:-1]]
    assert last.hash == records[-1]["hash"]


def test_absent_members_are_left_out_and_false_ones_are_not() -> None:
    record = made(caller=None, outcome=False, suppressed=0, reason="")
    assert "caller" not in record
    assert (record["outcome"], record["suppressed"], record["reason"]) == (False, 0, "")


@pytest.mark.parametrize("name", sorted(CHAIN_FIELDS))
def test_no_member_shadows_the_chains_own(name: str) -> None:
    with pytest.raises(ValueError, match="set by the log alone"):
        build(Event.REQUEST_HELD, TIME, {name: "mine"})


# -- what people could not see --------------------------------------------------------------------


@pytest.mark.promise("c31")
def test_every_control_format_and_surrogate_character_becomes_visible() -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert visible(character) == f"\\u{{{code:x}}}"


@pytest.mark.parametrize("code", [0x034F, 0x115F, 0x3164, 0xFFA0, 0xFE0F, 0xE0100, 0xE0041])
def test_characters_that_draw_nothing_become_visible(code: int) -> None:
    assert visible(chr(code)) == f"\\u{{{code:x}}}"


@pytest.mark.parametrize(
    "text", ["plain", "größe", "日本語", "a b", "\N{GRINNING FACE}", "\\n", ""]
)
def test_text_that_people_can_see_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\u{a}b"),
        ("\x1b[31m", "\\u{1b}[31m"),
        ("\x9b1m", "\\u{9b}1m"),
        ("\u202eevil", "\\u{202e}evil"),
        ("a\u200bb", "a\\u{200b}b"),
        ("\ud800", "\\u{d800}"),
        ("\\u{a}", "\\u{5c}u{a}"),
        ("\\\\u{a}\n", "\\\\u{5c}u{a}\\u{a}"),
    ],
)
def test_hidden_text_becomes_visible_and_an_escape_that_was_there_is_told_apart(
    text: str, shown: str
) -> None:
    assert visible(text) == shown


@pytest.mark.promise("c32")
def test_hidden_text_is_made_visible_in_keys_and_at_any_depth() -> None:
    hostile = 'x\n{"sequence":1}\u2028\u202e\x00'
    line, _ = link(
        build(
            Event.POLICY_DENIED,
            TIME,
            {"caller": hostile, "params": {hostile: [{hostile: hostile}]}, "reason": hostile},
        ),
        ORIGIN,
    )
    assert b"\n" not in line
    text = line.decode()
    assert not any(map(is_hidden, text))
    assert not any(map(is_hidden, json.dumps(json.loads(line), ensure_ascii=False)))


# -- what is too long -----------------------------------------------------------------------------


def test_a_long_text_is_cut_with_its_length_and_hash() -> None:
    text = "x" * (MAX_TEXT_CHARACTERS + 1)
    shown = made(reason=text)["reason"]
    assert shown.startswith("x" * 1024 + "\\u{cut ")
    assert f"{len(text)} characters sha256:{sha256(text.encode()).hexdigest()}}}" in shown
    assert len(shown) < 1200


def test_a_text_at_the_limit_stays_whole() -> None:
    text = "x" * MAX_TEXT_CHARACTERS
    assert made(reason=text)["reason"] == text


def test_a_record_that_is_too_long_gives_its_largest_members_up_for_their_hash() -> None:
    params = {f"name-{number}": "y" * 100 for number in range(2000)}
    line, _ = link(build(Event.REQUEST_HELD, TIME, {"caller": "a", "params": params}), ORIGIN)
    record = json.loads(line)
    assert len(line) <= MAX_RECORD_BYTES
    assert record["caller"] == "a"
    assert record["params"] == {
        "length": len(rfc8785.dumps(params)),
        "sha256": digest_of(rfc8785.dumps(params)),
    }
    assert read(line).sequence == 1


def test_even_many_long_members_end_in_a_short_line() -> None:
    members = {f"member_{number}": ["z" * 4000] * 5 for number in range(40)}
    line, _ = link(build(Event.REQUEST_HELD, TIME, members), ORIGIN)
    assert len(line) <= MAX_RECORD_BYTES
    assert read(line).members["event"] == "request.held"


@pytest.mark.parametrize("value", [0.5, 2**53, {"a": float("nan")}])
def test_a_value_without_canonical_form_is_a_defect_and_refused(value: JsonValue) -> None:
    with pytest.raises(ValueError):
        link(build(Event.REQUEST_HELD, TIME, {"params": value}), ORIGIN)


# -- reading back ---------------------------------------------------------------------------------


def test_a_line_reads_back() -> None:
    (line,), last = lines(1)
    record = read(line)
    assert record.link == last
    assert record.previous == GENESIS
    assert record.members["caller"] == "librarian"


def test_a_member_that_repeats_the_hash_member_does_not_confuse_the_reader() -> None:
    (line,), last = lines(1)
    inner: JsonValue = {"a": 1, "hash": last.hash}
    line, after = link(build(Event.REQUEST_HELD, TIME, {"params": inner}), ORIGIN)
    assert read(line).link == after
    forged = json.loads(line)
    forged["params"]["hash"] = forged["hash"]
    with pytest.raises(NotARecordError, match="hash"):
        read(rfc8785.dumps(forged))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: line.replace(b'"librarian"', b'"librariaN"'), "content"),
        (lambda line: line.replace(b'":', b'": '), "canonical"),
        (lambda line: line.replace(b'"number":0', b'"number":-0'), "canonical"),
        (lambda line: line.replace(b'"number":0', b'"number":0.0'), "canonical"),
        (lambda line: line.replace(b'"number":0', b'"number":0.5'), "canonical"),
        (lambda line: line.replace(b'"number":0', b'"number":9007199254740992'), "canonical"),
        (lambda line: line.replace(b'"number":0', b'"number":NaN'), "canonical"),
        (lambda line: line.replace(b"librarian", "bibliothécaire".encode()), "content"),
        (lambda line: line.replace(b"librarian", b"\\u006cibrarian"), "canonical"),
        (lambda line: line.replace(b"librarian", b"\\ud800"), "canonical"),
        (lambda line: b'{"caller":"x",' + line[1:], "canonical"),
        (lambda line: line.replace(b'"sequence":1', b'"sequence":true'), "audit record"),
        (lambda line: line.replace(b'"sequence":1', b'"sequence":0'), "audit record"),
        (lambda line: line.replace(b'"event"', b'"evenT"'), "audit record"),
        (lambda _: b"{}", "audit record"),
        (lambda _: b"[]", "JSON object"),
        (lambda line: line + b"}", "JSON object"),
        (lambda line: line + line, "JSON object"),
        (lambda _: b"7", "JSON object"),
    ],
)
def test_a_whole_line_that_is_no_record_is_never_taken_for_torn(
    change: Callable[[bytes], bytes], reason: str
) -> None:
    (line,), _ = lines(1)
    changed = change(line)
    assert changed != line
    with pytest.raises(NotARecordError, match=re.escape(reason)) as caught:
        read(changed)
    assert not caught.value.is_cut


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b'{"caller":"lib', b"\xff\xfe", b"\x00" * 20, b"[" * 100_000, b"9" * 5000],
    ids=lambda line: line[:8].hex() or "empty",
)
def test_what_is_no_json_counts_as_cut(line: bytes) -> None:
    with pytest.raises(NotARecordError) as caught:
        read(line)
    assert caught.value.is_cut
