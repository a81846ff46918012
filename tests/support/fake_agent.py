"""A scripted HTTPS server that answers with the contract's bodies: what the client is tried on.

Mutual TLS 1.3 with a test PKI. `script(method, path, *answers)` says what a route answers, one
answer after the other, the last one again and again; what is not scripted is a 404 problem.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from host_agent.api.wire.host import Readiness
from host_agent.api.wire.recovery import RecoveryView
from host_agent.errors import BY_CODE, InternalError
from tests.support.certificates import Leaf, Pki
from tests.support.patience import PATIENCE

DIGEST = "sha256:" + "ab" * 32
REQUEST_ID = "0f8e7d6c5b4a39281706f5e4d3c2b1a0"
FAR_FUTURE = "2099-11-20T22:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. `content` instead of `body` for what is not JSON; `drops` answers nothing.

    `waits_for` holds the answer back until the test sets it, `delay_seconds` so long. `then` is
    added to a body that has no length: after `content`, each piece is sent once its event is set.
    """

    status: int = 200
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    drops: bool = False
    waits_for: threading.Event | None = None
    delay_seconds: float = 0.0
    then: tuple[tuple[threading.Event, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One exchange as the server saw it."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any
    peer: str


class FakeAgent:
    """The server; a context manager. `url` is where it listens."""

    def __init__(self, pki: Pki, server: Leaf) -> None:
        self.pki = pki
        self.seen: list[Seen] = []
        self._script: dict[tuple[str, str], list[Answer]] = {}
        self._lock = threading.Lock()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        context.load_cert_chain(server.certificate_path, server.key_path)
        context.load_verify_locations(cafile=pki.ca_path)
        self._server = _Server(self, context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()

    def script(self, method: str, path: str, *answers: Answer) -> None:
        with self._lock:
            self._script[(method, path)] = list(answers)

    def paths(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.seen]

    def answer(self, seen: Seen) -> Answer:
        with self._lock:
            self.seen.append(seen)
            answers = self._script.get((seen.method, seen.path))
            if not answers:
                return problem("route:not-found", 404, "There is no such route.")
            return answers.pop(0) if len(answers) > 1 else answers[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, agent: FakeAgent, context: ssl.SSLContext) -> None:
        self.agent = agent
        self._context = context
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: object, client_address: object) -> None:
        # In the connection's own thread: a handshake must not hold up the accept loop.
        with contextlib.suppress(OSError):
            plain = cast("socket.socket", request)
            connection = self._context.wrap_socket(plain, server_side=True)
            self._open.add(connection)
            try:
                _Handler(connection, client_address, self)
            finally:
                self._open.discard(connection)
                connection.close()

    def end_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that goes away is part of the tests."""


def _common_name(der: bytes) -> str:
    subject = x509.load_der_x509_certificate(der).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    connection: ssl.SSLSocket

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        target = urlsplit(self.path)
        answer = self.server.agent.answer(
            Seen(
                method=self.command,
                path=target.path,
                query=parse_qs(target.query),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=json.loads(content) if content else None,
                peer=_common_name(self.connection.getpeercert(binary_form=True) or b""),
            )
        )
        if answer.waits_for is not None:
            answer.waits_for.wait(PATIENCE)
        if answer.delay_seconds:
            time.sleep(answer.delay_seconds)
        if answer.drops:
            self.close_connection = True
            return
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        is_problem = answer.status >= 400
        kind = "application/problem+json" if is_problem else "application/json"
        if answer.content is None:
            content = json.dumps(answer.body).encode("ascii")
        else:
            content = answer.content
        headers = {"Content-Type": kind, "X-Request-Id": "x-1", **answer.headers}
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not answer.then:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        for event, piece in answer.then:
            event.wait(PATIENCE)
            self.wfile.write(piece)
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextlib.contextmanager
def running(pki: Pki) -> Iterator[FakeAgent]:
    with FakeAgent(pki, pki.server()) as agent:
        yield agent


def write_client_toml(home: Path, *, url: str, leaf: Leaf, ca: Path) -> Path:
    """Write `~/.config/host-agent/client.toml` for a home directory."""
    path = home / ".config" / "host-agent" / "client.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'url = "{url}"\ncert = "{leaf.certificate_path}"\nkey = "{leaf.key_path}"\nca = "{ca}"\n'
    )
    return path


# -- bodies of the contract -----------------------------------------------------------------------


def problem(code: str, status: int, detail: str = "Not this time.", **members: Any) -> Answer:
    body = {"type": f"urn:host-agent:problem:{code}", "title": "No", "status": status}
    known = BY_CODE.get(code, InternalError)(detail).recovery
    told = {
        "recovery": RecoveryView.of(known).as_json(),
        "exchange_id": "x-1",
        "request_id": "x-1",
        **members,
    }
    return Answer(status=status, body={**body, "detail": detail, "code": code, **told})


def outcome(**members: Any) -> dict[str, Any]:
    return {
        "exit_code": 0,
        "stdout": "",
        "stderr": "",
        "truncated": False,
        "duration_ms": 12,
        "data": None,
        "verified": None,
        **members,
    }


def ran(operation: str = "git.status", **members: Any) -> dict[str, Any]:
    return {
        "request_id": REQUEST_ID,
        "operation": operation,
        "resource": "/srv/app",
        "effect": "read" if operation == "git.status" else "change",
        "state": "succeeded",
        "digest": DIGEST,
        "outcome": outcome(**members),
    }


def dry_run(operation: str = "git.pull", **members: Any) -> dict[str, Any]:
    shown = view()
    kept = ("resource", "effect", "digest", "runs_as", "approvals", "preview", "precondition")
    return {
        "exchange_id": "x-1",
        "operation": operation,
        "state": "dry_run",
        "would": "ask",
        "verdict": "ask",
        "rule": "pulling needs alice",
        **{name: shown[name] for name in kept},
        **members,
    }


def held(operation: str = "git.pull", **members: Any) -> dict[str, Any]:
    return {
        "request_id": REQUEST_ID,
        "operation": operation,
        "state": "pending",
        "digest": DIGEST,
        "expires_at": FAR_FUTURE,
        "rule": "pulling needs alice",
        "poll_after_seconds": 5,
        "message": "Held: nothing has run.",
        **members,
    }


def view(**members: Any) -> dict[str, Any]:
    has_ended = members.get("state", "pending") not in ("pending", "approved", "running")
    return {
        "request_id": REQUEST_ID,
        "operation": "git.pull",
        "state": "pending",
        "resource": "/srv/app",
        "caller": "librarian",
        "owner": "bob",
        "unix_user": "librarian",
        "host": "agent-host",
        "effect": "change",
        "verb": "PULL",
        "subject": "/srv/app, main of origin",
        "runs_as": "librarian",
        "asked_before": None,
        "params": {"repository": "/srv/app", "remote": "origin", "branch": "main"},
        "reason": "before the release",
        "digest": DIGEST,
        "rule": "pulling needs alice",
        "created_at": "2026-11-20T21:00:00Z",
        "expires_at": FAR_FUTURE,
        "finished_at": FAR_FUTURE if has_ended else None,
        "preview": {
            "accuracy": "estimate",
            "summary": "2 commits would be merged",
            "details": ["abc1234 first", "def5678 second"],
            "undo": "reset to 0000000",
        },
        "precondition": {"head": "0" * 40},
        "approvals": {
            "needed": 1,
            "given": 0,
            "approvers": ["alice"],
            "approver_role": "approver",
        },
        "decisions": [],
        "outcome": None,
        "problem": None,
        **members,
    }


def parts(**members: Any) -> dict[str, Any]:
    fine = dict.fromkeys(
        ("store", "audit", "crl", "certificate", "configuration", "sudoers", "root_list"), "ok"
    )
    sums = ("configuration_sha256", "certificate_sha256", "client_ca_sha256", "crl_sha256")
    serving = {**dict.fromkeys(sums, "0" * 64), "crl_numbers": [1]}
    told = {"serving": serving, "audit_sequence": 7, "audit_head": DIGEST}
    return Readiness.model_validate({**fine, **told, **members}).as_json()


def decision(verb: str = "approve", **members: Any) -> dict[str, Any]:
    said = {"owner": "erin", "channel": "http", "at": "2026-11-20T21:00:00Z", "reason": None}
    return {"approver": "erin", "decision": verb, **said, **members}


def stream(*pieces: tuple[threading.Event, bytes], first: bytes = b": events\n\n") -> Answer:
    """Return a stream of events: `first` at once, each piece once its event is set."""
    kind = {"Content-Type": "text/event-stream"}
    return Answer(content=first, headers=kind, then=pieces)


def frame(sequence: int, event: str = "request.held") -> bytes:
    """Return one event as it is sent."""
    return f'id: {sequence}\nevent: {event}\ndata: {{"sequence":{sequence}}}\n\n'.encode()


def operations() -> dict[str, Any]:
    repository = {"type": "string", "enum": ["/srv/app"]}
    pull = {
        "repository": repository,
        "remote": {"type": "string", "enum": ["origin"]},
        "branch": {"type": "string", "pattern": "^(?:main|release/.*)$"},
    }
    log = {
        "repository": repository,
        "limit": {"type": "integer", "default": 20},
        "ref": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    }
    return {
        "operations": [
            operation("git.status", "Looks.", {"repository": repository}, ["repository"]),
            operation("git.log", "Looks back.", log, ["repository"]),
            operation("git.pull", "Merges.", pull, list(pull), undo="reset to the commit before"),
        ]
    }


def operation(
    name: str, summary: str, properties: dict[str, Any], required: list[str], **more: Any
) -> dict[str, Any]:
    """Return what is said of an operation; one with an undo changes something, and asks."""
    asks = "undo" in more
    case: dict[str, Any] = {
        "verdict": "ask" if asks else "allow",
        "rule": "pulling needs alice" if asks else "looking is free",
        "reason_needed": False,
        "words": "A person must say yes." if asks else "It runs at once.",
    }
    if asks:
        case["approvals"] = {"needed": 1, "role": "approver"}
    return {
        "name": name,
        "tool": name.replace(".", "_"),
        "summary": summary,
        "effect": "change" if asks else "read",
        "verdict": case["verdict"],
        "cases": [case],
        "reason_needed": False,
        "parameters": {"type": "object", "required": required, "properties": properties},
        **more,
    }
