"""Would the door take it: asked of the door's own TLS context, and of what is asked after it.

`pki verify`, `config check`, `doctor`, the start and the reload ask here. So there is one answer:
whether the chain is good is said by a handshake in memory with the door's context (`rehearsal`),
the rest by what every request is asked (`parse_peer_certificate`, `check_credential`). Every
refusal is a `ValueError` or a sentence fragment that a person can act on.
"""

import functools
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto

from host_agent.errors import IdentityError, RevokedIdentityError
from host_agent.http.refusals import SIGNATURE_FAILURE
from host_agent.http.tls import TlsContext, present
from host_agent.identity.authorities import Authorities, Authority
from host_agent.identity.certificate import parse_peer_certificate
from host_agent.identity.names import extension_of
from host_agent.identity.revocation import check_credential
from host_agent.identity.revocation_list import load_lists
from host_agent.pki.claimant import claimant
from host_agent.pki.door import door_context, load_certificates, load_private_key
from host_agent.pki.profiles import PURPOSES, KeyPair, Usage, new_ca
from host_agent.pki.rehearsal import refusal


def check_server_pair(certificate_pem: bytes, key_pem: bytes, now: datetime) -> datetime:
    """Return when the server's certificate ends, if it and its key can serve at `now`.

    Which authority clients trust is theirs to know: the chain is not asked.

    Raises:
        ValueError: expired, not begun, key of another certificate, not for servers, no
            subjectAltName (clients would refuse it).
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
    if extension_of(leaf, x509.SubjectAlternativeName) is None:
        message = "the certificate names no host (no subjectAltName)"
        raise ValueError(message)
    return leaf.not_valid_after_utc


def reason_of_clients(certificate_pem: bytes, ca_pem: bytes, now: datetime) -> str | None:
    """Return why clients that trust `ca_pem` would refuse the server's certificate; None if not.

    Nothing is said of a certificate that none of these authorities issued: its clients trust
    another one then. Clients bring an OpenSSL of their own, so this asks as a strict client
    does, by the chain that the server sends.

    Raises:
        ValueError: one of the files holds no certificate.
    """
    chain, trusted = load_certificates(certificate_pem), load_certificates(ca_pem)
    if Authorities(trusted).signer_of(chain[0]) is None:
        return None
    try:
        _verify_for_clients(chain, trusted, now)
    except ValueError as error:
        return str(error)
    return None


def check_authorities(ca_pem: bytes, now: datetime) -> list[str]:
    """Return which authorities the door refuses with all their clients, and why; empty if none.

    A CA that strict verification refuses (`openssl req -x509` without keyUsage makes such ones)
    would refuse every one of its clients.

    Raises:
        ValueError: `ca_pem` holds no certificate, or one that cannot be read.
    """
    certificates = load_certificates(ca_pem)
    authorities = Authorities(certificates)
    try:
        context = _rehearsing(certificates)
    except ValueError as error:
        return [f"the CA {one.name!a} is refused: {error}" for one in authorities]
    findings: list[str] = []
    for authority in authorities:
        reason = _reason_against_authority(context, authority, authorities, now)
        if reason is not None:
            findings.append(f"the CA {authority.name!a} is refused: {reason}")
    return findings


def authorities_end(ca_pem: bytes) -> datetime:
    """Return when the first authority ends; a renewed one ends with its last certificate.

    Raises:
        ValueError: `ca_pem` holds no certificate, or one that cannot be read.
    """
    return min(
        max(certificate.not_valid_after_utc for certificate in authority.certificates)
        for authority in Authorities(load_certificates(ca_pem))
    )


def reason_against(
    certificate_pem: bytes, ca_pem: bytes, crl_pem: bytes | None, *, now: datetime
) -> str | None:
    """Return why a client with this certificate would not be let in; None if it would.

    Further certificates of `certificate_pem` are what the client sends with it. The chain's dates
    are asked by the clock of this host, as at the door, the rest at `now`. Whether its name is
    registered is for the configuration to say, not asked here.

    Raises:
        ValueError: `certificate_pem` is no certificate at all.
    """
    chain = load_certificates(certificate_pem)
    try:
        issuers = load_certificates(ca_pem)
        refused = refusal(_rehearsing(issuers), chain)
        if refused is not None:
            return refused.reason
        authorities = Authorities(issuers)
        lists = None if crl_pem is None else load_lists(crl_pem, authorities, now)
        credential = authorities.credential(parse_peer_certificate(_der(chain[0])))
        check_credential(credential, authorities, lists, now)
    except RevokedIdentityError:
        return "certificate revoked"
    except IdentityError as error:
        return error.detail.removeprefix("This client certificate is not accepted: ").split(". ")[0]
    except ValueError as error:
        return str(error)
    return None


def _rehearsing(authorities: Sequence[x509.Certificate]) -> TlsContext:
    """Return the door's context with a certificate that is good for a rehearsal."""
    context = door_context(authorities)
    pair = _stand_in()
    present(context, [pair.certificate], pair.private_key)
    return context


@functools.cache
def _stand_in() -> KeyPair:
    return new_ca("rehearsal", now=datetime.now(UTC), days=1)


def _reason_against_authority(
    context: TlsContext, authority: Authority, authorities: Authorities, now: datetime
) -> str | None:
    """Return why the door refuses every client of `authority`, or None.

    OpenSSL asks most of a CA only when it stands above something, so a certificate that merely
    claims to be issued by it is shown. Chain and dates are asked before that one's signature.
    """
    refused = refusal(context, [claimant(authority, now=now)])
    if refused is None or refused.verify_code != SIGNATURE_FAILURE:
        return None if refused is None else refused.reason
    is_rooted = any(
        certificate.issuer == certificate.subject or authorities.signer_of(certificate) is not None
        for certificate in authority.certificates
    )
    return None if is_rooted else refused.reason


def _require_purpose(leaf: x509.Certificate, purpose: Usage) -> None:
    constraints = extension_of(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        message = "it is a CA's certificate"
        raise ValueError(message)
    purposes = extension_of(leaf, x509.ExtendedKeyUsage)
    if purposes is None or PURPOSES[purpose] not in purposes:
        message = f"it is not for a {purpose} (extendedKeyUsage)"
        raise ValueError(message)


def _verify_for_clients(
    chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate], now: datetime
) -> None:
    """Ask as a strict client would that trusts `trusted`; clients have an OpenSSL of their own."""
    store = crypto.X509Store()
    store.set_time(now.astimezone(UTC))  # pyOpenSSL reads the fields and ignores the zone
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    try:
        for certificate in trusted:
            store.add_cert(crypto.X509.from_cryptography(certificate))
        leaf, *others = (crypto.X509.from_cryptography(certificate) for certificate in chain)
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.Error as error:
        message = "OpenSSL cannot read the certificate"
        raise ValueError(message) from error
    except crypto.X509StoreContextError as error:
        raise ValueError(str(error)) from error


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _public_bytes_of_key(pem: bytes) -> bytes:
    return (
        load_private_key(pem)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
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
