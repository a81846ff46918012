"""A small CA in a directory, for people who have none: init, issue, revoke, sign the CRL, list.

The directory holds `ca.crt`, `ca.key`, `ca.crl` and `index.json`, which names every certificate
that was issued: `revoke` and `list_issued` go by it. Nothing that exists is overwritten but the CRL
and the index, each in one step; a key is 0600 from its first instant. One command at a time works
on a directory. It belongs on another machine than the agent's: who holds `ca.key` makes identities.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from host_agent.errors import ConfigurationError
from host_agent.identity import files
from host_agent.identity.certificate import fingerprint_of
from host_agent.identity.registry import is_common_name
from host_agent.pki.index import Index, Issued, decode, encode
from host_agent.pki.profiles import (
    KeyPair,
    RevokedSerial,
    Usage,
    new_ca,
    new_crl,
    new_leaf,
)

DEFAULT_NAME = "host-agent CA"
CA_DAYS = 3650
LEAF_DAYS = 90
CRL_DAYS = 30
MAX_DAYS = 3650

_CERTIFICATE, _KEY, _CRL, _INDEX = "ca.crt", "ca.key", "ca.crl", "index.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}))*",
    re.ASCII,
)
_LOCAL_NAMES = ("DNS:localhost", "IP:127.0.0.1", "IP:::1")
_KEPT_AFTER_EXPIRY = timedelta(days=30)
"""How long a revoked certificate stays on the CRL after its own end (RFC 5280, 3.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A CA directory as it was found, under its lock."""

    directory: Path
    ca: KeyPair
    index: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """What the newest CRL says."""

    number: int = 0
    revoked: tuple[RevokedSerial, ...] = ()


def init(
    directory: Path, *, name: str = DEFAULT_NAME, now: datetime, days: int = CA_DAYS
) -> x509.Certificate:
    """Make a CA in `directory`, which is made too where missing, and return its certificate.

    Raises:
        ValueError: `name` is empty, longer than 64 characters or not printable.
        ConfigurationError: a CA is there already, or the directory cannot be written. Nothing has
            changed then.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable():
        message = "the name of a CA has 1 to 64 printable characters"
        raise ValueError(message)
    ca = new_ca(name, now=now, days=days)
    first = new_crl(ca, (), number=1, now=now, days=CRL_DAYS)
    with _told():
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory), _undone_on_failure() as made:
            for taken in (_CERTIFICATE, _KEY, _CRL, _INDEX):
                _require_free(directory / taken)
            _create(directory / _KEY, ca.key_pem(), made, mode=files.PRIVATE)
            _create(directory / _CERTIFICATE, ca.certificate_pem(), made, mode=files.PUBLIC)
            _create(directory / _INDEX, encode(Index(crl_number=1)), made, mode=files.PRIVATE)
            _create(directory / _CRL, _pem(first), made, mode=files.PUBLIC)
            files.sync_directory(directory)
    return ca.certificate


def issue(
    directory: Path,
    *,
    common_name: str,
    usage: Usage,
    names: Sequence[str] = (),
    days: int | None = None,
    out: str | None = None,
    p12: Path | None = None,
    p12_password: bytes | None = None,
    now: datetime,
) -> Issued:
    """Issue a certificate with a fresh key into `OUT.crt` and `OUT.key`, and index it.

    `names` are `DNS:...` or `IP:...`, for servers only; a server without any gets its common name
    and the names of this machine's loopback. `out` is the common name where not given. `p12` is a
    further file with certificate, key and CA for a browser, 0600, encrypted only with a password.

    Raises:
        ValueError: a name or number that cannot be used.
        ConfigurationError: the directory holds no usable CA, or one of the files exists. Nothing
            has changed then.
    """
    _require_names(common_name, usage, names)
    stem = common_name if out is None else out
    if _FILE_NAME.fullmatch(stem) is None or stem == "ca":
        message = f"{stem!a} cannot name the files; give another name by --out"
        raise ValueError(message)
    with _opened(directory) as opened:
        leaf = new_leaf(
            opened.ca,
            common_name=common_name,
            usage=usage,
            names=_general_names(common_name, usage, names),
            now=now,
            days=_days_within(opened.ca.certificate, days, now=now),
        )
        issued = _describe(leaf, common_name=common_name, usage=usage, name=stem)
        bundle = None if p12 is None else _bundle(opened.ca, leaf, stem, p12_password)
        _store(opened, leaf, issued, p12=p12, bundle=bundle)
    return issued


def revoke(
    directory: Path,
    *,
    common_name: str | None = None,
    serial: int | None = None,
    days: int = CRL_DAYS,
    now: datetime,
) -> Sequence[Issued]:
    """Revoke every certificate of `common_name`, or the one with `serial`; return the fresh ones.

    The CRL is signed again in any case, under a higher number, so that a command that was cut off
    is finished by repeating it.

    Raises:
        LookupError: nothing of that name or serial was issued here; the message is one sentence.
        ConfigurationError: the directory holds no usable CA, or cannot be written.
    """
    with _opened(directory) as opened:
        index = opened.index
        meant = {
            entry.serial
            for entry in index.certificates
            if entry.common_name == common_name or entry.serial == serial
        }
        if not meant:
            what = f"for {common_name!a}" if serial is None else f"with serial {serial:x}"
            message = f"no certificate {what} was issued here; see `host-agent pki list`"
            raise LookupError(message)
        fresh = tuple(
            replace(entry, revoked_at=now)
            for entry in index.certificates
            if entry.serial in meant and entry.revoked_at is None
        )
        changed = {entry.serial: entry for entry in fresh}
        certificates = tuple(changed.get(entry.serial, entry) for entry in index.certificates)
        _sign(opened, replace(index, certificates=certificates), days=days, now=now)
    return fresh


def sign_crl(directory: Path, *, days: int = CRL_DAYS, now: datetime) -> int:
    """Sign the CRL again, to be renewed within `days`, and return its number.

    Raises:
        ConfigurationError: the directory holds no usable CA, or cannot be written.
    """
    with _opened(directory) as opened:
        return _sign(opened, opened.index, days=days, now=now)


def list_issued(directory: Path) -> Sequence[Issued]:
    """Return every certificate that was issued in `directory`, oldest first.

    Raises:
        ConfigurationError: there is no index, or it cannot be read.
    """
    return _read_index(directory).certificates


# -- checks -----------------------------------------------------------------------------------


def _require_names(common_name: str, usage: Usage, names: Sequence[str]) -> None:
    if usage is Usage.CLIENT and not is_common_name(common_name):
        message = (
            f"{common_name!a} cannot name an identity: 1 to 64 of a-z 0-9 _ . -, "
            "the first a letter or _, and not root"
        )
        raise ValueError(message)
    if usage is Usage.SERVER and _FILE_NAME.fullmatch(common_name) is None:
        message = f"{common_name!a} cannot name a server: 1 to 64 of A-Z a-z 0-9 _ . -"
        raise ValueError(message)
    if usage is Usage.CLIENT and names:
        message = "--san is for servers; a client is known by its common name"
        raise ValueError(message)


def _general_names(
    common_name: str, usage: Usage, names: Sequence[str]
) -> Sequence[x509.GeneralName]:
    if usage is Usage.CLIENT:
        return ()
    own = f"IP:{common_name}" if _is_address(common_name) else f"DNS:{common_name}"
    return tuple(general_name(name) for name in dict.fromkeys(names or (own, *_LOCAL_NAMES)))


def general_name(name: str) -> x509.GeneralName:
    """Return a server's name, `DNS:...` or `IP:...`, as a certificate has it.

    Raises:
        ValueError: it is none.
    """
    kind, _, value = name.partition(":")
    if kind == "IP" and _is_address(value):
        return x509.IPAddress(ip_address(value))
    if kind == "DNS" and _HOST_NAME.fullmatch(value) is not None and not _is_address(value):
        return x509.DNSName(value)
    message = f"{name!a} is not a name for --san; write DNS:host.example or IP:192.0.2.1"
    raise ValueError(message)


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return "%" not in value


def _days_within(ca: x509.Certificate, days: int | None, *, now: datetime) -> int:
    wanted = LEAF_DAYS if days is None else days
    left = (ca.not_valid_after_utc - now).days
    if not 1 <= wanted <= MAX_DAYS:
        message = f"--days is 1 to {MAX_DAYS}"
        raise ValueError(message)
    if wanted > left:
        message = f"the CA itself ends in {left} days; give fewer --days, or make a new CA"
        raise ValueError(message)
    return wanted


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise ConfigurationError([f"{path} exists already; nothing was changed"])


# -- files ------------------------------------------------------------------------------------


def _store(
    opened: _Opened, leaf: KeyPair, issued: Issued, *, p12: Path | None, bundle: bytes | None
) -> None:
    """Write the files of `leaf`. It is indexed before it exists, so it can always be revoked."""
    certificate = opened.directory / f"{issued.name}.crt"
    key = opened.directory / f"{issued.name}.key"
    for path in (certificate, key, *([] if p12 is None else [p12])):
        _require_free(path)
    grown = replace(opened.index, certificates=(*opened.index.certificates, issued))
    with _undone_on_failure() as made:
        _create(key, leaf.key_pem(), made, mode=files.PRIVATE)
        _write_index(opened.directory, grown)
        try:
            if p12 is not None and bundle is not None:
                _create(p12, bundle, made, mode=files.PRIVATE)
            _create(certificate, leaf.certificate_pem(), made, mode=files.PUBLIC)
            files.sync_directory(opened.directory)
        except BaseException:
            with suppress(OSError):
                _write_index(opened.directory, opened.index)
            raise


def _sign(opened: _Opened, index: Index, *, days: int, now: datetime) -> int:
    """Write the index, then the CRL that says the same: repeating it completes it."""
    if not 1 <= days <= MAX_DAYS:
        message = f"--days is 1 to {MAX_DAYS}"
        raise ValueError(message)
    if now >= opened.ca.certificate.not_valid_after_utc:
        raise ConfigurationError([f"{opened.directory / _CERTIFICATE} has expired; make a new CA"])
    published = _published(opened)
    number = max(index.crl_number, published.number) + 1
    known = {entry.serial for entry in index.certificates if entry.revoked_at is not None}
    revoked = [entry for entry in published.revoked if entry.serial not in known] + [
        RevokedSerial(serial=entry.serial, at=entry.revoked_at)
        for entry in index.certificates
        if entry.revoked_at is not None and now < entry.not_valid_after + _KEPT_AFTER_EXPIRY
    ]
    crl = new_crl(opened.ca, revoked, number=number, now=now, days=days)
    _write_index(opened.directory, replace(index, crl_number=number))
    files.replace(opened.directory / _CRL, _pem(crl), mode=files.PUBLIC)
    return number


def _published(opened: _Opened) -> _Published:
    """Return what the CRL that lies there says; an older index may have been restored since.

    A missing, damaged or foreign one says nothing: it is about to be signed anew.
    """
    try:
        crl = x509.load_pem_x509_crl(files.read_plain(opened.directory / _CRL))
        if not crl.is_signature_valid(opened.ca.private_key.public_key()):
            return _Published()
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        revoked = tuple(
            RevokedSerial(serial=entry.serial_number, at=entry.revocation_date_utc) for entry in crl
        )
    except (ValueError, x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension):
        return _Published()
    return _Published(number=number, revoked=revoked)


def _read_index(directory: Path) -> Index:
    path = directory / _INDEX
    try:
        return decode(files.read_plain(path))
    except ValueError as error:
        reason = str(error) if str(path) in str(error) else f"{path} is damaged"
        raise ConfigurationError(
            [f"{reason}; give a directory that `host-agent pki init` made by --dir"]
        ) from error


def _write_index(directory: Path, index: Index) -> None:
    files.replace(directory / _INDEX, encode(index), mode=files.PRIVATE)


def _read_ca(directory: Path) -> KeyPair:
    try:
        certificate = x509.load_pem_x509_certificate(files.read_plain(directory / _CERTIFICATE))
        key = serialization.load_pem_private_key(_read_private(directory / _KEY), password=None)
    except (TypeError, ValueError, x509.InvalidVersion) as error:
        reason = str(error) if str(directory) in str(error) else f"the CA in {directory} is damaged"
        raise ConfigurationError([reason]) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != (
        certificate.public_key()
    ):
        raise ConfigurationError(
            [f"{directory / _KEY} does not belong to {directory / _CERTIFICATE}"]
        )
    return KeyPair(certificate=certificate, private_key=key)


def _read_private(path: Path) -> bytes:
    data = files.read_plain(path)
    if path.lstat().st_mode & 0o077:
        raise ConfigurationError([f"{path} is open to others than its owner; `chmod 600 {path}`"])
    return data


def _create(path: Path, data: bytes, made: list[Path], *, mode: int) -> None:
    files.create(path, data, mode=mode)
    made.append(path)


@contextmanager
def _undone_on_failure() -> Iterator[list[Path]]:
    """Give a list for what was made, and remove that again if the block fails."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.unlink()
        raise


@contextmanager
def _opened(directory: Path) -> Iterator[_Opened]:
    """Hold the directory's lock and give what is in it."""
    with _told(), _locked(directory):
        index = _read_index(directory)
        yield _Opened(directory=directory, ca=_read_ca(directory), index=index)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _told() -> Iterator[None]:
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


# -- values -----------------------------------------------------------------------------------


def _describe(leaf: KeyPair, *, common_name: str, usage: Usage, name: str) -> Issued:
    certificate = leaf.certificate
    return Issued(
        common_name=common_name,
        usage=usage,
        serial=certificate.serial_number,
        fingerprint=fingerprint_of(certificate.public_bytes(serialization.Encoding.DER)),
        not_valid_before=certificate.not_valid_before_utc,
        not_valid_after=certificate.not_valid_after_utc,
        name=name,
    )


def _bundle(ca: KeyPair, leaf: KeyPair, name: str, password: bytes | None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return pkcs12.serialize_key_and_certificates(
        name.encode(), leaf.private_key, leaf.certificate, [ca.certificate], encryption
    )


def _pem(crl: x509.CertificateRevocationList) -> bytes:
    return crl.public_bytes(serialization.Encoding.PEM)
