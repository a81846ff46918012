"""A cheap HTTP/1.1 client: one blocking connection kept alive, one exchange at a time.

The load comes from the machine that is measured, so what the client spends is not the agent's.
It knows no more of HTTP than the answers here need.
"""

import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

READ_BYTES = 65_536
TIMEOUT_SECONDS = 60.0


class UnexpectedAnswerError(Exception):
    """An answer has another status than the one that is measured."""


class Exchange:
    """A connection to `url` that presents a certificate, and shakes hands when it is made."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        host, port = str(parts.hostname), int(parts.port or 443)
        plain = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname=host)
        self._host = f"{host}:{port}".encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def get(self, path: str) -> bytes:
        """Return the bytes of a GET."""
        return b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path.encode(), self._host)

    def ask(self, operation: str, params: Mapping[str, object]) -> bytes:
        """Return the bytes that ask for `operation`."""
        body = json.dumps({"operation": operation, "params": params}).encode()
        return (
            b"POST /host/op HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self._host, len(body), body)
        )

    def send(self, request: bytes, status: int) -> bytes:
        """Send `request` and return the whole answer, which must have `status`.

        Raises:
            UnexpectedAnswerError: it has another one, or the connection ended.
        """
        self._socket.sendall(request)
        answer = self._socket.recv(READ_BYTES)
        while not is_whole(answer):
            more = self._socket.recv(READ_BYTES)
            if not more:
                raise UnexpectedAnswerError(answer[:1000])
            answer += more
        if not answer.startswith(b"HTTP/1.1 %d " % status):
            raise UnexpectedAnswerError(answer[:1000])
        return answer


def is_whole(answer: bytes) -> bool:
    """Return whether head and body have come: by length, or by the last chunk."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[:end].lower()
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        return answer.endswith(b"\r\n0\r\n\r\n")
    length = int(head[start + 17 :].split(b"\r\n", 1)[0])
    return len(answer) >= end + 4 + length


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the TLS side of a client that presents `certificate` and trusts `ca`."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(certificate, key)
    return context
