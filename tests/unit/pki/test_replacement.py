"""What a client takes in the place of its certificate, and how its files are replaced."""

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from host_agent.errors import ConfigurationError
from host_agent.identity import files
from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from host_agent.pki import authority
from host_agent.pki.door import load_certificates
from host_agent.pki.profiles import PrivateKey, Usage
from host_agent.pki.replacement import PairPlace, fault_of
from host_agent.pki.request import key_pem, new_key, new_request, read_request
from host_agent.pki.signing import sign
from tests.support.certificates import wall_clock
from tests.unit.pki.test_signing import certificate_of, content, encoded, of_an_unknown_curve

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


def test_a_key_that_waits_is_asked_for_again_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca")
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    own = peer(ca, "deployer")
    place = PairPlace.of(tmp_path / "own.crt", tmp_path / "own.key")
    first = place.next_key(own)
    assert place.next_key(own).request == first.request
    good = place.waiting.read_bytes()
    line = good.partition(b"\n")[0] + b"\n"
    other = key_pem(new_key()) + new_request(new_key(), "deployer")
    for damaged in (b"", line, good[:-60], line + other):
        place.waiting.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match="remove it"):
            place.next_key(own)
        assert place.waiting.read_bytes() == damaged
    place.waiting.unlink()
    assert place.next_key(own).request != first.request


def test_a_key_that_waited_in_the_place_of_another_certificate_is_not_asked_for(
    tmp_path: Path,
) -> None:
    """It may have a certificate already, or be the key in use: no authority takes it again."""
    ca = made(tmp_path / "ca")
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    place = PairPlace.of(ca / "deployer.crt", ca / "deployer.key")
    waiting = place.next_key(peer(ca, "deployer"))
    kept = place.waiting.read_bytes()
    request = read_request(waiting.request)
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, out="next", now=NOW)
    place.stage((ca / "next.crt").read_bytes(), waiting.key)
    place.commit()
    place.waiting.write_bytes(kept)  # its removal was lost with the power
    assert not place.recover()
    again = place.next_key(peer(ca, "next"))
    assert again.key.public_key() != waiting.key.public_key()
    assert place.next_key(peer(ca, "next")).request == again.request


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
    (ca / "deployer.key").unlink()
    (ca / "deployer.key").write_bytes(key_pem(new_key()))
    assert place.recover()
    assert content(ca) == before
    assert not place.recover()
    assert content(ca) == before


def staged(ca: Path) -> PairPlace:
    """Return a place with a pair in two files, and the next one beside it."""
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    place = PairPlace.of(ca / "deployer.crt", ca / "deployer.key")
    key = new_key()
    request = read_request(new_request(key, "deployer"))
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, out="next", now=NOW)
    place.stage((ca / "next.crt").read_bytes(), key)
    return place


def test_where_a_disk_does_not_confirm_a_rename_the_pair_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = made(tmp_path / "ca")
    place = staged(ca)

    def failing(directory: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(directory))

    monkeypatch.setattr(files, "sync_directory", failing)
    place.commit()
    assert place.read().certificate.serial == peer(ca, "next").serial


def test_what_is_not_a_pair_for_now_keeps_everything_that_could_make_one(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca")
    place = staged(ca)
    place._kept.hardlink_to(place.key)
    place.staged.key.replace(place.key)  # cut off here
    old = place.staged.cert.read_bytes(), place.cert.read_bytes()
    for path in (place.staged.cert, place.cert):
        path.write_bytes(b"unreadable for now")
    before = content(ca)
    assert not place.recover()
    assert content(ca) == before
    place.staged.cert.write_bytes(old[0])
    place.cert.write_bytes(old[1])
    assert place.recover()
    assert place.read().certificate.serial == peer(ca, "next").serial
    assert not [path for path in ca.iterdir() if path.name.startswith(".")]


def test_where_the_disk_kept_the_second_rename_alone_the_first_is_done_again(
    tmp_path: Path,
) -> None:
    ca = made(tmp_path / "ca")
    place = staged(ca)
    place._kept.hardlink_to(place.key)
    place.staged.cert.replace(place.cert)
    assert place.recover()
    assert place.read().certificate.serial == peer(ca, "next").serial
    assert not place.recover()


def test_where_neither_rename_can_be_done_or_undone_the_next_run_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = made(tmp_path / "ca")
    place = staged(ca)
    replace = Path.replace
    done: list[Path] = []

    def failing(self: Path, target: Path) -> Path:
        if done:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
        done.append(target)
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        with pytest.raises(ConfigurationError, match="cannot be replaced"):
            place.commit()
    assert not place.is_pair()
    assert place.recover()
    assert place.read().certificate.serial == peer(ca, "next").serial


@pytest.mark.parametrize(("mode", "taken"), [(0o640, 0o600), (0o644, 0o644), (0o600, 0o600)])
def test_a_key_is_never_for_a_group_that_the_old_one_was_not_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, taken: int
) -> None:
    ca = made(tmp_path / "ca")
    place = staged(ca)
    place.key.chmod(mode)
    stat = Path.stat
    own = place.key.stat()
    elsewhere = os.stat_result((*own[:5], own.st_gid + 1, *own[6:]))

    def of_another_group(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        return elsewhere if self == place.key else stat(self, follow_symlinks=follow_symlinks)

    def refused(_descriptor: int, _owner: int, _group: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    key = new_key()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", of_another_group)
        patched.setattr(os, "fchown", refused)
        place.stage((ca / "next.crt").read_bytes(), key)
    assert place.staged.key.stat().st_mode & 0o777 == taken
    place.stage((ca / "next.crt").read_bytes(), key)
    assert place.staged.key.stat().st_mode & 0o777 == mode


def test_a_certificate_whose_key_or_issuer_nobody_can_read_is_no_renewal(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca")
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    old, key = peer(ca, "deployer"), new_key()
    certificate = certificate_of(ca, "deployer")
    assert "not known here" in (fault_of(of_an_unknown_curve(certificate), key, old, b"") or "")
    no_name = encoded(certificate, b"\x0c\x06the CA", b"\x03\x06\0he CA")
    assert "BitString" in (fault_of(no_name, key, old, b"") or "")
