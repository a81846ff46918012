"""One CRL as a value: read whole, verified, and asked whether it covers and names a certificate.

A list is accepted only if it is whole, current and signed by an authority of clients. Whose
certificates it covers is decided then, by its signer, and asked of that at each request.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from host_agent.identity.authorities import Authorities
from host_agent.identity.credential import Credential
from host_agent.identity.names import extension_of, point_names

CLOCK_SKEW = timedelta(minutes=5)
"""How far in the future a list's `thisUpdate` may be."""

_PEM_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

_KNOWN_EXTENSIONS = (x509.CRLNumber, x509.AuthorityKeyIdentifier, x509.AuthorityInformationAccess)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A verified CRL.

    `authority` is the id of the authority whose certificates it is about, `points` the names of the
    distribution points that it is about (empty: all), `number` its CRL number where it has one.
    """

    authority: str
    points: frozenset[str]
    number: int | None
    this_update: datetime
    next_update: datetime
    serials: frozenset[int]

    @classmethod
    def load(cls, data: bytes, authorities: Authorities, now: datetime) -> "RevocationList":
        """Return the list in `data` (PEM or DER, one list), signed by one of `authorities`.

        Raises:
            ValueError: it cannot be read, is expired, not begun, foreign, or covers only a part of
                its authority's client certificates; the message is a sentence fragment.
        """
        crl = _parse(data)
        points = _scope(crl)
        if crl.next_update_utc is None:
            message = "the revocation list has no nextUpdate"
            raise ValueError(message)
        signer = authorities.signer_of(crl)
        if signer is None or not signer.may_sign_lists:
            message = "the revocation list is not signed by the client CA"
            raise ValueError(message)
        if now >= crl.next_update_utc:
            message = f"the revocation list expired at {crl.next_update_utc:%Y-%m-%dT%H:%M:%SZ}"
            raise ValueError(message)
        if crl.last_update_utc > now + CLOCK_SKEW:
            message = f"the revocation list begins at {crl.last_update_utc:%Y-%m-%dT%H:%M:%SZ} only"
            raise ValueError(message)
        number = extension_of(crl, x509.CRLNumber)
        return cls(
            authority=signer.id,
            points=points,
            number=None if number is None else number.crl_number,
            this_update=crl.last_update_utc,
            next_update=crl.next_update_utc,
            serials=_serials(crl),
        )

    def covers(self, credential: Credential) -> bool:
        """Return whether this list would name the certificate if it were revoked.

        A list of a distribution point is about the certificates that name this point
        (RFC 5280, 6.3.3).
        """
        if credential.issuer != self.authority:
            return False
        return not self.points or not self.points.isdisjoint(credential.points)

    def is_revoked(self, serial: int) -> bool:
        return serial in self.serials

    def is_of_the_scope_of(self, other: "RevocationList") -> bool:
        """Return whether both lists are about the same certificates."""
        return (self.authority, self.points) == (other.authority, other.points)

    def is_older_than(self, other: "RevocationList") -> bool:
        """Return whether `other` supersedes this list.

        The CRL number decides (RFC 5280, 5.2.3); `thisUpdate` where the numbers are equal or one
        is missing. Lists of different scopes are never older than one another.
        """
        if not self.is_of_the_scope_of(other):
            return False
        if self.number is not None and other.number is not None and self.number != other.number:
            return self.number < other.number
        return self.this_update < other.this_update


def load_lists(data: bytes, authorities: Authorities, now: datetime) -> tuple[RevocationList, ...]:
    """Return the lists in `data`: one in DER, or any number in PEM, one for each scope.

    Raises:
        ValueError: there is none, one cannot be used (as `RevocationList.load`), or two are about
            the same certificates.
    """
    blocks = _PEM_LIST.findall(data) if b"-----BEGIN" in data else [data]
    lists = tuple(RevocationList.load(block, authorities, now) for block in blocks or [data])
    for position, one in enumerate(lists):
        if any(one.is_of_the_scope_of(earlier) for earlier in lists[:position]):
            message = "the file holds several revocation lists of one authority; give the newest"
            raise ValueError(message)
    return lists


def _parse(data: bytes) -> x509.CertificateRevocationList:
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_crl(data)
        return x509.load_der_x509_crl(data)
    except (ValueError, x509.InvalidVersion) as error:
        message = "it is not a revocation list"
        raise ValueError(message) from error


def _scope(crl: x509.CertificateRevocationList) -> frozenset[str]:
    """Return the distribution points that a list is about; empty: all certificates of its issuer.

    Raises:
        ValueError: it is about less than whole client certificates. What a delta, a list of some
            reasons or of CAs alone leaves out would count as good.
    """
    try:
        extensions = tuple(crl.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        message = "the revocation list has unreadable extensions"
        raise ValueError(message) from error
    scope: frozenset[str] = frozenset()
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            message = "it is a delta list, which does not cover all certificates of its CA"
            raise ValueError(message)  # noqa: TRY004 - the list is at fault
        if isinstance(value, x509.IssuingDistributionPoint):
            scope = _scope_of_point(value, crl.issuer)
        elif extension.critical and not isinstance(value, _KNOWN_EXTENSIONS):
            message = (
                f"the revocation list has a critical extension ({extension.oid.dotted_string})"
            )
            raise ValueError(f"{message} that is not known here")
    return scope


def _scope_of_point(point: x509.IssuingDistributionPoint, issuer: x509.Name) -> frozenset[str]:
    """Return the names of the point (RFC 5280, 5.2.5); lists of users only cover all clients."""
    missing = {
        "is about CA certificates only": point.only_contains_ca_certs,
        "is about attribute certificates only": point.only_contains_attribute_certs,
        "is about some reasons only": point.only_some_reasons is not None,
        "is indirect": point.indirect_crl,
    }
    if found := [said for said, is_so in missing.items() if is_so]:
        message = f"the revocation list {found[0]} and does not cover all certificates of its CA"
        raise ValueError(message)
    return frozenset(point_names(point.full_name, point.relative_name, issuer))


def _serials(crl: x509.CertificateRevocationList) -> frozenset[int]:
    try:
        return frozenset(entry.serial_number for entry in crl)
    except ValueError as error:
        message = "the revocation list has an unreadable entry"
        raise ValueError(message) from error
