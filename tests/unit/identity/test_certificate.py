"""A verified certificate becomes a value, or is refused by its shape."""

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from host_agent.errors import InvalidIdentityError
from host_agent.identity.certificate import MAX_CERTIFICATE_BYTES, parse_peer_certificate
from tests.support.certificates import (
    CLIENT_AUTH,
    HOSTILE_SHAPES,
    SERVER_AUTH,
    make_pki,
)

PKI = make_pki()


def test_a_good_certificate_is_parsed_whole() -> None:
    leaf = PKI.client("librarian")

    peer = parse_peer_certificate(leaf.der)

    assert peer.common_name == "librarian"
    assert peer.serial == leaf.serial
    assert peer.fingerprint == leaf.fingerprint
    assert peer.der == leaf.der
    assert peer.not_valid_before == leaf.certificate.not_valid_before_utc
    assert peer.not_valid_after == leaf.certificate.not_valid_after_utc
    assert peer.points == frozenset()


@pytest.mark.parametrize("cn", ["a", "_x", "web-1.example", "a" * 64, "root2"])
def test_every_name_of_the_grammar_is_accepted(cn: str) -> None:
    assert parse_peer_certificate(PKI.client(cn).der).common_name == cn


def test_a_certificate_for_both_sides_is_accepted() -> None:
    leaf = PKI.client(usages=(SERVER_AUTH, CLIENT_AUTH))

    assert parse_peer_certificate(leaf.der).common_name == "librarian"


@pytest.mark.promise("c14")
@pytest.mark.parametrize("shape", HOSTILE_SHAPES)
def test_hostile_shape_is_refused(shape: str) -> None:
    leaf = HOSTILE_SHAPES[shape](PKI)

    with pytest.raises(InvalidIdentityError) as caught:
        parse_peer_certificate(leaf.der)

    assert caught.value.code == "identity:invalid"
    assert caught.value.status == 403
    assert caught.value.detail.isascii()
    assert "evil" not in caught.value.detail, "the detail repeats nothing of the certificate"


@pytest.mark.promise("c14")
@pytest.mark.parametrize("data", [b"", b"\x30", b"not a certificate", PKI.client().pem])
def test_bytes_that_are_no_certificate_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidIdentityError):
        parse_peer_certificate(data)


@pytest.mark.promise("c14")
def test_a_name_that_is_no_text_is_refused() -> None:
    name = b"\x0c\x09librarian"
    assert name in _GOOD_DER
    with pytest.raises(InvalidIdentityError, match="cannot be read"):
        parse_peer_certificate(_GOOD_DER.replace(name, b"\x03\x09\0ibrarian"))


@pytest.mark.promise("c14")
def test_oversized_certificate_is_refused() -> None:
    blob = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x" * 70_000)
    leaf = PKI.client(extra=[blob])
    assert len(leaf.der) > MAX_CERTIFICATE_BYTES

    with pytest.raises(InvalidIdentityError, match="too large"):
        parse_peer_certificate(leaf.der)


@pytest.mark.promise("c14")
@settings(max_examples=300)
@given(position=st.integers(min_value=0), value=st.integers(min_value=0, max_value=255))
def test_a_damaged_certificate_is_parsed_or_refused_and_never_fails_otherwise(
    position: int, value: int
) -> None:
    der = bytearray(_GOOD_DER)
    der[position % len(der)] = value

    try:
        peer = parse_peer_certificate(bytes(der))
    except InvalidIdentityError:
        return
    assert peer.common_name.isascii()


_GOOD_DER = PKI.client("librarian").der
