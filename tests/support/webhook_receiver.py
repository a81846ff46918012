"""A webhook receiver that keeps what it gets, and can misbehave in every way that one meets.

In a test: `with Receiver() as receiver: ...`. By itself, with any Python 3.11 and nothing else:

    python3 webhook_receiver.py --record FILE [--port N] [--certificate FILE --key FILE] [--mode M]

It prints its URL as its first line, writes one JSON object a line for each message, and serves
until it is ended. `MODES` are the names that `--mode` takes.
"""

import argparse
import json
import queue
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

METADATA_URL = "http://169.254.169.254/latest/meta-data/"
BIG_BYTES = 10 * 1024 * 1024
DRIP_SECONDS = 0.02


@dataclass(frozen=True)
class Received:
    """One message as it came. Names of headers are lower case."""

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: str


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's mode says."""

    server: "Server"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length).decode("utf-8", "backslashreplace")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.keep(Received(time.time(), self.command, self.path, headers, body))
        MODES[self.server.mode](self)

    def do_GET(self) -> None:
        self.do_POST()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end of the server, or for so long; return whether it is the end."""
        return self.server.ending.wait(seconds)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: what came is kept already."""


def ok(handler: Handler) -> None:
    handler.answer(200, b"taken")


def decided(handler: Handler) -> None:
    """Answer as the agent does to a decision."""
    handler.answer(200, b'{"state": "approved"}')


def redirect(handler: Handler) -> None:
    handler.answer(302, Location=METADATA_URL)


def redirect_home(handler: Handler) -> None:
    handler.answer(307, Location="/elsewhere")


def rate_limited(handler: Handler) -> None:
    handler.answer(429, Retry_After="7")


def hang(handler: Handler) -> None:
    handler.wait()


def drop(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def garbage(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")


def big(handler: Handler) -> None:
    handler.answer(200, b"x" * BIG_BYTES)


def endless(handler: Handler) -> None:
    """Send without a length, until the other side has had enough."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.wait(0):
        handler.wfile.write(b"x" * 65_536)


def slow(handler: Handler) -> None:
    """Send one byte now and then, so that no single read is ever late."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.wait(DRIP_SECONDS):
        handler.wfile.write(b"x")


def slow_head(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.wait(DRIP_SECONDS):
        handler.wfile.write(b"x: y\r\n")


def _status(status: int) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, b"no")


MODES: Mapping[str, Callable[[Handler], None]] = {
    "ok": ok,
    "decided": decided,
    "redirect": redirect,
    "redirect-home": redirect_home,
    "rate-limited": rate_limited,
    "hang": hang,
    "drop": drop,
    "garbage": garbage,
    "big": big,
    "endless": endless,
    "slow": slow,
    "slow-head": slow_head,
    **{str(status): _status(status) for status in (202, 204, 400, 401, 403, 404, 408, 409, 410)},
    **{str(status): _status(status) for status in (413, 425, 500, 502, 503)},
}


class Server(ThreadingHTTPServer):
    """Keeps what it gets; each connection has a thread, in which TLS is spoken too."""

    daemon_threads = False

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext | None, record: Path | None
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)
        self.tls = tls
        self.record = record
        self.mode = "ok"
        self.ending = threading.Event()
        self.kept: list[Received] = []
        self.arrived: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self._writing = threading.Lock()

    def keep(self, received: Received) -> None:
        with self._writing:
            self.kept.append(received)
            if self.record is not None:
                with self.record.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(received)) + "\n")
        self.arrived.put(received)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over what clients that went away leave behind."""


class Receiver:
    """A server on loopback, in a thread of its own. `mode` says how it answers from now on."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        record: Path | None = None,
        mode: str = "ok",
    ) -> None:
        self.server = Server((host, port), tls, record)
        self.server.mode = mode
        self.port: int = self.server.server_address[1]
        place = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{place}:{self.port}/hook"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    @property
    def mode(self) -> str:
        return self.server.mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise KeyError(mode)
        self.server.mode = mode

    @property
    def received(self) -> list[Received]:
        """Return what has arrived so far."""
        return list(self.server.kept)

    def next(self, timeout_seconds: float = 10.0) -> Received:
        """Return the next message that `next` has not returned, waiting for it."""
        return self.server.arrived.get(timeout=timeout_seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server.ending.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Receive webhooks and keep them.")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--mode", choices=sorted(MODES), default="ok")
    args = parser.parse_args()
    tls = None
    if args.certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.certificate, args.key)
    receiver = Receiver(tls=tls, host=args.host, port=args.port, record=args.record, mode=args.mode)
    with receiver:
        print(receiver.url, flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
