"""Revocation: a verified CRL as a set of serials, asked on every request.

A list is accepted only if it is whole, current and signed by our CA. While the agent runs, a bad
or older list never replaces a good one; the good one serves until its `nextUpdate`, and from then
on nobody gets in. There is no state in which a configured list means "allow".
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from host_agent.errors import (
    InvalidIdentityError,
    RevocationUnavailableError,
    RevokedIdentityError,
)
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.files import read_plain

CLOCK_SKEW = timedelta(minutes=5)
"""How far in the future a list's `thisUpdate` may be."""

_SETTLED_SECONDS = 2.0
"""A file that changed more recently than this is read again: its times are too coarse to trust."""

_RETRY_AFTER = timedelta(seconds=60)
"""When a rejected file that does not change is looked at again (its time may have come)."""

_KNOWN_EXTENSIONS = (x509.CRLNumber, x509.AuthorityKeyIdentifier, x509.AuthorityInformationAccess)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A verified CRL.

    `issuer` is the DER of its issuer's name, `issuer_key` the subjectKeyIdentifier of the CA whose
    key verified it, `number` its CRL number; the latter two where they exist.
    """

    issuer: bytes
    issuer_key: bytes | None
    number: int | None
    this_update: datetime
    next_update: datetime
    serials: frozenset[int]

    @classmethod
    def load(
        cls, data: bytes, issuers: Sequence[x509.Certificate], now: datetime
    ) -> "RevocationList":
        """Return the list in `data` (PEM or DER, one list), signed by one of `issuers`.

        Raises:
            ValueError: it cannot be read, is expired, not begun, foreign, or covers only a part of
                its CA's certificates; the message is a sentence fragment that says which.
        """
        crl = _parse(data)
        _require_complete(crl)
        if crl.next_update_utc is None:
            message = "the revocation list has no nextUpdate"
            raise ValueError(message)
        signer = next((issuer for issuer in issuers if _signed_by(crl, issuer)), None)
        if signer is None:
            message = "the revocation list is not signed by the client CA"
            raise ValueError(message)
        if now >= crl.next_update_utc:
            message = f"the revocation list expired at {crl.next_update_utc:%Y-%m-%dT%H:%M:%SZ}"
            raise ValueError(message)
        if crl.last_update_utc > now + CLOCK_SKEW:
            message = f"the revocation list begins at {crl.last_update_utc:%Y-%m-%dT%H:%M:%SZ} only"
            raise ValueError(message)
        return cls(
            issuer=crl.issuer.public_bytes(),
            issuer_key=_key_identifier(signer),
            number=_number(crl),
            this_update=crl.last_update_utc,
            next_update=crl.next_update_utc,
            serials=_serials(crl),
        )

    def covers(self, certificate: PeerCertificate) -> bool:
        """Return whether the CA of this list issued `certificate`, by name and by key."""
        if certificate.issuer != self.issuer:
            return False
        keys = {self.issuer_key, certificate.issuer_key} - {None}
        return len(keys) < 2

    def is_revoked(self, serial: int) -> bool:
        """Return whether `serial` is on the list."""
        return serial in self.serials

    def is_older_than(self, other: "RevocationList") -> bool:
        """Return whether `other` supersedes this list.

        The CRL number decides (RFC 5280, 5.2.3); `thisUpdate` where the numbers are equal or one
        is missing. Lists of two issuers are never older than one another.
        """
        if (self.issuer, self.issuer_key) != (other.issuer, other.issuer_key):
            return False
        if self.number is not None and other.number is not None and self.number != other.number:
            return self.number < other.number
        return self.this_update < other.this_update


class Revocation:
    """The configured CRL file, followed while the agent runs.

    `path` of None means that no list is configured: then nothing is revoked. `previous` is the
    object that a reload replaces, so that a reload cannot bring back an older list. Nothing is
    read before `load`. The clock is the caller's.
    """

    def __init__(
        self, path: Path | None, ca_path: Path, *, previous: "Revocation | None" = None
    ) -> None:
        self._path = path
        self._ca_path = ca_path
        self._issuers: Sequence[x509.Certificate] = ()
        self._list = None if previous is None else previous.current
        self._loaded = False
        self._stamp: tuple[int, ...] | None = None
        self._content = b""
        self._complaint: str | None = None
        self._retry_at: datetime | None = None

    @property
    def current(self) -> RevocationList | None:
        """The list that serves now."""
        return self._list

    @property
    def next_update(self) -> datetime | None:
        """When the serving list ends; None without a configured list."""
        return None if self._path is None or self._list is None else self._list.next_update

    @property
    def complaint(self) -> str | None:
        """Why the file as it is now was rejected, while an earlier list serves; else None."""
        return self._complaint

    def load(self, now: datetime) -> None:
        """Read the CA and the list for the first time.

        Raises:
            ValueError: either cannot be used, or the list is older than the one that `previous`
                had; the message is one sentence.
        """
        if self._path is None:
            self._list, self._loaded = None, True
            return
        self._issuers = load_issuers(self._ca_path)
        stamp = _stamp(self._path)
        data = read_plain(self._path)
        self._list = self._accept(data, now)
        self._loaded = True
        self._remember(stamp, data, now)

    def check(self, certificate: PeerCertificate, now: datetime) -> None:
        """Return if `certificate` may be listened to at `now`.

        Raises:
            RevocationUnavailableError: the list has passed its `nextUpdate`, or was never loaded.
            InvalidIdentityError: another CA issued the certificate than signs the list.
            RevokedIdentityError: the certificate is on the list.
        """
        serving = self._serving(now)
        if serving is not None and not serving.covers(certificate):
            raise InvalidIdentityError(
                "This client certificate is not accepted: its revocation cannot be checked. "
                "Use one that was issued for this host."
            )
        self.check_serial(certificate.serial, now)

    def check_serial(self, serial: int, now: datetime) -> None:
        """Return if a certificate that was accepted before is still unrevoked at `now`.

        Raises:
            RevocationUnavailableError: the list has passed its `nextUpdate`, or was never loaded.
            RevokedIdentityError: the serial is on the list.
        """
        serving = self._serving(now)
        if serving is not None and serving.is_revoked(serial):
            raise RevokedIdentityError(
                "This certificate is revoked; ask the administrator of this host for a new one."
            )

    def _serving(self, now: datetime) -> RevocationList | None:
        """Return the list to ask, None only where none is configured."""
        if self._path is None and self._loaded:
            return None
        serving = self._list
        if not self._loaded or serving is None or now >= serving.next_update:
            raise RevocationUnavailableError(
                "Revocation cannot be checked because the revocation list is out of date, so "
                "nobody is let in; ask the administrator of this host to renew it."
            )
        return serving

    def refresh(self, now: datetime) -> bool | str:
        """Look at the file again: True if a new list serves, a sentence if one was rejected.

        False means that nothing is new. Cheap while the file does not change: one `lstat`. A list
        of 100,000 entries takes about 0.1 s, so call this outside the event loop. The same
        complaint is returned once.
        """
        if self._path is None or not self._loaded:
            return False
        try:
            return self._refresh(self._path, now)
        except ValueError as error:
            sentence = str(error)
            is_news = sentence != self._complaint
            self._complaint = sentence
            self._retry_at = now + _RETRY_AFTER
            return sentence if is_news else False

    def _refresh(self, path: Path, now: datetime) -> bool:
        stamp = _stamp(path)
        is_due = self._retry_at is not None and now >= self._retry_at
        if stamp == self._stamp and not is_due:
            return False
        self._stamp = None
        data = read_plain(path)
        is_same = hashlib.sha256(data).digest() == self._content
        self._remember(stamp, data, now)
        if is_same and self._complaint is None:
            return False
        fresh = self._accept(data, now)
        is_new = fresh != self._list
        self._list, self._complaint, self._retry_at = fresh, None, None
        return is_new

    def _accept(self, data: bytes, now: datetime) -> RevocationList:
        try:
            fresh = RevocationList.load(data, self._issuers, now)
        except ValueError as error:
            message = f"{self._path} is not used: {error}"
            raise ValueError(message) from error
        if self._list is not None and fresh.is_older_than(self._list):
            message = f"{self._path} is not used: it is older than the revocation list in use"
            raise ValueError(message)
        return fresh

    def _remember(self, stamp: tuple[int, ...], data: bytes, now: datetime) -> None:
        """Keep what was read; a stamp only if the file cannot change again without changing it."""
        is_settled = abs(now.timestamp() - stamp[-1] / 1e9) > _SETTLED_SECONDS
        self._stamp = stamp if is_settled else None
        self._content = hashlib.sha256(data).digest()


def load_issuers(path: Path) -> Sequence[x509.Certificate]:
    """Return the CA certificates in the PEM file `path`, at least one.

    Raises:
        ValueError: it cannot be read; the message is one sentence.
    """
    try:
        return x509.load_pem_x509_certificates(read_plain(path))
    except (ValueError, x509.InvalidVersion) as error:
        message = str(error) if str(path) in str(error) else f"{path} holds no CA certificate"
        raise ValueError(message) from error


def _parse(data: bytes) -> x509.CertificateRevocationList:
    if data.count(b"-----BEGIN X509 CRL-----") > 1:
        message = "the file holds several revocation lists; give one"
        raise ValueError(message)
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_crl(data)
        return x509.load_der_x509_crl(data)
    except (ValueError, x509.InvalidVersion) as error:
        message = "it is not a revocation list"
        raise ValueError(message) from error


def _require_complete(crl: x509.CertificateRevocationList) -> None:
    """Refuse delta and partial lists: what they leave out would count as good."""
    try:
        extensions = tuple(crl.extensions)
    except (ValueError, x509.DuplicateExtension) as error:
        message = "the revocation list has unreadable extensions"
        raise ValueError(message) from error
    for extension in extensions:
        is_partial = isinstance(
            extension.value, x509.IssuingDistributionPoint | x509.DeltaCRLIndicator
        )
        if is_partial or (
            extension.critical and not isinstance(extension.value, _KNOWN_EXTENSIONS)
        ):
            message = "the revocation list does not cover all certificates of its CA"
            raise ValueError(message)


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if crl.issuer != issuer.subject or not _may_sign_lists(issuer):
        return False
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _key_identifier(issuer: x509.Certificate) -> bytes | None:
    try:
        return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True  # RFC 5280, 4.2.1.3: without keyUsage nothing is restricted


def _number(crl: x509.CertificateRevocationList) -> int | None:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None


def _serials(crl: x509.CertificateRevocationList) -> frozenset[int]:
    try:
        return frozenset(entry.serial_number for entry in crl)
    except ValueError as error:
        message = "the revocation list has an unreadable entry"
        raise ValueError(message) from error


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when the file does; the newest of its times comes last."""
    try:
        status = os.lstat(path)
    except OSError as error:
        message = f"{path} cannot be read: {(error.strerror or 'input/output error').lower()}"
        raise ValueError(message) from error
    if not stat.S_ISREG(status.st_mode):
        message = f"{path} is not a plain file"
        raise ValueError(message)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, *times, max(times))
