"""How the client reaches the agent: TLS, deadlines, bounds, and errors with advice.

TLS 1.3 with this principal's certificate; the server is verified against the given CA alone (not
the system's), by name, strictly.
"""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from host_agent.api.wire.events import EVENT_STREAM
from host_agent.client.exchange import Call, DeadlineError, HandshakeError, Reply
from host_agent.errors import (
    CertificateRefusedError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidAnswerError,
)

CONNECT_SECONDS = 10.0


def client_context(*, cert: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """Return the TLS context of a client: TLS 1.3, this certificate, this CA and no other.

    Raises:
        ConfigurationError: a file is missing or unreadable, is not what it should be, the key does
            not belong to the certificate, or it is encrypted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with _naming("ca", ca, "is not a PEM certificate"):
        context.load_verify_locations(cafile=ca)
    for name, path in (("cert", cert), ("key", key)):
        with _naming(name, path, "cannot be read"), path.open("rb"):
            pass
    with _naming("key", key, f"is encrypted, not a PEM key, or not the key of {cert}"):
        context.load_cert_chain(cert, key, password=_no_password)
    return context


class ClientFiles:
    """The files of a client, whose certificate and key somebody may renew while it runs."""

    def __init__(self, *, cert: Path, key: Path, ca: Path) -> None:
        self._files = {"cert": cert, "key": key, "ca": ca}
        self._seen = self._state()
        self.context = client_context(**self._files)

    def have_changed(self) -> bool:
        """Return whether certificate or key are new ones, and `context` is of these now.

        Of files that cannot be read or do not belong together, as between two steps of a renewal,
        nothing is taken, and they are looked at again the next time.
        """
        now = self._state()
        if now is None or now == self._seen:
            return False
        try:
            self.context = client_context(**self._files)
        except ConfigurationError:
            return False
        self._seen = now
        return True

    def _state(self) -> tuple[tuple[int, ...], ...] | None:
        try:
            found = [self._files[name].stat() for name in ("cert", "key")]
        except OSError:
            return None
        return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in found)


def _no_password() -> str:
    message = "the private key is encrypted"
    raise ssl.SSLError(message)


@contextmanager
def _naming(name: str, path: Path, fault: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError:
        raise ConfigurationError([f"{name}: {path} {fault}."]) from None
    except OSError as error:
        raise ConfigurationError([f"{name}: {path}: {error.strerror}."]) from None


def checked_url(url: str) -> str:
    """Return `url` without a trailing slash.

    Raises:
        ConfigurationError: it is not `https://HOST[:PORT]`.
    """
    try:
        parts = urlsplit(url)
        is_plain = parts.path in ("", "/") and not (parts.query or parts.fragment)
        is_good = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc
        _ = parts.port
    except ValueError:
        is_good = is_plain = False
    if not (is_good and is_plain and url.isascii() and url.isprintable()):
        raise ConfigurationError(["url: give it as https://HOST or https://HOST:PORT."])
    return url.removesuffix("/")


def timeout_of(call: Call) -> httpx.Timeout:
    """Return the deadlines of each step of `call`; `Received` holds the one for all of it."""
    return httpx.Timeout(call.seconds, connect=min(CONNECT_SECONDS, call.seconds))


def headers_of(call: Call) -> dict[str, str]:
    """Return the header fields to send."""
    return {"Accept": "application/json", "Accept-Encoding": "identity", **call.headers}


def is_stream(response: httpx.Response) -> bool:
    """Return whether this is a stream of events, and no other answer."""
    kind = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
    return response.status_code == httpx.codes.OK and kind == EVENT_STREAM


class Received:
    """The body of one answer while it arrives, bounded in size and in time."""

    def __init__(self, response: httpx.Response, *, limit: int, deadline: float) -> None:
        self._response = response
        self._limit = limit
        self._deadline = deadline
        self._content = bytearray()
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            message = "The answer is encoded, which host-agent never does: check the URL."
            raise InvalidAnswerError(message)

    @property
    def is_late(self) -> bool:
        """Return whether the deadline of the exchange has passed."""
        return time.monotonic() > self._deadline

    def add(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidAnswerError: they are too many.
            DeadlineError: they come too late.
        """
        self._content += chunk
        if len(self._content) > self._limit:
            message = f"The answer is larger than {self._limit} bytes; ask for less at a time."
            raise InvalidAnswerError(message)
        if self.is_late:
            message = "The agent's answer did not end in time; look at the request before asking."
            raise DeadlineError(message)

    def reply(self) -> Reply:
        """Return the whole answer."""
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        return Reply(
            status=self._response.status_code, headers=headers, content=bytes(self._content)
        )


@contextmanager
def translating(url: str, call: Call) -> Iterator[None]:
    """Let only this project's errors out of an exchange."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        message = f"{url} did not accept the connection in time: check the URL and the network."
        raise ConnectionFailedError(message) from error
    except httpx.TimeoutException as error:
        unsure = "" if call.method == "GET" else " It may have been followed: look before retrying."
        message = f"No answer from {url} within {call.seconds:.0f} s.{unsure}"
        raise DeadlineError(message) from error
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, UnicodeError) as error:
        # UnicodeError: a name that has no form in the DNS, `..` or a label of 64 characters.
        raise _connection_error(url, error) from error


def _connection_error(url: str, error: BaseException) -> ConnectionFailedError:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return HandshakeError(
                f"The certificate of {url} could not be verified ({cause.verify_message}):"
                " check the URL's host name and the CA file."
            )
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
            words = str(cause.reason).partition("ALERT_")[2].replace("_", " ").lower()
            if any(word in words for word in ("certificate", "unknown ca", "access denied")):
                return CertificateRefusedError(
                    f"{url} refused this client's certificate ({words}):"
                    " have a current one issued by the CA that the agent trusts."
                )
            return HandshakeError(f"{url} ended the TLS handshake ({words}): check the URL.")
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return HandshakeError(f"{url} does not speak TLS 1.3: check the URL.")
    reason = next((c.strerror for c in _causes(error) if isinstance(c, OSError) and c.strerror), "")
    words = f" ({reason})" if reason else ""
    return ConnectionFailedError(
        f"{url} could not be reached, or closed the connection{words}:"
        " check the URL, and that the agent runs."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
