"""The files of a CA's directory: opened under one lock, read whole, written whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from host_agent.errors import ConfigurationError
from host_agent.identity import files
from host_agent.pki.index import Index, decode, encode
from host_agent.pki.profiles import KeyPair

CERTIFICATE, KEY, CRL, INDEX = "ca.crt", "ca.key", "ca.crl", "index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedAuthority:
    """A CA directory as it was found, under its lock."""

    directory: Path
    ca: KeyPair
    index: Index


@contextmanager
def open_authority(directory: Path) -> Iterator[OpenedAuthority]:
    """Hold the directory's lock and give what is in it."""
    with told(), locked(directory):
        index = read_index(directory)
        yield OpenedAuthority(directory=directory, ca=_read_ca(directory), index=index)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep every other command off the directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def told() -> Iterator[None]:
    """Turn what the operating system refuses into one sentence."""
    try:
        yield
    except FileExistsError as error:
        raise ConfigurationError(
            [f"{error.filename} exists already; nothing was changed"]
        ) from error
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise ConfigurationError(
            [f"{error.filename or 'the directory'} cannot be used: {reason}"]
        ) from error


@contextmanager
def undone_on_failure() -> Iterator[list[Path]]:
    """Give a list for what was made, and remove that again if the block fails."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.unlink()
        raise


def create(path: Path, data: bytes, made: list[Path], *, mode: int) -> None:
    """Write a new file, and note it in `made`."""
    files.create(path, data, mode=mode)
    made.append(path)


def require_free(path: Path) -> None:
    """Refuse to write where something is.

    Raises:
        ConfigurationError: there is.
    """
    if os.path.lexists(path):
        raise ConfigurationError([f"{path} exists already; nothing was changed"])


def read_index(directory: Path) -> Index:
    """Return what was issued.

    Raises:
        ConfigurationError: there is no index, or it is damaged.
    """
    path = directory / INDEX
    try:
        return decode(files.read_plain(path))
    except ValueError as error:
        reason = str(error) if str(path) in str(error) else f"{path} is damaged"
        raise ConfigurationError(
            [f"{reason}; give a directory that `host-agent pki init` made by --dir"]
        ) from error


def write_index(directory: Path, index: Index) -> None:
    """Put `index` in the place of the one before, in one step."""
    files.replace(directory / INDEX, encode(index), mode=files.PRIVATE)


def read_certificate(directory: Path) -> x509.Certificate:
    """Return the CA's certificate, which never changes: no lock is needed.

    Raises:
        ConfigurationError: it cannot be read.
    """
    path = directory / CERTIFICATE
    try:
        return x509.load_pem_x509_certificate(files.read_plain(path))
    except (ValueError, x509.InvalidVersion) as error:
        reason = str(error) if str(path) in str(error) else f"{path} is damaged"
        raise ConfigurationError([reason]) from error


def _read_ca(directory: Path) -> KeyPair:
    try:
        certificate = x509.load_pem_x509_certificate(files.read_plain(directory / CERTIFICATE))
        key = serialization.load_pem_private_key(_read_private(directory / KEY), password=None)
    except (TypeError, ValueError, x509.InvalidVersion) as error:
        reason = str(error) if str(directory) in str(error) else f"the CA in {directory} is damaged"
        raise ConfigurationError([reason]) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != (
        certificate.public_key()
    ):
        raise ConfigurationError(
            [f"{directory / KEY} does not belong to {directory / CERTIFICATE}"]
        )
    return KeyPair(certificate=certificate, private_key=key)


def _read_private(path: Path) -> bytes:
    data = files.read_plain(path)
    if path.lstat().st_mode & 0o077:
        raise ConfigurationError([f"{path} is open to others than its owner; `chmod 600 {path}`"])
    return data
