"""Certificate signing requests (RFC 2986): a key and a request where they stay, and what one says.

Of a request two things are believed: the public key, because the request is signed by its private
key, and the common name as far as the authority's person says the same. Whatever else it asks for
is shown and left out.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from host_agent.identity import files
from host_agent.pki.directory import create, require_free, told, undone_on_failure
from host_agent.pki.profiles import PrivateKey, PublicKey, subject

MAX_REQUEST_BYTES = 16_384
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_WEAK = (hashes.MD5, hashes.SHA1)
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRequest:
    """A request whose signature is good. `left_out` says in words what it asks for in vain."""

    der: bytes
    public_key: PublicKey
    common_name: str | None
    left_out: tuple[str, ...]


def new_key() -> PrivateKey:
    """Return a fresh key of the kind that this authority makes."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key as PKCS #8 PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def new_request(key: PrivateKey, common_name: str) -> bytes:
    """Return a request for `common_name` as PEM. It asks for nothing else."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(common_name))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def write_request(stem: Path, common_name: str) -> tuple[Path, Path]:
    """Make a key and a request for it, `STEM.key` (0600) and `STEM.csr`; return both paths.

    Raises:
        ConfigurationError: one of them exists, or cannot be written. Nothing is left then.
    """
    key, key_path = new_key(), stem.with_name(f"{stem.name}.key")
    request_path = stem.with_name(f"{stem.name}.csr")
    with told(), undone_on_failure() as made:
        for path in (key_path, request_path):
            require_free(path)
        create(key_path, key_pem(key), made, mode=files.PRIVATE)
        create(request_path, new_request(key, common_name), made, mode=files.PUBLIC)
        files.sync_directory(stem.parent)
    return key_path, request_path


def read_request(pem: bytes) -> SigningRequest:
    """Return what `pem` asks for.

    Raises:
        ValueError: it is no request, is not signed by the key that it names, has a key that is not
            certified, or two common names.
    """
    if len(pem) > MAX_REQUEST_BYTES:
        message = f"a request has at most {MAX_REQUEST_BYTES} bytes"
        raise ValueError(message)
    try:
        request = x509.load_pem_x509_csr(pem)
        is_proven = request.is_signature_valid
        public_key = request.public_key()
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        left_out = tuple(_left_out(request))
    except _UNREADABLE as error:
        message = "it is not a certificate signing request that can be read"
        raise ValueError(message) from error
    if not is_proven or isinstance(request.signature_hash_algorithm, _WEAK):
        message = "it is not signed by the key that it names, so nobody shows to have that key"
        raise ValueError(message)
    if len(names) > 1:
        message = "it has several common names"
        raise ValueError(message)
    return SigningRequest(
        der=request.public_bytes(serialization.Encoding.DER),
        public_key=checked_key(public_key),
        common_name=str(names[0].value) if names else None,
        left_out=left_out,
    )


def _left_out(request: x509.CertificateSigningRequest) -> list[str]:
    found = [
        f"subject {attribute.rfc4514_attribute_name}={attribute.value!r}"
        for attribute in request.subject
        if attribute.oid != NameOID.COMMON_NAME
    ]
    with suppress(x509.AttributeNotFound):
        found += [f"extension {one.oid._name}" for one in request.extensions]  # noqa: SLF001
    return found


def certified_key(certificate: x509.Certificate) -> PublicKey:
    """Return the key of a certificate, of whoever made it.

    Raises:
        ValueError: it cannot be read, or is not of a kind that is certified.
    """
    try:
        return checked_key(certificate.public_key())
    except UnsupportedAlgorithm as error:
        message = "its key is of a kind that is not known here"
        raise ValueError(message) from error


def checked_key(key: object) -> PublicKey:
    """Return `key` if it is of a kind that is certified.

    Raises:
        ValueError: it is not.
    """
    if isinstance(key, rsa.RSAPublicKey):
        is_good = MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    elif isinstance(key, ec.EllipticCurvePublicKey):
        is_good = isinstance(key.curve, CURVES)
    else:
        is_good = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
    if not is_good:
        message = (
            f"its key is not P-256, P-384, P-521, Ed25519, Ed448, or RSA of {MIN_RSA_BITS} to"
            f" {MAX_RSA_BITS} bits"
        )
        raise ValueError(message)
    return cast("PublicKey", key)
