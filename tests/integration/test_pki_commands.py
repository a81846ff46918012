"""`host-agent pki` as a person types it: what it prints, writes, refuses and returns."""

import json
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.client.bundle import decode
from tests.support.certificates import HOSTILE_SHAPES, make_pki


@dataclass(frozen=True, kw_only=True)
class Ended:
    status: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs `host-agent pki` on one directory."""

    directory: Path
    capture: pytest.CaptureFixture[str]

    def pki(self, verb: str, *arguments: str) -> Ended:
        return self.bare("pki", verb, "--dir", str(self.directory), *arguments)

    def bare(self, *arguments: str) -> Ended:
        self.capture.readouterr()
        status = main(arguments)
        written = self.capture.readouterr()
        return Ended(status=status, out=written.out, err=written.err)

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    fresh = Shell(directory=tmp_path / "pki", capture=capsys)
    assert fresh.pki("init").status == 0
    return fresh


def is_one_sentence(text: str) -> bool:
    return text.startswith("host-agent: ") and text.count("\n") == 1 and "Traceback" not in text


def test_init_issue_verify_revoke_crl_and_list_as_a_story(shell: Shell) -> None:
    assert shell.pki("issue", "--cn", "server", "--usage", "server").status == 0
    assert shell.pki("issue", "--cn", "librarian", "--usage", "client").status == 0
    certificate = str(shell.directory / "librarian.crt")

    let_in = shell.pki("verify", certificate)
    assert (let_in.status, let_in.err) == (0, "")
    assert "would be let in" in let_in.out

    revoked = shell.pki("revoke", "--cn", "librarian")
    assert revoked.status == 0
    assert "revoked serial" in revoked.out

    refused = shell.pki("verify", certificate)
    assert (refused.status, refused.out) == (77, "")
    assert is_one_sentence(refused.err)
    assert "certificate revoked" in refused.err

    assert "number 3" in shell.pki("crl", "--days", "7").out
    listed = shell.pki("list")
    assert listed.status == 0
    assert [line.split()[:3] for line in listed.out.splitlines()[1:]] == [
        ["server", "server", "valid"],
        ["librarian", "client", "revoked"],
    ]


def test_the_listing_as_json(shell: Shell) -> None:
    shell.pki("issue", "--cn", "librarian", "--usage", "client", "--days", "10", "--out", "one")

    (row,) = json.loads(shell.pki("list", "--json").out)["certificates"]

    assert row["cn"] == "librarian"
    assert row["usage"] == "client"
    assert row["state"] == "valid"
    assert row["days_left"] in (9, 10)
    assert row["file"] == "one.crt"
    assert row["revoked_at"] is None
    assert row["fingerprint"].startswith("sha256:")
    assert shell.pki("revoke", "--serial", row["serial"].upper()).status == 0
    (row,) = json.loads(shell.pki("list", "--json").out)["certificates"]
    assert row["state"] == "revoked"


def test_a_serial_is_taken_as_openssl_prints_it(shell: Shell) -> None:
    shell.pki("issue", "--cn", "librarian", "--usage", "client")
    (row,) = json.loads(shell.pki("list", "--json").out)["certificates"]
    digits = row["serial"].rjust(40, "0").upper()
    pairs = ":".join(digits[start : start + 2] for start in range(0, 40, 2))

    assert shell.pki("revoke", "--serial", pairs).status == 0


def test_keys_are_private_whatever_the_umask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(directory=tmp_path / "open", capture=capsys)
    before = os.umask(0)
    try:
        shell.pki("init")
        bundle = str(tmp_path / "alice.p12")
        shell.pki("issue", "--cn", "alice", "--usage", "client", "--p12", bundle)
    finally:
        os.umask(before)

    for path in (shell.directory / "ca.key", shell.directory / "alice.key", Path(bundle)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "--name", ""),
        ("issue", "--cn", "librarian"),
        ("issue", "--usage", "client"),
        ("issue", "--cn", "librarian", "--usage", "both"),
        ("issue", "--cn", "root", "--usage", "client"),
        ("issue", "--cn", "../x", "--usage", "client"),
        ("issue", "--cn", "a", "--usage", "client", "--san", "DNS:a"),
        ("issue", "--cn", "a", "--usage", "server", "--san", "a"),
        ("issue", "--cn", "a", "--usage", "client", "--days", "0"),
        ("issue", "--cn", "a", "--usage", "client", "--days", "\u0661"),
        ("issue", "--cn", "a", "--usage", "client", "--days", "1e3"),
        ("issue", "--cn", "a", "--usage", "client", "--out", "../a"),
        ("issue", "--cn", "a", "--usage", "client", "--p12", "a", "--p12-password-file", "none"),
        ("revoke",),
        ("revoke", "--cn", "a", "--serial", "1"),
        ("revoke", "--serial", "xyz"),
        ("crl", "--days", "-1"),
        ("verify",),
        ("unknown",),
    ],
)
def test_usage_errors_end_with_64_and_change_nothing(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    before = shell.content()

    ended = shell.pki(*arguments)

    assert ended.status == 64
    assert is_one_sentence(ended.err)
    assert ended.out == ""
    assert shell.content() == before


def test_pki_without_a_command_or_directory_is_a_usage_error(shell: Shell) -> None:
    assert shell.bare("pki").status == 64
    assert shell.bare("pki", "list").status == 64


def test_a_directory_that_cannot_serve_ends_with_78(shell: Shell, tmp_path: Path) -> None:
    shell.pki("issue", "--cn", "librarian", "--usage", "client")
    before = shell.content()

    for ended in (
        shell.pki("init"),
        shell.pki("issue", "--cn", "librarian", "--usage", "client"),
        shell.bare("pki", "list", "--dir", str(tmp_path / "none")),
        shell.bare("pki", "crl", "--dir", str(tmp_path / "none")),
    ):
        assert ended.status == 78
        assert is_one_sentence(ended.err)
    assert shell.content() == before


def test_revoking_what_is_not_there_ends_with_65(shell: Shell) -> None:
    before = shell.content()

    for ended in (shell.pki("revoke", "--cn", "a"), shell.pki("revoke", "--serial", "ff")):
        assert ended.status == 65
        assert is_one_sentence(ended.err)
    assert shell.content() == before


@pytest.mark.parametrize("kind", ["missing", "text", "folder", "device", "key"])
def test_verify_of_what_is_no_certificate_ends_with_65(shell: Shell, kind: str) -> None:
    path = {
        "missing": shell.directory / "none.crt",
        "text": shell.directory / "index.json",
        "folder": shell.directory,
        "device": Path("/dev/zero"),
        "key": shell.directory / "ca.key",
    }[kind]

    ended = shell.pki("verify", str(path))

    assert ended.status == 65
    assert is_one_sentence(ended.err)
    assert str(path) in ended.err


def test_verify_needs_the_ca_and_its_list(shell: Shell) -> None:
    shell.pki("issue", "--cn", "librarian", "--usage", "client")
    (shell.directory / "ca.crl").unlink()

    ended = shell.pki("verify", str(shell.directory / "librarian.crt"))

    assert ended.status == 78
    assert "ca.crl" in ended.err


@pytest.mark.promise("c14")
@pytest.mark.parametrize("shape", HOSTILE_SHAPES)
def test_verify_says_why_a_hostile_shape_would_not_be_let_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    pki = make_pki(tmp_path)
    leaf = HOSTILE_SHAPES[shape](pki)
    shell = Shell(directory=tmp_path, capture=capsys)

    told = shell.pki("verify", str(leaf.certificate_path))
    as_json = shell.pki("verify", str(leaf.certificate_path), "--json")

    assert (told.status, told.out) == (77, "")
    assert is_one_sentence(told.err)
    assert told.err.isascii()
    assert as_json.status == 77
    verdict = json.loads(as_json.out)
    assert verdict["let_in"] is False
    assert verdict["reason"] in told.err


def test_verify_tells_good_from_expired_and_foreign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pki, foreign = make_pki(tmp_path / "ours"), make_pki(tmp_path / "theirs")
    shell = Shell(directory=tmp_path / "ours", capture=capsys)

    good = shell.pki("verify", str(pki.client().certificate_path), "--json")
    assert json.loads(good.out)["let_in"] is True
    for leaf in (
        pki.expired_client(file_name="expired"),
        pki.future_client(file_name="future"),
        pki.server(),
        foreign.client(),
    ):
        assert shell.pki("verify", str(leaf.certificate_path)).status == 77


def test_a_bundle_with_a_password_from_a_file(shell: Shell, tmp_path: Path) -> None:
    secret, bundle = tmp_path / "password", tmp_path / "alice.p12"
    secret.write_text("correct horse\n")

    ended = shell.pki(
        *("issue", "--cn", "alice", "--usage", "client"),
        *("--p12", str(bundle), "--p12-password-file", str(secret)),
    )

    assert ended.status == 0
    assert "correct" not in ended.out
    assert bundle.exists()


URLS = ("--host", "web-1", "--url", "https://web-1:8443", "--url", "https://192.0.2.1:8443")


def test_what_was_issued_becomes_one_file_that_can_be_used(shell: Shell, tmp_path: Path) -> None:
    shell.pki("issue", "--cn", "alice", "--usage", "client")
    out = tmp_path / "alice.bundle"

    done = shell.pki("bundle", "--cn", "alice", *URLS, "--out", str(out))

    assert done.status == 0, done.err
    assert "it holds a private key" in done.out
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    bundle = decode(out.read_bytes())
    bundle.check(datetime.now(UTC))
    assert bundle.urls == ("https://web-1:8443", "https://192.0.2.1:8443")
    before = out.read_bytes()
    again = shell.pki("bundle", "--cn", "alice", *URLS, "--out", str(out))
    assert (again.status, again.err.count("File exists")) == (78, 1)
    assert out.read_bytes() == before


def test_no_bundle_is_made_of_what_does_not_belong_together(shell: Shell, tmp_path: Path) -> None:
    for cn in ("alice", "bob"):
        shell.pki("issue", "--cn", cn, "--usage", "client")
    out = ("--out", str(tmp_path / "x.bundle"))

    assert shell.pki("bundle", "--cn", "alice", "--name", "bob", *URLS, *out).status == 78
    assert shell.pki("bundle", "--cn", "carol", *URLS, *out).status == 64
    assert shell.pki("bundle", "--cn", "alice", "--host", "a b", "--url", "x", *out).status == 64
    (shell.directory / "alice.key").write_bytes((shell.directory / "bob.key").read_bytes())
    assert shell.pki("bundle", "--cn", "alice", *URLS, *out).status == 78
    assert not (tmp_path / "x.bundle").exists()
