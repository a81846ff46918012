"""HTTP of the agent's own: what it sends to services that were configured, and how far it trusts.

https with verified names (http to a literal loopback address only), no redirects, no proxies and
nothing else of the environment, addresses looked at before they are connected to, one deadline
over all of an exchange, answers bounded and never decoded. What goes wrong becomes a
`ChannelError`, whose sentences name host and port, never the path, a header or a word of the peer.

This stands on httpcore, the part of httpx that moves bytes: httpx itself would write every URL
into the log, and here paths may be secrets.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from host_agent import __version__
from host_agent.notify.addresses import Target, target_of
from host_agent.notify.channel import ChannelError
from host_agent.requests.notification import Failure

if TYPE_CHECKING:
    import httpcore

    from host_agent.notify.connect import Resolve

DEADLINE_SECONDS = 15.0
MAX_ANSWER_BYTES = 65_536
MAX_LINE_BYTES = 65_536
MAX_RETRY_AFTER_SECONDS = 3_600.0

_RETRIED = frozenset({408, 409, 425, 429})
"""The refusals of 4xx that another try may overcome."""
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A successful answer, whole. Names of headers are lower case. All of it is a peer's word."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Explain: TypeAlias = Callable[[Response], ChannelError | None]
"""Turns an answer into an error, by its body; None leaves it to the status."""


def _wall() -> datetime:
    return datetime.now(UTC)


class Outbound:
    """Exchanges with the service at one URL.

    `ca_file` is the one authority that is trusted; without it, those of the system. `pair` are the
    files of a certificate and its key, which the agent shows where it is asked for one.

    Raises:
        ValueError: `url` may not be sent to; the sentence does not repeat it.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        pair: tuple[Path, Path] | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        resolve: "Resolve | None" = None,
        now: Callable[[], datetime] = _wall,
    ) -> None:
        self._target = target_of(url)
        self._ca_file = ca_file
        self._pair = pair
        self._deadline_seconds = deadline_seconds
        self._max_answer_bytes = max_answer_bytes
        self._resolve = resolve
        self._now = now
        self._context: ssl.SSLContext | None = None
        self._pool: httpcore.AsyncConnectionPool | None = None

    @property
    def target(self) -> Target:
        """Return the parts of the URL."""
        return self._target

    async def post(
        self,
        body: bytes,
        *,
        headers: Mapping[str, str],
        path: str | None = None,
        method: str = "POST",
        explain: Explain | None = None,
    ) -> Response:
        """Send `body` to the URL, or to `path` on its host, and return a 2xx answer.

        `explain` may turn any other answer into an error, by its body.

        Raises:
            ChannelError: there was no such answer; `is_final` after a refusal that stays one.
        """
        async with self._deadline():
            return await self._exchange(method, path, headers, body, explain)

    async def get(
        self,
        *,
        headers: Mapping[str, str],
        path: str | None = None,
        explain: Explain | None = None,
        wait_seconds: float = 0.0,
    ) -> Response:
        """Ask for the URL, or for `path` on its host, and return a 2xx answer.

        `explain` is as in `post`. The service may keep the answer back for `wait_seconds` beyond
        the deadline.

        Raises:
            ChannelError: there was no such answer.
        """
        async with self._deadline(wait_seconds):
            return await self._exchange("GET", path, headers, None, explain, wait_seconds)

    async def follow(
        self,
        path: str,
        *,
        headers: Mapping[str, str],
        silence_seconds: float,
        take: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Hand every line of an answer without end to `take`, and return when it ends after all.

        A line over 64 KiB is passed over. There is a deadline for the beginning only.

        Raises:
            ChannelError: it did not begin, broke off, or was silent for longer than
                `silence_seconds`.
        """
        with self._translating():
            async with asyncio.timeout(self._deadline_seconds) as deadline:
                async with self._answering("GET", path, headers, None, silence_seconds) as response:
                    self._require_success(response)
                    deadline.reschedule(None)
                    lines = _Lines()
                    async for chunk in response.aiter_stream():
                        for line in lines.add(chunk):
                            await take(line)

    async def reach(self) -> str:
        """Connect, shake hands, hang up, and return a clause with the place and the version of TLS.

        Raises:
            ChannelError: nobody is there, or TLS does not accept them.
        """
        from host_agent.notify import connect

        resolve = self._resolve or connect.system_addresses
        backend = connect.CheckedBackend(self._target, resolve)
        async with self._deadline():
            stream = await backend.connect_tcp(self._target.host, self._target.port)
            try:
                if self._target.scheme == "http":
                    return f"{self._target.place} takes connections, without TLS"
                stream = await stream.start_tls(
                    self.tls(), server_hostname=self._target.host, timeout=self._deadline_seconds
                )
                version = stream.get_extra_info("ssl_object").version()
            finally:
                await stream.aclose()
            return f"{self._target.place} answers over {version} with a good certificate"

    async def close(self) -> None:
        """Close the connections; safe to call twice. It can be used again after that."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    # -- one exchange ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _deadline(self, wait_seconds: float = 0.0) -> AsyncIterator[None]:
        with self._translating():
            async with asyncio.timeout(self._deadline_seconds + wait_seconds):
                yield

    async def _exchange(
        self,
        method: str,
        path: str | None,
        headers: Mapping[str, str],
        body: bytes | None,
        explain: Explain | None = None,
        wait_seconds: float = 0.0,
    ) -> Response:
        seconds = self._deadline_seconds + wait_seconds
        async with self._answering(method, path, headers, body, seconds) as response:
            if explain is None:
                self._require_success(response)
            content = bytearray()
            async for chunk in response.aiter_stream():
                content += chunk
                if len(content) > self._max_answer_bytes:
                    # Leaving here closes the connection: the rest is never read.
                    message = f"{self._target.place} answered with more than is taken."
                    raise ChannelError(Failure.BAD_ANSWER, message)
            answer = Response(
                status=response.status, headers=_headers_of(response), body=bytes(content)
            )
            if explain is not None and (error := explain(answer)) is not None:
                raise error
            self._require_success(response)
            return answer

    @asynccontextmanager
    async def _answering(
        self,
        method: str,
        path: str | None,
        headers: Mapping[str, str],
        body: bytes | None,
        read_seconds: float,
    ) -> "AsyncIterator[httpcore.Response]":
        import httpcore

        seconds = self._deadline_seconds
        target = self._target
        url = httpcore.URL(
            scheme=target.scheme,
            host=target.host,
            port=target.port,
            target=target.path if path is None else path,
        )
        async with self._connections().stream(
            method,
            url,
            headers=self._sent_headers(headers),
            content=body,
            extensions={
                "timeout": {
                    "connect": seconds, "read": read_seconds, "write": seconds, "pool": seconds
                }
            },
        ) as response:  # fmt: skip
            yield response

    def _sent_headers(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        target = self._target
        is_usual = target.port == (443 if target.scheme == "https" else 80)
        ours = {
            "Host": target.place.removesuffix(f":{target.port}") if is_usual else target.place,
            "User-Agent": f"host-agent/{__version__}",
            "Accept-Encoding": "identity",
        }
        return [*ours.items(), *headers.items()]

    def _connections(self) -> "httpcore.AsyncConnectionPool":
        from host_agent.notify import connect

        if self._pool is None:
            resolve = self._resolve or connect.system_addresses
            self._pool = connect.open_pool(self._target, context=self.tls(), resolve=resolve)
        return self._pool

    def tls(self) -> ssl.SSLContext:
        """Return the TLS context that verifies the service.

        Raises:
            ChannelError: a file of it cannot be used.
        """
        from host_agent.notify import connect

        if self._context is None:
            try:
                self._context = connect.client_context(self._ca_file, self._pair)
            except OSError:
                message = f"A file of TLS for {self._target.place} cannot be used."
                raise ChannelError(Failure.NOT_CONFIGURED, message) from None
        return self._context

    def _require_success(self, response: "httpcore.Response") -> None:
        if not 200 <= response.status < 300:
            raise refusal(
                self._target.place, response.status, _headers_of(response), now=self._now()
            )

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Let only `ChannelError` out, without what caused it: that may quote a header or a URL."""
        import httpcore

        place = self._target.place
        try:
            yield
        except (TimeoutError, httpcore.TimeoutException):
            message = f"{place} did not answer in time."
            raise ChannelError(Failure.TIMED_OUT, message) from None
        except httpcore.LocalProtocolError:
            message = f"What was to be sent to {place} has no place in HTTP: look at its token."
            raise ChannelError(Failure.NOT_CONFIGURED, message) from None
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            message = f"{place} does not answer in HTTP."
            raise ChannelError(Failure.BAD_ANSWER, message) from None
        except (httpcore.NetworkError, ssl.SSLError, OSError) as error:
            raise _broken(place, error) from None


def refusal(place: str, status: int, headers: Mapping[str, str], *, now: datetime) -> ChannelError:
    """Return the error for an answer that is no success.

    A redirect is one: what was meant for one place is not taken to another.
    """
    asked = retry_after(headers.get("retry-after"), now=now)
    if 300 <= status < 400:
        return ChannelError(Failure.REFUSED, f"{place} redirects, which is not followed.")
    if status == 429:
        message = f"{place} asks for fewer messages (429)."
        return ChannelError(Failure.RATE_LIMITED, message, retry_after_seconds=asked)
    is_final = 400 <= status < 500 and status not in _RETRIED
    message = f"{place} answered with status {status}."
    return ChannelError(Failure.REFUSED, message, retry_after_seconds=asked, is_final=is_final)


def retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a Retry-After asks for (RFC 9110, 10.2.3), at most one hour."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        seconds = (parsedate_to_datetime(value).astimezone(UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _broken(place: str, error: BaseException) -> ChannelError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"The certificate of {place} is not accepted."
            return ChannelError(Failure.UNREACHABLE, message)
        if isinstance(cause, ssl.SSLError):
            return ChannelError(Failure.UNREACHABLE, f"{place} fails in TLS.")
        cause = cause.__cause__ or cause.__context__
    return ChannelError(Failure.UNREACHABLE, f"The connection to {place} broke.")


def _headers_of(response: "httpcore.Response") -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }


class _Lines:
    """Cuts a stream into lines, and holds no more than one of at most `MAX_LINE_BYTES`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_passing_over = False

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes, without their ends."""
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            line = bytes(self._rest + part)
            self._rest.clear()
            if not self._is_passing_over and len(line) <= MAX_LINE_BYTES:
                yield line.removesuffix(b"\r")
            self._is_passing_over = False
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest.clear()
            self._is_passing_over = True
