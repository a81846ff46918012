"""The driver for the daemon of signal-cli on its unix socket: JSON-RPC, one object a line.

One connection carries what is sent and what arrives. Where the daemon runs with `--receive-mode
on-connection`, messages wait on Signal's servers while nobody is attached, so none is lost.
"""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from host_agent.approvals.channels.port import ChannelError
from host_agent.approvals.channels.signal import Params, Quote, refusal, require_success
from host_agent.approvals.notification import Failure
from host_agent.canonical import JsonValue

_log = logging.getLogger("host_agent.approvals.signal")

DEADLINE_SECONDS = 15.0
MAX_LINE_BYTES = 1_048_576
MAX_WAITING = 500
_CODES: Mapping[int, str] = {
    -3: "NETWORK_FAILURE",
    -4: "IDENTITY_FAILURE",
    -5: "RATE_LIMIT_FAILURE",
    -6: "RATE_LIMIT_FAILURE",
}
"""signal-cli's own error codes, as the types of results that mean the same."""


class SignalCli:
    """One account of a daemon."""

    def __init__(
        self, socket: Path, account: str, *, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self._socket = socket
        self._account = account
        self._deadline_seconds = deadline_seconds
        self._link: _Link | None = None
        self._linking = asyncio.Lock()

    @property
    def account(self) -> str:
        """The account's number."""
        return self._account

    async def send(self, aci: str, text: str, *, quote: Quote | None = None) -> str:
        """Send to one person and return the message's timestamp.

        Raises:
            ChannelError: it was not taken.
        """
        params: dict[str, JsonValue] = {
            "account": self._account,
            "recipient": [aci],
            "message": text,
        }
        if quote is not None:
            params |= {
                "quoteTimestamp": int(quote.timestamp),
                "quoteAuthor": quote.author,
                "quoteMessage": quote.text,
            }
        result = await self._call("send", params)
        require_success(result.get("results"))
        timestamp = result.get("timestamp")
        if not isinstance(timestamp, int) or isinstance(timestamp, bool):
            message = "signal-cli answered without the message's timestamp."
            raise ChannelError(Failure.BAD_ANSWER, message)
        return str(timestamp)

    async def about(self) -> str:
        """Return which version answers.

        Raises:
            ChannelError: none does.
        """
        result = await self._call("version", {})
        version = result.get("version")
        shown = version if isinstance(version, str) and version.isprintable() else "unknown"
        return f"signal-cli {shown[:32]} answers on its socket"

    async def receive(self) -> AsyncIterator[Params]:
        """Yield what arrives until the connection is lost.

        Raises:
            ChannelError: it is lost, or cannot be made.
        """
        link = await self._linked()
        while (params := await link.arrived.get()) is not None:
            yield params
        message = "the connection to signal-cli's socket was lost"
        raise ChannelError(Failure.UNREACHABLE, message)

    async def close(self) -> None:
        """Close the connection; safe to call twice."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _call(self, method: str, params: Mapping[str, JsonValue]) -> Params:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                link = await self._linked()
                return await link.call(method, params)
        except TimeoutError:
            message = "signal-cli did not answer in time."
            raise ChannelError(Failure.TIMED_OUT, message) from None

    async def _linked(self) -> "_Link":
        async with self._linking:
            if self._link is None or self._link.is_lost:
                await self.close()
                self._link = await _Link.open(self._socket)
            return self._link


class _Link:
    """One connection: calls by their ids, and a queue of what arrives, ended by None."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Params]] = {}
        self.arrived: asyncio.Queue[Params | None] = asyncio.Queue()
        self.is_lost = False
        self._reading = asyncio.create_task(self._read_forever(), name="signal-cli socket")

    @classmethod
    async def open(cls, socket: Path) -> "_Link":
        """Connect.

        Raises:
            ChannelError: nobody listens there, or the agent may not connect.
        """
        try:
            streams = await asyncio.open_unix_connection(str(socket), limit=MAX_LINE_BYTES)
        except OSError as error:
            message = f"signal-cli's socket {socket}: {(error.strerror or 'no answer').lower()}."
            raise ChannelError(Failure.UNREACHABLE, message) from None
        return cls(*streams)

    async def call(self, method: str, params: Mapping[str, JsonValue]) -> Params:
        """Call and return the result.

        Raises:
            ChannelError: the daemon refused, or the connection was lost first.
        """
        if self.is_lost:
            raise _lost()
        number = str(next(self._ids))
        call = {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)}
        answer: asyncio.Future[Params] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(json.dumps(call).encode() + b"\n")
            await self._writer.drain()
            return await answer
        except OSError:
            raise _lost() from None
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read_forever(self) -> None:
        try:
            while True:
                try:
                    line = await self._reader.readline()
                except ValueError:
                    _log.warning("signal-cli sent a line over %d bytes; skipped", MAX_LINE_BYTES)
                    continue
                if not line:
                    return
                self._take(line)
        except OSError:
            return
        finally:
            self.is_lost = True
            self.arrived.put_nowait(None)
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_lost())

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            _log.warning("signal-cli sent a line that is no JSON object; skipped")
        elif message.get("method") == "receive":
            self._take_received(message.get("params"))
        elif (answer := self._waiting.get(str(message.get("id")))) and not answer.done():
            _settle(answer, message)

    def _take_received(self, params: object) -> None:
        if isinstance(params, dict) and isinstance(params.get("result"), dict):
            params = params["result"]  # a daemon that was asked by subscribeReceive
        if not isinstance(params, dict):
            _log.warning("signal-cli sent a notification without params; skipped")
            return
        if self.arrived.qsize() >= MAX_WAITING:
            self.arrived.get_nowait()
            _log.warning("more arrives over Signal than can be read; the oldest was dropped")
        self.arrived.put_nowait(params)


def _settle(answer: asyncio.Future[Params], message: Mapping[str, object]) -> None:
    result, error = message.get("result"), message.get("error")
    if isinstance(error, Mapping):
        answer.set_exception(_refused(error))
    elif isinstance(result, Mapping):
        answer.set_result(result)
    else:
        text = "signal-cli answered with neither a result nor an error."
        answer.set_exception(ChannelError(Failure.BAD_ANSWER, text))


def _refused(error: Mapping[str, object]) -> ChannelError:
    """Return what an error means: its recipients' results where it has them, else its code."""
    data = error.get("data")
    response = data.get("response") if isinstance(data, Mapping) else None
    if isinstance(response, Mapping):
        try:
            require_success(response.get("results"))
        except ChannelError as refused:
            return refused
    code = error.get("code")
    if isinstance(code, int) and code in _CODES:
        return refusal(_CODES[code])
    if isinstance(code, int) and -32_700 <= code <= -32_000:
        return ChannelError(Failure.BAD_ANSWER, "signal-cli does not understand the call.")
    return refusal(None)


def _lost() -> ChannelError:
    return ChannelError(Failure.UNREACHABLE, "The connection to signal-cli's socket was lost.")
