"""The driver for signal-cli-rest-api: HTTP to send, a websocket or polling to receive.

The service asks nobody who they are: it stays on loopback. It keeps nothing for a reader who is
away, so what was sent to it meanwhile has to be repeated; the socket of the daemon is better.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as percent

from host_agent.approvals.channels.outbound import Answer, Outbound
from host_agent.approvals.channels.port import ChannelError
from host_agent.approvals.channels.signal import Params, Quote, refusal
from host_agent.approvals.notification import Failure
from host_agent.canonical import JsonValue

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_log = logging.getLogger("host_agent.approvals.signal")

MAX_FRAME_BYTES = 1_048_576
MAX_WAITING = 500
POLL_SECONDS = 2.0
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_WEBSOCKET_MODES = frozenset({"json-rpc", "json-rpc-native"})


class SignalRest:
    """One account of a service."""

    def __init__(
        self, outbound: Outbound, account: str, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._outbound = outbound
        self._account = account
        self._poll_seconds = poll_seconds

    @property
    def account(self) -> str:
        """The account's number."""
        return self._account

    async def send(self, aci: str, text: str, *, quote: Quote | None = None) -> str:
        """Send to one person and return the message's timestamp.

        Raises:
            ChannelError: it was not taken.
        """
        body: dict[str, JsonValue] = {
            "number": self._account,
            "recipients": [aci],
            "message": text,
            "text_mode": "normal",
        }
        if quote is not None:
            body |= {
                "quote_timestamp": int(quote.timestamp),
                "quote_author": quote.author,
                "quote_message": quote.text,
            }
        answer = await self._outbound.post(
            json.dumps(body).encode(), headers=_JSON, path="/v2/send", explain=_explain
        )
        return _timestamp(_parsed(answer.body))

    async def about(self) -> str:
        """Return which version answers, and its mode.

        Raises:
            ChannelError: none does.
        """
        about = await self._about()
        version, mode = (_word(about.get(key)) for key in ("version", "mode"))
        return f"signal-cli-rest-api {version} answers, mode {mode}"

    async def receive(self) -> AsyncIterator[Params]:
        """Yield what arrives until the connection is lost.

        Raises:
            ChannelError: it is lost, or cannot be made.
        """
        if (await self._about()).get("mode") in _WEBSOCKET_MODES:
            async for params in self._follow():
                yield params
        while True:
            for params in await self._poll():
                yield params
            await asyncio.sleep(self._poll_seconds)

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        await self._outbound.close()

    async def _about(self) -> Params:
        found = _parsed((await self._outbound.get(headers=_JSON, path="/v1/about")).body)
        if not isinstance(found, dict):
            raise _not_understood()
        return found

    # -- websocket ------------------------------------------------------------------------------

    async def _follow(self) -> AsyncIterator[Params]:
        """Yield frames. A reader of its own takes them: the service drops what is not taken."""
        frames: asyncio.Queue[Params | None] = asyncio.Queue()
        async with self._connect() as socket:
            reading = asyncio.create_task(_read(socket, frames), name="signal websocket")
            try:
                while (params := await frames.get()) is not None:
                    yield params
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        message = "the websocket to signal-cli-rest-api was lost"
        raise ChannelError(Failure.UNREACHABLE, message)

    def _connect(self) -> "AbstractAsyncContextManager[ClientConnection]":
        return _Socket(self._outbound, self._path)

    @property
    def _path(self) -> str:
        return f"/v1/receive/{percent(self._account, safe='')}"

    # -- polling --------------------------------------------------------------------------------

    async def _poll(self) -> list[Params]:
        path = f"{self._path}?timeout=1&ignore_attachments=true&ignore_stories=true"
        found = _parsed((await self._outbound.get(headers=_JSON, path=path)).body)
        if not isinstance(found, list):
            raise _not_understood()
        return [params for params in found if isinstance(params, dict)]


class _Socket:
    """A websocket to the service, as a context; what goes wrong on the way in is translated."""

    def __init__(self, outbound: Outbound, path: str) -> None:
        self._outbound = outbound
        self._path = path
        self._connection: ClientConnection | None = None

    async def __aenter__(self) -> "ClientConnection":
        try:
            from websockets.asyncio.client import connect
            from websockets.exceptions import WebSocketException
        except ImportError:
            message = "the package websockets is missing: install host-agent[signal]"
            raise ChannelError(Failure.NOT_CONFIGURED, message) from None
        target = self._outbound.target
        scheme = "wss" if target.scheme == "https" else "ws"
        # No proxy of the environment, no redirect, and nothing of the library in our log.
        quiet = logging.getLogger("host_agent.approvals.signal.websocket")
        quiet.setLevel(logging.CRITICAL)
        try:
            self._connection = await connect(
                f"{scheme}://{target.place}{self._path}",
                max_size=MAX_FRAME_BYTES,
                open_timeout=15,
                close_timeout=2,
                proxy=None,
                logger=quiet,
                process_exception=lambda error: error,
            )
        except (OSError, TimeoutError, WebSocketException):
            message = "signal-cli-rest-api does not open a websocket"
            raise ChannelError(Failure.UNREACHABLE, message) from None
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()


async def _read(socket: "ClientConnection", frames: "asyncio.Queue[Params | None]") -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            params = _frame(await socket.recv())
            if params is None:
                _log.warning("signal-cli-rest-api sent a frame that is no JSON object; skipped")
                continue
            if frames.qsize() >= MAX_WAITING:
                frames.get_nowait()
                _log.warning("more arrives over Signal than can be read; the oldest was dropped")
            frames.put_nowait(params)
    except ConnectionClosed:
        return
    finally:
        frames.put_nowait(None)


def _frame(frame: str | bytes) -> Params | None:
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# -- answers --------------------------------------------------------------------------------------


def _explain(answer: Answer) -> ChannelError | None:
    """Return what a refused sending means. The service says 400 to whatever signal-cli refused."""
    if answer.status < 400 or answer.status >= 500:
        return None
    if answer.status == 429:
        return refusal("RATE_LIMIT_FAILURE", retry_after=_seconds(answer.headers))
    said = answer.body.decode("utf-8", "replace").lower()
    if "untrusted" in said or "identity_failure" in said:
        return refusal("IDENTITY_FAILURE")
    if "unregistered" in said:
        return refusal("UNREGISTERED_FAILURE")
    if answer.status == 400:
        return refusal(None)
    return None


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    return float(value) if value.isdecimal() and len(value) < 9 else None


def _timestamp(answer: Any) -> str:  # noqa: ANN401 - JSON of a peer
    """Return the timestamp of either shape of answer: an object, or a list of them with errors."""
    one = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(one, dict):
        raise _not_understood()
    errors = one.get("errors")
    refused = errors.get("recipients") if isinstance(errors, dict) else None
    for recipient in refused if isinstance(refused, list) else ():
        if isinstance(recipient, dict):
            raise refusal(recipient.get("reason"))
    timestamp = str(one.get("timestamp", ""))
    if not timestamp.isdecimal() or not timestamp.isascii() or len(timestamp) > 16:
        raise _not_understood()
    return timestamp


def _parsed(body: bytes) -> Any:  # noqa: ANN401 - JSON of a peer
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _not_understood() from None


def _not_understood() -> ChannelError:
    message = "signal-cli-rest-api answered with what is not understood."
    return ChannelError(Failure.BAD_ANSWER, message)


def _word(value: object) -> str:
    return value[:32] if isinstance(value, str) and value.isprintable() and value else "unknown"
