"""An ntfy server as far as the agent and a phone need one: topics, a cache, access, streams.

It takes a JSON publication at its root, streams a topic as `GET /TOPIC/json?since=`, tells a token
whether it may read (`GET /TOPIC/auth`) and its health. Like the real one it refuses a body of more
than 8 KiB, more than three actions, and a body on an action that sends none; it turns a message of
more than 4096 bytes into an attachment. Only the standard library is used:

    python3 ntfy_server.py [--port N] [--certificate FILE --key FILE] [--read TOKEN:TOPIC] [@FILE]
"""

import argparse
import itertools
import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

MESSAGE_BYTES = 4096
BODY_BYTES = 2 * MESSAGE_BYTES
TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
ACTIONS = {"view", "http", "broadcast"}
KNOWN = {
    "topic", "title", "message", "priority", "tags", "markdown", "click", "actions", "sequence_id",
    "delay", "icon", "attach", "filename", "email", "call", "cache", "firebase",
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """One exchange; a stream is one that does not end."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        data = self.rfile.read(length)
        if self.server.refuse_with is not None:
            self._refuse(self.server.refuse_with)
            return
        if urlsplit(self.path).path != "/" or length > BODY_BYTES:
            self._problem(400 if length <= BODY_BYTES else 413)
            return
        try:
            told = json.loads(data)
            fault = fault_of(told)
        except ValueError:
            fault = "not JSON"
        if fault:
            self.server.faults.append(fault)
            self._problem(400)
        elif not self.server.may(self._token(), "write", told["topic"]):
            self._problem(403)
        else:
            self._json(200, self.server.publish(told))

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        topic, _, form = parts.path.removeprefix("/").partition("/")
        if parts.path == "/v1/health":
            self._json(200, {"healthy": self.server.healthy})
        elif form not in {"json", "auth"}:
            self._problem(404)
        elif not self.server.may(self._token(), "read", topic):
            self._problem(403)
        elif self.server.refuse_with is not None:
            self._refuse(self.server.refuse_with)
        elif form == "auth":
            self._json(200, {"success": True})
        else:
            since = parse_qs(parts.query).get("since", ["none"])[0]
            self.server.asked_since.append(since)
            self._stream(topic, since)

    def _stream(self, topic: str, since: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        generation = self.server.generation
        self._line({"id": "open00000000", "time": int(time.time()), "event": "open"}, topic)
        sent = self.server.after(topic, since)
        while not self.server.ending.is_set() and self.server.generation == generation:
            with self.server.changed:
                lines = self.server.lines(topic, sent)
                if not lines:
                    self.server.changed.wait(0.5)
                    continue
            for line in lines:
                sent += 1
                self._raw(line)

    def _line(self, told: Mapping[str, Any], topic: str) -> None:
        self._raw(json.dumps({**told, "topic": topic}).encode() + b"\n")

    def _raw(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _token(self) -> str | None:
        value: str = self.headers.get("Authorization", "")
        return value.removeprefix("Bearer ") if value.startswith("Bearer ") else None

    def _json(self, status: int, told: Mapping[str, Any]) -> None:
        self._answer(status, json.dumps(told).encode())

    def _problem(self, status: int, **headers: str) -> None:
        self._answer(status, json.dumps({"code": status * 100, "http": status}).encode(), **headers)

    def _refuse(self, how: tuple[int, Mapping[str, str]]) -> None:
        self._problem(how[0], **how[1])

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def fault_of(told: Any) -> str | None:  # noqa: ANN401 - whatever JSON came
    """Return why the real server would not take a publication, or None."""
    if not isinstance(told, dict) or not TOPIC.fullmatch(str(told.get("topic"))):
        return "no topic"
    if unknown := set(told) - KNOWN:
        return f"unknown: {sorted(unknown)}"
    actions = told.get("actions", [])
    if len(actions) > 3:
        return "too many actions"
    for action in actions:
        if action.get("action") not in ACTIONS or not action.get("label"):
            return "an action of no kind, or without a label"
        if action["action"] in {"view", "http"} and not action.get("url"):
            return "an action without a URL"
        if action.get("method", "POST") in {"GET", "HEAD"} and "body" in action:
            return "a body that is not sent"
    return None


class Server(ThreadingHTTPServer):
    """Topics with a cache. `generation` counts up where all streams are to break off."""

    daemon_threads = False

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        super().__init__(address, Handler)
        self.tls = tls
        self.ending = threading.Event()
        self.changed = threading.Condition()
        self.generation = 0
        self.healthy = True
        self.refuse_with: tuple[int, Mapping[str, str]] | None = None
        self.access: dict[tuple[str | None, str], set[str]] | None = None
        self.faults: list[str] = []
        self.asked_since: list[str] = []
        self.topics: dict[str, list[tuple[str, int, bytes]]] = {}
        self.published: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)

    def may(self, token: str | None, verb: str, topic: str) -> bool:
        return self.access is None or topic in self.access.get((token, verb), set())

    def publish(self, told: Mapping[str, Any]) -> dict[str, Any]:
        message = {
            "id": f"m{next(self._numbers):011}",
            "time": int(time.time()),
            "expires": int(time.time()) + 43_200,
            "event": "message",
            **told,
            "message": told.get("message") or "triggered",
        }
        if len(message["message"].encode()) > MESSAGE_BYTES:
            message["attachment"] = {"name": "attachment.txt", "url": "https://ntfy.example/file/a"}
            message["message"] = "You received a file: attachment.txt"
        self.say(told["topic"], json.dumps(message).encode(), message["id"], message["time"])
        with self.changed:
            self.published.append(message)
        return message

    def say(
        self, topic: str, line: bytes, identifier: str = "", instant: int | None = None
    ) -> None:
        """Put any line onto a topic's streams."""
        with self.changed:
            at = int(time.time()) if instant is None else instant
            self.topics.setdefault(topic, []).append((identifier, at, line + b"\n"))
            self.changed.notify_all()

    def after(self, topic: str, since: str) -> int:
        """Return how many of a topic's lines `since` passes over. An unknown id passes over none.

        A number of seconds since 1970 is a time, a message's id any other word.
        """
        lines = self.topics.get(topic, [])
        if since.isdigit():
            return sum(instant < int(since) for _, instant, _ in lines)
        found = [place for place, (identifier, _, _) in enumerate(lines, 1) if identifier == since]
        return found[-1] if found else 0

    def lines(self, topic: str, sent: int) -> list[bytes]:
        return [line for _, _, line in self.topics.get(topic, [])[sent:]]

    def break_streams(self) -> None:
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over what clients that went away leave behind."""


class NtfyServer:
    """The server on loopback in a thread of its own; `server` has its state."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.server = Server(("127.0.0.1", port), tls)
        self.port: int = self.server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

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
        self.server.break_streams()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def press(action: Mapping[str, Any]) -> int:
    """Do what a phone does when an `http` action without TLS is pressed; return the status."""
    parts = urlsplit(action["url"])
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    try:
        connection.request(
            action.get("method", "POST"),
            parts.path,
            body=action["body"].encode(),
            headers=action.get("headers", {}),
        )
        return connection.getresponse().status
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Stand in for an ntfy server.", fromfile_prefix_chars="@"
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    for verb in ("read", "write"):
        parser.add_argument(f"--{verb}", action="append", default=[], metavar="TOKEN:TOPIC")
    args = parser.parse_args()
    tls = None
    if args.certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.certificate, args.key)
    with NtfyServer(tls=tls, port=args.port) as ntfy:
        access: dict[tuple[str | None, str], set[str]] = {}
        for verb in ("read", "write"):
            for pair in getattr(args, verb):
                token, _, topic = pair.partition(":")
                access.setdefault((token or None, verb), set()).add(topic)
        ntfy.server.access = access or None
        print(ntfy.url, flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
