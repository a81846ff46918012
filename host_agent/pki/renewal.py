"""A renewal: a request for a new key that is signed by the key of the certificate it renews.

That signature is what the authority goes by. Who carries the renewal to it, the agent or a file,
is believed nothing: nobody without the old key can have a renewal made for another key, nor make
one out of a renewal that was for another certificate.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from pydantic import BaseModel, ConfigDict, Field

from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from host_agent.pki.door import load_certificates
from host_agent.pki.profiles import key_hash
from host_agent.pki.request import SigningRequest, certified_key, read_request

CONTEXT = b"certificate renewal 1 of host-agent\n"
MAX_PROOF_BYTES = 2048
MAX_ENTRY_BYTES = 131_072
RenewingKey: TypeAlias = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A renewal whose signatures are good: `old` is renewed by a certificate for `request`'s key.

    Whether `old` is of the authority, valid and not revoked is not established here.
    """

    old: PeerCertificate
    request: SigningRequest

    @property
    def key(self) -> str:
        """The SHA-256 of the new key."""
        return key_hash(self.request.public_key)


def prove(key: RenewingKey, *, certificate_der: bytes, request_der: bytes) -> bytes:
    """Return the signature by the old certificate's key that a renewal needs."""
    message = _message(certificate_der, request_der)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, _PSS, hashes.SHA256())
    return key.sign(message)


def read_renewal(old: bytes, request_pem: bytes, proof: bytes) -> Renewal:
    """Return the renewal that these make; `old` is the DER of the certificate that is renewed.

    Raises:
        ValueError: the request cannot be read, a signature is not by the key that it should be by,
            the common name is another one, or the key is the old one.
        InvalidIdentityError: `old` is of a shape that no identity has.
    """
    peer, request = parse_peer_certificate(old), read_request(request_pem)
    old_key = certified_key(x509.load_der_x509_certificate(old))
    try:
        _verify(old_key, proof, _message(old, request.der))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        message = "the renewal is not signed by the key of the certificate that it renews"
        raise ValueError(message) from error
    if request.common_name != peer.common_name:
        message = "it asks for another common name than the certificate has"
        raise ValueError(message)
    if key_hash(request.public_key) == key_hash(old_key):
        message = "it asks for the same key again; a renewal is for a new one"
        raise ValueError(message)
    return Renewal(old=peer, request=request)


def _message(certificate_der: bytes, request_der: bytes) -> bytes:
    hashed = (hashlib.sha256(part).digest() for part in (certificate_der, request_der))
    return CONTEXT + b"".join(hashed)


def _verify(key: object, proof: bytes, message: bytes) -> None:
    if len(proof) > MAX_PROOF_BYTES:
        raise InvalidSignature
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(proof, message, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(proof, message, _PSS, hashes.SHA256())
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(proof, message)
    else:
        raise InvalidSignature


# -- as a file ------------------------------------------------------------------------------------


class RenewalEntry(BaseModel):
    """A renewal as it lies in the inbox. Nothing of it is believed before `renewal` was asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = 1
    certificate: str = Field(max_length=98_304)
    request: str = Field(max_length=16_384)
    proof: str = Field(max_length=4096)

    def encode(self) -> bytes:
        """Return its bytes as a file."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    def renewal(self) -> Renewal:
        """Return the renewal.

        Raises:
            ValueError: as `read_renewal` does, or it has no certificate.
            InvalidIdentityError: as `read_renewal` does.
        """
        (old,) = load_certificates(self.certificate.encode())[:1]
        der = old.public_bytes(serialization.Encoding.DER)
        return read_renewal(der, self.request.encode(), decoded(self.proof))


def decoded(text: str) -> bytes:
    """Return the bytes that `text` is the base64 of.

    Raises:
        ValueError: it is not.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        message = "it is not base64"
        raise ValueError(message) from error
