"""Revocation lists: accepted whole or not at all, followed while running, never ignored."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from host_agent.errors import (
    InvalidIdentityError,
    RevocationUnavailableError,
    RevokedIdentityError,
)
from host_agent.identity.authorities import Authorities
from host_agent.identity.certificate import parse_peer_certificate
from host_agent.identity.credential import Credential
from host_agent.identity.revocation import Revocation
from host_agent.identity.revocation_list import RevocationList, load_lists
from host_agent.pki.profiles import RevokedSerial, authority_identifier
from tests.support.certificates import Leaf, Pki, make_pki, wall_clock

DAY = timedelta(days=1)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return make_pki(tmp_path / "pki")


def loaded(pki: Pki, *, previous: Revocation | None = None) -> Revocation:
    revocation = Revocation(pki.crl_path, pki.ca_path, previous=previous)
    revocation.load(pki.now)
    return revocation


def remembered(pki: Pki, leaf: Leaf) -> Credential:
    authorities = Authorities([pki.ca_certificate])
    return authorities.credential(parse_peer_certificate(leaf.der))


def admits(revocation: Revocation, leaf: Leaf, now: datetime) -> bool:
    try:
        revocation.check(parse_peer_certificate(leaf.der), now)
    except RevokedIdentityError:
        return False
    return True


def put(path: Path, data: bytes) -> None:
    """Put `data` in the place of `path`, with times that differ from every earlier file's."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(data)
    fresh.replace(path)


def sign(
    pki: Pki,
    *extensions: tuple[x509.ExtensionType, bool],
    serials: Sequence[int] = (),
    next_update: datetime | None = None,
) -> bytes:
    """Sign a CRL with exactly these extensions."""
    entries = [
        x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(pki.now).build()
        for serial in serials
    ]
    builder = x509.CertificateRevocationListBuilder(
        pki.ca_certificate.subject, pki.now, next_update or pki.now + DAY, [], entries
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(pki.ca.private_key, hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )


# -- one list ---------------------------------------------------------------------------------


def test_a_good_list_is_loaded_from_pem_and_der(pki: Pki) -> None:
    leaf = pki.client()
    pki.revoke(leaf)
    der = x509.load_pem_x509_crl(pki.crl_pem).public_bytes(serialization.Encoding.DER)

    for data in (pki.crl_pem, der):
        revoked = RevocationList.load(data, Authorities([pki.ca_certificate]), pki.now)

        assert revoked.number == 2
        assert revoked.this_update < pki.now < revoked.next_update
        assert revoked.is_revoked(leaf.serial)
        assert not revoked.is_revoked(leaf.serial + 1)


def test_a_list_without_entries_is_good(pki: Pki) -> None:
    assert (
        RevocationList.load(pki.crl_pem, Authorities([pki.ca_certificate]), pki.now).serials
        == frozenset()
    )


BAD_LISTS: dict[str, Callable[[Pki], bytes]] = {
    "nothing": lambda _: b"",
    "text": lambda _: b"no list at all",
    "certificate": lambda pki: pki.ca_pem,
    "cut": lambda pki: pki.crl_pem[: len(pki.crl_pem) // 2],
    "expired": lambda pki: pki.make_crl(number=9, days=1, now=pki.now - 2 * DAY),
    "expires now": lambda pki: pki.make_crl(number=9, days=1, now=pki.now - DAY),
    "from tomorrow": lambda pki: pki.make_crl(number=9, now=pki.now + DAY),
    "foreign": lambda _: make_pki(name="another CA").crl_pem,
    "foreign of the same name": lambda _: make_pki().crl_pem,
    "two lists": lambda pki: pki.crl_pem + pki.make_crl(number=9),
    "bent signature": lambda pki: _bent(pki.crl_pem),
    "delta": lambda pki: sign(pki, (x509.DeltaCRLIndicator(1), True)),
    "some reasons only": lambda pki: sign(pki, (_partial(only_user_certs=False), True)),
    "unknown critical extension": lambda pki: sign(
        pki, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    ),
}


def _bent(pem: bytes) -> bytes:
    der = bytearray(x509.load_pem_x509_crl(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return bytes(der)


def _partial(*, only_user_certs: bool) -> x509.IssuingDistributionPoint:
    reasons = None if only_user_certs else frozenset({x509.ReasonFlags.key_compromise})
    return x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=only_user_certs,
        only_contains_ca_certs=False,
        only_some_reasons=reasons,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )


@pytest.mark.promise("c11")
@pytest.mark.parametrize("kind", BAD_LISTS)
def test_bad_list_is_refused(pki: Pki, kind: str) -> None:
    with pytest.raises(ValueError, match=r"list"):
        load_lists(BAD_LISTS[kind](pki), Authorities([pki.ca_certificate]), pki.now)


@pytest.mark.promise("c11")
def test_list_of_a_ca_that_may_not_sign_lists_is_refused(pki: Pki) -> None:
    """The leaf's own key signs a list in its own name, and the leaf lies in the CA file."""
    leaf = pki.client("librarian")
    crl = (
        x509.CertificateRevocationListBuilder(leaf.certificate.subject, pki.now, pki.now + DAY)
        .add_extension(x509.CRLNumber(9), critical=False)
        .add_extension(authority_identifier(pki.ca_certificate), critical=False)
        .sign(leaf.credential.private_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )

    with pytest.raises(ValueError, match="not signed by the client CA"):
        RevocationList.load(crl, Authorities([pki.ca_certificate, leaf.certificate]), pki.now)


def test_a_list_of_100000_entries_answers_at_once(pki: Pki) -> None:
    serials = range(2**150, 2**150 + 100_000)
    revoked = RevocationList.load(
        sign(pki, serials=serials), Authorities([pki.ca_certificate]), pki.now
    )

    started = time.process_time()
    for serial in serials[:1000]:
        assert revoked.is_revoked(serial)
        assert not revoked.is_revoked(serial - 100_000)
    assert time.process_time() - started < 0.5  # one by one it would be minutes


# -- the followed file ------------------------------------------------------------------------


def test_without_a_configured_list_everybody_is_unrevoked(pki: Pki) -> None:
    revocation = Revocation(None, pki.ca_path)
    revocation.load(pki.now)

    assert admits(revocation, pki.client(), pki.now)
    assert revocation.next_update is None
    assert revocation.refresh(pki.now) is False


def test_nobody_is_let_in_before_the_list_is_loaded(pki: Pki) -> None:
    for revocation in (
        Revocation(pki.crl_path, pki.ca_path),
        Revocation(None, pki.ca_path),
        Revocation(pki.crl_path, pki.ca_path, previous=loaded(pki)),
    ):
        with pytest.raises(RevocationUnavailableError):
            admits(revocation, pki.client(), pki.now)


@pytest.mark.promise("c9")
def test_revocation_bites_on_the_next_request_of_an_open_connection(pki: Pki) -> None:
    leaf, other = pki.client("librarian"), pki.client("gardener")
    revocation = loaded(pki)
    peer = parse_peer_certificate(leaf.der)  # parsed once, when the connection was made
    before = revocation.check(peer, pki.now)

    pki.revoke(leaf)

    assert revocation.refresh(pki.now) is True
    with pytest.raises(RevokedIdentityError) as caught:
        revocation.check(peer, pki.now)
    assert caught.value.code == "identity:revoked"
    with pytest.raises(RevokedIdentityError):
        revocation.recheck(before, pki.now)
    assert admits(revocation, other, pki.now)
    revocation.recheck(remembered(pki, other), pki.now)


@pytest.mark.promise("c10")
def test_a_resumed_session_of_a_revoked_certificate_is_refused(pki: Pki) -> None:
    """A resumed session brings the old certificate without a new chain check: ours is asked."""
    leaf = pki.client()
    pki.revoke(leaf)

    assert not admits(loaded(pki), leaf, pki.now)


@pytest.mark.promise("c11")
@pytest.mark.parametrize("kind", ["missing", "fifo", "folder", *BAD_LISTS])
def test_start_refuses_a_bad_list(pki: Pki, kind: str) -> None:
    spoil(pki, kind)

    with pytest.raises(ValueError, match=r"ca\.crl"):
        loaded(pki)


@pytest.mark.promise("c11")
@pytest.mark.parametrize("kind", ["missing", "fifo", "folder", "older", *BAD_LISTS])
def test_running_a_bad_list_is_rejected_and_the_old_one_serves_to_its_end(
    pki: Pki, kind: str
) -> None:
    leaf, other = pki.client("librarian"), pki.client("gardener")
    older = pki.make_crl(number=1)
    pki.revoke(leaf)
    revocation = loaded(pki)
    served = revocation.current
    if kind == "older":
        put(pki.crl_path, older)
    else:
        spoil(pki, kind)

    complaint = revocation.refresh(pki.now)

    assert isinstance(complaint, str)
    assert str(pki.crl_path) in complaint
    assert revocation.complaint == complaint
    assert revocation.refresh(pki.now) is False, "the same complaint is told once"
    assert revocation.current is served
    assert admits(revocation, other, pki.now)
    assert not admits(revocation, leaf, pki.now)
    end = revocation.next_update
    assert end is not None
    assert admits(revocation, other, end - timedelta(seconds=1))
    for certificate in (leaf, other):
        with pytest.raises(RevocationUnavailableError) as caught:
            admits(revocation, certificate, end)
        assert caught.value.status == 503
        with pytest.raises(RevocationUnavailableError):
            revocation.recheck(remembered(pki, certificate), end)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Give up root, where it is there, for the block: nobody else's files can be read then."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.mark.promise("c11")
def test_an_unreadable_list_is_refused_at_start_and_rejected_later(pki: Pki) -> None:
    leaf = pki.client()
    revocation = loaded(pki)
    pki.crl_path.chmod(0)

    with without_privileges():
        with pytest.raises(ValueError, match="permission denied"):
            loaded(pki)
        assert "permission denied" in str(revocation.refresh(pki.now))

    assert admits(revocation, leaf, pki.now)


@pytest.mark.promise("c11")
def test_a_renewed_list_ends_the_refusals(pki: Pki) -> None:
    revocation = loaded(pki)
    late = pki.now + 31 * DAY
    with pytest.raises(RevocationUnavailableError):
        admits(revocation, pki.client(), late)

    pki.sign_crl(now=late)

    assert revocation.refresh(late) is True
    assert admits(revocation, pki.client(), late)


@pytest.mark.promise("c11")
def test_a_reload_does_not_bring_back_an_older_list(pki: Pki) -> None:
    leaf = pki.client()
    older = pki.crl_pem
    pki.revoke(leaf)
    running = loaded(pki)
    put(pki.crl_path, older)

    with pytest.raises(ValueError, match="older"):
        loaded(pki, previous=running)

    assert not admits(running, leaf, pki.now)


@pytest.mark.promise("c11")
def test_a_ca_with_a_new_key_may_begin_its_numbers_again(tmp_path: Path) -> None:
    first, second = make_pki(tmp_path / "first"), make_pki(tmp_path / "second")
    first.sign_crl(number=40)

    revocation = loaded(second, previous=loaded(first))

    assert [one.number for one in revocation.current] == [1]


def test_a_higher_number_wins_though_the_cas_clock_was_set_back(pki: Pki) -> None:
    leaf = pki.client()
    revocation = loaded(pki)
    pki.revoked.append(RevokedSerial(serial=leaf.serial, at=pki.now))

    pki.sign_crl(now=pki.now - DAY)

    assert revocation.refresh(pki.now) is True
    assert not admits(revocation, leaf, pki.now)


def test_a_list_of_equal_number_and_time_is_taken_too(pki: Pki) -> None:
    """OpenSSL's own context would ignore it."""
    leaf = pki.client()
    revocation = loaded(pki)
    pki.revoked.append(RevokedSerial(serial=leaf.serial, at=pki.now))

    pki.sign_crl(number=pki.crl_number)

    assert revocation.refresh(pki.now) is True
    assert not admits(revocation, leaf, pki.now)


def test_a_list_without_numbers_is_judged_by_its_time(pki: Pki) -> None:
    put(pki.crl_path, sign(pki))
    revocation = loaded(pki)
    earlier = make_unnumbered(pki, at=pki.now - timedelta(hours=1))
    put(pki.crl_path, earlier)

    assert "older" in str(revocation.refresh(pki.now))


def make_unnumbered(pki: Pki, *, at: datetime) -> bytes:
    return (
        x509.CertificateRevocationListBuilder(pki.ca_certificate.subject, at, pki.now + DAY)
        .sign(pki.ca.private_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def test_an_unchanged_file_is_no_news(pki: Pki) -> None:
    revocation = loaded(pki)

    assert revocation.refresh(pki.now) is False
    pki.crl_path.touch()
    assert revocation.refresh(pki.now) is False
    assert revocation.complaint is None


def test_a_file_in_which_bytes_changed_but_not_the_times_is_seen(pki: Pki) -> None:
    """File times are coarse: a second writing within one tick must not be missed."""
    leaf = pki.client()
    pki.sign_crl()
    revocation = loaded(pki)
    before = pki.crl_path.stat()
    pki.revoked.append(RevokedSerial(serial=leaf.serial, at=pki.now))
    fresh = pki.make_crl(number=pki.crl_number + 1)
    pki.crl_path.write_bytes(fresh)
    os.utime(pki.crl_path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert revocation.refresh(wall_clock()) is True
    assert not admits(revocation, leaf, pki.now)


def test_a_restored_file_ends_the_complaint(pki: Pki) -> None:
    revocation = loaded(pki)
    good = pki.crl_path.read_bytes()
    pki.crl_path.unlink()
    assert isinstance(revocation.refresh(pki.now), str)

    put(pki.crl_path, good)

    assert revocation.refresh(pki.now) is False, "the same list serves as before"
    assert revocation.complaint is None


def test_a_directory_that_was_closed_and_opened_again_ends_the_complaint(pki: Pki) -> None:
    """The file is the same one as before, to its times; it was only out of reach."""
    later = pki.now + timedelta(seconds=10)
    revocation = loaded(pki)
    assert revocation.refresh(later) is False
    folder = pki.crl_path.parent
    aside = folder.rename(folder.with_name("aside"))
    assert isinstance(revocation.refresh(later), str)
    assert revocation.refresh(later) is False

    aside.rename(folder)

    assert revocation.refresh(later) is False
    assert revocation.complaint is None


def test_a_list_that_begins_later_is_taken_when_its_time_has_come(pki: Pki) -> None:
    revocation = loaded(pki)
    put(pki.crl_path, pki.make_crl(number=9, now=pki.now + timedelta(hours=1)))
    assert isinstance(revocation.refresh(pki.now), str)

    assert revocation.refresh(pki.now + timedelta(hours=2)) is True
    assert revocation.complaint is None


def test_a_certificate_of_another_ca_than_the_lists_is_refused(tmp_path: Path) -> None:
    """Two CAs are trusted, one list is configured: nobody knows about the other CA's ones."""
    ours, theirs = make_pki(tmp_path / "ours"), make_pki(name="another CA")
    namesake = make_pki()
    ours.ca_path.write_bytes(ours.ca_pem + theirs.ca_pem + namesake.ca_pem)
    revocation = loaded(ours)

    assert admits(revocation, ours.client(), ours.now)
    for other in (theirs, namesake):
        with pytest.raises(InvalidIdentityError):
            admits(revocation, other.client(), ours.now)


def test_a_missing_ca_file_is_refused(pki: Pki) -> None:
    pki.ca_path.unlink()

    with pytest.raises(ValueError, match=r"ca\.crt"):
        loaded(pki)


def test_a_ca_file_without_a_certificate_is_refused(pki: Pki) -> None:
    pki.ca_path.write_bytes(b"no certificate")

    with pytest.raises(ValueError, match="holds no CA certificate"):
        loaded(pki)


def test_a_list_of_an_rsa_ca_is_refused_where_our_ca_is_another(pki: Pki) -> None:
    """Another kind of key under our CA's name is a foreign signature, not an error."""
    key = ec.generate_private_key(ec.SECP384R1())
    crl = (
        x509.CertificateRevocationListBuilder(pki.ca_certificate.subject, pki.now, pki.now + DAY)
        .sign(key, hashes.SHA384())
        .public_bytes(serialization.Encoding.PEM)
    )

    with pytest.raises(ValueError, match="not signed by the client CA"):
        RevocationList.load(crl, Authorities([pki.ca_certificate]), pki.now)


def spoil(pki: Pki, kind: str) -> None:
    """Make the CRL file bad in the way that `kind` names."""
    path = pki.crl_path
    if kind in BAD_LISTS:
        put(path, BAD_LISTS[kind](pki))
        return
    path.rename(path.with_name("elsewhere"))
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
