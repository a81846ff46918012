"""An ASGI client in memory: one request to an application, as the gateway would hand it over."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from host_agent.errors import InvalidIdentityError
from host_agent.http.exchange import Application
from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from tests.support.certificates import make_pki

EXCHANGE_ID = "e" * 32


@cache
def peer(cn: str = "librarian") -> PeerCertificate:
    """Return the certificate of `cn`, made once."""
    return parse_peer_certificate(make_pki().client(cn).der)


@dataclass
class Reply:
    """A response."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def code(self) -> str:
        """Return the problem's code, having looked at the problem's shape."""
        problem = self.json
        assert self.headers["content-type"] == "application/problem+json"
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:host-agent:problem:{problem['code']}"
        assert problem["title"]
        assert problem["detail"]
        assert problem["exchange_id"] == problem["request_id"]
        return str(problem["code"])


async def ask(
    app: Application,
    method: str,
    target: str,
    *,
    who: PeerCertificate | InvalidIdentityError | None = None,
    body: bytes | Iterable[bytes] | dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Send one request and return its response. A dict is sent as JSON, chunks as they are."""
    fields = {"host": "agent.test", **(headers or {})}
    if isinstance(body, dict):
        fields.setdefault("content-type", "application/json")
        body = json.dumps(body).encode()
    if isinstance(body, bytes):
        fields.setdefault("content-length", str(len(body)))
    chunks = [body] if isinstance(body, bytes) else list(body or [b""])
    path, _, query = target.partition("?")
    reply = Reply()

    async def receive() -> dict[str, Any]:
        if not chunks:
            return {"type": "http.disconnect"}
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {
                name.decode().lower(): value.decode() for name, value in message["headers"]
            }
        else:
            reply.body += message.get("body", b"")

    scope: Any = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "root_path": "",
        "extensions": {"host_agent": {"peer": who, "exchange_id": EXCHANGE_ID}},
    }
    await app(scope, receive, send)
    return reply
