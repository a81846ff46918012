"""An authority is a name and a key, however they are written; it is found by its signature."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from host_agent.errors import InvalidIdentityError
from host_agent.identity.authorities import Authorities
from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from host_agent.identity.credential import Credential
from host_agent.identity.names import canonical_name, points_of
from tests.support.pki_shapes import Ca, Leaf, a_ca, curve, named, points


def peer(leaf: Leaf) -> PeerCertificate:
    return parse_peer_certificate(leaf.certificate.public_bytes(serialization.Encoding.DER))


def of(*cas: Ca) -> Authorities:
    return Authorities([ca.certificate for ca in cas])


@pytest.mark.promise("c11")
@pytest.mark.parametrize("kind", ["PrintableString", "BMPString", "T61String", "UniversalString"])
def test_a_name_is_the_same_in_every_string_type(kind: str) -> None:
    written = named("Lab CA", _ASN1Type[kind])
    assert written.public_bytes() != named("Lab CA").public_bytes()
    assert canonical_name(written) == canonical_name(named("Lab CA"))


def test_capitals_and_blanks_of_a_name_do_not_count() -> None:
    assert canonical_name(named("  lab \t CA ")) == canonical_name(named("Lab CA"))


def test_other_names_are_others() -> None:
    organization = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lab CA")])
    twice = x509.Name([*named("Lab CA"), *named("Lab CA")])
    one_set = x509.Name(
        [
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.COMMON_NAME, "a"),
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "b"),
                ]
            )
        ]
    )
    in_turn = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "a"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "b"),
        ]
    )
    # A comma or an equals sign inside is not the end of a part.
    tricky = x509.Name([*named("a', '2.5.4.10=b")])
    names = [named("Lab CA"), named("LabCA"), organization, twice, one_set, in_turn, tricky]
    assert len({canonical_name(name) for name in names}) == len(names)


def test_a_renewed_authority_is_the_same_one_and_a_new_key_another() -> None:
    key = curve()
    old, renewed, other = a_ca(key=key), a_ca(key=key), a_ca()
    assert len(list(of(old, renewed))) == 1
    assert len(list(of(old, renewed, other))) == 2
    leaf = peer(old.leaf())
    assert (
        of(old).credential(leaf) == of(renewed).credential(leaf) == of(other, old).credential(leaf)
    )


def test_a_credential_says_whose_it_is_and_when_it_ends() -> None:
    ca = a_ca()
    leaf = ca.leaf(more=[points("http://ca/1.crl")])
    (authority,) = of(ca)
    assert of(ca).credential(peer(leaf)) == Credential(
        cn="deployer",
        fingerprint=peer(leaf).fingerprint,
        serial=leaf.certificate.serial_number,
        issuer=authority.id,
        ends=leaf.certificate.not_valid_after_utc,
        points=frozenset({"UniformResourceIdentifier:http://ca/1.crl"}),
    )


def test_the_name_of_an_authority_without_its_key_says_nothing() -> None:
    leaf = peer(a_ca().leaf())
    with pytest.raises(InvalidIdentityError, match="not in the agent's client_ca"):
        of(a_ca()).credential(leaf)


def test_a_refusal_is_not_remembered_as_an_answer() -> None:
    ca, authorities = a_ca(), of(a_ca())
    for _ in range(2):
        with pytest.raises(InvalidIdentityError):
            authorities.credential(peer(ca.leaf()))


def test_a_certificate_whose_issuer_cannot_be_read_is_refused() -> None:
    """OpenSSL takes letters of Latin-1 in a TeletexString, which no other reader does."""
    ca = a_ca(named("Lab CA", _ASN1Type.T61String))
    leaf = peer(ca.leaf())
    odd = replace(leaf, der=leaf.der.replace(b"Lab CA", b"Lab C\xfc"))
    with pytest.raises(InvalidIdentityError):
        of(ca).credential(odd)
    assert of(ca).credential(leaf).cn == "deployer"
    unreadable = ca.certificate.public_bytes(serialization.Encoding.DER)
    unreadable = unreadable.replace(b"Lab CA", b"Lab C\xfc")
    with pytest.raises(ValueError, match="name cannot be read"):
        Authorities([x509.load_der_x509_certificate(unreadable)])


def test_the_head_of_a_hierarchy_is_known() -> None:
    root = a_ca("Root", path_length=1)
    issuing, other = a_ca("Issuing", above=root), a_ca("Other")
    assert [one.name for one in of(issuing, root, other).heads()] == ["CN=Root"]


def test_a_point_for_some_reasons_or_of_another_issuer_covers_nothing() -> None:
    where = [x509.UniformResourceIdentifier("http://ca/1.crl")]
    partial = x509.CRLDistributionPoints(
        [
            x509.DistributionPoint(where, None, frozenset({x509.ReasonFlags.key_compromise}), None),
            x509.DistributionPoint(where, None, None, [x509.DirectoryName(named("else"))]),
        ]
    )
    ca = a_ca()
    assert points_of(ca.leaf(more=[(partial, False)]).certificate) == frozenset()
    directory = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.DirectoryName(named("Point"))], None, None, None)]
    )
    other = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.DirectoryName(named("POINT "))], None, None, None)]
    )
    assert points_of(ca.leaf(more=[(directory, False)]).certificate) == points_of(
        ca.leaf(more=[(other, False)]).certificate
    )
