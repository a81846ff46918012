"""A gateway on loopback with a test PKI, an application that shows what reached it, raw clients.

`Door` listens; `Door.dial` is a TLS connection on which a test may send any bytes.
"""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from host_agent.agent.build import peer_of
from host_agent.api.problems import render
from host_agent.errors import HostAgentError
from host_agent.http.exchange import Application
from host_agent.http.listener import Listener
from host_agent.http.refusals import TlsRejection
from host_agent.http.stream import ConnectionLimits
from host_agent.http.tls import TlsContext
from host_agent.pki.door import server_context
from tests.support.asgi import Reply
from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.patience import PATIENCE

PIECE = 64 * 1024


@dataclass
class Probe:
    """An ASGI application that records what reaches it and behaves as the path says."""

    scopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[str] = field(default_factory=list)
    sent: int = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401
        self.scopes.append(scope)
        self.entered.set()
        act = getattr(self, "do_" + scope["path"].strip("/").replace("/", "_"), self.do_echo)
        try:
            await act(scope, receive, send)
        except (HostAgentError, ConnectionError) as error:
            self.failures.append(type(error).__name__)
            raise
        finally:
            self.left.set()

    async def do_echo(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body", False):
                break
        self.bodies.append(body)
        await self._answer(send, {"size": len(body), "version": scope["http_version"]})

    async def do_deaf(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        await self._answer(send, {"refused": True}, status=413)

    async def do_hold(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        await self.release.wait()
        await self._answer(send, {"held": True})

    async def do_linger(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        while (await receive())["type"] != "http.disconnect":
            pass

    async def do_big(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a" * 32 * 1024 * 1024})

    async def do_large(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a" * 2 * 1024 * 1024})

    async def do_stream(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body"})

    async def do_crash(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        message = "secret-of-the-inside"
        raise KeyError(message)

    async def do_silent(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Answer nothing at all."""

    async def do_half(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await self.do_crash(scope, receive, send)

    async def do_flood(self, scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Answer without an end; `sent` is how much of it the server took."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"a" * PIECE, "more_body": True})
            self.sent += PIECE

    async def _answer(self, send: Any, body: Mapping[str, Any], *, status: int = 200) -> None:  # noqa: ANN401
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@dataclass
class Wire:
    """One connection of a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def tls(self) -> ssl.SSLObject:
        return cast("ssl.SSLObject", self.writer.get_extra_info("ssl_object"))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> Reply:
        """Return the next response."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin1").split("\r\n")
            reply = Reply(status=int(lines[0].split(" ")[1]))
            for line in lines[1:-2]:
                name, _, value = line.partition(":")
                reply.headers[name.lower()] = value.strip()
            size = int(reply.headers.get("content-length", "0"))
            reply.body = await self.reader.readexactly(size)
        return reply

    async def ask(self, data: bytes) -> Reply:
        """Send bytes and return the next response."""
        self.send(data)
        return await self.reply()

    async def rest(self) -> bytes:
        """Return what comes until the other side closes."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                return await self.reader.read()
        return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class ByHand:
    """TLS in memory over a plain connection."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self.wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._turn()
            else:
                self.wire.send(self._outgoing.read())
                return

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.wire.send(self._outgoing.read())

    def say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # the other side's is not waited for
            self.tls.unwrap()
        self.wire.send(self._outgoing.read())

    async def read(self) -> bytes:
        """Return what comes next, empty at the end."""
        while True:
            try:
                return self.tls.read(PIECE)
            except ssl.SSLWantReadError:
                await self._turn()

    async def _turn(self) -> None:
        if self._outgoing.pending:
            self.wire.send(self._outgoing.read())
        data = await asyncio.wait_for(self.wire.reader.read(PIECE), PATIENCE)
        if not data:
            message = "the other side has ended"
            raise ConnectionError(message)
        self._incoming.write(data)


class Door:
    """A gateway that listens, with everything it tells."""

    def __init__(
        self,
        directory: Path,
        app: Application | None = None,
        *,
        limits: ConnectionLimits | None = None,
        max_connections: int = 2000,
        bind: socket.socket | None = None,
    ) -> None:
        self.pki: Pki = make_pki(directory)
        self.server: Leaf = self.pki.server()
        self.probe = Probe()
        self.rejections: list[TlsRejection] = []
        self.refusals: list[tuple[str, str, object]] = []
        self.rejected = asyncio.Event()
        self.app = app or self.probe
        self.gateway = Listener(
            self.app,
            bind=bind or ("127.0.0.1", 0),
            context=self.server_context(self.pki),
            identify=peer_of,
            render=render,
            limits=limits,
            max_connections=max_connections,
            on_tls_rejection=self._on_rejection,
            on_refusal=self._on_refusal,
        )

    def another(self, bind: tuple[str, int]) -> Listener:
        """Return another listener for the same application; not started."""
        context = self.server_context(self.pki)
        return Listener(self.app, bind=bind, context=context, identify=peer_of, render=render)

    def server_context(self, client_pki: Pki) -> TlsContext:
        """Return a server context that believes `client_pki`."""
        return server_context(
            self.server.certificate_path, self.server.key_path, client_pki.ca_path
        )

    def _on_rejection(self, reason: TlsRejection) -> None:
        self.rejections.append(reason)
        self.rejected.set()

    async def _on_refusal(self, error: HostAgentError, exchange_id: str, peer: object) -> None:
        self.refusals.append((error.code, exchange_id, peer))

    def client_context(
        self, leaf: Leaf | None = None, *, alpn: tuple[str, ...] = ("http/1.1",)
    ) -> ssl.SSLContext:
        """Return a client context that believes this door and shows `leaf`, or nothing."""
        context = ssl.create_default_context(cadata=self.pki.ca_pem.decode())
        if leaf is not None:
            context.load_cert_chain(leaf.certificate_path, leaf.key_path)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    async def open(
        self, context: ssl.SSLContext | None, *, name: str = "localhost", limit: int = 2**26
    ) -> Wire:
        """Connect, over TLS if there is a context; `limit` is what is read ahead."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                self.gateway.port,
                ssl=context,
                server_hostname=name if context is not None else None,
                limit=limit,
            )
        return Wire(reader, writer)

    @contextlib.asynccontextmanager
    async def dial(self, leaf: Leaf | None = None) -> AsyncIterator[Wire]:
        """Open a connection of the librarian, or of `leaf`, closed at the end."""
        shown = leaf or self.pki.client()
        wire = await self.open(self.client_context(shown))
        try:
            yield wire
        finally:
            await wire.close()

    @contextlib.asynccontextmanager
    async def plain(self) -> AsyncIterator[Wire]:
        """Open a connection without TLS, closed at the end."""
        wire = await self.open(None)
        try:
            yield wire
        finally:
            await wire.close()

    @contextlib.asynccontextmanager
    async def by_hand(self) -> AsyncIterator["ByHand"]:
        """Open a connection of the librarian whose bytes on the wire are the test's."""
        async with self.plain() as wire:
            opened = ByHand(wire, self.client_context(self.pki.client()))
            await opened.shake_hands()
            yield opened

    async def is_alive(self) -> bool:
        """Return whether a good client is answered."""
        async with self.dial(self.pki.client(file_name="alive")) as wire:
            return (await wire.ask(GET)).status == 200

    async def __aenter__(self) -> Self:
        await self.gateway.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.gateway.close()


GET = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body: bytes, *lines: bytes, path: bytes = b"/echo") -> bytes:
    """Return a POST; `lines` are further header fields, also a length where it is not ours."""
    has_framing = any(
        line.lower().startswith((b"content-length", b"transfer-encoding")) for line in lines
    )
    framing = () if has_framing else (b"Content-Length: %d" % len(body),)
    head = b"\r\n".join((b"POST " + path + b" HTTP/1.1", b"Host: localhost", *framing, *lines))
    return head + b"\r\n\r\n" + body
