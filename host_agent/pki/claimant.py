"""A certificate that merely claims to be issued by an authority: all good but its signature.

Shown to the door, it tells what the door thinks of the authority, whose key is not at hand.
"""

import os
from collections.abc import Mapping
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from host_agent.identity.authorities import Authority
from host_agent.identity.names import extension_of
from host_agent.pki.profiles import PURPOSES, Usage, key_usage, subject

_ECDSA = bytes.fromhex("300a06082a8648ce3d040302")
_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")
_PSS = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
    "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
)
_DSA = bytes.fromhex("300b0609608648016503040302")

_ALGORITHMS: Mapping[str, bytes] = {
    "1.2.840.10045.2.1": _ECDSA,
    "1.2.840.113549.1.1.1": _RSA,
    "1.2.840.113549.1.1.10": _PSS,
    "1.2.840.10040.4.1": _DSA,
}
"""What a key of each kind signs with, with SHA-256 (RFC 5758, RFC 4055), as AlgorithmIdentifier.

OpenSSL compares the kind of the signature with the issuer's key before anything else. The kinds
that are not here (Ed25519, Ed448 and what is newer) sign by the identifier of the key itself.
"""


def claimant(authority: Authority, *, now: datetime) -> x509.Certificate:
    """Return a client certificate that says that `authority` issued it around `now`."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    own = x509.SubjectKeyIdentifier.from_public_key(private_key.public_key())
    known = (extension_of(one, x509.SubjectKeyIdentifier) for one in authority.certificates)
    identifier = next((one for one in known if one is not None), own)
    issuer = authority.certificates[0]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject("claimant"))
        .issuer_name(issuer.subject)
        .public_key(private_key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([PURPOSES[Usage.CLIENT]]), critical=False)
        .add_extension(own, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(private_key, hashes.SHA256())
    )
    algorithm = _algorithm_of(issuer)
    body = _content(made.tbs_certificate_bytes).replace(_ECDSA, algorithm, 1)
    signature = _element(0x03, b"\0" + os.urandom(64))
    return x509.load_der_x509_certificate(
        _element(0x30, _element(0x30, body) + algorithm + signature)
    )


def _algorithm_of(issuer: x509.Certificate) -> bytes:
    kind = issuer.public_key_algorithm_oid.dotted_string
    if kind in _ALGORITHMS:
        return _ALGORITHMS[kind]
    key = issuer.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    algorithm = _content(key)
    return _element(algorithm[0], _content(algorithm))


def _content(element: bytes) -> bytes:
    """Return what the first DER element of `element` holds."""
    length, start = element[1], 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(element[2:start])
    return element[start : start + length]


def _element(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size) + content
