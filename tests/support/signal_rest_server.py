"""A signal-cli-rest-api as far as the agent needs it: HTTP and a websocket on one port.

`POST /v2/send`, `GET /v1/receive/NUMBER` (a websocket in the modes json-rpc*, else a poll that
takes away what it returns), `GET /v1/about`, `GET /v1/accounts`. Like the real one it keeps nothing
for a websocket that is not there. `replies` scripts what the next sendings get; a function in it
gets the connection and does what it likes.
"""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)

from tests.support.signal_cli_server import ACCOUNT, reacted, said


@dataclass(frozen=True)
class Reply:
    """A scripted answer to a sending."""

    status: int = 201
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


Script = Reply | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Socket:
    """One websocket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.protocol = WSConnection(ConnectionType.SERVER)
        self.pongs_back = True
        self.hangs_up = True
        self.is_closed = False

    def send(self, event: Event) -> None:
        self.writer.write(self.protocol.send(event))

    def text(self, text: str) -> None:
        self.send(TextMessage(data=text))

    async def serve(self, head: bytes) -> None:
        self.protocol.receive_data(head)
        self._react()
        while not self.is_closed and (data := await self.reader.read(65_536)):
            self.protocol.receive_data(data)
            self._react()

    def _react(self) -> None:
        for event in self.protocol.events():
            if isinstance(event, Request):
                self.send(AcceptConnection())
            elif isinstance(event, CloseConnection) or (
                isinstance(event, Ping) and self.pongs_back
            ):
                self.send(event.response())
                self.is_closed = isinstance(event, CloseConnection) and self.hangs_up


class SignalRestServer:
    """The service. Everything that a test changes is public."""

    def __init__(self, *, mode: str = "json-rpc", tls: ssl.SSLContext | None = None) -> None:
        self.mode = mode
        self.accounts: object = [ACCOUNT]
        self.is_list_shape = False
        self.sent: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.waiting: list[dict[str, Any]] = []
        self.replies: deque[Script] = deque()
        self.overrides: dict[str, Reply] = {}
        self.sockets: list[Socket] = []
        self.port = 0
        self._tls = tls
        self._clock = 1_700_000_000_000
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stamp(self) -> int:
        self._clock += 1
        return self._clock

    # -- what arrives -----------------------------------------------------------------------------

    def deliver(self, params: dict[str, Any]) -> None:
        """Offer to whoever listens; polled modes keep it."""
        if self.mode.startswith("json-rpc"):
            self.frame(json.dumps(params))
        else:
            self.waiting.append(params)

    def say(self, aci: str, text: str, *, quotes: int | None = None) -> int:
        stamp = self.stamp()
        self.deliver(said(aci, text, stamp, quotes=quotes))
        return stamp

    def react(self, aci: str, emoji: str, target: int) -> int:
        stamp = self.stamp()
        self.deliver(reacted(aci, emoji, target, stamp))
        return stamp

    def frame(self, text: str) -> None:
        for socket in self.sockets:
            socket.text(text)

    def frame_bytes(self, data: bytes) -> None:
        for socket in self.sockets:
            socket.send(BytesMessage(data=data))

    def ping(self) -> None:
        for socket in self.sockets:
            socket.send(Ping(payload=b"x"))

    def drop(self) -> None:
        for socket in self.sockets:
            socket.writer.transport.abort()

    async def until(self, is_so: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait until something is so; asked after each exchange and each websocket."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(is_so)

    # -- HTTP -------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(f"{method} {target}")
        path = unquote(urlsplit(target).path)
        if path in self.overrides:
            _answer(writer, self.overrides[path])
        elif headers.get("upgrade", "").lower() == "websocket":
            await self._websocket(path, head, reader, writer)
        elif (method, path) == ("POST", "/v2/send"):
            assert headers["content-type"] == "application/json"
            await self._send(json.loads(body), writer)
        else:
            _answer(writer, self._read(path, parse_qs(urlsplit(target).query)))
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _send(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        script = self.replies.popleft() if self.replies else None
        if isinstance(script, Reply):
            _answer(writer, script)
        elif script is not None:
            await script(writer)
        else:
            stamp = self.stamp()
            self.sent.append({**message, "timestamp": stamp})
            body: object = {"timestamp": str(stamp)}
            if self.is_list_shape:
                body = [{"timestamp": str(stamp), "errors": {"recipients": []}}]
            _answer(writer, Reply(body=body))

    def _read(self, path: str, query: Mapping[str, list[str]]) -> Reply:
        if path == "/v1/about":
            about = {"versions": ["v1", "v2"], "build": 2, "mode": self.mode, "version": "0.100"}
            return Reply(200, about)
        if path == "/v1/accounts":
            return Reply(200, self.accounts)
        if path == f"/v1/receive/{ACCOUNT}" and not self.mode.startswith("json-rpc"):
            most = int(query["max_messages"][0])
            taken, self.waiting = self.waiting[:most], self.waiting[most:]
            return Reply(200, taken)
        if path == f"/v1/receive/{ACCOUNT}":
            return Reply(
                400, {"error": "websocket: the client is not using the websocket protocol"}
            )
        return Reply(404, {"error": "not found"})

    async def _websocket(
        self,
        path: str,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path != f"/v1/receive/{ACCOUNT}" or not self.mode.startswith("json-rpc"):
            _answer(writer, Reply(404, {"error": "not found"}))
            return
        socket = Socket(reader, writer)
        self.sockets.append(socket)
        serving = asyncio.ensure_future(socket.serve(head))
        try:
            await self._tell()
            await serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            self.sockets.remove(socket)
            await self._tell()


def _answer(writer: asyncio.StreamWriter, reply: Reply) -> None:
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    lines = [f"HTTP/1.1 {reply.status} Scripted", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    writer.write("\r\n".join(lines).encode() + body)
