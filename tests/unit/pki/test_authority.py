"""The small CA: what it makes passes strictly, and nothing that exists is overwritten."""

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from host_agent.errors import ConfigurationError
from host_agent.identity.authorities import Authorities
from host_agent.identity.certificate import parse_peer_certificate
from host_agent.identity.revocation_list import RevocationList, load_lists
from host_agent.pki import authority
from host_agent.pki.door import load_certificates
from host_agent.pki.index import Index, Issued, decode, encode
from host_agent.pki.profiles import Usage
from host_agent.pki.verification import (
    check_authorities,
    check_server_pair,
    reason_against,
    reason_of_clients,
)
from tests.support.certificates import wall_clock

NOW = wall_clock()
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    authority.init(directory, now=NOW)
    return directory


def issue_client(directory: Path, cn: str = "librarian", out: str | None = None) -> Issued:
    return authority.issue(directory, common_name=cn, usage=Usage.CLIENT, out=out, now=NOW)


def reason(directory: Path, name: str) -> str | None:
    certificate, ca, crl = (
        (directory / file).read_bytes() for file in (f"{name}.crt", "ca.crt", "ca.crl")
    )
    return reason_against(certificate, ca, crl, now=NOW)


def published(directory: Path) -> RevocationList:
    ca = load_certificates((directory / "ca.crt").read_bytes())
    return RevocationList.load((directory / "ca.crl").read_bytes(), Authorities(ca), NOW)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- init -------------------------------------------------------------------------------------


def test_init_makes_a_ca_that_strict_verification_accepts(ca: Path) -> None:
    certificate = load_certificates((ca / "ca.crt").read_bytes())[0]

    assert check_authorities((ca / "ca.crt").read_bytes(), NOW) == []
    assert load_lists((ca / "ca.crl").read_bytes(), Authorities([certificate]), NOW)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert sorted(content(ca)) == ["ca.crl", "ca.crt", "ca.key", "index.json"]
    assert mode(ca / "ca.key") == 0o600
    assert published(ca).number == 1


@pytest.mark.parametrize("taken", ["ca.crt", "ca.key", "ca.crl", "index.json"])
def test_init_overwrites_nothing(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).symlink_to("nowhere")

    with pytest.raises(ConfigurationError, match="exists already"):
        authority.init(tmp_path, now=NOW)

    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_init_twice_keeps_the_first_ca(ca: Path) -> None:
    before = content(ca)

    with pytest.raises(ConfigurationError, match="exists already"):
        authority.init(ca, now=NOW)

    assert content(ca) == before


def test_init_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("mine")

    with pytest.raises(ConfigurationError):
        authority.init(tmp_path / "pki", now=NOW)

    assert (tmp_path / "pki").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a" * 65, "line\nbreak", "\x1b[31m"])
def test_init_refuses_a_name_that_cannot_be_shown(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        authority.init(tmp_path / "pki", name=name, now=NOW)

    assert not (tmp_path / "pki").exists()


# -- issue ------------------------------------------------------------------------------------


def test_a_client_certificate_would_be_let_in(ca: Path) -> None:
    issued = issue_client(ca)

    assert reason(ca, "librarian") is None
    leaf = load_certificates((ca / "librarian.crt").read_bytes())[0]
    assert leaf.serial_number == issued.serial
    assert 2**120 < leaf.serial_number < 2**159, "20 random bytes, positive (RFC 5280, 4.1.2.2)"
    assert issued.days_left(NOW) == 90
    assert mode(ca / "librarian.key") == 0o600
    assert authority.list_issued(ca) == (issued,)


def test_a_server_certificate_serves_its_name_and_loopback(ca: Path) -> None:
    authority.issue(ca, common_name="web.example", usage=Usage.SERVER, out="server", now=NOW)

    pair = [(ca / name).read_bytes() for name in ("server.crt", "server.key", "ca.crt")]
    check_server_pair(pair[0], pair[1], NOW)
    assert reason_of_clients(pair[0], pair[2], NOW) is None
    assert names_of(pair[0]) == ["web.example", "localhost", "127.0.0.1", "::1"]
    assert reason(ca, "server") is not None, "a server is no client"


def test_given_names_replace_the_default_ones(ca: Path) -> None:
    authority.issue(
        ca,
        common_name="web",
        usage=Usage.SERVER,
        names=["DNS:a.example", "IP:192.0.2.1", "IP:2001:db8::1", "DNS:a.example"],
        now=NOW,
    )

    assert names_of((ca / "web.crt").read_bytes()) == ["a.example", "192.0.2.1", "2001:db8::1"]


def names_of(pem: bytes) -> list[str]:
    extension = load_certificates(pem)[0].extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(name.value) for name in extension.value]


def test_a_browser_bundle_holds_key_certificate_and_ca(ca: Path, tmp_path: Path) -> None:
    for out, password in (("open", None), ("closed", b"secret")):
        path = tmp_path / f"{out}.p12"
        issued = authority.issue(
            ca,
            common_name="alice",
            usage=Usage.CLIENT,
            out=out,
            p12=path,
            p12_password=password,
            now=NOW,
        )
        bundle = pkcs12.load_pkcs12(path.read_bytes(), password)

        assert mode(path) == 0o600
        assert bundle.cert is not None
        assert bundle.cert.certificate.serial_number == issued.serial
        assert bundle.key is not None
        assert len(bundle.additional_certs) == 1
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12((tmp_path / "closed.p12").read_bytes(), b"wrong")


Issue = Callable[[Path], object]


def refused(
    *,
    common_name: str = "librarian",
    usage: Usage = Usage.CLIENT,
    names: tuple[str, ...] = (),
    days: int | None = None,
    out: str | None = None,
) -> Issue:
    return lambda directory: authority.issue(
        directory, common_name=common_name, usage=usage, names=names, days=days, out=out, now=NOW
    )


@pytest.mark.parametrize(
    "attempt",
    [
        *(refused(common_name=cn) for cn in ("", "root", "0", "../x", "Alice", "a b", "a\n")),
        *(refused(common_name=cn, usage=Usage.SERVER) for cn in ("", "../x", "a b", "-a")),
        *(refused(out=out) for out in ("ca", "../x", "a/b", "", ".hidden", "-x", "a\n")),
        *(
            refused(usage=Usage.SERVER, names=(name,))
            for name in (
                "localhost",
                "DNS:",
                "DNS:a b",
                "DNS:a..b",
                "DNS:-a",
                "DNS:\u0430",
                "DNS:127.0.0.1",
                "IP:localhost",
                "IP:300.0.0.1",
                "IP:fe80::1%eth0",
                "URI:https://a",
            )
        ),
        refused(names=("DNS:localhost",)),
        refused(days=0),
        refused(days=-1),
        refused(days=3651),
    ],
)
def test_issue_refuses_what_cannot_be_used_and_changes_nothing(ca: Path, attempt: Issue) -> None:
    before = content(ca)

    with pytest.raises(ValueError, match=r"\S"):
        attempt(ca)

    assert content(ca) == before


def test_issue_does_not_outlive_the_ca(tmp_path: Path) -> None:
    authority.init(tmp_path, now=NOW, days=30)
    before = content(tmp_path)

    with pytest.raises(ValueError, match="the CA itself ends in 30 days"):
        issue_client(tmp_path)
    assert content(tmp_path) == before

    authority.issue(tmp_path, common_name="a", usage=Usage.CLIENT, days=30, now=NOW)
    assert reason(tmp_path, "a") is None


@pytest.mark.parametrize("taken", ["librarian.crt", "librarian.key", "bundle.p12"])
def test_issue_overwrites_nothing(ca: Path, taken: str) -> None:
    (ca / taken).write_bytes(b"mine")
    before = content(ca)

    with pytest.raises(ConfigurationError, match="exists already"):
        authority.issue(
            ca,
            common_name="librarian",
            usage=Usage.CLIENT,
            p12=ca / "bundle.p12",
            now=NOW,
        )

    assert content(ca) == before


def test_a_bundle_that_cannot_be_written_leaves_nothing_behind(ca: Path) -> None:
    before = content(ca)

    with pytest.raises(ConfigurationError, match="cannot be used"):
        authority.issue(
            ca,
            common_name="librarian",
            usage=Usage.CLIENT,
            p12=ca / "missing" / "bundle.p12",
            now=NOW,
        )

    assert content(ca) == before


def test_certificates_that_are_issued_at_once_are_all_indexed(ca: Path) -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        issued = list(pool.map(lambda number: issue_client(ca, f"c{number}"), range(12)))

    assert {entry.serial for entry in authority.list_issued(ca)} == {
        entry.serial for entry in issued
    }


def test_one_name_issued_at_once_is_issued_once(ca: Path) -> None:
    def attempt(_: int) -> bool:
        try:
            issue_client(ca)
        except ConfigurationError:
            return False
        return True

    with ThreadPoolExecutor(max_workers=4) as pool:
        assert sum(pool.map(attempt, range(8))) == 1

    assert len(authority.list_issued(ca)) == 1
    assert reason(ca, "librarian") is None


# -- a directory that is not a CA's -------------------------------------------------------------


def spoil_key(directory: Path) -> None:
    (directory / "ca.key").chmod(0o644)


def swap_key(directory: Path) -> None:
    issued = authority.issue(directory, common_name="x", usage=Usage.CLIENT, now=NOW)
    (directory / f"{issued.name}.key").replace(directory / "ca.key")


def damage(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(b"damaged")


def remove(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_key,
        swap_key,
        *(damage(name) for name in ("ca.crt", "ca.key", "index.json")),
        *(remove(name) for name in ("ca.crt", "ca.key", "index.json")),
    ],
)
def test_a_spoilt_directory_is_refused_by_every_command(
    ca: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(ca)
    before = content(ca)

    for command in (
        lambda: issue_client(ca),
        lambda: authority.revoke(ca, common_name="x", now=NOW),
        lambda: authority.sign_crl(ca, now=NOW),
    ):
        with pytest.raises(ConfigurationError) as caught:
            command()
        assert str(ca) in caught.value.faults[0]

    assert content(ca) == before


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    for command in (
        lambda: issue_client(tmp_path / "none"),
        lambda: authority.list_issued(tmp_path / "none"),
    ):
        with pytest.raises(ConfigurationError, match="no such file"):
            command()


# -- revoke and the CRL ---------------------------------------------------------------------------


def test_revoking_a_name_revokes_all_its_certificates_and_no_other(ca: Path) -> None:
    first, second = issue_client(ca), issue_client(ca, out="librarian-2")
    other = issue_client(ca, "librarian-evil")

    fresh = authority.revoke(ca, common_name="librarian", now=NOW)

    assert {entry.serial for entry in fresh} == {first.serial, second.serial}
    assert published(ca).serials == {first.serial, second.serial}
    assert published(ca).number == 2
    assert reason(ca, "librarian") == reason(ca, "librarian-2") == "certificate revoked"
    assert reason(ca, "librarian-evil") is None
    states = {entry.serial: entry.state(NOW) for entry in authority.list_issued(ca)}
    assert states == {first.serial: "revoked", second.serial: "revoked", other.serial: "valid"}


def test_revoking_a_serial_revokes_that_certificate_only(ca: Path) -> None:
    first, second = issue_client(ca), issue_client(ca, out="librarian-2")

    authority.revoke(ca, serial=first.serial, now=NOW)

    assert published(ca).serials == {first.serial}
    assert second.serial not in published(ca).serials


def test_revoking_what_was_never_issued_is_refused(ca: Path) -> None:
    issue_client(ca)
    before = content(ca)

    with pytest.raises(LookupError, match="'librar' was issued here"):
        authority.revoke(ca, common_name="librar", now=NOW)
    with pytest.raises(LookupError, match="serial 1 was issued here"):
        authority.revoke(ca, serial=1, now=NOW)

    assert content(ca) == before


def test_revoking_again_signs_again_and_keeps_the_first_time(ca: Path) -> None:
    """A first command that was cut off between index and CRL is completed by its repetition."""
    issue_client(ca)
    authority.revoke(ca, common_name="librarian", now=NOW)
    stale = authority.list_issued(ca)

    assert authority.revoke(ca, common_name="librarian", now=NOW + MINUTE) == ()

    assert authority.list_issued(ca) == stale
    assert published(ca).number == 3
    assert len(published(ca).serials) == 1


def test_an_index_from_a_backup_takes_back_neither_number_nor_revocation(ca: Path) -> None:
    first, second = issue_client(ca), issue_client(ca, "gardener")
    backup = (ca / "index.json").read_bytes()
    authority.revoke(ca, common_name="librarian", now=NOW)
    (ca / "index.json").write_bytes(backup)

    authority.revoke(ca, common_name="gardener", now=NOW)

    assert published(ca).number == 3
    assert published(ca).serials == {first.serial, second.serial}


def test_a_foreign_crl_in_the_directory_is_not_taken_over(ca: Path, tmp_path: Path) -> None:
    authority.init(tmp_path / "other", now=NOW)
    issue_client(tmp_path / "other")
    authority.revoke(tmp_path / "other", common_name="librarian", now=NOW)
    (ca / "ca.crl").write_bytes((tmp_path / "other" / "ca.crl").read_bytes())

    assert authority.sign_crl(ca, now=NOW) == 2
    assert published(ca).serials == frozenset()


@pytest.mark.parametrize("spoil", [damage("ca.crl"), remove("ca.crl")])
def test_a_lost_crl_is_signed_anew(ca: Path, spoil: Callable[[Path], object]) -> None:
    issue_client(ca)
    authority.revoke(ca, common_name="librarian", now=NOW)
    spoil(ca)

    assert authority.sign_crl(ca, now=NOW) == 3
    assert len(published(ca).serials) == 1


def test_the_crl_lasts_as_long_as_asked(ca: Path) -> None:
    authority.sign_crl(ca, days=7, now=NOW)
    assert published(ca).next_update == NOW + 7 * DAY

    before = content(ca)
    for days in (0, -1, 3651):
        with pytest.raises(ValueError, match="--days"):
            authority.sign_crl(ca, days=days, now=NOW)
    assert content(ca) == before


def test_certificates_long_over_leave_the_crl_and_stay_in_the_index(ca: Path) -> None:
    issue_client(ca)
    authority.revoke(ca, common_name="librarian", now=NOW)

    authority.sign_crl(ca, now=NOW + 89 * DAY)
    number = authority.sign_crl(ca, days=3000, now=NOW + 121 * DAY)

    assert number == 4
    issuers = load_certificates((ca / "ca.crt").read_bytes())
    late = RevocationList.load((ca / "ca.crl").read_bytes(), Authorities(issuers), NOW + 121 * DAY)
    assert late.serials == frozenset()
    assert len(authority.list_issued(ca)) == 1


def test_an_expired_ca_signs_nothing(ca: Path) -> None:
    before = content(ca)

    with pytest.raises(ConfigurationError, match="expired"):
        authority.sign_crl(ca, now=NOW + 3650 * DAY)
    with pytest.raises(ValueError, match="the CA itself ends"):
        authority.issue(ca, common_name="a", usage=Usage.CLIENT, now=NOW + 3650 * DAY)

    assert content(ca) == before


# -- the index ------------------------------------------------------------------------------------


def test_the_index_survives_its_json_form(ca: Path) -> None:
    issue_client(ca)
    authority.revoke(ca, common_name="librarian", now=NOW)
    index = Index(certificates=tuple(authority.list_issued(ca)), crl_number=2)

    assert decode(encode(index)) == index
    assert decode(encode(Index())) == Index()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"version":2,"crl_number":1,"certificates":[]}', b"\xff"]
)
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode(data)


def test_state_and_days_left_are_told_at_the_instant() -> None:
    issued = Issued(
        common_name="a",
        usage=Usage.CLIENT,
        serial=1,
        fingerprint="",
        not_valid_before=NOW,
        not_valid_after=NOW + DAY,
        name="a",
    )

    assert (issued.state(NOW), issued.days_left(NOW)) == ("valid", 1)
    assert (issued.state(NOW + DAY), issued.days_left(NOW + DAY)) == ("expired", 0)
    assert issued.days_left(NOW + 2 * DAY) == 0


def test_what_the_authority_issues_is_what_the_door_reads(ca: Path) -> None:
    issued = issue_client(ca)
    der = x509.load_pem_x509_certificate((ca / "librarian.crt").read_bytes())

    peer = parse_peer_certificate(der.public_bytes(serialization.Encoding.DER))

    assert (peer.common_name, peer.serial) == ("librarian", issued.serial)
    assert peer.fingerprint == issued.fingerprint
