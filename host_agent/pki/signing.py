"""What the small CA signs for keys that others hold: requests that a person saw, and renewals.

The profile says everything that comes into a certificate; of a request only its key does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from host_agent.errors import ConfigurationError
from host_agent.identity import files
from host_agent.identity.certificate import PeerCertificate
from host_agent.pki.authority import (
    MAX_DAYS,
    days_within,
    describe,
    general_names,
    is_revoked,
    require_file_name,
    require_names,
    store,
)
from host_agent.pki.directory import OpenedAuthority, open_authority, read_certificate
from host_agent.pki.door import load_certificates
from host_agent.pki.index import Issued
from host_agent.pki.profiles import BACKDATED, Usage, key_hash, sign_leaf
from host_agent.pki.renewal import Renewal
from host_agent.pki.request import SigningRequest, certified_key

FIRST_PART = 0.5
"""The part of its life that a certificate has behind it before it is renewed: earlier is refused,
so that no program renews at every turn, nor one whose clock is wrong."""


class RenewalRefusedError(ValueError):
    """This authority does not renew that; the message is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """A certificate in the place of another one; `is_fresh` unless it was made before."""

    certificate: bytes
    issued: Issued
    is_fresh: bool


def sign(
    directory: Path,
    request: SigningRequest,
    *,
    common_name: str,
    usage: Usage,
    names: Sequence[str] = (),
    days: int | None = None,
    out: str | None = None,
    now: datetime,
) -> Issued:
    """Certify the key of `request` as `OUT.crt` by the profile of `usage`, and index it.

    `common_name`, `names` and `out` are as of `authority.issue`, and the person's, not the
    request's.

    Raises:
        ValueError: a name or number that cannot be used; the request is for another common name;
            or its key has been certified before.
        ConfigurationError: the directory holds no usable CA, or the file exists. Nothing has
            changed then.
    """
    require_names(common_name, usage, names)
    if request.common_name not in (None, common_name):
        message = f"the request is for {request.common_name!a}, not for {common_name!a}"
        raise ValueError(message)
    stem = require_file_name(common_name if out is None else out)
    with open_authority(directory) as opened:
        require_new_key(opened, request)
        certificate = sign_leaf(
            opened.ca,
            request.public_key,
            common_name=common_name,
            usage=usage,
            names=general_names(common_name, usage, names),
            now=now,
            days=days_within(opened.ca.certificate, days, now=now),
        )
        issued = describe(certificate, common_name=common_name, usage=usage, name=stem)
        store(opened, certificate, issued)
    return issued


def require_new_key(opened: OpenedAuthority, request: SigningRequest) -> None:
    """Refuse a key that has a certificate already: whoever had that one has the key.

    Raises:
        ValueError: it has.
    """
    key = key_hash(request.public_key)
    own = key_hash(certified_key(opened.ca.certificate))
    if key == own or any(entry.key == key for entry in opened.index.certificates):
        message = "its key has a certificate already; make a new key with the request"
        raise ValueError(message)


def renew(directory: Path, renewal: Renewal, *, now: datetime) -> Renewed:
    """Return a certificate for the new key: same name and use, as long a life as the old one had.

    Repeated for the same key it returns what was made. `now` is this authority's clock.

    Raises:
        RenewalRefusedError: the old certificate is not one of this authority's, is revoked, ended,
            not begun, too young, or was renewed for another key; or the new key has a certificate.
        ConfigurationError: the directory holds no usable CA, or cannot be written.
    """
    _require_signed_by(read_certificate(directory), renewal.old)
    with open_authority(directory) as opened:
        old = _own_entry(opened, renewal.old)
        made = [entry for entry in opened.index.certificates if entry.renews == old.serial]
        if any(entry.key != renewal.key for entry in made):
            message = "it was renewed already, for another key; revoke both if that was not you"
            raise RenewalRefusedError(message)
        if any(is_revoked(opened, entry) for entry in made):
            message = "what it was renewed by is revoked"
            raise RenewalRefusedError(message)
        for entry in made:
            if (found := _read_made(opened, entry)) is not None:
                return Renewed(certificate=found, issued=entry, is_fresh=False)
        _require_ripe(old, now)
        if not made:
            try:
                require_new_key(opened, renewal.request)
            except ValueError as error:
                raise RenewalRefusedError(str(error)) from error
        certificate = sign_leaf(
            opened.ca,
            renewal.request.public_key,
            common_name=old.common_name,
            usage=old.usage,
            now=now,
            days=_days(opened, old, now),
        )
        name = f"renewed-{certificate.serial_number:x}"
        issued = describe(certificate, common_name=old.common_name, usage=old.usage, name=name)
        issued = replace(issued, renews=old.serial)
        store(opened, certificate, issued)
        written = files.read_plain(opened.directory / f"{name}.crt")
    return Renewed(certificate=written, issued=issued, is_fresh=True)


def _require_signed_by(ca: x509.Certificate, peer: PeerCertificate) -> None:
    """Refuse what others have made before anything is locked: they can make any number."""
    certificate = x509.load_der_x509_certificate(peer.der)
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        message = "its certificate is not of this authority"
        raise RenewalRefusedError(message) from error


def _own_entry(opened: OpenedAuthority, peer: PeerCertificate) -> Issued:
    """Return what the index has of a certificate that this authority has signed."""
    for entry in opened.index.certificates:
        if (entry.serial, entry.fingerprint) == (peer.serial, peer.fingerprint):
            break
    else:
        message = "its certificate is not in this authority's index"
        raise RenewalRefusedError(message)
    if is_revoked(opened, entry):
        message = "its certificate is revoked"
        raise RenewalRefusedError(message)
    if entry.usage is not Usage.CLIENT:
        message = "its certificate is a server's; `pki sign` renews that"
        raise RenewalRefusedError(message)
    return entry


def _require_ripe(old: Issued, now: datetime) -> None:
    life = old.not_valid_after - old.not_valid_before
    if now >= old.not_valid_after:
        message = "its certificate has ended; issue another one by hand"
        raise RenewalRefusedError(message)
    ripe = old.not_valid_before + life * FIRST_PART
    if now < ripe:
        message = f"it is too early; its certificate is renewed from {ripe:%Y-%m-%dT%H:%M:%SZ} on"
        raise RenewalRefusedError(message)


def _days(opened: OpenedAuthority, old: Issued, now: datetime) -> int:
    wanted = (old.not_valid_after - old.not_valid_before - BACKDATED).days
    left = (opened.ca.certificate.not_valid_after_utc - now).days
    days = min(max(wanted, 1), left, MAX_DAYS)
    if days < 1:
        message = "the CA itself ends within a day; make a new CA"
        raise RenewalRefusedError(message)
    return days


def _read_made(opened: OpenedAuthority, entry: Issued) -> bytes | None:
    """Return the certificate that was made; None where a crash came between index and file."""
    try:
        data = files.read_plain(opened.directory / f"{entry.name}.crt")
        (found,) = load_certificates(data)
    except ValueError:
        return None
    if found.serial_number != entry.serial:
        raise ConfigurationError([f"{opened.directory / entry.name}.crt is another certificate"])
    return data
