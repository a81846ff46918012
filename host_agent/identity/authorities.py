"""The authorities that client certificates come from, and which of them issued a certificate.

An authority is a name and a key, not a certificate: renewed or cross-signed under both, it is the
same one. Names are compared as RFC 5280, 7.1 and OpenSSL do (whatever the type of the string, case
and blanks), and never alone: the authority's key has to verify the signature.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from host_agent.errors import InvalidIdentityError
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.credential import Credential
from host_agent.identity.names import canonical_name, extension_of

_REMEMBERED = 4096
"""Certificates whose authority is remembered; each costs a verified signature otherwise."""

Signed: TypeAlias = x509.Certificate | x509.CertificateRevocationList


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A name that certificates are issued under, and the key that signs them.

    `id` is `sha256:` and hex over both. `certificates` are all that say so; `name` is for people.
    """

    id: str
    name: str
    subject: bytes
    certificates: tuple[x509.Certificate, ...]

    @property
    def may_sign_lists(self) -> bool:
        """Return whether one of its certificates lets it sign revocation lists."""
        return any(_may_sign_lists(certificate) for certificate in self.certificates)

    def has_signed(self, what: Signed) -> bool:
        """Return whether `what` is issued in this authority's name and signed with its key."""
        return canonical_name(what.issuer) == self.subject and _verifies(self.certificates[0], what)


class Authorities:
    """The authorities in the order of their certificates.

    Raises:
        ValueError: a certificate has no name or key that can be read.
    """

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        grouped: dict[tuple[bytes, bytes], list[x509.Certificate]] = {}
        for certificate in certificates:
            key = (_subject(certificate), _key_bytes(certificate))
            grouped.setdefault(key, []).append(certificate)
        self._by_id = {one.id: one for one in (_authority(*key, of) for key, of in grouped.items())}
        self._issuers: dict[str, Authority] = {}

    def __iter__(self) -> Iterator[Authority]:
        return iter(self._by_id.values())

    def __contains__(self, authority_id: object) -> bool:
        return authority_id in self._by_id

    def signer_of(self, what: Signed) -> Authority | None:
        """Return the authority that signed `what`, if it is one of these."""
        return next((one for one in self if one.has_signed(what)), None)

    def credential(self, certificate: PeerCertificate) -> Credential:
        """Return `certificate` as it is remembered, with the authority that issued it.

        Raises:
            InvalidIdentityError: none of these did. TLS may have found another way, by an
                intermediate that the client sent.
        """
        issuer = self._issuers.get(certificate.fingerprint)
        if issuer is None:
            issuer = self._issuer(certificate)
            if len(self._issuers) >= _REMEMBERED:
                self._issuers.clear()
            self._issuers[certificate.fingerprint] = issuer
        return Credential(
            cn=certificate.common_name,
            fingerprint=certificate.fingerprint,
            serial=certificate.serial,
            issuer=issuer.id,
            ends=certificate.not_valid_after,
            points=certificate.points,
        )

    def _issuer(self, certificate: PeerCertificate) -> Authority:
        try:
            issuer = self.signer_of(x509.load_der_x509_certificate(certificate.der))
        except ValueError:
            issuer = None  # a name that OpenSSL reads and nobody else does
        if issuer is None:
            raise InvalidIdentityError(
                "This client certificate is not accepted: the authority that issued it is not in"
                " the agent's client_ca. Use one that was issued for this host."
            )
        return issuer

    def heads(self) -> Iterable[Authority]:
        """Return those that issued another one of these: the roots of a hierarchy."""
        return [one for one in self if any(self._is_above(one, other) for other in self)]

    def _is_above(self, one: Authority, other: Authority) -> bool:
        return one is not other and any(one.has_signed(of) for of in other.certificates)


def _authority(subject: bytes, key: bytes, certificates: Sequence[x509.Certificate]) -> Authority:
    digest = hashlib.sha256(len(subject).to_bytes(4) + subject + key).hexdigest()
    return Authority(
        id=f"sha256:{digest}",
        name=certificates[0].subject.rfc4514_string(),
        subject=subject,
        certificates=tuple(certificates),
    )


def _subject(certificate: x509.Certificate) -> bytes:
    try:
        return canonical_name(certificate.subject)
    except ValueError as error:
        message = "an authority's name cannot be read"
        raise ValueError(message) from error


def _key_bytes(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        message = "an authority's key is of a kind that is not supported"
        raise ValueError(message) from error


def _may_sign_lists(certificate: x509.Certificate) -> bool:
    usage = extension_of(certificate, x509.KeyUsage)
    return usage is None or usage.crl_sign  # RFC 5280, 4.2.1.3: without it nothing is restricted


def _verifies(issuer: x509.Certificate, what: Signed) -> bool:
    key = issuer.public_key()
    if isinstance(what, x509.CertificateRevocationList):
        try:
            return what.is_signature_valid(key)  # type: ignore[arg-type]
        except (TypeError, ValueError, UnsupportedAlgorithm):
            return False
    signature, signed = what.signature, what.tbs_certificate_bytes
    try:
        parameters = what.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey):
            if not isinstance(parameters, padding.PSS | padding.PKCS1v15):
                return False
            digest = what.signature_hash_algorithm
            if digest is None:
                return False
            key.verify(signature, signed, parameters, digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if not isinstance(parameters, ec.ECDSA):
                return False
            key.verify(signature, signed, parameters)
        else:
            key.verify(signature, signed)  # type: ignore[call-arg, union-attr]
    except (InvalidSignature, TypeError, ValueError, AttributeError, UnsupportedAlgorithm):
        return False
    return True
