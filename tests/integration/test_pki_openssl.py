"""The `openssl` command as an independent judge of what the small CA makes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from host_agent.pki import authority
from host_agent.pki.profiles import Usage
from tests.support.certificates import wall_clock

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="the openssl command is not installed")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    now = wall_clock()
    authority.init(directory, now=now)
    authority.issue(directory, common_name="server", usage=Usage.SERVER, now=now)
    authority.issue(
        directory,
        common_name="librarian",
        usage=Usage.CLIENT,
        p12=directory / "librarian.p12",
        now=now,
    )
    return directory


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OPENSSL or "openssl", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def verify(ca: Path, name: str, purpose: str) -> subprocess.CompletedProcess[str]:
    return openssl(
        *("verify", "-x509_strict", "-crl_check_all", "-purpose", purpose),
        *("-CAfile", ca / "ca.crt", "-CRLfile", ca / "ca.crl", ca / f"{name}.crt"),
    )


def test_strict_verification_with_the_crl_accepts_both_sides(ca: Path) -> None:
    for name, purpose in (("server", "sslserver"), ("librarian", "sslclient")):
        judged = verify(ca, name, purpose)
        assert judged.returncode == 0, judged.stderr
    assert verify(ca, "server", "sslclient").returncode != 0
    assert verify(ca, "librarian", "sslserver").returncode != 0


def test_strict_verification_refuses_what_was_revoked_and_only_that(ca: Path) -> None:
    authority.revoke(ca, common_name="librarian", now=wall_clock())

    refused = verify(ca, "librarian", "sslclient")

    assert refused.returncode != 0
    assert "certificate revoked" in refused.stdout + refused.stderr
    assert verify(ca, "server", "sslserver").returncode == 0


def test_the_crl_is_signed_and_numbered(ca: Path) -> None:
    authority.sign_crl(ca, now=wall_clock())

    read = openssl("crl", "-in", ca / "ca.crl", "-CAfile", ca / "ca.crt", "-noout", "-text")

    assert read.returncode == 0
    assert "verify OK" in read.stderr
    assert "X509v3 CRL Number" in read.stdout
    assert "X509v3 Authority Key Identifier" in read.stdout


def test_a_foreign_ca_of_the_same_name_is_refused(ca: Path, tmp_path: Path) -> None:
    authority.init(tmp_path / "other", now=wall_clock())
    authority.issue(
        tmp_path / "other", common_name="librarian", usage=Usage.CLIENT, now=wall_clock()
    )

    judged = openssl(
        "verify", "-x509_strict", "-CAfile", ca / "ca.crt", tmp_path / "other" / "librarian.crt"
    )

    assert judged.returncode != 0


def test_key_and_bundle_load(ca: Path) -> None:
    assert openssl("pkey", "-in", ca / "librarian.key", "-noout", "-check").returncode == 0
    bundle = openssl("pkcs12", "-in", ca / "librarian.p12", "-passin", "pass:", "-nodes")
    assert bundle.returncode == 0, bundle.stderr
    assert bundle.stdout.count("BEGIN CERTIFICATE") == 2
    assert bundle.stdout.count("PRIVATE KEY-----") == 2
