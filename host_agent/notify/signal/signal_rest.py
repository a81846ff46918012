"""The driver for signal-cli-rest-api: HTTP to send, a websocket or polling to receive.

The service asks nobody who they are: it stays on loopback. In its modes with a websocket it keeps
nothing for a reader who is away, so what was sent meanwhile has to be repeated; the socket of the
daemon is better. In the others it starts a program for each poll.
"""

import asyncio
import importlib.util
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as percent

from host_agent.canonical import JsonValue
from host_agent.notify.channel import ChannelError
from host_agent.notify.flood import Complaints
from host_agent.notify.outbound import Outbound, Response
from host_agent.notify.signal.arrivals import FAREWELL_SECONDS, Arrivals
from host_agent.notify.signal.channel import OnOpened, Quote, refusal
from host_agent.notify.signal.envelope import Params
from host_agent.requests.notification import Failure

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_log = logging.getLogger("host_agent.notify.signal")

MAX_FRAME_BYTES = 1_048_576
MAX_POLLED = 100
"""Messages in the answer to one poll: taken they are gone, so they must fit into it."""
POLL_SECONDS = 5.0
OPEN_SECONDS = 15.0
PING_SECONDS = 10.0
"""How often a websocket is pinged, and for how long it may leave that unanswered."""

_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_WEBSOCKET_MODES = frozenset({"json-rpc", "json-rpc-native"})
_WORDS: Mapping[str, str] = {
    "untrusted": "IDENTITY_FAILURE",
    "identity_failure": "IDENTITY_FAILURE",
    "unregistered": "UNREGISTERED_FAILURE",
    "rate limit": "RATE_LIMIT_FAILURE",
    "rate_limit": "RATE_LIMIT_FAILURE",
    "captcha": "RATE_LIMIT_FAILURE",
    "network failure": "NETWORK_FAILURE",
    "network_failure": "NETWORK_FAILURE",
}
"""By words in the body of a 400, which answers every refusal of signal-cli: the type of result."""


class SignalRest:
    """One account of a service."""

    def __init__(
        self,
        outbound: Outbound,
        account: str,
        *,
        poll_seconds: float = POLL_SECONDS,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._outbound = outbound
        self._account = account
        self._poll_seconds = poll_seconds
        self._ping_seconds = ping_seconds
        self._complaints = Complaints(_log)
        self._arrivals = Arrivals(self._complaints)
        self._polling: asyncio.Task[list[Params]] | None = None

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
        """Return which version answers, its mode, and that it holds the account, where it tells.

        Raises:
            ChannelError: none does, it does not hold the account, or its mode needs a package
                that is missing.
        """
        about = await self._about()
        if about.get("mode") in _WEBSOCKET_MODES:
            _require_websockets()
        version, mode = (_word(about.get(key)) for key in ("version", "mode"))
        said = f"signal-cli-rest-api {version} answers, mode {mode}"
        try:
            answer = await self._outbound.get(headers=_JSON, path="/v1/accounts")
        except ChannelError as error:
            if error.failure is not Failure.REFUSED:
                raise
            return f"{said}; it does not tell its accounts"
        held = _parsed(answer.body)
        if not isinstance(held, list) or self._account not in held:
            message = "signal-cli-rest-api does not hold the configured account."
            raise ChannelError(Failure.NOT_CONFIGURED, message)
        return f"{said}, and holds the account"

    async def receive(self, opened: OnOpened) -> AsyncGenerator[Params, None]:
        """Yield what arrives until the connection is lost.

        Raises:
            ChannelError: it is lost, or cannot be made.
        """
        if (await self._about()).get("mode") in _WEBSOCKET_MODES:
            self._arrivals = arrivals = Arrivals(self._complaints)
            async with _WebSocket(self._outbound, self._path, self._ping_seconds) as socket:
                opened(keeps=False)
                reading = asyncio.create_task(self._read(socket, arrivals), name="signal websocket")
                try:
                    while (params := await arrivals.get()) is not None:
                        yield params
                finally:
                    await socket.close()
                    await asyncio.wait((reading,), timeout=FAREWELL_SECONDS)
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
            message = "the websocket to signal-cli-rest-api was lost"
            raise ChannelError(Failure.UNREACHABLE, message)
        while True:
            # What an answer brings is not kept there any more, so it is waited for.
            self._polling = asyncio.create_task(self._poll(), name="signal poll")
            polled = await asyncio.shield(self._polling)
            self._polling = None
            opened(keeps=True)
            for params in polled:
                yield params
            await asyncio.sleep(self._poll_seconds)

    async def hang_up(self) -> list[Params]:
        """Receive nothing more; return the messages that were not yielded yet."""
        polling, self._polling = self._polling, None
        if polling is None:
            return self._arrivals.take_all()
        try:
            return await polling
        except ChannelError:
            return []

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        await self._outbound.close()

    async def _about(self) -> Params:
        found = _parsed((await self._outbound.get(headers=_JSON, path="/v1/about")).body)
        if not isinstance(found, dict) or not isinstance(found.get("mode", ""), str):
            raise _not_understood()
        return found

    @property
    def _path(self) -> str:
        return f"/v1/receive/{percent(self._account, safe='')}"

    async def _poll(self) -> list[Params]:
        path = (
            f"{self._path}?timeout=1&max_messages={MAX_POLLED}&ignore_attachments=true"
            "&ignore_stories=true&send_read_receipts=false"
        )
        found = _parsed((await self._outbound.get(headers=_JSON, path=path)).body)
        if not isinstance(found, list):
            raise _not_understood()
        return [params for params in found if isinstance(params, dict)]

    async def _read(self, socket: "ClientConnection", arrivals: Arrivals) -> None:
        """Take frames and do nothing else: the service drops what is not taken at once."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                params = _frame(await socket.recv())
                if params is None:
                    self._complaints.add(
                        "signal-cli-rest-api sent a frame that is no JSON object; skipped"
                    )
                else:
                    arrivals.put(params)
        except ConnectionClosed:
            return
        finally:
            arrivals.end()


# -- websocket ------------------------------------------------------------------------------------


class _WebSocket:
    """A websocket to the service, as a context; what goes wrong on the way in is translated.

    It goes where the exchanges of `Outbound` may go: to an address that was looked at, with no
    proxy, no redirect, names verified, and nothing of the library in the log.
    """

    def __init__(self, outbound: Outbound, path: str, ping_seconds: float) -> None:
        self._outbound = outbound
        self._target = outbound.target
        self._path = path
        self._ping_seconds = ping_seconds
        self._connection: ClientConnection

    async def __aenter__(self) -> "ClientConnection":
        _require_websockets()
        from websockets.exceptions import WebSocketException

        failure = ChannelError(Failure.UNREACHABLE, "signal-cli-rest-api does not open a websocket")
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._connection = await self._connected()
        except (OSError, TimeoutError, WebSocketException):
            raise failure from None
        return self._connection

    async def _connected(self) -> "ClientConnection":
        """Return a connection to the first address that takes one."""
        from host_agent.notify import connect as dialing

        target = self._target
        backend = dialing.CheckedBackend(target, dialing.system_addresses)
        broken = OSError("no address")
        for address in await backend.addresses(target.host, target.port):
            try:
                return await self._dialled(address)
            except OSError as error:
                broken = error
        raise broken

    async def _dialled(self, address: str) -> "ClientConnection":
        from websockets.asyncio.client import connect

        class Direct(connect):
            """Connects to one address and follows no redirect."""

            def process_redirect(self, exc: Exception) -> Exception | str:
                """Follow nothing."""
                return exc

        quiet = logging.getLogger("host_agent.notify.signal.websocket")
        quiet.setLevel(logging.CRITICAL + 1)
        is_secure = self._target.scheme == "https"
        return await Direct(
            f"{'wss' if is_secure else 'ws'}://{self._target.place}{self._path}",
            host=address,
            port=self._target.port,
            ssl=self._outbound.tls() if is_secure else None,
            max_size=MAX_FRAME_BYTES,
            compression=None,
            open_timeout=OPEN_SECONDS,
            close_timeout=2,
            ping_interval=self._ping_seconds,
            ping_timeout=self._ping_seconds,
            proxy=None,
            logger=quiet,
        )

    async def __aexit__(self, *_: object) -> None:
        with suppress(OSError):
            await self._connection.close()


def _require_websockets() -> None:
    if importlib.util.find_spec("websockets") is None:
        message = "The package websockets is missing: install host-agent with the extra signal."
        raise ChannelError(Failure.NOT_CONFIGURED, message)


def _frame(frame: str | bytes) -> Params | None:
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# -- answers --------------------------------------------------------------------------------------


def _explain(answer: Response) -> ChannelError | None:
    """Return the error of a refused sending; the service says 400 to each."""
    if answer.status == 429:
        captcha = b'"challenge_tokens"' in answer.body
        seconds = _seconds(answer.headers)
        return refusal("RATE_LIMIT_FAILURE", retry_after=seconds, wants_captcha=captcha)
    if answer.status != 400:
        return None
    said = answer.body.decode("utf-8", "replace").lower()
    kind = next((kind for words, kind in _WORDS.items() if words in said), None)
    return refusal(kind, wants_captcha="captcha" in said)


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None


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
    if not timestamp.isdecimal() or not timestamp.isascii() or len(timestamp) > 15:
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
    is_plain = isinstance(value, str) and value.isascii() and value.isprintable() and value
    return str(value)[:32] if is_plain else "unknown"
