"""Whether a certificate is listened to: its authority, its end and the lists, on every request.

While the agent runs, a bad or older list never replaces a good one; the good one serves until its
`nextUpdate`, and from then on nobody whom it covers gets in. There is no state in which a
configured list means "allow".
"""

import hashlib
import stat
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from host_agent.errors import (
    InvalidIdentityError,
    RevocationUnavailableError,
    RevokedIdentityError,
)
from host_agent.identity.authorities import Authorities, Authority
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.credential import Credential
from host_agent.identity.files import read_linked
from host_agent.identity.revocation_list import RevocationList, load_lists

_SETTLED_SECONDS = 2.0
"""A file that changed more recently than this is read again: its times are too coarse to trust."""

_RETRY_AFTER = timedelta(seconds=60)
"""When a rejected file that does not change is looked at again (its time may have come)."""

_REMEMBERED = 1024
"""How many of those who were let in are known, to see whether new lists cover any of them."""


class Revocation:
    """The authorities of clients and their revocation lists, followed while the agent runs.

    `path` of None means that no list is configured: then nothing is revoked. `previous` is the
    object that a reload replaces, so that a reload cannot bring back an older list. Nothing is
    read before `load`. The clock is the caller's.
    """

    def __init__(
        self, path: Path | None, ca_path: Path, *, previous: "Revocation | None" = None
    ) -> None:
        self._path = path
        self._ca_path = ca_path
        self._authorities = Authorities(())
        self._lists: tuple[RevocationList, ...] = () if previous is None else previous.current
        self._let_in: dict[str, Credential] = {} if previous is None else previous.let_in
        self._loaded = False
        self._stamp: tuple[int, ...] | None = None
        self._content = b""
        self._accepted: str | None = None
        self._complaint: str | None = None
        self._retry_at: datetime | None = None

    @property
    def current(self) -> tuple[RevocationList, ...]:
        """The lists that serve now."""
        return self._lists

    @property
    def let_in(self) -> dict[str, Credential]:
        """Some of those who were let in, by fingerprint."""
        return dict(self._let_in)

    @property
    def next_update(self) -> datetime | None:
        """When the first of the serving lists ends; None without a configured list."""
        return min((one.next_update for one in self._lists), default=None)

    @property
    def accepted_sha256(self) -> str | None:
        """Hash of the file's bytes that serve now, in hexadecimal digits; None without a list."""
        return self._accepted

    @property
    def complaint(self) -> str | None:
        """Why the file as it is now was rejected, while an earlier list serves; else None."""
        return self._complaint

    def uncovered(self) -> list[Authority]:
        """Return the authorities whose clients are not let in for want of a list.

        Those that stand above others of the file are left out: they need not have clients.
        """
        if self._path is None:
            return []
        heads = {one.id for one in self._authorities.heads()}
        covered = heads | {one.authority for one in self._lists}
        return [one for one in self._authorities if one.id not in covered]

    def load(self, now: datetime) -> None:
        """Read the authorities and the lists for the first time.

        Raises:
            ValueError: either cannot be used, or a list is older than the one that `previous`
                had; the message is one sentence.
        """
        self._authorities = load_authorities(self._ca_path)
        if self._path is None:
            self._lists, self._loaded = (), True
            return
        stamp = _stamp(self._path)
        data = read_linked(self._path)
        self._lists = self._accept(data, now)
        self._loaded = True
        self._remember(stamp, data, now)

    def check(self, certificate: PeerCertificate, now: datetime) -> Credential:
        """Return `certificate` as it is to be remembered, if it may be listened to at `now`.

        Raises:
            InvalidIdentityError: no authority here issued it, no list covers it, or it has ended.
            RevocationUnavailableError: a list has passed its `nextUpdate`, or none was loaded.
            RevokedIdentityError: the certificate is on a list.
        """
        if not self._loaded:
            raise _out_of_date()
        credential = self._authorities.credential(certificate)
        self.recheck(credential, now)
        if credential.fingerprint not in self._let_in:
            if len(self._let_in) >= _REMEMBERED:
                self._let_in.clear()
            self._let_in[credential.fingerprint] = credential
        return credential

    def recheck(self, credential: Credential, now: datetime) -> None:
        """Return if what was let in before would still be listened to at `now`.

        Raises:
            InvalidIdentityError: its authority has been replaced, no list covers it, it has ended,
                or it was remembered before these were.
            RevocationUnavailableError: a list has passed its `nextUpdate`, or none was loaded.
            RevokedIdentityError: the certificate is on a list.
        """
        if not self._loaded:
            raise _out_of_date()
        lists = None if self._path is None else self._lists
        check_credential(credential, self._authorities, lists, now)

    def is_over(self, credential: Credential, now: datetime) -> bool:
        """Return whether `credential` will never be listened to again: ended, or of nobody here."""
        if not self._loaded:
            return False
        ends = credential.ends
        return credential.issuer not in self._authorities or ends is None or now >= ends

    def refresh(self, now: datetime) -> bool | str:
        """Look at the file again: True if a new list serves, a sentence if one was rejected.

        False means that nothing is new. Cheap while the file does not change: one `stat`. A list
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
        known, self._stamp = self._stamp, None  # what cannot be looked at is looked at again
        stamp = _stamp(path)
        is_due = self._retry_at is not None and now >= self._retry_at
        if stamp == known and not is_due:
            self._stamp = known
            return False
        data = read_linked(path)
        is_same = hashlib.sha256(data).digest() == self._content
        self._remember(stamp, data, now)
        if is_same and self._complaint is None:
            return False
        fresh = self._accept(data, now)
        is_new = fresh != self._lists
        self._lists, self._complaint, self._retry_at = fresh, None, None
        return is_new

    def _accept(self, data: bytes, now: datetime) -> tuple[RevocationList, ...]:
        try:
            fresh = load_lists(data, self._authorities, now)
            self._require_no_less(fresh)
        except ValueError as error:
            message = f"{self._path} is not used: {error}"
            raise ValueError(message) from error
        self._accepted = hashlib.sha256(data).hexdigest()
        return fresh

    def _require_no_less(self, fresh: Sequence[RevocationList]) -> None:
        """Refuse lists that would forget what was revoked, or lock out whoever is let in now."""
        if any(new.is_older_than(old) for new in fresh for old in self._lists):
            message = "it is older than the revocation list in use"
            raise ValueError(message)
        covered = {one.authority for one in fresh}
        for old in self._lists:
            if old.authority not in covered and old.authority in self._authorities:
                name = next(one.name for one in self._authorities if one.id == old.authority)
                message = f"it holds no list of {name!a} any more, whose clients it would lock out"
                raise ValueError(message)
        known = [one for one in list(self._let_in.values()) if one.issuer in self._authorities]
        if known and not any(new.covers(one) for new in fresh for one in known):
            message = (
                "it covers none of the certificates in use and would lock all of them out; restart"
                " the agent where that is meant"
            )
            raise ValueError(message)

    def _remember(self, stamp: tuple[int, ...], data: bytes, now: datetime) -> None:
        """Keep what was read; a stamp only if the file cannot change again without changing it."""
        is_settled = abs(now.timestamp() - stamp[-1] / 1e9) > _SETTLED_SECONDS
        self._stamp = stamp if is_settled else None
        self._content = hashlib.sha256(data).digest()


def check_credential(
    credential: Credential,
    authorities: Authorities,
    lists: Sequence[RevocationList] | None,
    now: datetime,
) -> None:
    """Return if a certificate is listened to at `now`; `lists` of None: none are kept.

    Raises:
        InvalidIdentityError, RevocationUnavailableError, RevokedIdentityError: as
            `Revocation.recheck` says.
    """
    if credential.issuer not in authorities:
        raise InvalidIdentityError(
            "This client certificate is not accepted any more: the authority that issued it is"
            " not in the agent's client_ca. Use one that was issued for this host."
        )
    if credential.ends is None or now >= credential.ends:
        # TLS asked when the connection began, and a list forgets who has expired.
        raise InvalidIdentityError("This client certificate has expired; ask for a new one.")
    if lists is None:
        return
    covering = [one for one in lists if one.covers(credential)]
    if any(now >= one.next_update for one in covering):
        raise _out_of_date()
    if not covering:
        raise InvalidIdentityError(
            "This client certificate is not accepted: its revocation cannot be checked. "
            "Use one that was issued for this host."
        )
    if any(one.is_revoked(credential.serial) for one in covering):
        raise RevokedIdentityError(
            "This certificate is revoked; ask the administrator of this host for a new one."
        )


def _out_of_date() -> RevocationUnavailableError:
    return RevocationUnavailableError(
        "Revocation cannot be checked because the revocation list is out of date, so nobody is let"
        " in; ask the administrator of this host to renew it."
    )


def load_authorities(path: Path) -> Authorities:
    """Return the authorities in the PEM file `path`, at least one; links are followed.

    Raises:
        ValueError: it cannot be read; the message is one sentence.
    """
    data = read_linked(path)
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        message = f"{path} holds no CA certificate"
        raise ValueError(message) from error
    try:
        return Authorities(certificates)
    except ValueError as error:
        message = f"{path}: {error}"
        raise ValueError(message) from error


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when the file does; the newest of its times comes last."""
    try:
        status = path.stat()
    except OSError as error:
        message = f"{path} cannot be read: {(error.strerror or 'input/output error').lower()}"
        raise ValueError(message) from error
    if not stat.S_ISREG(status.st_mode):
        message = f"{path} is not a plain file"
        raise ValueError(message)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, *times, max(times))
