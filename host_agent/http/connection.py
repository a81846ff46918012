"""One accepted connection: who is at the other end, and its tasks."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from email.utils import formatdate
from typing import Any, Protocol, TypeAlias

from host_agent.errors import HostAgentError
from host_agent.http import framing
from host_agent.http.exchange import Application, Exchange, Refused, Render, Transmitter
from host_agent.http.stream import ConnectionLimits, TlsStream
from host_agent.http.tls import tls_extension

_log = logging.getLogger("host_agent.http")

Identify: TypeAlias = Callable[[bytes], object]
"""Makes of a peer's certificate (DER) what the application is told of the peer."""


class HttpProtocol(Protocol):
    """HTTP on one connection."""

    async def received(self, data: bytes) -> None:
        """Take bytes; return once there is room for more."""
        ...

    def ended(self) -> None:
        """Note that nothing more will come."""
        ...

    def retire(self) -> None:
        """Close now, or after the exchanges that run."""
        ...


class Connection:
    """One connection from its opening to its end.

    `identify` looks at the certificate once, here; whether its peer is welcome is asked for every
    request, by the application.
    """

    def __init__(
        self,
        stream: TlsStream,
        app: Application,
        *,
        limits: ConnectionLimits,
        identify: Identify,
        render: Render,
        refused: Refused | None,
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.tasks: set[asyncio.Task[None]] = set()
        self.protocol: HttpProtocol | None = None
        self.render = render
        self._app = app
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        transport = stream.transport
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        chain = stream.tls.peer_chain()
        self._tls = tls_extension(stream.tls, chain)
        self.peer = identify(chain[0])

    async def run(self, protocol: HttpProtocol) -> None:
        """Serve until either side ends it, then wait for what still runs."""
        self.protocol = protocol
        try:
            while data := await self.stream.read():
                await protocol.received(data)
        except ConnectionError:
            pass
        finally:
            self.disarm()
            protocol.ended()
            while self.tasks:
                await asyncio.wait(self.tasks)
            self.stream.close()

    # -- what the protocols need ---------------------------------------------------------------

    def exchange(
        self,
        transmitter: Transmitter,
        method: bytes,
        target: bytes,
        fields: Sequence[tuple[bytes, bytes]],
    ) -> Exchange:
        """Return the exchange for a checked request, its ASGI scope filled."""
        path, _, query = target.partition(b"?")
        extensions: dict[str, Any] = {"tls": self._tls}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method.decode("ascii"),
            "scheme": "https",
            "path": framing.decode_path(path),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": fields,
            "client": self._client,
            "server": self._server,
            "state": {},
            "extensions": extensions,
        }
        exchange = Exchange(
            transmitter, scope, peer=self.peer, render=self.render, refused=self._refused
        )
        extensions["host_agent"] = {"peer": self.peer, "exchange_id": exchange.id}
        return exchange

    def run_exchange(self, exchange: Exchange) -> None:
        """Run the application for `exchange` in a task."""
        self.spawn(exchange.run, self._app)

    async def refused(self, error: HostAgentError, exchange_id: str) -> None:
        """Tell of a refusal that the server itself answers."""
        if self._refused is not None:
            await self._refused(error, exchange_id, self.peer)

    def spawn(self, func: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run a coroutine as a task of this connection."""
        task = self._loop.create_task(func(*args))
        self.tasks.add(task)
        task.add_done_callback(self._task_ended)

    def arm(self, seconds: float, action: Callable[[], None]) -> None:
        """Set the connection's one timer."""
        self.disarm()
        self._timer = self._loop.call_later(seconds, action)

    def disarm(self) -> None:
        """Stop the connection's timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def date(self) -> bytes:
        """Return the value of the `Date` field, made once a second."""
        return _DATES.value()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection failed", exc_info=error)
            self.stream.abort()


class _Dates:
    """The `Date` field of this second."""

    def __init__(self) -> None:
        self._until = 0.0
        self._value = b""

    def value(self) -> bytes:
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until = now + 1
            self._value = formatdate(usegmt=True).encode()
        return self._value


_DATES = _Dates()


def _address(name: object) -> tuple[str, int] | None:
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return None
