"""A peer's certificate as a value, or a refusal. The only parser of what TLS hands over.

TLS has verified the chain and the dates by then. OpenSSL accepts shapes as clients that must not
be identities here (no extendedKeyUsage, CA:true, version 1, several names), so the shape is asked
once more.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from host_agent.errors import InvalidIdentityError
from host_agent.identity.names import extension_of, points_of
from host_agent.identity.registry import is_common_name

_UNREADABLE = (
    ValueError,
    TypeError,  # a name as a BIT STRING
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises for bytes that are no certificate it can read."""

MAX_CERTIFICATE_BYTES = 64 * 1024
"""No sane client certificate is larger; TLS itself would take 100 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """A client certificate of an acceptable shape.

    `fingerprint` is `sha256:` and the hex SHA-256 of the DER, `points` the names of the revocation
    lists that it says it stands on. Neither authority, revocation nor registration is established.
    """

    common_name: str
    serial: int
    fingerprint: str
    not_valid_before: datetime
    not_valid_after: datetime
    der: bytes
    points: frozenset[str] = frozenset()


def fingerprint_of(der: bytes) -> str:
    """Return `sha256:` and the hex SHA-256 of a certificate's DER."""
    return "sha256:" + hashlib.sha256(der).hexdigest()


def parse_peer_certificate(der: bytes) -> PeerCertificate:
    """Return the identity that the verified certificate `der` claims.

    It must be version 3, no CA, for client authentication by name (RFC 5280, 4.2.1.12), with
    exactly one common name in the strict grammar of `registry.is_common_name`.

    Raises:
        InvalidIdentityError: any other shape. The detail names the reason, never the content.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise _invalid("it is too large")
    with warnings.catch_warnings():
        # cryptography warns, rather than fails, of some broken names and serial numbers.
        warnings.simplefilter("ignore")
        try:
            certificate = x509.load_der_x509_certificate(der)
            _require_client_shape(certificate)
            common_name = _only_common_name(certificate)
            points = points_of(certificate)
            serial = certificate.serial_number
        except _UNREADABLE as error:
            raise _invalid("it cannot be read") from error
    return PeerCertificate(
        common_name=common_name,
        serial=serial,
        fingerprint=fingerprint_of(der),
        not_valid_before=certificate.not_valid_before_utc,
        not_valid_after=certificate.not_valid_after_utc,
        der=der,
        points=points,
    )


def _require_client_shape(certificate: x509.Certificate) -> None:
    if certificate.version is not x509.Version.v3:
        raise _invalid("it is not X.509 version 3")
    constraints = extension_of(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise _invalid("it is a CA's")
    usage = extension_of(certificate, x509.KeyUsage)
    if usage is not None and usage.key_cert_sign:
        raise _invalid("it may sign certificates")
    if usage is not None and not usage.digital_signature:
        raise _invalid("it may not sign a handshake")
    purposes = extension_of(certificate, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise _invalid("it is not for client authentication")


def _only_common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise _invalid("it has no common name" if not names else "it has several common names")
    value = names[0].value
    if not isinstance(value, str) or not is_common_name(value):
        raise _invalid("its common name is not one that an identity can have")
    return value


def _invalid(why: str) -> InvalidIdentityError:
    return InvalidIdentityError(
        f"This client certificate is not accepted: {why}. Use one that was issued for this host."
    )
