"""Chains, server pairs and CAs, judged as OpenSSL's strict mode does."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from host_agent.identity.authorities import Authorities
from host_agent.identity.revocation_list import load_lists
from host_agent.pki.door import load_certificates
from host_agent.pki.profiles import Usage, new_ca, new_leaf, subject
from host_agent.pki.verification import (
    check_authorities,
    check_server_pair,
    reason_against,
    reason_of_clients,
)
from tests.support.certificates import (
    CLIENT_AUTH,
    HOSTILE_SHAPES,
    SERVER_AUTH,
    Leaf,
    make_pki,
)

PKI = make_pki()
DAY = timedelta(days=1)


def test_a_good_client_is_let_in_and_a_good_server_serves() -> None:
    leaf, server = PKI.client(), PKI.server()
    assert reason_against(leaf.pem, PKI.ca_pem, PKI.crl_pem, now=PKI.now) is None
    assert reason_against(leaf.der, PKI.ca_pem, None, now=PKI.now) is None
    check_server_pair(server.pem, server.key_pem, PKI.now)


BAD_CLIENTS: dict[str, tuple[Callable[[], Leaf], str]] = {
    "server": (PKI.server, "unsuitable certificate purpose"),
    "expired": (PKI.expired_client, "has expired"),
    "from tomorrow": (PKI.future_client, "not yet valid"),
    "foreign CA": (lambda: make_pki(name="another CA").client(), "issuer"),
    "foreign CA of the same name": (lambda: make_pki().client(), "issuer"),
    "no authorityKeyIdentifier": (
        lambda: PKI.client(authority_key_identifier=False),
        "Authority Key Identifier",
    ),
}


@pytest.mark.parametrize("kind", BAD_CLIENTS)
def test_a_bad_client_is_refused_with_its_reason(kind: str) -> None:
    make, reason = BAD_CLIENTS[kind]
    leaf = make()

    assert reason in (reason_against(leaf.pem, PKI.ca_pem, PKI.crl_pem, now=PKI.now) or "")


def test_a_revoked_client_is_refused_and_only_with_the_list() -> None:
    pki = make_pki()
    leaf = pki.client()
    assert reason_against(leaf.pem, pki.ca_pem, pki.crl_pem, now=pki.now) is None

    pki.revoke(leaf)

    assert reason_against(leaf.pem, pki.ca_pem, pki.crl_pem, now=pki.now) == "certificate revoked"
    assert reason_against(leaf.pem, pki.ca_pem, None, now=pki.now) is None


@pytest.mark.promise("c11")
@pytest.mark.parametrize("kind", ["expired", "foreign", "text"])
def test_nobody_passes_with_a_bad_list(kind: str) -> None:
    bad = {
        "expired": PKI.make_crl(number=9, days=1, now=PKI.now - 2 * DAY),
        "foreign": make_pki().crl_pem,
        "text": b"no list",
    }
    reason = reason_against(PKI.client().pem, PKI.ca_pem, bad[kind], now=PKI.now)

    assert reason is not None
    assert "list" in reason
    with pytest.raises(ValueError, match="list"):
        load_lists(bad[kind], Authorities([PKI.ca_certificate]), PKI.now)


@pytest.mark.promise("c14")
@pytest.mark.parametrize("shape", HOSTILE_SHAPES)
def test_hostile_shape_would_not_be_let_in(shape: str) -> None:
    leaf = HOSTILE_SHAPES[shape](PKI)

    assert reason_against(leaf.pem, PKI.ca_pem, PKI.crl_pem, now=PKI.now) is not None


def test_an_intermediate_ca_below_ours_cannot_issue() -> None:
    """Our CA says pathlen 0: who gets a CA certificate out of it still cannot make identities."""
    middle = PKI.client("middle", ca=True, key_cert_sign=True).credential
    leaf = new_leaf(middle, common_name="librarian", usage=Usage.CLIENT, now=PKI.now, days=1)
    bundle = leaf.certificate_pem() + middle.certificate_pem()

    reason = reason_against(bundle, PKI.ca_pem, None, now=PKI.now)

    assert reason is not None
    assert "path length" in reason


def test_what_is_no_certificate_is_told() -> None:
    for data in (b"", b"text", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ValueError, match="not a certificate"):
            load_certificates(data)


# -- the server's own pair --------------------------------------------------------------------


def test_a_good_server_pair_passes_and_tells_its_end() -> None:
    leaf = PKI.server()

    end = check_server_pair(leaf.pem, leaf.key_pem, PKI.now)

    assert end == leaf.certificate.not_valid_after_utc
    assert reason_of_clients(leaf.pem, PKI.ca_pem, PKI.now) is None


@pytest.mark.promise("c12")
def test_expired_server_certificate_is_refused() -> None:
    leaf = PKI.server(days=1)
    end = leaf.certificate.not_valid_after_utc
    check_server_pair(leaf.pem, leaf.key_pem, end - timedelta(seconds=1))

    with pytest.raises(ValueError, match="expired"):
        check_server_pair(leaf.pem, leaf.key_pem, end)


@pytest.mark.promise("c12")
def test_server_certificate_of_tomorrow_is_refused() -> None:
    leaf = PKI.server()

    with pytest.raises(ValueError, match="not valid before"):
        check_server_pair(leaf.pem, leaf.key_pem, PKI.now - DAY)


@pytest.mark.promise("c12")
def test_key_of_another_certificate_is_refused() -> None:
    leaf, other = PKI.server(), PKI.server()

    with pytest.raises(ValueError, match="does not belong"):
        check_server_pair(leaf.pem, other.key_pem, PKI.now)


@pytest.mark.promise("c12")
@pytest.mark.parametrize("kind", ["text", "certificate", "encrypted"])
def test_what_is_no_plain_key_is_refused(kind: str) -> None:
    leaf = PKI.server()
    encrypted = leaf.credential.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    keys = {"text": b"no key", "certificate": leaf.pem, "encrypted": encrypted}

    with pytest.raises(ValueError, match="unencrypted PEM key"):
        check_server_pair(leaf.pem, keys[kind], PKI.now)


@pytest.mark.promise("c12")
def test_client_certificate_is_no_server_certificate() -> None:
    leaf = PKI.client()

    with pytest.raises(ValueError, match="not for a server"):
        check_server_pair(leaf.pem, leaf.key_pem, PKI.now)


@pytest.mark.promise("c12")
def test_server_certificate_without_a_host_name_is_refused() -> None:
    leaf = PKI.client("localhost", usages=(SERVER_AUTH, CLIENT_AUTH))

    with pytest.raises(ValueError, match="subjectAltName"):
        check_server_pair(leaf.pem, leaf.key_pem, PKI.now)


def test_a_server_certificate_that_clients_of_the_same_authority_refuse_is_told() -> None:
    """Without authorityKeyIdentifier: strict clients do not take it; the door does not ask."""
    leaf = PKI.client(
        "localhost", usages=(SERVER_AUTH,), authority_key_identifier=False, file_name="bare"
    )

    refused = reason_of_clients(leaf.pem, PKI.ca_pem, PKI.now)

    assert refused is not None
    assert "Authority Key Identifier" in refused
    assert reason_of_clients(make_pki().server().pem, PKI.ca_pem, PKI.now) is None


# -- CAs --------------------------------------------------------------------------------------


def test_a_good_ca_and_its_list_have_no_findings() -> None:
    assert check_authorities(PKI.ca_pem, PKI.now) == []
    assert check_authorities(PKI.ca_pem + make_pki().ca_pem, PKI.now) == []


def test_a_ca_that_strict_verification_refuses_is_found() -> None:
    """`openssl req -x509` makes such a CA: no keyUsage."""
    found = check_authorities(plain_ca(), PKI.now)

    assert len(found) == 1
    assert "key usage" in found[0]
    both = check_authorities(PKI.ca_pem + plain_ca(), PKI.now)
    assert len(both) == 1


@pytest.mark.parametrize("kind", ["leaf", "expired"])
def test_what_cannot_be_a_ca_is_found(kind: str) -> None:
    ca = new_ca("old", now=PKI.now - 2 * DAY, days=1)
    pem = PKI.client().pem if kind == "leaf" else ca.certificate_pem()

    assert len(check_authorities(pem, PKI.now)) == 1


def test_the_reason_against_a_real_client_of_a_bad_ca_agrees_with_the_finding() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = plain_ca(key)
    ca = x509.load_pem_x509_certificate(pem)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(subject("librarian"))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(PKI.now - DAY)
        .not_valid_after(PKI.now + DAY)
        .add_extension(x509.SubjectKeyIdentifier(b"leaf"), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )

    reason = reason_against(leaf, pem, None, now=PKI.now)

    assert reason is not None
    assert check_authorities(pem, PKI.now)[0].endswith(reason)


def plain_ca(key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return (
        x509.CertificateBuilder()
        .subject_name(subject("plain"))
        .issuer_name(subject("plain"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(PKI.now - DAY)
        .not_valid_after(PKI.now + DAY)
        .add_extension(identifier, critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
