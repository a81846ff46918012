"""A handshake without the client's key: what the server's context says of a certificate."""

import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from OpenSSL import SSL

from host_agent.http.refusals import SIGNATURE_FAILURE
from host_agent.http.tls import TlsContext, present
from host_agent.identity.authorities import Authorities
from host_agent.pki.claimant import claimant
from host_agent.pki.door import door_context
from host_agent.pki.rehearsal import refusal
from host_agent.pki.verification import check_authorities
from tests.support.certificates import Pki, make_pki
from tests.support.pki_shapes import Key, a_ca, long_key, pem


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return make_pki(tmp_path)


def context(pki: Pki, *more: x509.Certificate) -> TlsContext:
    made = door_context([pki.ca_certificate, *more])
    server = pki.server()
    present(made, [server.certificate], server.credential.private_key)
    return made


def test_a_good_certificate_is_taken_without_its_key(pki: Pki) -> None:
    assert refusal(context(pki), [pki.client().certificate]) is None


def test_a_bad_one_is_refused_in_the_words_of_the_door(pki: Pki) -> None:
    refused = refusal(context(pki), [make_pki(name="another").client().certificate])
    assert refused is not None
    assert (refused.verify_code, refused.reason) == (20, "unable to get local issuer certificate")


def test_a_certificate_larger_than_a_record_is_judged(pki: Pki) -> None:
    long = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.2.3.4"), b"\x04\x83\x00\xff\xfc" + b"x" * 65532
    )
    ca = a_ca()
    leaf = ca.leaf(more=[(long, False)])
    made = context(pki, ca.certificate)
    assert len(pem(leaf.certificate)) > 64 * 1024
    assert refusal(made, [leaf.certificate]) is None
    assert refusal(context(pki), [leaf.certificate]) is not None


def test_a_key_that_a_quantum_computer_does_not_break_is_judged(pki: Pki) -> None:
    """Clients of OpenSSL 3.5 and later have such keys, and the door takes them."""
    ca = a_ca()
    for key in (mldsa.MLDSA44PrivateKey, mldsa.MLDSA65PrivateKey, mldsa.MLDSA87PrivateKey):
        leaf = ca.leaf(key=cast("Key", key.generate()))
        assert refusal(context(pki, ca.certificate), [leaf.certificate]) is None
        assert refusal(context(pki), [leaf.certificate]) is not None


def test_a_server_that_asks_for_nobody_is_no_door(pki: Pki) -> None:
    open_to_all = context(pki)
    open_to_all.set_verify(SSL.VERIFY_NONE)
    with pytest.raises(ValueError, match="asks for no certificate"):
        refusal(open_to_all, [pki.client().certificate])


def test_a_server_without_a_certificate_cannot_begin(pki: Pki) -> None:
    with pytest.raises(ValueError, match="does not begin"):
        refusal(door_context([pki.ca_certificate]), [pki.client().certificate])


def test_a_claimant_fails_by_its_signature_alone(pki: Pki) -> None:
    """Or the door would be asked of something else than the authority."""
    for key in (None, long_key()):
        ca = a_ca(key=key)
        (authority,) = Authorities([ca.certificate])
        refused = refusal(context(pki, ca.certificate), [claimant(authority, now=pki.now)])
        assert refused is not None
        assert refused.verify_code == SIGNATURE_FAILURE


def test_an_issuing_authority_whose_own_signature_is_forged_is_refused(pki: Pki) -> None:
    """Its certificate says that the root signed it, and somebody else did."""
    root, forger = a_ca("Root", path_length=1), a_ca("Root", path_length=1)
    forged = a_ca("Issuing", above=forger)
    assert check_authorities(pem(forged.certificate, forger.certificate), pki.now) == []
    bundle = pem(forged.certificate, root.certificate)
    (found,) = check_authorities(bundle, pki.now)
    assert "CN=Issuing" in found


def test_what_holds_no_authority_is_said(pki: Pki) -> None:
    (found,) = check_authorities(pki.client().pem, pki.now)
    assert found.endswith("it holds no CA certificate")


_ASK = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from host_agent.pki.verification import check_authorities, reason_against
ca, good, bad = (Path(name).read_bytes() for name in sys.argv[1:])
now = datetime.now(UTC)
print(check_authorities(ca, now), *(reason_against(one, ca, None, now=now) for one in (good, bad)))
"""


@pytest.mark.parametrize(
    "left",
    [
        "Ciphersuites = TLS_AES_256_GCM_SHA384",
        "Ciphersuites = TLS_CHACHA20_POLY1305_SHA256",
        "Ciphersuites = TLS_AES_128_GCM_SHA256",
        "Groups = P-256",
        "Groups = P-384",
        "Groups = P-521",
        "Groups = X25519",
    ],
)
def test_a_door_that_an_administrator_left_few_suites_or_groups_is_asked(
    pki: Pki, tmp_path: Path, left: str
) -> None:
    """Hardened hosts have such lines in openssl.cnf; the door serves there, so it can be asked."""
    settings = tmp_path / "openssl.cnf"
    settings.write_text(
        f"openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n{left}\n"
    )
    places = [tmp_path / name for name in ("ca", "good", "bad")]
    others = make_pki(name="another")
    for place, data in zip(
        places, (pem(pki.ca_certificate), pki.client().pem, others.client().pem), strict=True
    ):
        place.write_bytes(data)
    asked = subprocess.run(
        [sys.executable, "-c", _ASK, *places],
        env=os.environ | {"OPENSSL_CONF": str(settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout == "[] None unable to get local issuer certificate\n"
