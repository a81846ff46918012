"""Connections of `outbound`: made to an address that was looked at, and to no other.

Imported when something is sent for the first time: an agent without channels loads none of it.
"""

import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import certifi
import httpcore

from host_agent.notify.addresses import Target, address_fault
from host_agent.notify.blocking_calls import BusyError, Detached
from host_agent.notify.channel import ChannelError
from host_agent.requests.notification import Failure

ADDRESS_SECONDS = 5.0
"""For one address of several: one that drops packets must not use up the whole deadline."""
MAX_ADDRESSES = 8
logging.getLogger("httpcore").setLevel(logging.WARNING)  # below, it quotes headers

_LOOKUPS = 4
_CONNECTIONS = 4
_KEPT_SECONDS = 10.0

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""Returns every address of a name; blocks, and raises `OSError` where there is none."""

_Option: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


def system_addresses(host: str, port: int) -> Sequence[str]:
    """Return the addresses of `host` by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def open_pool(
    target: Target, *, context: ssl.SSLContext, resolve: Resolve
) -> httpcore.AsyncConnectionPool:
    """Return connections to `target`, none of them made yet: HTTP/1.1, no proxy, no retries."""
    return httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=_CONNECTIONS,
        keepalive_expiry=_KEPT_SECONDS,
        network_backend=CheckedBackend(target, resolve),
    )


def client_context(ca_file: Path | None, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return a TLS context that trusts `ca_file` alone, or else the system's authorities.

    Names are verified. The environment (`SSL_CERT_FILE`) does not count. `pair` are the files of
    the certificate to show and of its key.

    Raises:
        OSError: a file cannot be read, or does not hold what it should (`ssl.SSLError`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pair is not None:
        # An encrypted key is refused: there is nobody to type its password.
        context.load_cert_chain(*pair, password=lambda: "")
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
        return context
    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    if file.is_file():
        context.load_verify_locations(cafile=file)
    elif folder.is_dir() and any(folder.iterdir()):
        context.load_verify_locations(capath=folder)
    else:
        context.load_verify_locations(cafile=certifi.where())
    return context


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves the target's name, refuses it if any address is none of a service, and dials.

    The connection is to the address that was looked at: a name that answers differently the next
    time leads nowhere else. TLS still asks for the name of the URL.
    """

    def __init__(self, target: Target, resolve: Resolve) -> None:
        self._target = target
        self._resolve = resolve
        self._lookups = Detached(limit=_LOOKUPS, name="host-agent-resolve")
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - the signature is the port's
        socket_options: Iterable[_Option] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to the first address of `host` that takes one.

        Raises:
            ChannelError: there is no address, one may not be sent to, or none answers.
        """
        seconds = ADDRESS_SECONDS if timeout is None else min(timeout, ADDRESS_SECONDS)
        for address in await self.addresses(host, port):
            try:
                stream = await self._network.connect_tcp(address, port, timeout=seconds)
                return ClosingStream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        message = f"{self._target.place} does not accept connections."
        raise ChannelError(Failure.UNREACHABLE, message)

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of `host`, each of them looked at.

        Raises:
            ChannelError: there is none, or one of them may not be sent to.
        """
        try:
            found = await self._lookups.call(lambda: self._resolve(host, port))
        except (OSError, UnicodeError, BusyError):
            found = ()
        if not found:
            message = f"The name of {self._target.place} cannot be resolved."
            raise ChannelError(Failure.UNREACHABLE, message) from None
        for address in found:
            if fault := address_fault(address, target=self._target):
                message = f"Nothing is sent to {self._target.place}: an address of it {fault}."
                raise ChannelError(Failure.REFUSED, message)
        return found[:MAX_ADDRESSES]

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool asks between its own tries; it makes none."""
        await self._network.sleep(seconds)


class ClosingStream(httpcore.AsyncNetworkStream):
    """A connection that is closed when its TLS handshake fails; httpcore leaves it open."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Hang up."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return the same connection under TLS."""
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as the port has it
        """Return what the connection knows of itself."""
        return self._stream.get_extra_info(info)
