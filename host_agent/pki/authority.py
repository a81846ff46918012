"""A small CA in a directory, for people who have none: init, issue, revoke, sign the CRL, list.

The directory holds `ca.crt`, `ca.key`, `ca.crl` and `index.json`, which names every certificate
that was issued: `revoke` and `list_issued` go by it. Nothing that exists is overwritten but the CRL
and the index, each in one step; a key is 0600 from its first instant. One command at a time works
on a directory. It belongs on another machine than the agent's: who holds `ca.key` makes identities.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from host_agent.errors import ConfigurationError
from host_agent.identity import files
from host_agent.identity.certificate import fingerprint_of
from host_agent.identity.registry import is_common_name
from host_agent.pki.directory import (
    CERTIFICATE,
    CRL,
    INDEX,
    KEY,
    OpenedAuthority,
    create,
    locked,
    open_authority,
    read_index,
    require_free,
    told,
    undone_on_failure,
    write_index,
)
from host_agent.pki.index import Index, Issued, encode
from host_agent.pki.profiles import (
    KeyPair,
    RevokedSerial,
    Usage,
    key_hash,
    new_ca,
    new_crl,
    new_leaf,
)
from host_agent.pki.request import certified_key

DEFAULT_NAME = "host-agent CA"
CA_DAYS = 3650
LEAF_DAYS = 90
CRL_DAYS = 30
MAX_DAYS = 3650

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
    with told():
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory), undone_on_failure() as made:
            for taken in (CERTIFICATE, KEY, CRL, INDEX):
                require_free(directory / taken)
            create(directory / KEY, ca.key_pem(), made, mode=files.PRIVATE)
            create(directory / CERTIFICATE, ca.certificate_pem(), made, mode=files.PUBLIC)
            create(directory / INDEX, encode(Index(crl_number=1)), made, mode=files.PRIVATE)
            create(directory / CRL, _pem(first), made, mode=files.PUBLIC)
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
    require_names(common_name, usage, names)
    stem = require_file_name(common_name if out is None else out)
    with open_authority(directory) as opened:
        leaf = new_leaf(
            opened.ca,
            common_name=common_name,
            usage=usage,
            names=general_names(common_name, usage, names),
            now=now,
            days=days_within(opened.ca.certificate, days, now=now),
        )
        issued = describe(leaf.certificate, common_name=common_name, usage=usage, name=stem)
        bundle = None if p12 is None else _bundle(opened.ca, leaf, stem, p12_password)
        further = [] if p12 is None or bundle is None else [(p12, bundle)]
        store(opened, leaf.certificate, issued, key=leaf.key_pem(), further=further)
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

    What was renewed from one goes with it. The CRL is signed again in any case, under a higher
    number, so that a command that was cut off is finished by repeating it.

    Raises:
        LookupError: nothing of that name or serial was issued here; the message is one sentence.
        ConfigurationError: the directory holds no usable CA, or cannot be written.
    """
    with open_authority(directory) as opened:
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
        meant = index.successors(meant)
        fresh = tuple(
            replace(entry, revoked_at=now)
            for entry in index.certificates
            if entry.serial in meant and entry.revoked_at is None
        )
        changed = {entry.serial: entry for entry in fresh}
        certificates = tuple(changed.get(entry.serial, entry) for entry in index.certificates)
        _sign(opened, replace(index, certificates=certificates), days=days, now=now)
    return fresh


def sign_crl(
    directory: Path, *, days: int = CRL_DAYS, now: datetime, publish: Path | None = None
) -> int:
    """Sign the CRL again, to be renewed within `days`, and return its number.

    It is put in the place of `publish` too, before another command may sign a newer one: what a
    person revokes and copies meanwhile is not undone.

    Raises:
        ConfigurationError: the directory holds no usable CA, or cannot be written, or `publish`.
    """
    with open_authority(directory) as opened:
        number = _sign(opened, opened.index, days=days, now=now)
        if publish is not None:
            _publish(files.read_plain(directory / CRL), publish)
    return number


def _publish(crl: bytes, place: Path) -> None:
    try:
        files.replace(place, crl, mode=files.PUBLIC)
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise ConfigurationError([f"{place} cannot be written: {reason}"]) from error


def list_issued(directory: Path) -> Sequence[Issued]:
    """Return every certificate that was issued in `directory`, oldest first.

    Raises:
        ConfigurationError: there is no index, or it cannot be read.
    """
    return read_index(directory).certificates


# -- checks -----------------------------------------------------------------------------------


def require_file_name(stem: str) -> str:
    """Return `stem` if it can name the files of a certificate.

    Raises:
        ValueError: it cannot.
    """
    if _FILE_NAME.fullmatch(stem) is None or stem == "ca":
        message = f"{stem!a} cannot name the files; give another name by --out"
        raise ValueError(message)
    return stem


def require_names(common_name: str, usage: Usage, names: Sequence[str]) -> None:
    """Refuse names that a certificate of this use cannot have.

    Raises:
        ValueError: it has one.
    """
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


def general_names(
    common_name: str, usage: Usage, names: Sequence[str]
) -> Sequence[x509.GeneralName]:
    """Return the subjectAltName; a server without `names` gets its own and those of loopback."""
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


def days_within(ca: x509.Certificate, days: int | None, *, now: datetime) -> int:
    """Return how long a certificate lives.

    Raises:
        ValueError: longer than the CA, or no number of days.
    """
    wanted = LEAF_DAYS if days is None else days
    left = (ca.not_valid_after_utc - now).days
    if not 1 <= wanted <= MAX_DAYS:
        message = f"--days is 1 to {MAX_DAYS}"
        raise ValueError(message)
    if wanted > left:
        message = f"the CA itself ends in {left} days; give fewer --days, or make a new CA"
        raise ValueError(message)
    return wanted


# -- files ------------------------------------------------------------------------------------


def store(
    opened: OpenedAuthority,
    certificate: x509.Certificate,
    issued: Issued,
    *,
    key: bytes | None = None,
    further: Sequence[tuple[Path, bytes]] = (),
) -> None:
    """Write the files of a certificate; its key and `further` ones are private.

    It is indexed before it exists, so it can always be revoked.

    Raises:
        ConfigurationError: one of the files exists.
        OSError: one cannot be written. Nothing is left then.
    """
    path = opened.directory / f"{issued.name}.crt"
    key_path = opened.directory / f"{issued.name}.key"
    for taken in (path, *([] if key is None else [key_path]), *(place for place, _ in further)):
        require_free(taken)
    grown = replace(opened.index, certificates=(*opened.index.certificates, issued))
    with undone_on_failure() as made:
        if key is not None:
            create(key_path, key, made, mode=files.PRIVATE)
        write_index(opened.directory, grown)
        try:
            for place, content in further:
                create(place, content, made, mode=files.PRIVATE)
            pem = certificate.public_bytes(serialization.Encoding.PEM)
            create(path, pem, made, mode=files.PUBLIC)
            files.sync_directory(opened.directory)
        except BaseException:
            with suppress(OSError):
                write_index(opened.directory, opened.index)
            raise


def _sign(opened: OpenedAuthority, index: Index, *, days: int, now: datetime) -> int:
    """Write the index, then the CRL that says the same: repeating it completes it."""
    if not 1 <= days <= MAX_DAYS:
        message = f"--days is 1 to {MAX_DAYS}"
        raise ValueError(message)
    if now >= opened.ca.certificate.not_valid_after_utc:
        raise ConfigurationError([f"{opened.directory / CERTIFICATE} has expired; make a new CA"])
    published = _published(opened)
    number = max(index.crl_number, published.number) + 1
    known = {entry.serial for entry in index.certificates if entry.revoked_at is not None}
    revoked = [entry for entry in published.revoked if entry.serial not in known] + [
        RevokedSerial(serial=entry.serial, at=entry.revoked_at)
        for entry in index.certificates
        if entry.revoked_at is not None and now < entry.not_valid_after + _KEPT_AFTER_EXPIRY
    ]
    crl = new_crl(opened.ca, revoked, number=number, now=now, days=days)
    write_index(opened.directory, replace(index, crl_number=number))
    files.replace(opened.directory / CRL, _pem(crl), mode=files.PUBLIC)
    return number


def is_revoked(opened: OpenedAuthority, entry: Issued) -> bool:
    """Return whether a certificate is revoked, by the index or by the CRL that lies there."""
    if entry.revoked_at is not None:
        return True
    try:
        crl = _own_crl(opened)
    except (ValueError, x509.InvalidVersion):
        return False
    return (
        crl is not None and crl.get_revoked_certificate_by_serial_number(entry.serial) is not None
    )


def _own_crl(opened: OpenedAuthority) -> x509.CertificateRevocationList | None:
    """Return the CRL that lies there; None where it is of another authority."""
    crl = x509.load_pem_x509_crl(files.read_plain(opened.directory / CRL))
    return crl if crl.is_signature_valid(opened.ca.private_key.public_key()) else None


def _published(opened: OpenedAuthority) -> _Published:
    """Return what the CRL that lies there says; an older index may have been restored since.

    A missing, damaged or foreign one says nothing: it is about to be signed anew.
    """
    try:
        crl = _own_crl(opened)
        if crl is None:
            return _Published()
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        revoked = tuple(
            RevokedSerial(serial=entry.serial_number, at=entry.revocation_date_utc) for entry in crl
        )
    except (ValueError, x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension):
        return _Published()
    return _Published(number=number, revoked=revoked)


# -- values -----------------------------------------------------------------------------------


def describe(certificate: x509.Certificate, *, common_name: str, usage: Usage, name: str) -> Issued:
    """Return what the index says of a certificate."""
    return Issued(
        common_name=common_name,
        usage=usage,
        serial=certificate.serial_number,
        fingerprint=fingerprint_of(certificate.public_bytes(serialization.Encoding.DER)),
        not_valid_before=certificate.not_valid_before_utc,
        not_valid_after=certificate.not_valid_after_utc,
        name=name,
        key=key_hash(certified_key(certificate)),
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
