"""Bytes in and out of one accepted socket, through TLS. Nothing of HTTP.

Ours rather than asyncio's own TLS transport for three reasons: that one keeps a 256 KiB buffer,
written to and so resident, for every idle connection (here all connections of a listener share
one); it drops the alert that tells a client why its handshake failed; and it cannot go on reading
while it closes, so that a client that is still sending would lose the answer to a TCP reset.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from host_agent.http.refusals import HandshakeRefusedError, TlsRejection
from host_agent.http.tls import RECORD_BYTES, TlsContext, TlsSession

READ_BYTES = 64 * 1024
"""The receive buffer that all connections of a listener share, and what one may have unread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How long and how much a peer may take. Deadlines are totals, not gaps between bytes.

    - `handshake_seconds`: from accept to the end of the TLS handshake
    - `head_seconds`: from the first byte of a request to the end of its header section
    - `body_seconds`: from there to the end of its body
    - `write_seconds`: for the peer to take a response
    - `idle_seconds`: between requests, and before the first one
    - `linger_seconds`, `linger_bytes`: what is read and dropped after the last response, so that
      it is not lost to a reset (RFC 9112, section 9.6)
    - `max_head_bytes`, `max_fields`: the header section
    - `max_body_bytes`: the body; the application answers for it, the wire may take twice that
    """

    handshake_seconds: float = 10
    head_seconds: float = 10
    body_seconds: float = 30
    write_seconds: float = 30
    idle_seconds: float = 75
    linger_seconds: float = 2
    linger_bytes: int = 2 * 1024 * 1024
    max_head_bytes: int = 16 * 1024
    max_fields: int = 100
    max_body_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvents:
    """Whom a stream tells: once it can be read, and once it is gone."""

    opened: Callable[["TlsStream"], None]
    lost: Callable[["TlsStream"], None]
    rejected: Callable[["TlsStream", TlsRejection, str | None], None]


class TlsStream(asyncio.BufferedProtocol):
    """A TLS connection: opened once the handshake has ended well, with its own deadline.

    One reader; any number of writers. The handshake runs in callbacks, apart from the accept loop:
    a silent peer holds up nobody. `buffer` is lent by the listener: it holds bytes only between two
    calls of the transport that follow each other at once, so one serves every connection of a loop.
    """

    def __init__(
        self,
        context: TlsContext,
        *,
        buffer: memoryview,
        limits: ConnectionLimits,
        events: StreamEvents,
    ) -> None:
        self._tls = TlsSession(context)
        self._is_established = False
        self._buffer = buffer
        self._limits = limits
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._unread = 0
        self._is_paused = False
        self._at_eof = False
        self._is_closing = False
        self._peer_has_ended = False
        self._dropped = 0
        self._reader: asyncio.Future[None] | None = None
        self._blocked: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- the side of HTTP ----------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Return whether nothing more will be read or written."""
        return self._is_closing

    @property
    def tls(self) -> TlsSession:
        return self._tls

    @property
    def transport(self) -> asyncio.Transport:
        """Return the transport; there is one from the moment the stream is opened."""
        return cast("asyncio.Transport", self._transport)

    async def read(self) -> bytes:
        """Return what has come in, waiting for some; empty at the end."""
        if not self._chunks and not self._at_eof:
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._unread = 0
        if self._is_paused and not self._is_closing:
            self._is_paused = False
            self.transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Encrypt and send `data`; wait for `drain` before the next large piece.

        Dropped once closing.
        """
        if self._is_closing:
            return
        try:
            sealed = self._tls.seal(data)
        except ConnectionError:
            self.abort()
            return
        self.transport.write(sealed)

    async def drain(self) -> None:
        """Return once the system has taken all that was written.

        Raises:
            ConnectionError: the peer has not taken it in time, or is gone.
        """
        if self._blocked is not None:
            await asyncio.wait((self._blocked,), timeout=self._limits.write_seconds)
            if self._blocked is not None:
                self.abort()
                message = "the peer does not read"
                raise ConnectionError(message)
        if self._is_closing:
            message = "the connection is closed"
            raise ConnectionError(message)

    def close(self) -> None:
        """Say goodbye, then read and drop for a moment so that the peer gets the last bytes."""
        if self._is_closing:
            return
        self._say_goodbye()
        self._is_closing = True
        self._end_reading()
        if self._peer_has_ended:
            self.transport.close()
        self._arm(self._limits.linger_seconds, self.abort)
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        try:
            if not self.transport.is_closing():
                self.transport.write_eof()
        except (OSError, RuntimeError):
            self.abort()

    def abort(self) -> None:
        """End the connection at once; what is not sent is lost."""
        self._is_closing = True
        self._end_reading()
        if self._transport is not None:
            self._transport.abort()

    def reject(self, reason: TlsRejection, sentence: str | None = None) -> None:
        """End a handshake that will not be finished; `sentence` is what OpenSSL says of it."""
        self._events.rejected(self, reason, sentence)
        self.close()

    # -- the side of asyncio -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; nothing stays in its buffer unnoticed."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)
        if self._is_closing:  # aborted before it had a transport to end
            self._transport.abort()
            return
        self._open()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Lend the shared buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` out of the shared buffer."""
        if self._is_closing:
            self._drop(nbytes)
            return
        self._take(self._buffer[:nbytes])
        if self._unread > READ_BYTES and not self._is_paused and not self._is_closing:
            self._is_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Note the end; the other direction stays open for a response that is under way.

        An unfinished handshake ends with it.
        """
        self._peer_has_ended = True
        if not self._is_established and not self._is_closing:
            self.reject(TlsRejection.OTHER)
        self._end_reading()
        return not self._is_closing

    def pause_writing(self) -> None:
        """Note that the system has not taken everything."""
        if self._blocked is None:
            self._blocked = self._loop.create_future()

    def resume_writing(self) -> None:
        """Note that the system has taken everything."""
        blocked, self._blocked = self._blocked, None
        if blocked is not None and not blocked.done():
            blocked.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Wake everybody up; the stream is at its end."""
        self._is_closing = True
        self._disarm()
        self._end_reading()
        self.resume_writing()
        self._events.lost(self)

    # -- inside --------------------------------------------------------------------------------

    def _open(self) -> None:
        self._arm(self._limits.handshake_seconds, lambda: self.reject(TlsRejection.TIMEOUT))

    def _take(self, data: memoryview) -> None:
        if self._at_eof:
            self._drop(len(data))
            return
        # In pieces: what OpenSSL had to hold once, it holds as long as the connection.
        for at in range(0, len(data), RECORD_BYTES):
            if self._is_closing:
                return
            self._tls.take(data[at : at + RECORD_BYTES])
            if not self._is_established:
                self._shake_hands()
            if self._is_established:
                self._decrypt()

    def _shake_hands(self) -> None:
        try:
            is_over = self._tls.shake_hands()
        except HandshakeRefusedError as error:
            self._flush()  # the alert
            self.reject(error.rejection, str(error))
            return
        self._flush()
        if not is_over:
            return
        self._disarm()
        self._is_established = True
        self._acknowledge()
        self._events.opened(self)

    def _acknowledge(self) -> None:
        """Acknowledge the end of the handshake at once.

        To a client that cannot resume there is nothing to say then, so the system would wait 40 ms
        for something to go with the acknowledgement, and so would a first request of a client
        without TCP_NODELAY.
        """
        connection = self.transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _decrypt(self) -> None:
        while not self._is_closing and (data := self._tls.read()) != b"":
            if data is None:
                self._end_reading()
                break
            self._deliver(data)
        self._flush()

    def _say_goodbye(self) -> None:
        if self._is_established:
            self._tls.say_goodbye()
        self._flush()

    def _flush(self) -> None:
        if not self._is_closing and (data := self._tls.output()):
            self.transport.write(data)

    def _drop(self, size: int) -> None:
        """Count what is read for nothing; who goes on with it is cut off."""
        self._dropped += size
        if self._dropped > self._limits.linger_bytes:
            self.abort()

    def _deliver(self, data: bytes) -> None:
        self._chunks.append(data)
        self._unread += len(data)
        self._wake()

    def _end_reading(self) -> None:
        self._at_eof = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _arm(self, seconds: float, action: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
