"""What a client takes in the place of its certificate, and how its files are replaced."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from host_agent.errors import ConfigurationError
from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from host_agent.pki import authority
from host_agent.pki.door import load_certificates
from host_agent.pki.profiles import PrivateKey, Usage
from host_agent.pki.replacement import PairPlace, fault_of
from host_agent.pki.request import new_key, new_request, read_request
from host_agent.pki.signing import sign
from tests.support.certificates import wall_clock
from tests.unit.pki.test_signing import content

NOW = wall_clock()
DAY = timedelta(days=1)


def made(place: Path, *, name: str = "the CA") -> Path:
    authority.init(place, name=name, now=NOW - 60 * DAY)
    return place


def peer(place: Path, cn: str) -> PeerCertificate:
    certificate = load_certificates((place / f"{cn}.crt").read_bytes())[0]
    return parse_peer_certificate(certificate.public_bytes(serialization.Encoding.DER))


def test_only_the_same_name_for_the_new_key_by_the_same_authority_and_longer_is_taken(
    tmp_path: Path,
) -> None:
    ca, twin = made(tmp_path / "ca"), made(tmp_path / "twin")
    other = made(tmp_path / "other", name="another CA")
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW - 60 * DAY)
    old, key = peer(ca, "deployer"), new_key()
    believed = (ca / "ca.crt").read_bytes()

    def signed(place: Path, cn: str = "deployer", *, days: int = 90) -> bytes:
        request = read_request(new_request(key, cn))
        out = f"new-{cn}-{days}"
        client = Usage.CLIENT
        sign(place, request, common_name=cn, usage=client, days=days, out=out, now=NOW)
        return (place / f"{out}.crt").read_bytes()

    good = signed(ca)
    assert fault_of(good, key, old, believed) is None
    unknown = (other / "ca.crt").read_bytes()
    assert fault_of(good, key, old, unknown) is None  # it knows the server's authority alone
    for pem, fault in (
        (b"", "not a certificate"),
        ((ca / "ca.crt").read_bytes(), "not accepted"),
        (signed(other), "another authority"),
        (signed(twin), "not signed by the authority"),
        (signed(made(tmp_path / "third"), "alice"), "another common name"),
        (signed(made(tmp_path / "fourth"), days=20), "not signed"),
    ):
        assert fault in (fault_of(pem, key, old, believed) or ""), fault
    assert "another key" in (fault_of(good, new_key(), old, believed) or "")
    short = fault_of((ca / "deployer.crt").read_bytes(), _key(ca), old, believed)
    assert "not last longer" in (short or "")


def _key(ca: Path) -> PrivateKey:
    key = serialization.load_pem_private_key((ca / "deployer.key").read_bytes(), None)
    assert isinstance(key, PrivateKey)
    return key


def test_a_key_that_waits_is_asked_for_again_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    place = PairPlace.of(tmp_path / "own.crt", tmp_path / "own.key")
    first = place.next_key("deployer")
    assert place.next_key("deployer").request == first.request
    with pytest.raises(ConfigurationError, match="of another certificate"):
        place.next_key("alice")
    place.waiting.write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="remove it"):
        place.next_key("deployer")
    place.waiting.unlink()
    assert place.next_key("deployer").request != first.request


def test_links_are_followed_and_modes_stay(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca")
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    real = tmp_path / "real"
    real.mkdir()
    for kind, mode in (("crt", 0o644), ("key", 0o640)):
        (real / f"own.{kind}").write_bytes((ca / f"deployer.{kind}").read_bytes())
        (real / f"own.{kind}").chmod(mode)
        (tmp_path / f"link.{kind}").symlink_to(real / f"own.{kind}")
    place = PairPlace.of(tmp_path / "link.crt", tmp_path / "link.key")
    key = new_key()
    request = read_request(new_request(key, "deployer"))
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, out="next", now=NOW)
    place.stage((ca / "next.crt").read_bytes(), key)
    place.commit()
    assert place.read().certificate.serial == peer(ca, "next").serial
    assert (tmp_path / "link.key").is_symlink()
    modes = {path.name: path.stat().st_mode & 0o777 for path in real.iterdir()}
    assert modes == {"own.crt": 0o644, "own.key": 0o640}


def test_what_was_staged_and_never_tried_is_forgotten(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca")
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    place = PairPlace.of(ca / "deployer.crt", ca / "deployer.key")
    key = new_key()
    request = read_request(new_request(key, "deployer"))
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, out="next", now=NOW)
    before = content(ca)
    place.stage((ca / "next.crt").read_bytes(), key)
    assert not place.recover()
    place.stage((ca / "next.crt").read_bytes(), key)
    place.staged.key.unlink()
    assert not place.recover()
    assert content(ca) == before


def test_an_authority_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    first, second = (
        x509.load_pem_x509_certificate((place / "ca.crt").read_bytes()) for place in (one, two)
    )
    assert first.subject == second.subject
    assert first.public_key() != second.public_key()


def test_where_the_new_certificate_is_lost_between_the_renames_the_old_key_comes_back(
    tmp_path: Path,
) -> None:
    ca = made(tmp_path / "ca")
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    place = PairPlace.of(ca / "deployer.crt", ca / "deployer.key")
    before = content(ca)
    kept = ca / ".deployer.key.old"
    kept.hardlink_to(ca / "deployer.key")
    place.next_key("deployer")
    (ca / "deployer.key").unlink()
    (ca / "deployer.key").write_bytes(place.waiting.read_bytes())
    place.waiting.unlink()
    assert place.recover()
    assert content(ca) == before
    assert not place.recover()
    assert content(ca) == before
