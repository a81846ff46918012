"""HTTP/2 on one connection: Hypercorn's, with our limits, deadlines and refusals.

Taken from Hypercorn: the connection's set-up, flow control and the order of sending. Ours: what a
request may be (no CONNECT, so no WebSocket and no tunnel), bodies that are acknowledged only as
they are consumed, no server push, and no failure at frames of a stream that is over.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ConnectionState
from hypercorn.utils import filter_pseudo_headers
from priority.priority import DuplicateStreamError, PriorityError

from host_agent.errors import RequestTimeoutError
from host_agent.gateway import framing
from host_agent.gateway.connection import Connection
from host_agent.gateway.exchange import Exchange
from host_agent.gateway.http1 import BODY_LATE

MAX_RESETS = 500
"""Streams that a peer may begin and reset on one connection (CVE-2023-44487)."""
MAX_UNFINISHED_BYTES = 128 * 1024
"""What may come without completing a frame: h2 itself would gather 16 MiB before it refuses."""
MAX_HEADER_LIST_BYTES = 64 * 1024
"""Beyond it the connection ends; up to it a stream over `max_head_bytes` gets a 431."""


class _Leftover:
    """The rest of a body whose response is sent: dropped for a while, then stopped."""

    def __init__(self, deadline: asyncio.TimerHandle) -> None:
        self.deadline = deadline
        self.dropped = 0


class _Stream:
    """What Hypercorn keeps for a stream: an exchange that hears of the stream's end."""

    idle = False

    def __init__(self, exchange: Exchange, deadline: asyncio.TimerHandle | None) -> None:
        self.exchange = exchange
        self.deadline = deadline
        self.unacknowledged = 0

    async def handle(self, event: object) -> None:
        if isinstance(event, StreamClosed):
            self.stop_clock()
            self.exchange.disconnect()

    def stop_clock(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


class Http2(H2Protocol):
    """The protocol of one connection."""

    def __init__(self, connection: Connection, config: Config) -> None:
        super().__init__(
            cast("Any", None),  # the application is run by the connection, not from here
            config,
            connection.worker,
            cast("Any", connection),
            ConnectionState({}),
            ssl=True,
            client=None,
            server=None,
            send=self._transmit,
        )
        self._connection = connection
        self._limits = connection.limits
        self.connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: self._limits.max_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: self._limits.max_head_bytes,
            },
        )
        self.connection.decoder.max_header_list_size = MAX_HEADER_LIST_BYTES
        self._cut_short: set[int] = set()
        self._leftovers: dict[int, _Leftover] = {}
        self._resets = 0
        self._unfinished_bytes = 0
        self._is_retired = False
        self._is_frame_begun = False

    # -- from the wire -------------------------------------------------------------------------

    async def begin(self) -> None:
        """Send our settings and start the task that sends."""
        await self.initiate()
        self._connection.arm(self._limits.idle_seconds, self._connection.stream.close)

    async def received(self, data: bytes) -> None:
        """Take bytes. Frames that make no sense end the connection."""
        try:
            events = self.connection.receive_data(data)
            self._watch_frames(events, len(data))
            await self._handle_events(events)
        except (h2.exceptions.H2Error, PriorityError, ValueError):
            await self._flush()
            self._connection.stream.close()

    def ended(self) -> None:
        """Note that nothing more will come."""
        self._is_retired = True
        self.closed = True
        for stream_id in list(self._leftovers):
            self._forget(stream_id)
        for stream in self._streams():
            stream.exchange.disconnect()
        self._connection.spawn(self.has_data.set)

    def retire(self) -> None:
        """Take no more requests; close now, or after the exchanges that run."""
        self._is_retired = True
        self._close_if_done()

    def _watch_frames(self, events: list[h2.events.Event], size: int) -> None:
        """Bound a frame that has begun, and while no exchange runs, give its rest a deadline."""
        self._unfinished_bytes = 0 if events else self._unfinished_bytes + size
        if self._unfinished_bytes > MAX_UNFINISHED_BYTES:
            self._connection.stream.close()
        if self.streams:
            return
        if events:
            if self._is_frame_begun:
                self._rest()
        elif not self._is_frame_begun:
            self._is_frame_begun = True
            self._connection.arm(self._limits.head_seconds, self._connection.stream.close)

    def _rest(self) -> None:
        self._is_frame_begun = False
        self._connection.arm(self._limits.idle_seconds, self._connection.stream.close)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                await self._create_stream(event)
            elif isinstance(event, h2.events.DataReceived):
                await self._take_data(event)
            elif isinstance(event, h2.events.StreamEnded):
                self._forget(event.stream_id)
                stream = self._stream(event.stream_id)
                if stream is not None:
                    stream.stop_clock()
                    stream.exchange.feed_end()
            elif isinstance(event, h2.events.StreamReset):
                await self._take_reset(event)
            elif isinstance(event, h2.events.WindowUpdated):
                await self._window_updated(event.stream_id)
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    await self._window_updated(None)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.retire()
        await self._flush()

    async def _take_data(self, event: h2.events.DataReceived) -> None:
        stream = self._stream(event.stream_id)
        size = event.flow_controlled_length or 0
        if stream is None:
            await self._drop(event.stream_id, size)
            return
        data = event.data or b""
        stream.unacknowledged += len(data)
        stream.exchange.feed(data)
        self._acknowledge(event.stream_id, size - len(data))

    async def _drop(self, stream_id: int, size: int) -> None:
        """Take the rest of a body that nobody reads: clients that must send it whole get to."""
        self._acknowledge(stream_id, size)
        leftover = self._leftovers.get(stream_id)
        if leftover is not None:
            leftover.dropped += size
            if leftover.dropped > self._limits.linger_bytes:
                await self._stop_body(stream_id)

    async def _stop_body(self, stream_id: int) -> None:
        self._forget(stream_id)
        await self._reset(stream_id, ErrorCodes.NO_ERROR)
        self._close_if_done()

    def _forget(self, stream_id: int) -> None:
        leftover = self._leftovers.pop(stream_id, None)
        if leftover is not None:
            leftover.deadline.cancel()

    async def _take_reset(self, event: h2.events.StreamReset) -> None:
        self._resets += 1
        self._forget(event.stream_id)
        stream = self._stream(event.stream_id)
        if stream is not None:
            self._acknowledge(event.stream_id, stream.unacknowledged)
        await self._close_stream(event.stream_id)
        await self._window_updated(event.stream_id)
        if self._resets > MAX_RESETS:
            self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            await self._flush()
            self._connection.stream.close()

    def _acknowledge(self, stream_id: int, count: int) -> None:
        if count > 0:
            self.connection.acknowledge_received_data(count, stream_id)

    # -- requests ------------------------------------------------------------------------------

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        stream_id = request.stream_id
        if self._is_retired:
            self.connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        headers = cast("list[tuple[bytes, bytes]]", list(request.headers or ()))
        fields = filter_pseudo_headers(headers)
        method = framing.field(headers, b":method") or b""
        target = framing.field(headers, b":path") or b""
        fault = framing.request_fault(
            method, target, fields, http_version=b"2", max_fields=self._limits.max_fields
        )
        if sum(len(name) + len(value) for name, value in headers) > self._limits.max_head_bytes:
            fault = framing.too_large_head()
        if fault is not None:
            method, target = b"GET", b"/"
        exchange = self._connection.exchange(
            self, method, target, fields, http_version="2", stream_id=stream_id
        )
        self._connection.disarm()
        self._is_frame_begun = False
        deadline = self._connection.later(self._limits.body_seconds, self._body_is_late, exchange)
        self.streams[stream_id] = cast("HTTPStream", _Stream(exchange, deadline))
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        try:
            self.priority.insert_stream(stream_id)
        except DuplicateStreamError:
            pass
        else:
            self.priority.block(stream_id)
        if fault is None:
            self._connection.run_exchange(exchange)
        else:
            self._connection.spawn(exchange.refuse, fault)

    def _body_is_late(self, exchange: Exchange) -> None:
        exchange.fail_body(RequestTimeoutError(BODY_LATE))

    def _stream(self, stream_id: int) -> _Stream | None:
        return cast("_Stream | None", self.streams.get(stream_id))

    def _streams(self) -> list[_Stream]:
        return cast("list[_Stream]", list(self.streams.values()))

    # -- responses -----------------------------------------------------------------------------

    async def invite_body(self, exchange: Exchange) -> None:
        """Nothing to say: the window is open."""

    async def consumed(self, exchange: Exchange, count: int) -> None:
        """Open the window by what was consumed."""
        stream = self._stream(exchange.stream_id)
        if stream is not None:
            stream.unacknowledged -= count
            self._acknowledge(exchange.stream_id, count)
            await self._flush()

    async def respond(
        self,
        exchange: Exchange,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        is_last: bool,
    ) -> None:
        """Send the head of the response and the first piece of its body."""
        fields = [*headers, (b"date", self._connection.date())]
        if is_last and framing.field(fields, b"content-length") is None:
            fields.append((b"content-length", b"%d" % len(body)))
        await self.stream_send(
            Response(stream_id=exchange.stream_id, headers=fields, status_code=status)
        )
        sent = body if exchange.scope["method"] != "HEAD" else b""
        await self.respond_more(exchange, sent, is_last=is_last)

    async def respond_more(self, exchange: Exchange, body: bytes, *, is_last: bool) -> None:
        """Send another piece of the body, as fast as the peer opens its window."""
        stream_id = exchange.stream_id
        try:
            async with asyncio.timeout(self._limits.write_seconds):
                if body and exchange.scope["method"] != "HEAD":
                    await self.stream_send(Body(stream_id=stream_id, data=body))
                if is_last:
                    if not exchange.has_whole_body:
                        self._cut_short.add(stream_id)
                    await self.stream_send(EndBody(stream_id=stream_id))
        except TimeoutError:
            message = "the peer does not read"
            raise ConnectionError(message) from None

    def finished(self, exchange: Exchange, *, is_whole: bool) -> None:
        """Forget the stream; end it with an error where its response is not whole."""
        self._connection.spawn(self._finish, exchange, is_whole)

    async def _finish(self, exchange: Exchange, is_whole: bool) -> None:  # noqa: FBT001 - a task's
        stream_id = exchange.stream_id
        if not is_whole:
            await self._reset(stream_id, ErrorCodes.CANCEL)
        stream = self._stream(stream_id)
        if stream is not None:
            stream.stop_clock()
            # What the application left unread must not stay charged to the whole connection.
            self._acknowledge(stream_id, stream.unacknowledged)
            await self._flush()
            self.streams.pop(stream_id, None)
        await self._window_updated(stream_id)
        if not self.streams:
            self._rest()
        self._close_if_done()

    async def _send_data(self, stream_id: int) -> None:
        """Send the next piece; after the last one, see to a body that nobody will read."""
        await super()._send_data(stream_id)
        if stream_id in self._cut_short and stream_id not in self.stream_buffers:
            self._cut_short.discard(stream_id)
            self._leftovers[stream_id] = _Leftover(
                self._connection.later(
                    self._limits.linger_seconds, self._leftover_is_late, stream_id
                )
            )
        self._close_if_done()

    def _leftover_is_late(self, stream_id: int) -> None:
        self._connection.spawn(self._stop_body, stream_id)

    async def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        try:
            self.connection.reset_stream(stream_id, code)
        except h2.exceptions.H2Error:
            return  # it is over already
        await self._flush()

    def _close_if_done(self) -> None:
        is_done = not (self.streams or self.stream_buffers or self._leftovers)
        if self._is_retired and is_done:
            self._connection.spawn(self._leave)

    async def _leave(self) -> None:
        try:
            self.connection.close_connection()
            await self._flush()
        except h2.exceptions.H2Error:
            pass  # it is over already
        self._connection.stream.close()

    async def _transmit(self, event: Event) -> None:
        """Take what Hypercorn's side sends."""
        stream = self._connection.stream
        if isinstance(event, RawData):
            stream.write(event.data)
            try:
                await stream.drain()
            except ConnectionError:
                self.ended()
        elif isinstance(event, Closed):
            stream.close()
