"""What this authority signs: the X.509 profiles of its CA, its certificates and its CRLs.

Everything here is ECDSA P-256 with SHA-256 and passes OpenSSL's `X509_STRICT` checks (RFC 5280):
critical basicConstraints and keyUsage, key identifiers everywhere, a number in every CRL. Pure:
bytes and the instant come in, signed values go out, nothing is stored.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = timedelta(minutes=5)
"""How far before `now` signed things begin, for hosts whose clocks run behind."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = (
    ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
)
"""The kinds of keys that are certified."""


class Usage(StrEnum):
    """Which side of a connection a certificate is for."""

    SERVER = "server"
    CLIENT = "client"


PURPOSES: Mapping[Usage, x509.ObjectIdentifier] = {
    Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}
"""The extendedKeyUsage that each usage needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    private_key: PrivateKey

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """Return the private key as PKCS #8 PEM, not encrypted."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedSerial:
    """One line of a CRL."""

    serial: int
    at: datetime


def key_hash(key: PublicKey) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo) in hexadecimal digits."""
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def subject(common_name: str) -> x509.Name:
    """Return a name that consists of one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    """Return a keyUsage with only the given bits set."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def new_ca(name: str, *, now: datetime, days: int) -> KeyPair:
    """Return a new self-signed CA that may sign end-entity certificates and CRLs only."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    public_key = private_key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = (
        _certificate(subject(name), subject(name), public_key, now=now, days=days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    return KeyPair(certificate=builder.sign(private_key, hashes.SHA256()), private_key=private_key)


def new_leaf(
    ca: KeyPair,
    *,
    common_name: str,
    usage: Usage,
    names: Sequence[x509.GeneralName] = (),
    now: datetime,
    days: int,
) -> KeyPair:
    """Return a new certificate of `ca` for one side of a connection, with a key of its own.

    `names` become the subjectAltName; without any there is none.
    """
    private_key = ec.generate_private_key(ec.SECP256R1())
    certificate = sign_leaf(
        ca,
        private_key.public_key(),
        common_name=common_name,
        usage=usage,
        names=names,
        now=now,
        days=days,
    )
    return KeyPair(certificate=certificate, private_key=private_key)


def sign_leaf(
    ca: KeyPair,
    public_key: PublicKey,
    *,
    common_name: str,
    usage: Usage,
    names: Sequence[x509.GeneralName] = (),
    now: datetime,
    days: int,
) -> x509.Certificate:
    """Return a new certificate of `ca` for a key that somebody else holds.

    Everything in it but the key is said here: nothing of a request comes into it.
    """
    issuer = ca.certificate.subject
    builder = (
        _certificate(subject(common_name), issuer, public_key, now=now, days=days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([PURPOSES[usage]]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_identifier(ca.certificate), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ca.private_key, hashes.SHA256())


def new_crl(
    ca: KeyPair,
    revoked: Iterable[RevokedSerial],
    *,
    number: int,
    now: datetime,
    days: int,
) -> x509.CertificateRevocationList:
    """Return the CRL number `number` of `ca`, to be renewed within `days`."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(now + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(authority_identifier(ca.certificate), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(entry.serial)
            .revocation_date(entry.at)
            .build()
        )
    return builder.sign(ca.private_key, hashes.SHA256())


def authority_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the authorityKeyIdentifier that points at `ca`'s own subjectKeyIdentifier."""
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def _certificate(
    holder: x509.Name,
    issuer: x509.Name,
    public_key: PublicKey,
    *,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(holder)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )
