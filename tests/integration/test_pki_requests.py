"""`pki request`, `sign` and `renewals` as people and timers run them: what they print and write."""

import os
import pty
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.cli import renewals
from host_agent.pki import authority
from host_agent.pki.profiles import Usage
from tests.support.certificates import wall_clock
from tests.support.patience import PATIENCE
from tests.unit.pki.test_signing import (
    certificate_of,
    content,
    encoded,
    entry,
    let_in,
    of_an_unknown_curve,
)

BEGAN = wall_clock() - timedelta(days=60)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    directory = tmp_path / "ca"
    authority.init(directory, now=BEGAN)
    authority.sign_crl(directory, now=wall_clock())
    return directory


def pki(*arguments: object) -> int:
    return main(["pki", *map(str, arguments)])


def test_a_key_is_made_here_and_certified_there(
    tmp_path: Path, ca: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = tmp_path / "deployer"
    assert pki("request", "--cn", "deployer", "--out", stem) == 0
    said = capsys.readouterr().out
    assert "stays here" in said
    assert stat.S_IMODE(stem.with_suffix(".key").stat().st_mode) == 0o600
    (hashed,) = [line for line in said.splitlines() if line.startswith("key sha256:")]
    options = ("--dir", ca, "--usage", "client", "--cn", "deployer", "--yes")
    assert pki("sign", *options, stem.with_suffix(".csr")) == 0
    told = capsys.readouterr().out
    assert hashed in told
    assert "a client's certificate for 90 days" in told
    assert let_in(ca, "deployer", now=wall_clock()) is None
    assert not (ca / "deployer.key").exists()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--cn", "alice", "--yes"], 64),
        (["--cn", "deployer"], 64),
        (["--yes"], 64),
        (["--cn", "deployer", "--yes", "--san", "DNS:x"], 64),
        (["--cn", "deployer", "--yes", "--days", "0"], 64),
        (["--cn", "deployer", "--yes", "--out", "ca"], 64),
    ],
)
def test_what_nobody_said_is_not_signed(
    tmp_path: Path,
    ca: Path,
    options: list[str],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pki("request", "--cn", "deployer", "--out", tmp_path / "deployer") == 0
    before = content(ca)
    request = tmp_path / "deployer.csr"
    assert pki("sign", "--dir", ca, "--usage", "client", *options, request) == status
    assert content(ca) == before
    good = ["--cn", "deployer", "--yes"]
    assert pki("sign", "--dir", ca, "--usage", "client", *good, request) == 0
    assert capsys.readouterr().err.count("host-agent: ") == 1


@pytest.mark.parametrize(
    ("typed", "status"),
    [("deployer\ny\n", 0), ("deployer\nn\n", 75), ("alice\ny\n", 64), ("deployer\n\n", 75)],
)
def test_on_a_terminal_the_person_says_name_and_yes(
    tmp_path: Path, ca: Path, typed: str, status: int
) -> None:
    assert pki("request", "--cn", "deployer", "--out", tmp_path / "deployer") == 0
    before = content(ca)
    ours, theirs = pty.openpty()
    command = ["pki", "sign", "--dir", str(ca), "--usage", "client", str(tmp_path / "deployer.csr")]
    try:
        os.write(ours, typed.encode())
        ended = subprocess.run(
            [sys.executable, "-m", "host_agent", *command],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == status, ended.stderr
    assert "asks for: deployer" in ended.stdout
    assert (content(ca) == before) is (status != 0)


def test_a_servers_request_gets_the_names_that_the_authority_says(
    tmp_path: Path, ca: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = tmp_path / "server"
    assert pki("request", "--cn", "agent.example.org", "--out", stem) == 0
    options = ("--usage", "server", "--cn", "agent.example.org", "--san", "DNS:agent.example.org")
    out = ("--out", "server", "--yes")
    assert pki("sign", "--dir", ca, *options, *out, stem.with_suffix(".csr")) == 0
    assert "names DNS:agent.example.org" in capsys.readouterr().out
    crt = ca / "server.crt"
    assert pki("verify", "--dir", ca, crt) == 77  # not for a client


def test_a_file_that_is_no_request_is_named(
    tmp_path: Path, ca: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csr").write_text("no")
    options = ("--dir", ca, "--usage", "client", "--cn", "x", "--yes")
    assert pki("sign", *options, tmp_path / "x.csr") == 64
    assert pki("sign", *options, tmp_path / "missing.csr") == 64
    err = capsys.readouterr().err
    assert "x.csr is not signed" in err
    assert "missing.csr cannot be read" in err


# -- renewals --------------------------------------------------------------------------------------


def put(ca: Path, inbox: Path, name: str) -> Path:
    (one,) = [issued for issued in authority.list_issued(ca) if issued.name == name]
    inbox.mkdir(exist_ok=True)
    path = inbox / f"{one.fingerprint.removeprefix('sha256:')}.json"
    path.write_bytes(entry(ca, name).encode())
    return path


def test_what_has_come_in_is_signed_and_the_rest_is_named(
    tmp_path: Path, ca: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "issued"
    out.mkdir()
    command = ("renewals", "--dir", ca, "--inbox", inbox, "--issued", out)
    assert pki(*command) == 0
    for name in ("deployer", "alice"):
        authority.issue(ca, common_name=name, usage=Usage.CLIENT, now=BEGAN)
    good = put(ca, inbox, "deployer")
    assert pki(*command) == 0
    assert capsys.readouterr().out.startswith("renewed deployer: serial ")
    before = (content(ca), content(out))
    assert list(before[1]) == [f"{good.stem}.crt"]
    assert pki(*command) == 0
    assert capsys.readouterr().out == ""

    alices = put(ca, inbox, "alice")
    kept = alices.read_bytes()
    secret = tmp_path / "secret"
    secret.write_text("of root")
    for number, hostile in enumerate((b"{}", b"", b"\xff", b'{"version": 2}', b"[" * 100_000)):
        (inbox / f"{number:064x}.json").write_bytes(hostile)
    (inbox / f"{5:064x}.json").symlink_to(secret)
    os.mkfifo(inbox / f"{6:064x}.json")
    (inbox / f"{7:064x}.json").mkdir()
    (inbox / f"{8:064x}.json").write_bytes(kept)
    unknown = of_an_unknown_curve(certificate_of(ca, "alice")).decode()
    no_text = encoded(certificate_of(ca, "alice"), b"\x0c\x05alice", b"\x03\x05\0lice").decode()
    for number, odd in ((9, unknown), (10, no_text)):
        told = entry(ca, "alice").model_copy(update={"certificate": odd})
        (inbox / f"{number:064x}.json").write_bytes(told.encode())
    alices.write_bytes(kept.replace(b"BEGIN CERTIFICATE REQUEST", b"BEGIN CERTIFICATE REPEAT"))
    (inbox / "../x.json").write_bytes(kept)
    assert pki(*command) == 1
    err = capsys.readouterr().err
    assert err.count("is not renewed") == 12
    assert "of root" not in err
    assert (content(ca), content(out)) == before

    alices.write_bytes(kept)
    assert pki(*command) == 1
    assert (out / f"{alices.stem}.crt").is_file()


def test_an_inbox_that_somebody_fills_fills_no_journal(
    tmp_path: Path, ca: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "issued"
    out.mkdir()
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=BEGAN)
    good = put(ca, inbox, "deployer")
    for number in range(renewals.MAX_TOLD + 3):
        (inbox / f"{number:064x}.json").write_bytes(b"{}")
    command = ("renewals", "--dir", ca, "--inbox", inbox, "--issued", out)
    with monkeypatch.context() as patched:
        patched.setattr(renewals, "MAX_ENTRIES", renewals.MAX_TOLD)
        assert pki(*command) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == renewals.MAX_TOLD
    assert content(out) == {}
    assert pki(*command) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == renewals.MAX_TOLD + 1
    assert "3 more are not renewed" in told[-1]
    assert list(content(out)) == [f"{good.stem}.crt"]


def test_a_directory_that_cannot_be_used_is_a_configuration_fault(
    tmp_path: Path, ca: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority.issue(ca, common_name="deployer", usage=Usage.CLIENT, now=BEGAN)
    put(ca, tmp_path / "inbox", "deployer")
    missing = ("--issued", tmp_path / "missing")
    assert pki("renewals", "--dir", ca, "--inbox", tmp_path / "inbox", *missing) == 78
    (tmp_path / "file").write_text("")
    assert pki("renewals", "--dir", ca, "--inbox", tmp_path / "file", *missing) == 78
    (tmp_path / "missing").mkdir()
    assert pki("renewals", "--dir", ca, "--inbox", tmp_path / "inbox", *missing) == 0
    assert capsys.readouterr().err.count("host-agent: ") == 2


def test_a_list_is_signed_and_put_in_its_place_in_one_step(
    tmp_path: Path, ca: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "served.crl"
    place.write_bytes(b"the old one")
    assert pki("crl", "--dir", ca, "--publish", place) == 0
    assert place.read_bytes() == (ca / "ca.crl").read_bytes()
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert pki("crl", "--dir", ca, "--publish", tmp_path / "no" / "ca.crl") == 78
    assert "cannot be written" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"ca", "served.crl"}
