"""The bounded capture: what is kept, what is counted, what is shown."""

import hashlib

import pytest

from host_agent.execution.process import Capture


def fed(limit_bytes: int, *pieces: bytes) -> Capture:
    capture = Capture(limit_bytes)
    for piece in pieces:
        capture.feed(piece)
    return capture


def test_everything_within_the_limit_is_kept() -> None:
    capture = fed(10, b"0123", b"456789")
    assert capture.text() == "0123456789"
    assert capture.size == 10
    assert not capture.is_truncated


def test_one_byte_over_the_limit_is_counted_and_let_go() -> None:
    capture = fed(10, b"0123", b"4567890")
    assert capture.text() == "0123456789"
    assert capture.size == 11
    assert capture.is_truncated


@pytest.mark.parametrize("pieces", [(b"ab" * 5000,), (b"ab",) * 5000, (b"", b"ab" * 5000)])
def test_the_hash_covers_what_was_let_go_too(pieces: tuple[bytes, ...]) -> None:
    assert fed(16, *pieces).sha256() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_an_empty_stream_has_the_hash_of_nothing() -> None:
    assert fed(16).sha256() == hashlib.sha256(b"").hexdigest()
    assert fed(16).text() == ""


@pytest.mark.promise("c38")
def test_invalid_utf8_and_nul_are_shown_and_never_raise() -> None:
    assert fed(99, b"a\xff\xfeb\x00c").text() == "a\ufffd\ufffdb\x00c"


def test_a_character_split_over_two_pieces_is_whole() -> None:
    assert fed(99, b"caf\xc3", b"\xa9").text() == "café"


def test_a_character_cut_by_the_limit_is_left_out() -> None:
    assert fed(4, "café".encode()).text() == "caf"


def test_a_character_that_the_process_itself_left_unfinished_is_shown_as_such() -> None:
    assert fed(99, b"caf\xc3").text() == "caf\ufffd"


@pytest.mark.promise("c38")
def test_memory_stays_within_the_limit() -> None:
    capture = fed(1000, *(b"x" * 65536 for _ in range(100)))
    assert len(capture.start) == 1000
    assert capture.size == 6553600
