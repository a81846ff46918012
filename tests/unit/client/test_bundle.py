"""A bundle is read as it was written, and refused where it could not be used."""

import base64
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from host_agent.client.bundle import FORMAT, Bundle, BundleError, decode, is_url, url_of
from tests.support.certificates import Pki, make_pki


@pytest.fixture
def pki() -> Pki:
    return make_pki()


def bundle_of(pki: Pki, cn: str = "alice", host: str = "web-1") -> Bundle:
    leaf = pki.client(cn)
    return Bundle(
        host=host,
        cn=cn,
        urls=("https://web-1.example.org:8443", "https://[2001:db8::1]:8443"),
        certificate=leaf.pem.decode(),
        private_key=leaf.key_pem.decode(),
        ca=pki.ca.certificate_pem().decode(),
    )


def test_what_was_written_is_read_and_can_be_used(pki: Pki) -> None:
    bundle = bundle_of(pki)
    data = bundle.encode()
    found = decode(data)
    assert replace(found, certificate="", private_key="", ca="") == replace(
        bundle, certificate="", private_key="", ca=""
    )
    for name in ("certificate", "private_key", "ca"):
        assert getattr(found, name).strip() == getattr(bundle, name).strip()
    found.check(pki.now)
    assert decode(found.encode()) == found
    lines = data.decode().splitlines()
    assert "SECRET" in lines[0]
    assert all(len(line) <= 120 for line in lines)
    assert bundle.private_key not in repr(bundle)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f"format = {FORMAT}", "format = 2", "another version"),
        (f"format = {FORMAT}\n", "", "another version"),
        ('host = "web-1"', 'host = "../etc"', "`host` is no name"),
        ('host = "web-1"', "", "`host` is missing"),
        ('cn = "alice"', 'cn = "\\u001b[1m"', "`cn` is no name"),
        ('cn = "alice"', "cn = 1", "`cn` is missing"),
        ('cn = "alice"', 'cn = "alice"\nsudo = true', "'sudo'"),
        ("https://web-1.example.org:8443", "http://web-1.example.org:8443", "`urls`"),
        ("https://web-1.example.org:8443", "https://a@b:8443", "`urls`"),
        ("https://web-1.example.org:8443", "https://b:8443/path", "`urls`"),
        ("private_key = '''", "private_key = ''", "not TOML"),
        ("web-1", "wéb-1", "not TOML"),
        (f"format = {FORMAT}", "format = true", "another version"),
        (f"format = {FORMAT}", f"format = {'1' * 5000}", "not TOML"),
        ("web-1.example.org:8443", "web-1.example.org:65536", "`urls`"),
        ("web-1.example.org:8443", "web-1.example.org:0", "`urls`"),
        ("web-1.example.org:8443", "web-1..org:8443", "`urls`"),
        ("web-1.example.org:8443", f"{'a' * 64}.org:8443", "`urls`"),
        ("[2001:db8::1]:8443", "[2001:::1]:8443", "`urls`"),
    ],
)
def test_a_broken_bundle_is_refused_with_the_reason(
    pki: Pki, old: str, new: str, said: str
) -> None:
    text = bundle_of(pki).encode().decode()
    assert old in text
    with pytest.raises(BundleError, match=re.escape(said)):
        decode(text.replace(old, new, 1).encode())


def test_every_bundle_that_was_cut_off_is_refused(pki: Pki) -> None:
    data = bundle_of(pki).encode().rstrip()
    for length in range(0, len(data), 97):
        with pytest.raises(BundleError):
            decode(data[:length])
    with pytest.raises(BundleError, match="larger than"):
        decode(data + b"\n#" + b"x" * 70_000)
    decode(data)


def test_pieces_that_do_not_belong_together_are_refused(pki: Pki) -> None:
    alice, bob = bundle_of(pki), bundle_of(pki, "bob")
    foreign = make_pki(name="host-agent test CA").ca.certificate_pem().decode()
    for wrong, said in (
        (replace(alice, private_key=bob.private_key), "not the key of"),
        (replace(alice, private_key="x"), "no PEM key"),
        (replace(alice, certificate=bob.certificate, private_key=bob.private_key), "not that of"),
        (replace(alice, certificate="x"), "no PEM certificate"),
        (replace(alice, ca=foreign), "not issued by"),
    ):
        with pytest.raises(BundleError, match=said):
            wrong.check(pki.now)
    alice.check(pki.now)


_KINDS = {
    "an unknown kind of key": ("06072a8648ce3d0201", "06072a8648ce3d0277"),
    "an unknown curve": ("06082a8648ce3d030107", "06082a8648ce3d030177"),
    "a name that is no text": ("0c05616c696365", "0c05fffefdfcfb"),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_a_certificate_that_cannot_be_used_is_refused(pki: Pki, kind: str) -> None:
    bundle = bundle_of(pki)
    der = x509.load_pem_x509_certificate(bundle.certificate.encode()).public_bytes(Encoding.DER)
    known, unknown = map(bytes.fromhex, _KINDS[kind])
    strange = der.replace(known, unknown, 1)
    assert strange != der
    text = base64.encodebytes(strange).decode()
    certificate = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
    with pytest.raises(BundleError, match="cannot be used"):
        replace(bundle, certificate=certificate).check(pki.now)


def test_one_that_is_not_valid_now_is_refused(pki: Pki) -> None:
    bundle = bundle_of(pki)
    with pytest.raises(BundleError, match="expired at"):
        bundle.check(pki.now + timedelta(days=400))
    with pytest.raises(BundleError, match="not valid before"):
        bundle.check(pki.now - timedelta(days=400))


def test_addresses_are_written_as_urls(tmp_path: Path) -> None:
    assert url_of("web-1.example.org", 8443) == "https://web-1.example.org:8443"
    assert url_of("2001:db8::1", 8443) == "https://[2001:db8::1]:8443"
    assert is_url(url_of("192.0.2.1", 8443))
    assert is_url("https://a_b-c.d")
    assert not is_url("https://web-1:8443\n")
    assert not is_url(f"file://{tmp_path}")
