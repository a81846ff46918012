"""What the authority signs for keys of others: the key is theirs, and each attack is refused."""

import base64
import errno
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from host_agent.errors import ConfigurationError, HostAgentError
from host_agent.identity import files
from host_agent.pki import authority
from host_agent.pki.door import load_certificates, load_private_key
from host_agent.pki.index import Issued
from host_agent.pki.profiles import Usage, key_usage, subject
from host_agent.pki.renewal import Renewal, RenewalEntry, RenewingKey, decoded, prove, read_renewal
from host_agent.pki.request import (
    MAX_REQUEST_BYTES,
    new_key,
    new_request,
    read_request,
    write_request,
)
from host_agent.pki.signing import RenewalRefusedError, renew, sign
from host_agent.pki.verification import reason_against
from tests.support.certificates import wall_clock

NOW = wall_clock()
DAY = timedelta(days=1)
BEGAN = NOW - 60 * DAY
"""When the certificates of these tests were issued: two thirds of their life ago."""


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    authority.init(directory, now=BEGAN)
    authority.sign_crl(directory, now=NOW)
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def made_by(
    key: RenewingKey, *, name: x509.Name, extensions: tuple[x509.ExtensionType, ...] = ()
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    is_plain = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    request = builder.sign(key, None if is_plain else hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def certificate_of(directory: Path, name: str) -> x509.Certificate:
    return load_certificates((directory / f"{name}.crt").read_bytes())[0]


def of_an_unknown_curve(certificate: x509.Certificate) -> bytes:
    """Return `certificate` with a key on a curve that does not exist, PEM; its signature is bad."""
    known, unknown = (bytes.fromhex(f"06082a8648ce3d0301{end}") for end in ("07", "7f"))
    return encoded(certificate, known, unknown)


def encoded(certificate: x509.Certificate, known: bytes, other: bytes) -> bytes:
    """Return `certificate` with `other` in the place of `known` in its DER, as PEM."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert known in der
    body = base64.encodebytes(der.replace(known, other))
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def let_in(directory: Path, name: str, *, now: datetime = NOW) -> str | None:
    crt, ca, crl = ((directory / one).read_bytes() for one in (f"{name}.crt", "ca.crt", "ca.crl"))
    return reason_against(crt, ca, crl, now=now)


# -- requests --------------------------------------------------------------------------------------

GREEDY = (
    x509.SubjectAlternativeName([x509.DNSName("agent.example.org")]),
    x509.BasicConstraints(ca=True, path_length=None),
    key_usage(key_cert_sign=True, crl_sign=True),
    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]),
    x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"),
)


def test_of_a_request_only_its_key_comes_into_the_certificate(ca: Path) -> None:
    authority.issue(ca, common_name="plain", usage=Usage.CLIENT, now=NOW)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wheel"),
            x509.NameAttribute(NameOID.COMMON_NAME, "deployer"),
        ]
    )
    key = new_key()
    request = read_request(made_by(key, name=name, extensions=GREEDY))
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    signed, plain = certificate_of(ca, "deployer"), certificate_of(ca, "plain")
    assert signed.public_key() == key.public_key()
    assert signed.subject == subject("deployer")
    assert {(one.oid, one.critical) for one in signed.extensions} == {
        (one.oid, one.critical) for one in plain.extensions
    }
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert let_in(ca, "deployer") is None
    assert not (ca / "deployer.key").exists()
    assert len(request.left_out) == 6
    assert any("Wheel" in what for what in request.left_out)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate,
        ed448.Ed448PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 2048),
    ],
)
def test_keys_of_each_good_kind_are_certified_and_let_in(
    ca: Path, make: Callable[[], RenewingKey]
) -> None:
    request = read_request(made_by(make(), name=subject("deployer")))
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    assert let_in(ca, "deployer") is None


def flipped() -> bytes:
    request = x509.load_pem_x509_csr(new_request(new_key(), "deployer"))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return pem(bytes(der))


def exchanged() -> bytes:
    """Return a request whose key is another than the one that signed it."""
    one = x509.load_pem_x509_csr(new_request(new_key(), "deployer"))
    other = x509.load_pem_x509_csr(new_request(new_key(), "deployer"))
    point = serialization.PublicFormat.SubjectPublicKeyInfo
    mine, theirs = (
        csr.public_key().public_bytes(serialization.Encoding.DER, point) for csr in (one, other)
    )
    return pem(one.public_bytes(serialization.Encoding.DER).replace(mine, theirs))


def pem(der: bytes) -> bytes:
    return (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(der)
        + b"-----END CERTIFICATE REQUEST-----\n"
    )


TWO_NAMES = x509.Name(
    [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("deployer", "alice")]
)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "can be read"),
        (lambda: b"not a request", "can be read"),
        (lambda: new_request(new_key(), "deployer")[:-60], "can be read"),
        (lambda: b"x" * (MAX_REQUEST_BYTES + 1), "at most"),
        (flipped, "not signed"),
        (exchanged, "not signed"),
        (lambda: made_by(new_key(), name=TWO_NAMES), "several common names"),
        (
            lambda: made_by(rsa.generate_private_key(65537, 1024), name=subject("deployer")),
            "its key is not",
        ),
        (
            lambda: made_by(ec.generate_private_key(ec.SECP256K1()), name=subject("deployer")),
            "its key is not",
        ),
    ],
)
def test_another_request_is_refused(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_request(make())
    assert read_request(new_request(new_key(), "deployer")).common_name == "deployer"


def test_a_request_for_another_name_a_used_key_or_a_taken_file_is_not_signed(ca: Path) -> None:
    key = new_key()
    request = read_request(new_request(key, "deployer"))
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    before = content(ca)
    again = read_request(made_by(key, name=x509.Name([])))
    fresh = read_request(new_request(new_key(), "deployer"))
    own = load_private_key((ca / "ca.key").read_bytes())
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    cas = read_request(new_request(own, "deployer"))
    for tried, name, out, error in (
        (fresh, "alice", "alice", ValueError),
        (again, "alice", "alice", ValueError),
        (cas, "deployer", "other", ValueError),
        (fresh, "deployer", None, ConfigurationError),
        (fresh, "deployer", "../deployer", ValueError),
        (fresh, "Deployer", "other", ValueError),
    ):
        with pytest.raises(error):
            sign(ca, tried, common_name=name, usage=Usage.CLIENT, out=out, now=NOW)
        assert content(ca) == before
    sign(ca, fresh, common_name="deployer", usage=Usage.CLIENT, out="second", now=NOW)
    assert let_in(ca, "second") is None


def test_a_key_is_private_and_nothing_is_overwritten(tmp_path: Path) -> None:
    key, request = write_request(tmp_path / "deployer", "deployer")
    assert key.stat().st_mode & 0o777 == 0o600
    assert load_private_key(key.read_bytes())
    before = content(tmp_path)
    with pytest.raises(ConfigurationError, match="exists already"):
        write_request(tmp_path / "deployer", "deployer")
    key.unlink()
    with pytest.raises(ConfigurationError, match="exists already"):
        write_request(tmp_path / "deployer", "deployer")
    assert content(tmp_path) == {"deployer.csr": before["deployer.csr"]}
    assert read_request(request.read_bytes()).common_name == "deployer"


def full_at(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Let no file of that ending be written any more."""
    create = files.create

    def until_full(path: Path, data: bytes, *, mode: int) -> None:
        if path.name.endswith(ending):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        create(path, data, mode=mode)

    monkeypatch.setattr(files, "create", until_full)


def test_on_a_full_disk_no_half_of_it_is_left(
    tmp_path: Path, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    before, request = content(ca), read_request(new_request(new_key(), "deployer"))
    with monkeypatch.context() as patched:
        full_at(patched, ".csr")
        with pytest.raises(ConfigurationError, match="no space"):
            write_request(place / "deployer", "deployer")
        full_at(patched, ".crt")
        with pytest.raises(ConfigurationError, match="no space"):
            sign(ca, request, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    assert content(place) == {}
    assert content(ca) == before
    write_request(place / "deployer", "deployer")
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, now=NOW)
    assert let_in(ca, "deployer") is None


# -- renewals --------------------------------------------------------------------------------------


def issued(ca: Path, cn: str = "deployer", *, usage: Usage = Usage.CLIENT) -> Issued:
    return authority.issue(ca, common_name=cn, usage=usage, now=BEGAN)


def key_of(ca: Path, name: str) -> RenewingKey:
    key = load_private_key((ca / f"{name}.key").read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def entry(
    ca: Path,
    name: str = "deployer",
    *,
    request: bytes | None = None,
    signer: RenewingKey | None = None,
    proof_for: str | None = None,
) -> RenewalEntry:
    request = new_request(new_key(), name) if request is None else request
    crt = (ca / f"{name}.crt").read_bytes()
    certificate = certificate_of(ca, proof_for or name)
    proof = prove(
        signer or key_of(ca, name),
        certificate_der=certificate.public_bytes(serialization.Encoding.DER),
        request_der=x509.load_pem_x509_csr(request).public_bytes(serialization.Encoding.DER),
    )
    return RenewalEntry(
        certificate=crt.decode(), request=request.decode(), proof=base64.b64encode(proof).decode()
    )


def renewal(ca: Path, name: str = "deployer") -> Renewal:
    return RenewalEntry.model_validate_json(entry(ca, name).encode()).renewal()


def test_a_renewal_has_the_name_the_use_and_the_length_of_life_and_is_made_once(ca: Path) -> None:
    old = issued(ca)
    asked = renewal(ca)
    made = renew(ca, asked, now=NOW)
    assert made.is_fresh
    (certificate,) = load_certificates(made.certificate)
    assert certificate.subject == subject("deployer")
    assert certificate.public_key() == asked.request.public_key
    assert made.issued.renews == old.serial
    assert made.issued.not_valid_after - NOW == 90 * DAY
    assert let_in(ca, made.issued.name) is None
    before = content(ca)
    again = renew(ca, asked, now=NOW + DAY)
    assert (again.certificate, again.is_fresh) == (made.certificate, False)
    assert content(ca) == before


def test_the_extensions_that_a_renewal_asks_for_are_left_out(ca: Path) -> None:
    issued(ca)
    request = made_by(new_key(), name=subject("deployer"), extensions=GREEDY)
    made = renew(ca, entry(ca, request=request).renewal(), now=NOW)
    (certificate,) = load_certificates(made.certificate)
    old = certificate_of(ca, "deployer")
    assert {one.oid for one in certificate.extensions} == {one.oid for one in old.extensions}
    assert let_in(ca, made.issued.name) is None


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (NOW + 30 * DAY, "has ended"),
        (NOW + 300 * DAY, "has ended"),
        (NOW - 16 * DAY, "too early"),
        (BEGAN - DAY, "too early"),
    ],
)
def test_by_the_authoritys_clock_it_is_neither_too_early_nor_too_late(
    ca: Path, now: datetime, reason: str
) -> None:
    issued(ca)
    before, asked = content(ca), renewal(ca)
    with pytest.raises(RenewalRefusedError, match=reason):
        renew(ca, asked, now=now)
    assert content(ca) == before
    assert renew(ca, asked, now=NOW).is_fresh


def revoked(ca: Path) -> Renewal:
    issued(ca)
    asked = renewal(ca)
    authority.revoke(ca, common_name="deployer", now=NOW)
    return asked


def of_a_foreign_authority(ca: Path) -> Renewal:
    foreign = ca.with_name("foreign")
    authority.init(foreign, now=BEGAN)
    issued(foreign)
    return renewal(foreign)


def of_an_older_index(ca: Path) -> Renewal:
    kept = (ca / "index.json").read_bytes()
    issued(ca)
    (ca / "index.json").write_bytes(kept)
    return renewal(ca)


def renewed_for_another_key(ca: Path) -> Renewal:
    issued(ca)
    renew(ca, renewal(ca), now=NOW)
    return renewal(ca)


def with_a_revoked_successor(ca: Path) -> Renewal:
    issued(ca)
    asked = renewal(ca)
    made = renew(ca, asked, now=NOW)
    authority.revoke(ca, serial=made.issued.serial, now=NOW)
    return asked


def for_somebody_elses_key(ca: Path) -> Renewal:
    issued(ca)
    issued(ca, "alice")
    key = key_of(ca, "alice")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return entry(ca, request=new_request(key, "deployer")).renewal()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (revoked, "is revoked"),
        (of_a_foreign_authority, "not of this authority"),
        (of_an_older_index, "index"),
        (renewed_for_another_key, "renewed already"),
        (with_a_revoked_successor, "revoked"),
        (for_somebody_elses_key, "has a certificate already"),
    ],
)
def test_what_may_not_be_renewed_is_refused_and_nothing_is_signed(
    ca: Path, make: Callable[[Path], Renewal], reason: str
) -> None:
    asked = make(ca)
    before = content(ca)
    with pytest.raises(RenewalRefusedError, match=reason):
        renew(ca, asked, now=NOW)
    assert content(ca) == before
    issued(ca, "twin")
    assert renew(ca, renewal(ca, "twin"), now=NOW).is_fresh


def test_a_renewal_is_of_the_certificate_whose_key_has_signed_it(ca: Path) -> None:
    issued(ca)
    issued(ca, "alice")
    request = new_request(new_key(), "deployer")
    good = entry(ca, request=request)
    alices = entry(ca, "alice")
    unknown = of_an_unknown_curve(certificate_of(ca, "deployer")).decode()
    for bad, reason in (
        (entry(ca, request=request, signer=key_of(ca, "alice")), "not signed by the key"),
        (entry(ca, request=request, signer=new_key()), "not signed by the key"),
        (entry(ca, request=request, proof_for="alice"), "not signed by the key"),
        (good.model_copy(update={"request": entry(ca).request}), "not signed by the key"),
        (good.model_copy(update={"certificate": alices.certificate}), "not signed by the key"),
        (good.model_copy(update={"proof": alices.proof}), "not signed by the key"),
        (good.model_copy(update={"proof": ""}), "not signed by the key"),
        (good.model_copy(update={"proof": "?"}), "not base64"),
        (good.model_copy(update={"certificate": "none"}), "not a certificate"),
        (good.model_copy(update={"certificate": unknown}), "not known here"),
        (entry(ca, request=new_request(new_key(), "alice")), "another common name"),
        (entry(ca, request=made_by(new_key(), name=x509.Name([]))), "another common name"),
        (entry(ca, request=made_by(key_of(ca, "deployer"), name=subject("deployer"))), "same key"),
    ):
        with pytest.raises(ValueError, match=reason):
            bad.renewal()
    assert renew(ca, good.renewal(), now=NOW).is_fresh


def test_a_servers_certificate_is_none_that_renews_itself(ca: Path) -> None:
    issued(ca, "localhost", usage=Usage.SERVER)
    before = content(ca)
    with pytest.raises((HostAgentError, ValueError)):
        renew(ca, entry(ca, "localhost").renewal(), now=NOW)
    assert content(ca) == before


@pytest.mark.parametrize(
    "make",
    [ed25519.Ed25519PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048)],
)
def test_a_key_of_another_kind_proves_it_as_well(ca: Path, make: Callable[[], RenewingKey]) -> None:
    key = make()
    request = read_request(made_by(key, name=subject("deployer")))
    sign(ca, request, common_name="deployer", usage=Usage.CLIENT, now=BEGAN)
    with pytest.raises(ValueError, match="not signed by the key"):
        entry(ca, signer=make()).renewal()
    assert renew(ca, entry(ca, signer=key).renewal(), now=NOW).is_fresh


def test_of_two_renewals_at_once_one_is_made(ca: Path) -> None:
    issued(ca)
    asked = [renewal(ca) for _ in range(4)]

    def tried(one: Renewal) -> bool:
        try:
            return renew(ca, one, now=NOW).is_fresh
        except RenewalRefusedError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(tried, asked)) == 1
    assert sum(entry.renews is not None for entry in authority.list_issued(ca)) == 1
    assert len(list(ca.glob("renewed-*.crt"))) == 1


def test_revoking_one_takes_what_was_renewed_from_it_along(ca: Path) -> None:
    old = issued(ca)
    issued(ca, "alice")
    made = renew(ca, renewal(ca), now=NOW)
    fresh = authority.revoke(ca, serial=old.serial, now=NOW)
    assert {one.serial for one in fresh} == {old.serial, made.issued.serial}
    assert let_in(ca, made.issued.name) == "certificate revoked"
    assert let_in(ca, "alice") is None


def test_the_newer_one_is_revoked_alone(ca: Path) -> None:
    issued(ca)
    made = renew(ca, renewal(ca), now=NOW)
    authority.revoke(ca, serial=made.issued.serial, now=NOW)
    assert let_in(ca, "deployer") is None
    assert let_in(ca, made.issued.name) == "certificate revoked"


def test_cut_off_between_index_and_file_it_is_made_again_for_the_same_key(ca: Path) -> None:
    issued(ca)
    asked = renewal(ca)
    lost = renew(ca, asked, now=NOW)
    (ca / f"{lost.issued.name}.crt").unlink()
    with pytest.raises(RenewalRefusedError, match="renewed already"):
        renew(ca, renewal(ca), now=NOW)
    made = renew(ca, asked, now=NOW)
    assert made.is_fresh
    assert let_in(ca, made.issued.name) is None


def test_a_full_disk_leaves_the_index_as_it_was(ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issued(ca)
    before, asked = content(ca), renewal(ca)
    with monkeypatch.context() as patched:
        full_at(patched, ".crt")
        with pytest.raises(ConfigurationError, match="no space"):
            renew(ca, asked, now=NOW)
    assert content(ca) == before
    assert renew(ca, asked, now=NOW).is_fresh


def test_a_proof_is_bounded(ca: Path) -> None:
    issued(ca)
    good = entry(ca)
    old = certificate_of(ca, "deployer").public_bytes(serialization.Encoding.DER)
    with pytest.raises(ValueError, match="not signed by the key"):
        read_renewal(old, good.request.encode(), decoded(good.proof) + b"\0" * 4096)
    assert read_renewal(old, good.request.encode(), decoded(good.proof)).old.common_name


def test_what_the_list_alone_says_is_revoked_is_not_renewed(ca: Path) -> None:
    """An older index was restored: the list that lies there is newer."""
    issued(ca)
    issued(ca, "alice")
    kept, asked = (ca / "index.json").read_bytes(), renewal(ca)
    list_before = (ca / "ca.crl").read_bytes()
    authority.revoke(ca, common_name="deployer", now=NOW)
    (ca / "index.json").write_bytes(kept)
    before = content(ca)
    with pytest.raises(RenewalRefusedError, match="is revoked"):
        renew(ca, asked, now=NOW)
    assert content(ca) == before
    assert renew(ca, renewal(ca, "alice"), now=NOW).is_fresh
    foreign = ca.with_name("foreign")
    authority.init(foreign, now=BEGAN)
    for no_list_of_ours in (b"damaged", (foreign / "ca.crl").read_bytes(), list_before):
        (ca / "ca.crl").write_bytes(no_list_of_ours)
        renew(ca, asked, now=NOW)


def test_a_list_is_published_before_a_newer_one_can_be_signed(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person revokes and copies meanwhile would be undone by the older list."""
    place, replace = ca.parent / "served.crl", files.replace
    is_held: list[bool] = []

    def seen(path: Path, data: bytes, *, mode: int) -> None:
        if path == place:
            is_held.append(is_locked(ca))
        replace(path, data, mode=mode)

    monkeypatch.setattr(files, "replace", seen)
    authority.sign_crl(ca, now=NOW, publish=place)
    assert is_held == [True]
    assert not is_locked(ca)
    assert place.read_bytes() == (ca / "ca.crl").read_bytes()


def is_locked(directory: Path) -> bool:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_what_others_have_made_keeps_nobody_off_the_authority(ca: Path) -> None:
    """Whoever writes into the inbox can make any number of certificates."""
    asked = of_a_foreign_authority(ca)
    issued(ca)
    own = renewal(ca)
    (ca / "index.json").write_bytes(b"damaged")  # nobody comes as far as that
    with pytest.raises(RenewalRefusedError, match="not of this authority"):
        renew(ca, asked, now=NOW)
    with pytest.raises(ConfigurationError, match="damaged"):
        renew(ca, own, now=NOW)
    (ca / "ca.crt").write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match=r"ca\.crt is damaged"):
        renew(ca, asked, now=NOW)
