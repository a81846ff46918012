"""The driver for the daemon of signal-cli on its unix socket: JSON-RPC, one object a line.

The kernel says whose process listens there (SO_PEERCRED, unix(7)): one of another user than the
configured one, root or the agent's own is told nothing and believed nothing. Where systemd made the
socket, that is root.

One connection carries what is sent and what arrives. Where the daemon runs with `--receive-mode
on-connection` or `manual`, messages wait on Signal's servers while nobody is attached, so none is
lost. It has no word for the mode: with any other one, what is sent while we are away is gone.
"""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from host_agent.canonical import JsonValue
from host_agent.notify.channel import ChannelError
from host_agent.notify.flood import Complaints
from host_agent.notify.peers import require_peer
from host_agent.notify.signal.arrivals import FAREWELL_SECONDS, Arrivals
from host_agent.notify.signal.channel import OnOpened, Quote, refusal, require_success
from host_agent.notify.signal.envelope import Params
from host_agent.requests.notification import Failure

_log = logging.getLogger("host_agent.notify.signal")

DEADLINE_SECONDS = 15.0
MAX_LINE_BYTES = 1_048_576
_CODES: Mapping[int, str] = {
    -3: "NETWORK_FAILURE",
    -4: "IDENTITY_FAILURE",
    -5: "RATE_LIMIT_FAILURE",
}
"""signal-cli's own error codes, as the types of results that mean the same."""
_NO_METHOD, _NO_ACCOUNT = -32_601, -32_602


class SignalCli:
    """One account of a daemon."""

    def __init__(
        self,
        socket: Path,
        account: str,
        *,
        user: str,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._socket = socket
        self._user = user
        self._account = account
        self._deadline_seconds = deadline_seconds
        self._link: _DaemonConnection | None = None
        self._linking = asyncio.Lock()
        self._has_hung_up = False
        self._complaints = Complaints(_log)

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
        if isinstance(result, Mapping):
            require_success(result.get("results"))
        timestamp = result.get("timestamp") if isinstance(result, Mapping) else None
        if not isinstance(timestamp, int) or isinstance(timestamp, bool) or timestamp <= 0:
            message = "signal-cli answered without the message's timestamp."
            raise ChannelError(Failure.BAD_ANSWER, message)
        return str(timestamp)

    async def about(self) -> str:
        """Return which version answers; a daemon of several accounts is asked whether it has ours.

        Raises:
            ChannelError: none does, or it does not hold the account.
        """
        result = await self._call("version", {})
        version = result.get("version") if isinstance(result, Mapping) else None
        is_plain = isinstance(version, str) and version.isascii() and version.isprintable()
        shown = version[:32] if isinstance(version, str) and is_plain else "unknown"
        where = f"signal-cli {shown} of the user {(await self._linked()).served_by} answers"
        try:
            held = await self._call("listAccounts", {})
        except _CallError as error:
            if error.code != _NO_METHOD:
                raise
            return f"{where} on its socket, for one account"
        accounts = held if isinstance(held, list) else []
        if not any(
            isinstance(one, dict) and one.get("number") == self._account for one in accounts
        ):
            raise _no_account()
        return f"{where} on its socket and holds the account"

    async def receive(self, opened: OnOpened) -> AsyncGenerator[Params, None]:
        """Yield what arrives until the connection is lost.

        A daemon in the mode `manual` has to be asked for messages. Asked for nothing, the others
        send each of them twice, which is known by its reference.

        Raises:
            ChannelError: it is lost, or cannot be made.
        """
        link = await self._subscribed()
        opened(keeps=True)
        while (params := await link.arrivals.get()) is not None:
            yield params
        message = "the connection to signal-cli's socket was lost"
        raise ChannelError(Failure.UNREACHABLE, message)

    async def hang_up(self) -> list[Params]:
        """Let go of the connection for good; return what had come over it and was not yielded."""
        self._has_hung_up = True
        async with self._linking:
            link = self._link
            if link is not None:
                await link.finish()
            await self.close()
            return [] if link is None else link.arrivals.take_all()

    async def close(self) -> None:
        """Close the connection; safe to call twice."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _call(self, method: str, params: Mapping[str, JsonValue]) -> object:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                link = await self._linked()
                return await link.call(method, params)
        except TimeoutError:
            message = "signal-cli did not answer in time."
            raise ChannelError(Failure.TIMED_OUT, message) from None

    async def _subscribed(self) -> "_DaemonConnection":
        try:
            await self._call("subscribeReceive", {"account": self._account})
        except _CallError as error:
            if error.code != _NO_METHOD:
                raise
        return await self._linked()

    async def _linked(self) -> "_DaemonConnection":
        async with self._linking:
            if self._has_hung_up:
                raise _lost()
            if self._link is None or self._link.is_lost:
                await self.close()
                self._link = await _DaemonConnection.open(
                    self._socket, self._user, self._complaints
                )
            return self._link


class _CallError(ChannelError):
    """The daemon's own answer is an error; `code` is its number."""

    def __init__(self, code: object, refused: ChannelError) -> None:
        super().__init__(
            refused.failure,
            str(refused),
            retry_after_seconds=refused.retry_after_seconds,
            is_final=refused.is_final,
        )
        self.code = code


class _DaemonConnection:
    """One connection: calls by their ids, and what arrives."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        complaints: Complaints,
        *,
        served_by: str,
    ) -> None:
        self.served_by = served_by
        self._reader = reader
        self._writer = writer
        self._complaints = complaints
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[object]] = {}
        self.arrivals = Arrivals(complaints)
        self.is_lost = False
        self._reading = asyncio.create_task(self._read_forever(), name="signal-cli socket")

    @classmethod
    async def open(cls, socket: Path, user: str, complaints: Complaints) -> "_DaemonConnection":
        """Connect to a process of `user`.

        Raises:
            ChannelError: nobody listens there, the agent may not connect, or it is somebody else.
        """
        try:
            streams = await asyncio.open_unix_connection(str(socket), limit=MAX_LINE_BYTES)
        except OSError as error:
            message = f"signal-cli's socket {socket}: {(error.strerror or 'no answer').lower()}."
            raise ChannelError(Failure.UNREACHABLE, message) from None
        try:
            served_by = require_peer(streams[1].get_extra_info("socket"), user)
        except PermissionError as error:
            streams[1].close()
            message = f"signal-cli's socket {socket} {error}; it was told nothing."
            raise ChannelError(Failure.NOT_CONFIGURED, message) from None
        return cls(*streams, complaints, served_by=served_by)

    async def call(self, method: str, params: Mapping[str, JsonValue]) -> object:
        """Call and return the result.

        Raises:
            ChannelError: the daemon refused, or the connection was lost first.
        """
        number = str(next(self._ids))
        call = {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)}
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(json.dumps(call).encode() + b"\n")
            await self._writer.drain()
            return await answer
        except OSError:
            raise _lost() from None
        finally:
            del self._waiting[number]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # looked at: the event loop need not complain of it

    async def finish(self) -> None:
        """Close the sending half, and read on until the daemon closes the other."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()
        await asyncio.wait((self._reading,), timeout=FAREWELL_SECONDS)

    async def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read_forever(self) -> None:
        try:
            while (line := await self._line()) is not None:
                self._take(line)
        except OSError:
            return
        finally:
            self.is_lost = True
            self.arrivals.end()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_lost())

    async def _line(self) -> bytes | None:
        """Return the next line that is not too long, or None at the end."""
        is_passing_over = False
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
                is_passing_over = True
                continue
            except asyncio.IncompleteReadError:
                return None
            if not is_passing_over:
                return line
            is_passing_over = False
            self._complaints.add("signal-cli sent a line of more than is taken; skipped")

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._complaints.add("signal-cli sent a line that is no JSON object; skipped")
        elif message.get("method") == "receive":
            self._take_received(message.get("params"))
        elif isinstance(number := message.get("id"), str):
            answer = self._waiting.get(number)
            if answer is not None and not answer.done():
                _settle(answer, message)

    def _take_received(self, params: object) -> None:
        if isinstance(params, dict) and isinstance(params.get("result"), dict):
            params = params["result"]  # the form for who has asked by subscribeReceive
        if isinstance(params, dict):
            self.arrivals.put(params)
        else:
            self._complaints.add("signal-cli sent a notification without params; skipped")


def _settle(answer: asyncio.Future[object], message: Mapping[str, object]) -> None:
    error = message.get("error")
    if isinstance(error, Mapping):
        answer.set_exception(_CallError(error.get("code"), _refused(error)))
    elif "result" in message:
        answer.set_result(message["result"])
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
    if not isinstance(code, int):
        return refusal(None)
    if code == _NO_ACCOUNT:
        return _no_account()
    if -32_700 <= code <= -32_000:
        return ChannelError(Failure.BAD_ANSWER, "signal-cli does not understand the call.")
    return refusal(_CODES.get(code))


def _no_account() -> ChannelError:
    message = "signal-cli does not hold the configured account."
    return ChannelError(Failure.NOT_CONFIGURED, message)


def _lost() -> ChannelError:
    return ChannelError(Failure.UNREACHABLE, "The connection to signal-cli's socket was lost.")
