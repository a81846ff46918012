"""What the doctor says of certificates: good, soon to end, ended, not usable, missing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from host_agent.config import load
from host_agent.host.doctor.certificates import certificate_checks
from host_agent.host.doctor.values import Check, CheckState, is_well
from tests.support.certificates import Pki, make_pki
from tests.support.configurations import MINIMAL, write

SITE = MINIMAL.replace("[execution]", 'crl = "pki/ca.crl"\n[execution]')


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    (tmp_path / "pki").mkdir(mode=0o700)
    made = make_pki(tmp_path / "pki")
    made.server()
    return made


def checks(tmp_path: Path, now: datetime, text: str = SITE) -> dict[str, Check]:
    return {check.name: check for check in certificate_checks(load(write(tmp_path, text)), now)}


def test_good_ones_say_how_many_days_are_left(tmp_path: Path, pki: Pki) -> None:
    found = checks(tmp_path, pki.now)

    assert {check.state for check in found.values()} == {CheckState.OK}
    assert "good for 90 days" in found["server certificate"].sentence
    assert all(not check.remedy for check in found.values())


def test_a_certificate_that_ends_soon_is_a_warning_with_a_remedy(tmp_path: Path, pki: Pki) -> None:
    check = checks(tmp_path, pki.now + timedelta(days=80))["server certificate"]

    assert check.state is CheckState.WARNING
    assert "rotate-certificates" in check.remedy


def test_a_certificate_that_has_ended_is_a_problem(tmp_path: Path, pki: Pki) -> None:
    check = checks(tmp_path, pki.now + timedelta(days=91))["server certificate"]

    assert check.state is CheckState.PROBLEM
    assert "expired" in check.sentence


def test_a_revocation_list_that_has_ended_is_a_problem(tmp_path: Path, pki: Pki) -> None:
    check = checks(tmp_path, pki.now + timedelta(days=60))["revocation list"]

    assert check.state is CheckState.PROBLEM
    assert "Nobody gets in" in check.sentence


def test_no_revocation_list_is_a_warning(tmp_path: Path, pki: Pki) -> None:
    found = checks(tmp_path, pki.now, MINIMAL)

    assert found["revocation list"].state is CheckState.WARNING
    assert is_well(found.values())


def test_an_authority_that_is_no_certificate_is_a_problem(tmp_path: Path, pki: Pki) -> None:
    pki.ca_path.write_text("nonsense")

    assert checks(tmp_path, pki.now)["client authority"].state is CheckState.PROBLEM


def test_a_key_of_another_certificate_is_a_problem(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "pki" / "server.key").write_bytes(pki.server(file_name="other").key_pem)

    assert "does not belong" in checks(tmp_path, pki.now)["server certificate"].sentence


def test_renewals_that_wait_too_long_or_cannot_come_back_are_told(tmp_path: Path, pki: Pki) -> None:
    issued = tmp_path / "issued"
    text = SITE.replace("[execution]", f'[renewals]\nissued = "{issued}"\n[execution]')
    assert "renewals" not in checks(tmp_path, pki.now)
    assert checks(tmp_path, pki.now, text)["renewals"].state is CheckState.PROBLEM
    issued.mkdir()
    assert checks(tmp_path, pki.now, text)["renewals"].state is CheckState.OK
    inbox = load(tmp_path / "config.toml").store.path.parent / "renewals"
    inbox.mkdir(parents=True)
    (inbox / f"{'0' * 64}.json").write_text("{}")
    now = datetime.now(UTC)
    young = checks(tmp_path, now + timedelta(minutes=5), text)["renewals"]
    assert (young.state, "1 wait" in young.sentence) == (CheckState.OK, True)
    old = checks(tmp_path, now + timedelta(days=3), text)["renewals"]
    assert (old.state, "3 days" in old.sentence) == (CheckState.WARNING, True)
    assert "pki renewals" in old.remedy
