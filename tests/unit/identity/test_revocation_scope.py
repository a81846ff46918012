"""Several lists in one file, lists of a point, and files behind links."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from host_agent.errors import (
    InvalidIdentityError,
    RevocationUnavailableError,
    RevokedIdentityError,
)
from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from host_agent.identity.revocation import Revocation
from tests.support.pki_shapes import NOW, POINT, Leaf, a_ca, pem, point, points

DAY = timedelta(days=1)


def peer(leaf: Leaf) -> PeerCertificate:
    return parse_peer_certificate(leaf.certificate.public_bytes(serialization.Encoding.DER))


def put(folder: Path, ca: bytes, crl: bytes) -> Revocation:
    (folder / "ca.pem").write_bytes(ca)
    (folder / "crl.pem").write_bytes(crl)
    revocation = Revocation(folder / "crl.pem", folder / "ca.pem")
    revocation.load(NOW)
    return revocation


def test_each_authority_is_asked_of_its_own_list(tmp_path: Path) -> None:
    """A serial number means something only beside its issuer."""
    one, two = a_ca("one"), a_ca("two")
    first, second = one.leaf(), two.leaf()
    serial = first.certificate.serial_number
    both = pem(one.certificate, two.certificate)
    revocation = put(tmp_path, both, pem(one.crl(serial), two.crl()))
    with pytest.raises(RevokedIdentityError):
        revocation.check(peer(first), NOW)
    assert revocation.check(peer(second), NOW).serial == second.certificate.serial_number
    other = put(tmp_path, both, pem(one.crl(), two.crl(serial)))
    assert other.check(peer(first), NOW).serial == serial


def test_the_list_that_has_ended_locks_out_its_own_clients_only(tmp_path: Path) -> None:
    one, two = a_ca("one"), a_ca("two")
    lists = pem(one.crl(ends=NOW + DAY), two.crl())
    revocation = put(tmp_path, pem(one.certificate, two.certificate), lists)
    assert revocation.next_update == NOW + DAY
    with pytest.raises(RevocationUnavailableError):
        revocation.check(peer(one.leaf()), NOW + DAY)
    revocation.check(peer(two.leaf()), NOW + DAY)


def test_l2_an_older_list_does_not_come_back_by_another_authoritys(tmp_path: Path) -> None:
    one, two = a_ca("one"), a_ca("two")
    leaf = one.leaf()
    newer = one.crl(leaf.certificate.serial_number, number=7)
    both = pem(one.certificate, two.certificate)
    revocation = put(tmp_path, both, pem(newer, two.crl()))
    for crl in (pem(two.crl(number=3)), pem(one.crl(number=6), two.crl(number=3))):
        (tmp_path / "crl.pem").write_bytes(crl)
        assert isinstance(revocation.refresh(NOW), str)
        with pytest.raises(RevokedIdentityError):
            revocation.check(peer(leaf), NOW)


@pytest.mark.promise("c11")
def test_a_list_of_a_point_covers_who_names_it(tmp_path: Path) -> None:
    ca = a_ca()
    mine, other = ca.leaf(more=[points(POINT)]), ca.leaf()
    crl = ca.crl(mine.certificate.serial_number, more=[point(POINT, users=True)])
    revocation = put(tmp_path, pem(ca.certificate), pem(crl))
    with pytest.raises(RevokedIdentityError):
        revocation.check(peer(mine), NOW)
    with pytest.raises(InvalidIdentityError, match="cannot be checked"):
        revocation.check(peer(other), NOW)


def test_a_list_that_would_lock_out_everybody_in_use_is_not_taken(tmp_path: Path) -> None:
    ca = a_ca()
    leaf, crl = ca.leaf(), tmp_path / "crl.pem"
    revocation = put(tmp_path, pem(ca.certificate), pem(ca.crl()))
    revocation.check(peer(leaf), NOW)
    crl.write_bytes(pem(ca.crl(number=9, more=[point(POINT)])))
    assert "would lock all of them out" in str(revocation.refresh(NOW))
    revocation.check(peer(leaf), NOW)
    crl.write_bytes(pem(ca.crl(number=9)))
    assert revocation.refresh(NOW) is True
    revocation.check(peer(leaf), NOW)


def test_a_first_list_that_would_lock_out_everybody_in_use_is_not_taken(tmp_path: Path) -> None:
    """No list served so far; the root's own covers nobody whom the authority below it issued."""
    root = a_ca("Root", path_length=1)
    issuing = a_ca("Issuing", above=root)
    (tmp_path / "ca.pem").write_bytes(pem(issuing.certificate, root.certificate))
    crl = tmp_path / "crl.pem"
    unlisted = Revocation(None, tmp_path / "ca.pem")
    unlisted.load(NOW)
    unlisted.check(peer(issuing.leaf()), NOW)
    crl.write_bytes(pem(root.crl()))
    with pytest.raises(ValueError, match="would lock all of them out"):
        Revocation(crl, tmp_path / "ca.pem", previous=unlisted).load(NOW)
    crl.write_bytes(pem(root.crl(), issuing.crl()))
    Revocation(crl, tmp_path / "ca.pem", previous=unlisted).load(NOW)


def test_two_lists_of_two_points_are_each_for_their_own(tmp_path: Path) -> None:
    ca, there = a_ca(), "http://ca/2.crl"
    one, two = ca.leaf(more=[points(POINT)]), ca.leaf(more=[points(there)])
    lists = pem(
        ca.crl(more=[point(POINT)]),
        ca.crl(two.certificate.serial_number, more=[point(there)]),
    )
    revocation = put(tmp_path, pem(ca.certificate), lists)
    revocation.check(peer(one), NOW)
    with pytest.raises(RevokedIdentityError):
        revocation.check(peer(two), NOW)


@pytest.mark.promise("c26")
def test_links_are_followed_and_their_change_is_seen(tmp_path: Path) -> None:
    """As secret volumes and certificate tools do it: a folder of each version, and links."""
    ca = a_ca()
    leaf = ca.leaf()
    for name, crl in (("v1", ca.crl()), ("v2", ca.crl(leaf.certificate.serial_number, number=3))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "crl.pem").write_bytes(pem(crl))
        (tmp_path / name / "ca.pem").write_bytes(pem(ca.certificate))
    (tmp_path / "live").symlink_to("v1")
    (tmp_path / "crl.pem").symlink_to("live/crl.pem")
    (tmp_path / "ca.pem").symlink_to("live/ca.pem")
    revocation = Revocation(tmp_path / "crl.pem", tmp_path / "ca.pem")
    revocation.load(NOW)
    revocation.check(peer(leaf), NOW)
    (tmp_path / "live").unlink()
    (tmp_path / "live").symlink_to("v2")
    assert revocation.refresh(NOW) is True
    with pytest.raises(RevokedIdentityError):
        revocation.check(peer(leaf), NOW)


def test_what_is_remembered_is_over_once_its_authority_is_gone(tmp_path: Path) -> None:
    old, new = a_ca("old"), a_ca("new")
    both = put(tmp_path, pem(old.certificate, new.certificate), pem(old.crl(), new.crl()))
    credential = both.check(peer(old.leaf(ends=NOW + DAY)), NOW)
    assert not both.is_over(credential, NOW)
    assert both.is_over(credential, NOW + DAY)
    (tmp_path / "ca.pem").write_bytes(pem(new.certificate))
    (tmp_path / "crl.pem").write_bytes(pem(new.crl()))
    after = Revocation(tmp_path / "crl.pem", tmp_path / "ca.pem", previous=both)
    assert not after.is_over(credential, NOW)  # nothing is known before it is read
    after.load(NOW)
    assert after.is_over(credential, NOW)
    with pytest.raises(InvalidIdentityError, match="not in the agent's client_ca"):
        after.recheck(credential, NOW)
