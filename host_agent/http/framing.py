"""What a request may look like on the wire, before anybody asks what it means. Pure.

Stricter than HTTP where leniency lets two parsers read one message differently: no bare CR or LF,
no folded lines, no `Transfer-Encoding` next to `Content-Length`, nothing twice that frames.
"""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from host_agent.errors import (
    FaultPlace,
    HeadersTooLargeError,
    HostAgentError,
    MalformedRequestError,
    correct,
)

Fields = Sequence[tuple[bytes, bytes]]

_ABSOLUTE = re.compile(rb"(https?)://([^/?]*)([/?].*)?", re.IGNORECASE | re.DOTALL)
_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LENGTH_LINE = re.compile(rb"\r\ncontent-length:[ \t]*([^\r]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}[ \t]*")


def head_fault(head: bytes | bytearray, *, max_bytes: int) -> HostAgentError | None:
    """Return what is wrong with the bytes of an HTTP/1.1 header section, as far as they came.

    Looks at line ends, folded lines and repeated lengths: what the HTTP parser would forgive.
    """
    if len(head) > max_bytes:
        return too_large_head()
    crlf = head.count(b"\r\n")
    # A CR may be the last byte so far: its LF is still to come.
    pending = 1 if head.endswith(b"\r") else 0
    if head.count(b"\n") != crlf or head.count(b"\r") != crlf + pending:
        return malformed("a line ends with a bare CR or LF")
    if b"\r\n " in head or b"\r\n\t" in head:
        return malformed("a header field is folded over lines")
    return None


def length_fault(head: bytes) -> HostAgentError | None:
    """Return what is wrong with the `Content-Length` lines of a whole header section."""
    lengths = _LENGTH_LINE.findall(head)
    if len(lengths) > 1:
        return malformed("Content-Length is given more than once")
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        return malformed("Content-Length is not a number")
    return None


def origin_form(target: bytes, fields: Fields, *, scheme: bytes) -> tuple[bytes, Fields]:
    """Return target and fields with an absolute target split (RFC 9112, 3.2.2).

    Its authority takes the place of the one `Host` there is. What names another scheme than the
    one that is spoken, or comes with no `Host` or two, is left as it is: it will be refused.
    """
    absolute = _ABSOLUTE.fullmatch(target)
    hosts = sum(name == b"host" for name, _ in fields)
    if absolute is None or absolute[1].lower() != scheme or hosts != 1:
        return target, fields
    path = absolute[3] or b"/"
    named = [(name, absolute[2] if name == b"host" else value) for name, value in fields]
    return path if path.startswith(b"/") else b"/" + path, named


def request_fault(
    method: bytes, target: bytes, fields: Fields, *, http_version: bytes, max_fields: int
) -> HostAgentError | None:
    """Return what is wrong with a parsed request, or None. Field names are in lower case."""
    if len(fields) > max_fields:
        return too_large_head()
    if http_version != b"1.1":
        return malformed("only HTTP/1.1 is spoken here")
    names = [name for name, _ in fields]
    if method == b"CONNECT":
        return malformed("there is no tunnel here")
    if names.count(b"transfer-encoding") and names.count(b"content-length"):
        return malformed("Transfer-Encoding and Content-Length exclude each other")
    if names.count(b"content-length") > 1:
        return malformed("Content-Length is given more than once")
    return _host_fault(fields) or _target_fault(target)


def _host_fault(fields: Fields) -> HostAgentError | None:
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1 or _HOST.fullmatch(hosts[0]) is None:
        return malformed("exactly one Host must name this server")
    return None


def _target_fault(target: bytes) -> HostAgentError | None:
    if _TARGET.fullmatch(target) is None:
        return malformed("the request target is not a path in ASCII")
    try:
        decode_path(target.partition(b"?")[0])
    except UnicodeDecodeError:
        return malformed("the request target is not UTF-8")
    return None


def decode_path(raw: bytes) -> str:
    """Return a raw path with its percent-escapes resolved.

    Raises:
        UnicodeDecodeError: the escapes are not UTF-8.
    """
    return unquote(raw.decode("ascii"), errors="strict")


def field(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of the field `name` (in lower case), or None."""
    for key, value in fields:
        if key == name:
            return value
    return None


def malformed(why: str) -> MalformedRequestError:
    """Return the refusal of a request that is not well-formed HTTP."""
    message = f"This is not a request that is understood here: {why}."
    return MalformedRequestError(message, recovery=correct(message, place=FaultPlace.HEADER))


def too_large_head() -> HeadersTooLargeError:
    """Return the refusal of a header section over its limits."""
    message = "Send fewer or shorter header fields."
    return HeadersTooLargeError(message, recovery=correct(message, place=FaultPlace.HEADER))
