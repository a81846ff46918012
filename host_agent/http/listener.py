"""The listening socket: accepts, shakes hands, caps, drains. One listener, one address.

No peer can hold up another: handshakes run in callbacks under a deadline, unfinished ones go first
when the connections are at their cap, and an accept that fails for want of file descriptors backs
off instead of spinning.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Self, cast

from host_agent.errors import ConfigurationError
from host_agent.http.connection import Connection, Identify
from host_agent.http.exchange import Application, Refused, Render
from host_agent.http.http1 import Http1
from host_agent.http.refusals import TlsRejection
from host_agent.http.stream import (
    READ_BYTES,
    ConnectionLimits,
    StreamEvents,
    TlsStream,
)
from host_agent.http.tls import TlsContext

_log = logging.getLogger("host_agent.http")

BACKLOG = 1024
BACKOFF_SECONDS = (0.05, 1.0)
"""First and longest pause after an accept that failed for want of file descriptors or memory."""
SAID_AGAIN_SECONDS = 60.0
"""How long the log says nothing more of handshakes that fail for the same reason."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def listening_socket(bind: tuple[str, int], *, key: str) -> socket.socket:
    """Return a socket that listens on host and port; the host `::` is every address there is.

    Raises:
        ConfigurationError: it cannot be bound; the fault names `key` of the configuration.
    """
    host, port = bind
    try:
        # As bytes: for a name as text, Python loads the tables of IDNA.
        family, _, _, _, address = socket.getaddrinfo(
            host.encode("ascii"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(
            address[:2],
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=address[0] == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        fault = f"{key}: {host}:{port} cannot be bound: {error.strerror or error}."
        raise ConfigurationError([fault]) from error
    listening.setblocking(False)
    return listening


class Listener:
    """Serves an ASGI application on one address, over mutual TLS.

    `bind` is host and port, or a socket that listens already. What `identify` makes of a peer's
    certificate goes with every request of its connection; `render` answers what no handler does.
    `on_tls_rejection` is called once for every connection that ended before its handshake did;
    `on_refusal` for every problem that the server itself answers.
    """

    def __init__(
        self,
        app: Application,
        *,
        bind: tuple[str, int] | socket.socket,
        context: TlsContext,
        identify: Identify,
        render: Render,
        max_connections: int = 2000,
        limits: ConnectionLimits | None = None,
        on_tls_rejection: Callable[[TlsRejection], None] | None = None,
        on_refusal: Refused | None = None,
    ) -> None:
        self._app = app
        self._bind = bind
        self._context = context
        self._identify = identify
        self._render = render
        self._max_connections = max_connections
        self._limits = limits or ConnectionLimits()
        self._on_tls_rejection = on_tls_rejection
        self._on_refusal = on_refusal
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._events = StreamEvents(opened=self._opened, lost=self._lost, rejected=self._rejected)
        self._streams: set[TlsStream] = set()
        self._handshakes: dict[TlsStream, None] = {}
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._is_full = False
        self._quiet_until: dict[str, float] = {}
        self._last_gone: asyncio.Future[None] | None = None

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen and accept.

        Raises:
            ConfigurationError: the address cannot be bound.
        """
        self._socket = self._listen()
        self._accepting = asyncio.create_task(self._accept(self._socket), name="listener accept")

    @property
    def port(self) -> int:
        if self._socket is None:
            message = "the listener is not started"
            raise RuntimeError(message)
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """Return how many sockets are open, unfinished handshakes included."""
        return len(self._streams)

    def limit_connections(self, max_connections: int) -> None:
        """Allow another number of connections from now on; none is closed for it."""
        self._max_connections = max_connections

    def swap_context(self, context: TlsContext) -> None:
        """Use another context from the next handshake on.

        Connections made under the old one close, idle ones at once and others after their
        exchange: what the new client CA would refuse does not live on.
        """
        self._context = context
        self._retire()

    async def close(self, drain_seconds: float = 0) -> None:
        """Stop accepting, wait for exchanges up to `drain_seconds`, then end everything."""
        await self._stop_accepting()
        self._retire()
        if self._connections and drain_seconds > 0:
            await asyncio.wait(self._connections.values(), timeout=drain_seconds)
        running = [task for connection in self._connections for task in connection.tasks]
        for task in (*running, *self._connections.values()):
            task.cancel()
        for stream in list(self._streams):
            stream.abort()
        while self._connections:
            await asyncio.wait(list(self._connections.values()))
        if self._streams:
            self._last_gone = asyncio.get_running_loop().create_future()
            await self._last_gone

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- accepting -----------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        if isinstance(self._bind, socket.socket):
            self._bind.setblocking(False)
            return self._bind
        return listening_socket(self._bind, key="server.bind")

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        pause = BACKOFF_SECONDS[0]
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
                await self._admit(accepted)
                pause = BACKOFF_SECONDS[0]
            except Exception as error:  # noqa: BLE001 - the outermost loop: the door stays open
                if not isinstance(error, OSError):
                    _log.exception("a connection was not accepted")
                    continue
                if error.errno not in _EXHAUSTED:
                    _log.info("a connection was not accepted: %s", error)
                    continue
                _log.warning("no connection can be accepted for now: %s", error)
                self._evict()
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_SECONDS[1])

    async def _admit(self, accepted: socket.socket) -> None:
        if len(self._streams) >= self._max_connections and not self._evict():
            accepted.close()
            self._count(TlsRejection.OTHER)
            if not self._is_full:
                _log.warning("all %d connections are in use", self._max_connections)
            self._is_full = True
            return
        self._is_full = False
        stream = TlsStream(
            self._context, buffer=self._buffer, limits=self._limits, events=self._events
        )
        self._streams.add(stream)
        self._handshakes[stream] = None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: stream, accepted)
        except OSError:
            accepted.close()
            self._lost(stream)
            raise

    def _evict(self) -> bool:
        """End the oldest unfinished handshake; return whether there was one."""
        for stream in self._handshakes:
            stream.abort()
            self._streams.discard(stream)
            self._rejected(stream, TlsRejection.OTHER)
            return True
        return False

    # -- what streams tell ---------------------------------------------------------------------

    def _opened(self, stream: TlsStream) -> None:
        self._handshakes.pop(stream, None)
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        task.add_done_callback(self._served)

    def _rejected(
        self, stream: TlsStream, reason: TlsRejection, sentence: str | None = None
    ) -> None:
        if stream in self._handshakes:
            del self._handshakes[stream]
            self._count(reason)
            if sentence is not None:
                self._tell_refused(stream, sentence)

    def _tell_refused(self, stream: TlsStream, sentence: str) -> None:
        """Say in the log why a handshake failed: each reason once in a while.

        Whoever reaches the port can make such lines, and the reasons are OpenSSL's, so few.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until.get(sentence, now):
            self._quiet_until[sentence] = now + SAID_AGAIN_SECONDS
            peer = stream.transport.get_extra_info("peername") or ("somewhere",)
            _log.warning("a client from %s was refused in the handshake: %s", peer[0], sentence)

    def _lost(self, stream: TlsStream) -> None:
        self._streams.discard(stream)
        self._rejected(stream, TlsRejection.OTHER)
        if not self._streams and self._last_gone is not None and not self._last_gone.done():
            self._last_gone.set_result(None)

    def _count(self, reason: TlsRejection) -> None:
        if self._on_tls_rejection is not None:
            self._on_tls_rejection(reason)

    # -- serving -------------------------------------------------------------------------------

    async def _serve(self, stream: TlsStream) -> None:
        try:
            connection = Connection(
                stream,
                self._app,
                limits=self._limits,
                identify=self._identify,
                render=self._render,
                refused=self._on_refusal,
            )
        except BaseException:
            stream.abort()
            raise
        self._connections[connection] = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            await connection.run(Http1(connection))
        finally:
            del self._connections[connection]

    def _served(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection failed", exc_info=error)

    def _retire(self) -> None:
        for stream in list(self._handshakes):
            stream.abort()
        for connection in list(self._connections):
            if connection.protocol is not None:
                connection.protocol.retire()

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
            self._accepting = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
