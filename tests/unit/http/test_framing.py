"""What a request may look like on the wire."""

import pytest

from host_agent.errors import HeadersTooLargeError, MalformedRequestError
from host_agent.http.framing import head_fault, length_fault, origin_form, request_fault

GOOD = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"


@pytest.mark.parametrize("end", range(len(GOOD) + 1))
def test_no_part_of_a_good_head_is_a_fault(end: int) -> None:
    assert head_fault(GOOD[:end], max_bytes=16384) is None


@pytest.mark.promise("c17")
@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\r\n\r\n",
        b"\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n",
    ],
)
def test_bare_and_folded_lines_are_malformed(head: bytes) -> None:
    assert isinstance(head_fault(head, max_bytes=16384), MalformedRequestError)


@pytest.mark.promise("c17")
def test_a_long_head_is_too_large() -> None:
    head = b"GET / HTTP/1.1\r\nA: " + b"b" * 20000
    assert isinstance(head_fault(head, max_bytes=16384), HeadersTooLargeError)


@pytest.mark.promise("c17")
@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 1\r\nContent-Length: 2",
        b"Content-Length: 1\r\nContent-Length: 1",
        b"Content-Length: 1\r\nCONTENT-LENGTH:1",
        b"Content-Length: 1, 1",
        b"Content-Length: +1",
        b"Content-Length: -1",
        b"Content-Length: 0x1",
        b"Content-Length: ",
        b"Content-Length: 1 1",
        b"Content-Length: 9999999999999999999999",
    ],
)
def test_ambiguous_lengths_are_malformed(line: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"
    assert isinstance(length_fault(head), MalformedRequestError)


def test_one_length_is_good() -> None:
    assert length_fault(b"POST / HTTP/1.1\r\nContent-Length: 12 \r\n\r\n") is None
    assert length_fault(b"POST / HTTP/1.1\r\nX-Content-Length: a\r\n\r\n") is None


def fault(
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    version: bytes = b"1.1",
) -> object:
    return request_fault(method, target, fields, http_version=version, max_fields=5)


HOST = (b"host", b"localhost:8443")


@pytest.mark.parametrize("host", [b"a", b"a.b-c:1", b"127.0.0.1:8443", b"[::1]:8443", b"[::1]"])
def test_good_hosts_are_taken(host: bytes) -> None:
    assert fault((b"host", host)) is None


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a,b", b"a@b", b"a/b", b"a:b", b"[::1", b"\xc3\xa4", b"a:123456", b"a\t"]
)
def test_bad_hosts_are_malformed(host: bytes) -> None:
    assert isinstance(fault((b"host", host)), MalformedRequestError)


@pytest.mark.promise("c17")
def test_two_hosts_or_none_are_malformed() -> None:
    assert isinstance(fault(HOST, HOST), MalformedRequestError)
    assert isinstance(fault(), MalformedRequestError)


@pytest.mark.promise("c17")
def test_both_framings_are_malformed() -> None:
    both = ((b"transfer-encoding", b"chunked"), (b"content-length", b"1"))
    assert isinstance(fault(HOST, *both), MalformedRequestError)
    assert fault(HOST, both[0]) is None
    assert fault(HOST, both[1]) is None


@pytest.mark.promise("c17")
def test_many_fields_are_too_large() -> None:
    assert isinstance(fault(HOST, *[(b"a", b"b")] * 5), HeadersTooLargeError)


def test_other_protocols_are_refused() -> None:
    assert isinstance(fault(HOST, method=b"CONNECT"), MalformedRequestError)
    for version in (b"1.0", b"0.9", b"2", b"2.0", b"3"):
        assert isinstance(fault(HOST, version=version), MalformedRequestError)


def test_an_offer_of_another_protocol_is_no_fault() -> None:
    """It is not taken up (RFC 9110, section 7.8)."""
    for upgrade in (b"websocket", b"h2c", b"anything"):
        assert fault(HOST, (b"connection", b"upgrade"), (b"upgrade", upgrade)) is None


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"https://a:1/b/c?d=e", b"/b/c?d=e"),
        (b"HTTPS://a:1/b", b"/b"),
        (b"https://a:1", b"/"),
        (b"https://a:1?x", b"/?x"),
        (b"https://a:1//b", b"//b"),
    ],
)
def test_an_absolute_target_is_split_and_names_the_host(target: bytes, path: bytes) -> None:
    fields = [(b"accept", b"*/*"), (b"host", b"other")]
    split, named = origin_form(target, fields, scheme=b"https")
    assert (split, named) == (path, [(b"accept", b"*/*"), (b"host", b"a:1")])
    assert fault(*named, target=split) is None


@pytest.mark.promise("c17")
@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (b"http://a/b", (HOST,)),
        (b"ftp://a/b", (HOST,)),
        (b"https:/a/b", (HOST,)),
        (b"https://a/b", ()),
        (b"https://a/b", (HOST, HOST)),
        (b"https://user@a/b", (HOST,)),
        (b"https:///b", (HOST,)),
        (b"https://a b/", (HOST,)),
        (b"https://a#b", (HOST,)),
        (b"https://a/b#c", (HOST,)),
        (b"https://a/\xff", (HOST,)),
    ],
)
def test_an_absolute_target_of_another_kind_is_malformed(
    target: bytes, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    split, named = origin_form(target, fields, scheme=b"https")
    assert isinstance(fault(*named, target=split), MalformedRequestError)


@pytest.mark.parametrize(
    "target",
    [b"", b"*", b"a", b"http://a/b", b"a:443", b"/a b", b"/\xff", b"/a#b", b"/%ff", b"/%c0%af"],
)
def test_targets_that_are_no_path_are_malformed(target: bytes) -> None:
    assert isinstance(fault(HOST, target=target), MalformedRequestError)


@pytest.mark.parametrize("target", [b"/", b"/a/b?c=d&e=%ff", b"/%c3%a4", b'/"\\^`{|}', b"//a"])
def test_good_targets_are_taken(target: bytes) -> None:
    assert fault(HOST, target=target) is None
