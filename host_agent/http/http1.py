"""HTTP/1.1 on one connection: one exchange after the other, over h11.

No other version is spoken: one exchange at a time is all that a peer can have unread.
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import h11

from host_agent.errors import HostAgentError, RequestTimeoutError, RequestTooLargeError
from host_agent.http import framing
from host_agent.http.connection import Connection
from host_agent.http.exchange import Exchange, new_exchange_id
from host_agent.http.stream import READ_BYTES

BODY_LATE = "The body did not arrive in time; send it again, faster."
HEAD_LATE = "The header section did not arrive in time; send it again, faster."
TOO_LARGE = "The request body is too large; send less."
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Http1:
    """The protocol of one connection. Everything but sending is synchronous."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._inbound = bytearray()
        self._parser = h11.Connection(h11.SERVER)
        self._exchange: Exchange | None = None
        self._is_head_begun = False
        self._is_over = False
        self._is_retired = False
        self._body_bytes = 0
        self._gate: asyncio.Future[None] | None = None
        self._rest()

    # -- from the wire -------------------------------------------------------------------------

    async def received(self, data: bytes) -> None:
        """Take bytes; return once there is room for more."""
        if self._is_over:
            return
        self._inbound += data
        if self._exchange is None:
            self._begin()
        elif not self._exchange.has_whole_body:
            self._feed(self._exchange)
        while self._is_full():
            self._gate = asyncio.get_running_loop().create_future()
            try:
                await self._gate
            finally:
                self._gate = None

    def ended(self) -> None:
        """Note that nothing more will come."""
        self._is_retired = True
        if self._exchange is not None:
            self._exchange.disconnect()

    def retire(self) -> None:
        """Close now, or after the exchange that runs."""
        self._is_retired = True
        if self._exchange is None:
            self._close()

    # -- requests ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start an exchange if the header section is whole; else see to its deadline."""
        inbound = self._inbound
        if inbound.startswith(b"\r\n"):
            del inbound[:2]  # RFC 9112, section 2.2: an empty line before a request is ignored
        if not inbound:
            return
        if not self._is_head_begun:
            self._is_head_begun = True
            self._connection.arm(self._limits.head_seconds, self._head_is_late)
        size = inbound.find(b"\r\n\r\n") + 4
        head = bytes(inbound[:size]) if size > 3 else bytes(inbound)
        fault = framing.head_fault(head, max_bytes=self._limits.max_head_bytes)
        if fault is not None:
            self._refuse(fault)
        elif size > 3:
            del inbound[:size]
            self._parse(head)

    def _parse(self, head: bytes) -> None:
        self._parser = h11.Connection(h11.SERVER)
        self._parser.receive_data(head)
        try:
            request = self._parser.next_event()
        except h11.RemoteProtocolError:
            self._refuse(framing.malformed("the request line or a header field is malformed"))
            return
        if not isinstance(request, h11.Request):
            self._refuse(framing.malformed("there is no request"))
            return
        target, fields = framing.origin_form(request.target, list(request.headers), scheme=b"https")
        fault = framing.length_fault(head) or framing.request_fault(
            request.method,
            target,
            fields,
            http_version=request.http_version,
            max_fields=self._limits.max_fields,
        )
        if fault is not None:
            self._refuse(fault)
            return
        exchange = self._connection.exchange(self, request.method, target, fields)
        self._exchange = exchange
        self._body_bytes = 0
        self._connection.arm(self._limits.body_seconds, self._body_is_late)
        self._feed(exchange)
        self._connection.run_exchange(exchange)

    def _feed(self, exchange: Exchange) -> None:
        if self._inbound:
            self._parser.receive_data(bytes(self._inbound))
            self._body_bytes += len(self._inbound)
            self._inbound.clear()
        try:
            while True:
                event = self._parser.next_event()
                if isinstance(event, h11.Data):
                    exchange.feed(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._inbound += self._parser.trailing_data[0]
                    exchange.feed_end()
                    self._connection.disarm()
                    return
                else:
                    break
        except h11.RemoteProtocolError:
            exchange.fail_body(framing.malformed("the body is malformed"))
        # Chunk framing costs bytes too: without a bound, one byte of body could cost thousands.
        if self._body_bytes > 2 * self._limits.max_body_bytes + READ_BYTES:
            exchange.fail_body(RequestTooLargeError(TOO_LARGE))

    def _is_full(self) -> bool:
        exchange = self._exchange
        if exchange is None or self._is_over:
            return False
        return exchange.buffered > READ_BYTES or len(self._inbound) > READ_BYTES

    def _open_gate(self) -> None:
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    # -- deadlines -----------------------------------------------------------------------------

    def _rest(self) -> None:
        self._is_head_begun = False
        self._connection.arm(self._limits.idle_seconds, self._close)

    def _head_is_late(self) -> None:
        self._refuse(RequestTimeoutError(HEAD_LATE))

    def _body_is_late(self) -> None:
        if self._exchange is not None:
            self._exchange.fail_body(RequestTimeoutError(BODY_LATE))

    # -- responses -----------------------------------------------------------------------------

    def _refuse(self, error: HostAgentError) -> None:
        """Answer what is no request, and close."""
        self._is_over = True
        self._inbound.clear()
        self._connection.disarm()
        self._connection.spawn(self._answer_and_close, error)

    async def _answer_and_close(self, error: HostAgentError) -> None:
        exchange_id = new_exchange_id()
        await self._connection.refused(error, exchange_id)
        rendered = self._connection.render(error, exchange_id)
        fields = [*rendered.headers, (b"x-request-id", exchange_id.encode())]
        self._parser = h11.Connection(h11.SERVER)
        head = self._head(rendered.status, [*fields, (b"connection", b"close")], rendered.body)
        self._connection.stream.write(head)
        self._close()

    async def invite_body(self, exchange: Exchange) -> None:
        """Say `100 Continue` where the client waits for it."""
        if self._parser.they_are_waiting_for_100_continue and not exchange.has_started:
            event = h11.InformationalResponse(status_code=100, headers=[])
            self._connection.stream.write(self._parser.send(event) or b"")

    def consumed(self) -> None:
        """Let the next bytes in."""
        self._open_gate()

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
        fields = list(headers)
        if self._is_retired or not exchange.has_whole_body:
            fields.append((b"connection", b"close"))
        sent = body if exchange.scope["method"] != "HEAD" else b""
        if is_last:
            data = self._head(status, fields, sent, length=len(body))
        else:
            data = self._send(h11.Response(status_code=status, headers=self._dated(fields)))
            data += self._send(h11.Data(data=sent)) if sent else b""
        self._connection.stream.write(data)
        await self._connection.stream.drain()

    async def respond_more(self, exchange: Exchange, body: bytes, *, is_last: bool) -> None:
        """Send another piece of the body."""
        sent = body if exchange.scope["method"] != "HEAD" else b""
        data = self._send(h11.Data(data=sent)) if sent else b""
        data += self._send(h11.EndOfMessage()) if is_last else b""
        self._connection.stream.write(data)
        await self._connection.stream.drain()

    def finished(self, exchange: Exchange, *, is_whole: bool) -> None:
        """Rest until the next request, or close where the two sides do not agree on its start."""
        self._exchange = None
        self._open_gate()
        parser = self._parser
        if (
            not is_whole
            or self._is_retired
            or not exchange.has_whole_body
            or parser.our_state is not h11.DONE
            or parser.their_state is not h11.DONE
        ):
            self._close()
            return
        self._rest()
        self._begin()

    def _head(
        self,
        status: int,
        fields: list[tuple[bytes, bytes]],
        body: bytes,
        *,
        length: int | None = None,
    ) -> bytes:
        """Return a whole response."""
        if framing.field(fields, b"content-length") is None:
            fields.append((b"content-length", b"%d" % (len(body) if length is None else length)))
        response = h11.Response(
            status_code=status, headers=self._dated(fields), reason=_REASONS.get(status, b"")
        )
        data = self._send(response)
        if body:
            data += self._send(h11.Data(data=body))
        return data + self._send(h11.EndOfMessage())

    def _dated(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [*fields, (b"date", self._connection.date())]

    def _send(self, event: h11.Event) -> bytes:
        return self._parser.send(event) or b""

    def _close(self) -> None:
        self._is_over = True
        self._connection.disarm()
        self._open_gate()
        self._connection.stream.close()
