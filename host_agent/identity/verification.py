"""Chain, validity and CRL checks of whole certificates, as OpenSSL's strict mode makes them.

`pki verify` and the start and reload of the configuration ask here, before anything is served.
Requests never do: TLS verified their chain, and `Revocation` is asked instead. Every refusal is a
`ValueError` whose message is a fragment that a person can act on.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from host_agent.errors import InvalidIdentityError
from host_agent.identity.certificate import ExtensionT, parse_peer_certificate
from host_agent.identity.profiles import PURPOSES, Usage, key_usage, subject
from host_agent.identity.revocation import RevocationList

_STRICT = crypto.X509StoreFlags.X509_STRICT
_REVOCATION = crypto.X509StoreFlags.CRL_CHECK
_UNLINKED = frozenset({SSL.X509VerificationCodes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY})
"""Errors that are told of the certificate below a CA, and are the CA's."""


def load_certificates(data: bytes) -> Sequence[x509.Certificate]:
    """Return the certificates in `data` (PEM, or one in DER), at least one, in their order.

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except (ValueError, x509.InvalidVersion) as error:
        message = "it is not a certificate"
        raise ValueError(message) from error


def verify_chain(
    leaf_pem: bytes,
    ca_pem: bytes,
    crl_pem: bytes | None,
    *,
    purpose: Usage,
    now: datetime,
) -> None:
    """Return if the first certificate of `leaf_pem` is good for `purpose` at `now`.

    Further certificates of `leaf_pem` may complete the chain; only those of `ca_pem` are trusted.
    Says nothing of registration.

    Raises:
        ValueError: why it is not good.
    """
    leaf, *others = load_certificates(leaf_pem)
    issuers = load_certificates(ca_pem)
    store = _store(issuers, now=now)
    if crl_pem is not None:
        RevocationList.load(crl_pem, issuers, now)
        store.add_crl(_load_crl(crl_pem))
        store.set_flags(_STRICT | _REVOCATION)
    _verify(store, leaf, others)
    _require_purpose(leaf, purpose)


def check_server_pair(
    certificate_pem: bytes, key_pem: bytes, ca_pem: bytes | None, now: datetime
) -> datetime:
    """Return when the server's certificate ends, if it and its key can serve at `now`.

    `ca_pem` is the CA that clients trust, where it is known; without it the chain is not asked.

    Raises:
        ValueError: expired, not begun, key of another certificate, not for servers, no
            subjectAltName (clients would refuse it), or not issued by the CA.
    """
    leaf = load_certificates(certificate_pem)[0]
    if _public_bytes(leaf) != _public_bytes_of_key(key_pem):
        message = "the private key does not belong to the certificate"
        raise ValueError(message)
    if now < leaf.not_valid_before_utc:
        message = f"the certificate is not valid before {_instant(leaf.not_valid_before_utc)}"
        raise ValueError(message)
    if now >= leaf.not_valid_after_utc:
        message = f"the certificate expired at {_instant(leaf.not_valid_after_utc)}"
        raise ValueError(message)
    _require_purpose(leaf, Usage.SERVER)
    if _extension(leaf, x509.SubjectAlternativeName) is None:
        message = "the certificate names no host (no subjectAltName)"
        raise ValueError(message)
    if ca_pem is not None:
        verify_chain(certificate_pem, ca_pem, None, purpose=Usage.SERVER, now=now)
    return leaf.not_valid_after_utc


def check_authorities(ca_pem: bytes, crl_pem: bytes | None, now: datetime) -> list[str]:
    """Return what is wrong with the CAs that clients are verified against; empty if nothing.

    A CA that strict verification refuses (`openssl req -x509` without keyUsage makes such ones)
    would refuse every one of its clients.

    Raises:
        ValueError: `ca_pem` holds no certificate.
    """
    issuers = load_certificates(ca_pem)
    findings: list[str] = []
    for issuer in issuers:
        reason = _reason_against_authority(issuer, issuers, now=now)
        if reason is not None:
            findings.append(f"the CA {issuer.subject.rfc4514_string()!a} is refused: {reason}")
    if crl_pem is not None and not findings:
        try:
            _verify_list(crl_pem, issuers, now=now)
        except ValueError as error:
            findings.append(str(error))
    return findings


def reason_against(
    certificate_pem: bytes, ca_pem: bytes, crl_pem: bytes | None, *, now: datetime
) -> str | None:
    """Return why a client with this certificate would not be let in at `now`; None if it would.

    Whether its name is registered is for the configuration to say, not asked here.

    Raises:
        ValueError: `certificate_pem` is no certificate at all.
    """
    leaf = load_certificates(certificate_pem)[0]
    try:
        verify_chain(certificate_pem, ca_pem, crl_pem, purpose=Usage.CLIENT, now=now)
        parse_peer_certificate(leaf.public_bytes(serialization.Encoding.DER))
    except InvalidIdentityError as error:
        return error.detail.removeprefix("This client certificate is not accepted: ").split(". ")[0]
    except ValueError as error:
        return str(error)
    return None


def _store(issuers: Sequence[x509.Certificate], *, now: datetime) -> crypto.X509Store:
    store = crypto.X509Store()
    store.set_time(now.astimezone(UTC))  # pyOpenSSL reads the fields and ignores the zone
    store.set_flags(_STRICT)
    for issuer in issuers:
        store.add_cert(_as_openssl(issuer))
    return store


def _as_openssl(certificate: x509.Certificate) -> crypto.X509:
    """Return a certificate as OpenSSL has it, which may not read what cryptography does."""
    try:
        return crypto.X509.from_cryptography(certificate)
    except crypto.Error as error:
        message = "OpenSSL cannot read the certificate"
        raise ValueError(message) from error


def _verify(
    store: crypto.X509Store, leaf: x509.Certificate, others: Sequence[x509.Certificate]
) -> None:
    chain = [_as_openssl(other) for other in others]
    try:
        crypto.X509StoreContext(store, _as_openssl(leaf), chain).verify_certificate()
    except crypto.X509StoreContextError as error:
        raise ValueError(str(error)) from error


def _load_crl(pem: bytes) -> x509.CertificateRevocationList:
    if b"-----BEGIN" in pem:
        return x509.load_pem_x509_crl(pem)
    return x509.load_der_x509_crl(pem)


def _reason_against_authority(
    issuer: x509.Certificate, issuers: Sequence[x509.Certificate], *, now: datetime
) -> str | None:
    """Return why OpenSSL would refuse `issuer` as the CA of a client, or None.

    OpenSSL asks most of a CA only when it stands above something, so a certificate that merely
    claims to be issued by it is verified. Chain and dates are asked before that one's signature,
    and only what concerns the CA (depth 1 and up) counts.
    """
    context = crypto.X509StoreContext(
        _store(issuers, now=now), _as_openssl(_claimant(issuer, now=now))
    )
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        depth = error.errors[1]
        return str(error) if depth > 0 or error.errors[0] in _UNLINKED else None
    return None


def _claimant(issuer: x509.Certificate, *, now: datetime) -> x509.Certificate:
    private_key = ec.generate_private_key(ec.SECP256R1())
    identifier = _extension(issuer, x509.SubjectKeyIdentifier)
    own = x509.SubjectKeyIdentifier.from_public_key(private_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject("claimant"))
        .issuer_name(issuer.subject)
        .public_key(private_key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(own, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier or own),
            critical=False,
        )
        .sign(private_key, hashes.SHA256())
    )


def _verify_list(crl_pem: bytes, issuers: Sequence[x509.Certificate], *, now: datetime) -> None:
    RevocationList.load(crl_pem, issuers, now)
    crl = _load_crl(crl_pem)
    for issuer in issuers:
        if issuer.subject == crl.issuer == issuer.issuer:
            store = _store(issuers, now=now)
            store.add_crl(crl)
            store.set_flags(_STRICT | _REVOCATION)
            _verify(store, issuer, ())


def _require_purpose(leaf: x509.Certificate, purpose: Usage) -> None:
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        message = "it is a CA's certificate"
        raise ValueError(message)
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or PURPOSES[purpose] not in purposes:
        message = f"it is not for a {purpose} (extendedKeyUsage)"
        raise ValueError(message)


def _extension(certificate: x509.Certificate, kind: type[ExtensionT]) -> ExtensionT | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except x509.DuplicateExtension as error:
        message = "it has an extension twice"
        raise ValueError(message) from error


def _public_bytes_of_key(pem: bytes) -> bytes:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        message = "the private key is not an unencrypted PEM key"
        raise ValueError(message) from error
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _public_bytes(leaf: x509.Certificate) -> bytes:
    try:
        return leaf.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except UnsupportedAlgorithm as error:
        message = "the certificate's key is of a kind that is not supported"
        raise ValueError(message) from error


def _instant(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
