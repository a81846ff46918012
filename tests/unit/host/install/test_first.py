"""A bootstrap for named people: a bundle each, a certificate for every name, nobody's key twice."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from host_agent.client.bundle import decode
from host_agent.config import load
from host_agent.host.install import layout
from host_agent.host.install.first import First
from host_agent.host.install.transaction import StepFailedError
from host_agent.host.install.values import FileKind
from host_agent.identity.registry import Role
from host_agent.operations.systemd.adapter import is_protected
from host_agent.operations.systemd.section import SystemdSection
from tests.support.installing import NOW, Stand, picture

FIRST = First(
    names=("web-1.example.org", "web-1"),
    addresses=("192.0.2.10", "2001:db8::10"),
    callers=("deployer", "alices-agent"),
    approvers=("alice", "erin"),
)
PEOPLE = ("deployer", "alices-agent", "alice", "erin")


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(root=tmp_path)


def test_everybody_gets_one_file_that_can_be_used_and_is_roots_alone(stand: Stand) -> None:
    stand.install(first=FIRST)

    place = stand.at(layout.BUNDLE_DIR)
    assert place.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in place.iterdir()) == sorted(f"{cn}.bundle" for cn in PEOPLE)
    for cn in PEOPLE:
        path = place / f"{cn}.bundle"
        assert path.stat().st_mode & 0o777 == 0o600
        bundle = decode(path.read_bytes())
        bundle.check(NOW + timedelta(minutes=1))
        assert bundle.cn == cn
        assert bundle.urls == (
            "https://web-1.example.org:8443",
            "https://web-1:8443",
            "https://192.0.2.10:8443",
            "https://[2001:db8::10]:8443",
        )


def test_a_persons_key_is_in_their_bundle_and_nowhere_else(stand: Stand) -> None:
    stand.install(first=FIRST)

    keys = {path.name for path in stand.at(layout.AUTHORITY_DIR).glob("*.key")}
    assert keys == {"ca.key", "server.key"}
    holders = [
        path.relative_to(stand.root).as_posix()
        for path in stand.root.rglob("*")
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    ]
    assert sorted(holders) == sorted(
        [
            "etc/host-agent/pki/server.key",
            *(f"root/host-agent-ca/{name}.key" for name in ("ca", "server")),
            *(f"root/host-agent-bundles/{cn}.bundle" for cn in PEOPLE),
        ]
    )


def test_the_servers_certificate_is_good_for_every_name_and_address(stand: Stand) -> None:
    stand.install(first=FIRST)

    pem = stand.at(f"{layout.PKI_DIR}/server.crt").read_bytes()
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    dns = names.value.get_values_for_type(x509.DNSName)
    addresses = [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)]
    assert {"web-1.example.org", "web-1", "localhost"} <= set(dns)
    assert {"192.0.2.10", "2001:db8::10", "127.0.0.1", "::1"} <= set(addresses)


def test_each_program_is_an_owner_of_its_own_so_that_a_person_approves_for_it(
    stand: Stand,
) -> None:
    stand.install(first=FIRST)

    config = load(stand.at(layout.CONFIGURATION), is_for_this_host=False)
    found = {one.cn: (one.acts_for, tuple(one.roles)) for one in config.identities}
    assert found == {
        "deployer": ("deployer", (Role.CALLER,)),
        "alices-agent": ("alices-agent", (Role.CALLER,)),
        "alice": ("alice", (Role.APPROVER,)),
        "erin": ("erin", (Role.APPROVER,)),
    }


def test_something_harmless_can_be_asked_for(stand: Stand) -> None:
    report = stand.install(first=FIRST)

    assert f"host-agent call systemd.restart unit={layout.TRIAL_NAME}" in "".join(report.later)
    config = load(stand.at(layout.CONFIGURATION), is_for_this_host=False)
    systemd = config.section(SystemdSection)
    assert systemd is not None
    assert any(re.fullmatch(unit, layout.TRIAL_NAME) for unit in systemd.units)
    assert not is_protected(layout.TRIAL_NAME)
    assert stand.at(layout.TRIAL).stat().st_mode & 0o777 == 0o644


def test_the_unit_to_try_goes_once_the_configuration_lists_it_no_more(stand: Stand) -> None:
    stand.install()
    path = stand.at(layout.CONFIGURATION)
    lines = [line for line in path.read_text().splitlines(keepends=True) if "try-host" not in line]
    path.write_text("".join(lines))

    report = stand.install()

    assert not stand.at(layout.TRIAL).exists()
    assert layout.TRIAL in [c.what for c in report.changes if c.kind is FileKind.REMOVED]
    assert stand.install().is_unchanged


def test_an_administrators_own_list_of_units_brings_no_unit_of_ours(tmp_path: Path) -> None:
    stand = Stand(root=tmp_path / "a")
    stand.root.mkdir()
    stand.install()
    path = stand.at(layout.CONFIGURATION)
    path.write_text(path.read_text().replace(r"try-host-agent\\.service", r".*\\.service"))
    stand.install()
    assert not stand.at(layout.TRIAL).exists()


@pytest.mark.parametrize(
    ("first", "bind"),
    [
        (First(), "127.0.0.1:8443"),
        (First(addresses=("127.0.0.1",)), "127.0.0.1:8443"),
        (First(names=("web",), addresses=("127.0.0.1",)), "127.0.0.1:8443"),
        (First(names=("web",)), "0.0.0.0:8443"),
        (First(addresses=("192.0.2.77",)), "0.0.0.0:8443"),
        (First(addresses=("192.0.2.77", "127.0.0.1")), "0.0.0.0:8443"),
        (First(addresses=("2001:db8::77",)), "[::]:8443"),
        (First(addresses=("2001:db8::77", "192.0.2.77")), "[::]:8443"),
    ],
)
def test_it_listens_where_it_is_reached(first: First, bind: str) -> None:
    assert first.bind() == bind
    table = tomllib.loads(first.completed().configuration())
    assert table["server"]["bind"] == bind


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"names": ("*.example.org",)}, "stands for many"),
        ({"names": ("a b",)}, "is not a name"),
        ({"names": ("192.0.2.1",)}, "is not a name"),
        ({"addresses": ("web-1",)}, "is not a name"),
        ({"addresses": ("0.0.0.0",)}, "is no address that a caller could reach"),
        ({"callers": ("root",)}, "cannot name an identity"),
        ({"callers": ("../x",)}, "cannot name an identity"),
        ({"approvers": ('a"\nroles = ["admin"]',)}, "cannot name an identity"),
        ({"callers": ("alice",), "approvers": ("alice",)}, "alice would ask and approve"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    wrong: dict[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        First(**wrong)


def test_a_second_time_nobody_gets_another_key(stand: Stand) -> None:
    stand.install(first=FIRST)
    before = picture(stand.root)

    for first in (FIRST, First()):
        assert stand.install(first=first).is_unchanged
        assert picture(stand.root) == before
    # Handed out and removed here, as the page says: it does not come back with another key.
    stand.at(f"{layout.BUNDLE_DIR}/alice.bundle").unlink()
    assert stand.install(first=FIRST).is_unchanged
    assert not stand.at(f"{layout.BUNDLE_DIR}/alice.bundle").exists()


def test_somebody_who_comes_later_gets_a_bundle_and_the_lines_to_add(stand: Stand) -> None:
    stand.install(first=FIRST)
    before = stand.at(layout.CONFIGURATION).read_text()

    report = stand.install(first=First(names=("web-1",), callers=("bobs-agent",)))

    bundle = decode(stand.at(f"{layout.BUNDLE_DIR}/bobs-agent.bundle").read_bytes())
    assert bundle.urls == ("https://web-1:8443",)
    assert stand.at(layout.CONFIGURATION).read_text() == before
    assert any('cn = "bobs-agent"' in line for line in report.advice)


def test_once_the_authority_is_away_nothing_is_made_here(stand: Stand, tmp_path: Path) -> None:
    stand.install(first=FIRST)
    stand.at(layout.AUTHORITY_DIR).rename(tmp_path / "another-machine")
    before = picture(stand.root)

    assert stand.install(first=FIRST).is_unchanged
    report = stand.install(first=First(callers=("bobs-agent",)))

    assert report.is_unchanged
    assert picture(stand.root) == before
    (told,) = [change.what for change in report.changes if change.kind is FileKind.SKIPPED]
    assert "bobs-agent" in told
    assert "host-agent pki bundle" in told
    stand.at(f"{layout.PKI_DIR}/server.key").unlink()
    with pytest.raises(StepFailedError, match="not in /root/host-agent-ca any more"):
        stand.install(first=FIRST)


def test_a_bundle_in_the_way_is_not_overwritten(stand: Stand) -> None:
    path = stand.at(f"{layout.BUNDLE_DIR}/alice.bundle")
    path.parent.mkdir(parents=True)
    path.write_text("somebody's only key")
    before = picture(stand.root)

    with pytest.raises(StepFailedError, match="is there, and alice has no certificate"):
        stand.install(first=FIRST)

    assert picture(stand.root) == before
