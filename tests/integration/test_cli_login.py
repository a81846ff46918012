"""`login`, `hosts` and `logout` against running agents: two hosts, each with its own authority."""

import io
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.client.bundle import Bundle
from tests.support.certificates import make_pki
from tests.support.site import Served, Site, make_site

HERE = socket.gethostname()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    one, two = (make_site(tmp_path_factory.mktemp(name)) for name in ("one", "two"))
    with Served(one) as first, Served(two) as second:
        yield first, second


@dataclass
class Desk:
    """A person's home, and bundles in it."""

    home: Path
    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str) -> int:
        status = main(list(arguments))
        self.out, self.err = self.capsys.readouterr()
        assert "Traceback" not in self.err
        assert "PRIVATE KEY" not in self.out + self.err
        return status

    def write(self, bundle: Bundle, *, mode: int = 0o600) -> str:
        path = self.home / f"{bundle.cn}.bundle"
        path.write_bytes(bundle.encode())
        path.chmod(mode)
        return str(path)

    @property
    def settings(self) -> Path:
        return self.home / ".config" / "host-agent"

    @property
    def picture(self) -> dict[str, bytes]:
        files = (path for path in self.settings.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files if path.name != ".lock"}


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in os.environ:
        if name.startswith("HOST_AGENT_"):
            monkeypatch.delenv(name)
    return Desk(home, capsys)


def bundle_of(site: Site, *urls: str, cn: str = "alice", host: str = HERE) -> Bundle:
    leaf = site.client(cn)
    return Bundle(
        host=host,
        cn=cn,
        urls=urls,
        certificate=leaf.pem.decode(),
        private_key=leaf.key_pem.decode(),
        ca=site.pki.ca.certificate_pem().decode(),
    )


def test_a_bundle_is_stored_and_the_host_says_who_one_is(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, _ = hosts
    path = desk.write(bundle_of(first.site, first.url))

    assert desk("login", path, "--host", "web-1") == 0

    assert f"stored web-1: alice at {first.url}" in desk.out
    assert f"{HERE} answers: you are alice (approver), acting for alice" in desk.out
    assert f"delete {path} now" in desk.err
    assert desk("requests", "list") == 0
    assert desk("requests", "list", "--host", "web-1") == 0
    assert {oct(p.stat().st_mode & 0o777) for p in (desk.settings / "hosts/web-1").iterdir()} == {
        "0o600"
    }


def test_two_hosts_are_told_apart_by_their_names(
    desk: Desk, hosts: tuple[Served, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hosts
    for name, served in (("web-1", first), ("web-2", second)):
        bundle = bundle_of(served.site, served.url, cn="deployer")
        assert desk("login", desk.write(bundle), "--host", name) == 0
    assert "host-agent hosts default web-2" in desk.out
    words = [f"{key}={value}" for key, value in second.site.pull().items()]

    # The default is web-1, where that repository is not listed.
    assert desk("call", "git.pull", *words) == 77
    assert desk("call", "git.pull", *words, "--host", "web-2") == 75
    monkeypatch.setenv("HOST_AGENT_HOST", "web-2")
    assert desk("call", "git.pull", *words) == 75
    monkeypatch.delenv("HOST_AGENT_HOST")
    assert desk("hosts", "default", "web-2") == 0
    assert desk("call", "git.pull", *words) == 75
    assert desk("requests", "list", "--host", "web-1", "--json") == 0
    assert json.loads(desk.out)["requests"] == []

    assert desk("hosts", "list", "--json") == 0
    listed = json.loads(desk.out)["hosts"]
    assert [(row["name"], row["cn"], row["url"], row["is_default"]) for row in listed] == [
        ("web-1", "deployer", first.url, False),
        ("web-2", "deployer", second.url, True),
    ]
    assert desk("hosts", "list") == 0
    assert "web-2  *" in desk.out

    assert desk("logout", "web-2") == 0
    assert not (desk.settings / "hosts" / "web-2").exists()
    assert desk("call", "git.pull", *words, "--host", "web-2") == 78
    assert desk("requests", "list") == 0  # web-1 is the only one now


def test_a_bundle_of_one_host_gets_nowhere_on_another(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, second = hosts
    bundle = bundle_of(first.site, second.url)

    assert desk("login", desk.write(bundle), "--host", "web-1") == 69

    assert "could not be verified" in desk.err
    assert "stored, but cannot be used as it is" in desk.err
    # Even one who believes the other host's authority gets in there with nothing.
    other = replace(bundle, ca=second.site.pki.ca.certificate_pem().decode())
    (desk.settings / "hosts/web-1/ca.pem").write_text(other.ca)
    assert desk("requests", "list") == 77
    assert "refused this client's certificate" in desk.err
    assert desk("login", desk.write(bundle), "--host", "web-1", "--url", first.url) == 64
    assert desk("login", desk.write(bundle), "--host", "web-1", "--url", first.url, "--force") == 0


def test_a_name_that_the_hosts_certificate_does_not_have_is_refused(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, _ = hosts
    port = first.url.rpartition(":")[2]
    path = desk.write(bundle_of(first.site, f"https://127.1:{port}"))
    assert desk("login", path) == 69
    assert "mismatch" in desk.err
    assert desk("login", path, "--url", f"https://127.0.0.1:{port}") == 0


def test_somebody_whom_the_host_does_not_know_is_told(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, _ = hosts
    assert desk("login", desk.write(bundle_of(first.site, first.url, cn="stranger"))) == 77
    assert "identity:unknown" in desk.err


def test_a_host_that_cannot_be_reached_is_stored_and_another_address_is_tried(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, _ = hosts
    with socket.socket() as taken:  # bound and not listening: refused at once
        taken.bind(("127.0.0.1", 0))
        dead = f"https://localhost:{taken.getsockname()[1]}"
        bundle = bundle_of(first.site, dead)
        path = desk.write(bundle)
        assert desk("login", path) == 0
        assert "does not answer now" in desk.err
        assert desk("hosts", "list", "--json") == 0
        assert json.loads(desk.out)["hosts"][0]["url"] == dead
        # The same person on the same host is renewed without a question.
        path = desk.write(replace(bundle, urls=(dead, first.url)))
        assert desk("login", path) == 0
    assert f"alice at {first.url}" in desk.out
    assert desk("requests", "list") == 0


def test_a_new_certificate_of_the_same_person_takes_the_place_of_the_old_one(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, _ = hosts
    old = bundle_of(first.site, first.url)
    assert desk("login", desk.write(old)) == 0
    leaf = first.site.pki.client("alice", file_name="alice-2027")
    new = replace(old, certificate=leaf.pem.decode(), private_key=leaf.key_pem.decode())
    assert desk("login", desk.write(new)) == 0
    assert "you are alice" in desk.out
    stored = (desk.settings / "hosts" / HERE / "identity.pem").read_text()
    assert new.private_key.strip() in stored
    assert old.private_key.strip() not in stored
    assert desk("requests", "list") == 0


def test_a_taken_name_is_kept_for_who_has_it(desk: Desk, hosts: tuple[Served, Served]) -> None:
    first, second = hosts
    mine = bundle_of(first.site, first.url)
    assert desk("login", desk.write(mine)) == 0
    before = desk.picture
    for other, said in (
        (bundle_of(first.site, first.url, host="web-9"), "another host"),
        (bundle_of(second.site, second.url), "under another authority"),
        (bundle_of(first.site, first.url, cn="erin"), "somebody else, CN=alice"),
    ):
        assert desk("login", desk.write(other), "--host", HERE) == 64
        assert said in desk.err
        assert "--force" in desk.err
        assert desk.picture == before
    erin = bundle_of(first.site, first.url, cn="erin")
    assert desk("login", desk.write(erin), "--host", "as-erin") == 0
    assert desk("login", desk.write(erin), "--host", HERE, "--force") == 0
    assert "you are erin" in desk.out


@pytest.mark.parametrize("spoil", ["cut", "expired", "foreign", "empty", "not-text"])
def test_a_bundle_that_cannot_be_used_is_refused_and_nothing_is_stored(
    desk: Desk, hosts: tuple[Served, Served], spoil: str
) -> None:
    first, _ = hosts
    good = bundle_of(first.site, first.url)
    data = good.encode()
    if spoil == "expired":
        now = first.site.pki.now
        old = first.site.pki.client(
            "alice",
            not_before=now - timedelta(days=9),
            not_after=now - timedelta(days=1),
            file_name="old",
        )
        data = replace(
            good, certificate=old.pem.decode(), private_key=old.key_pem.decode()
        ).encode()
    if spoil == "foreign":
        data = replace(good, ca=make_pki().ca.certificate_pem().decode()).encode()
    spoiled = {"cut": data[:-900], "empty": b"", "not-text": b"\xff\x00" * 50}.get(spoil, data)
    path = desk.home / "x.bundle"
    path.write_bytes(spoiled)
    path.chmod(0o600)

    assert desk("login", str(path)) == 65

    assert "was not stored" in desk.err
    assert desk.picture == {}


def test_one_that_others_can_read_is_taken_with_a_warning(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, _ = hosts
    bundle = bundle_of(first.site, first.url)
    assert desk("login", desk.write(bundle, mode=0o644)) == 0
    assert "others on this machine may read" in desk.err
    assert desk("login", desk.write(bundle)) == 0
    assert "others on this machine" not in desk.err


def test_what_is_no_file_does_not_hang(desk: Desk) -> None:
    fifo = desk.home / "fifo"
    os.mkfifo(fifo)
    assert desk("login", str(fifo)) == 78
    assert desk("login", str(desk.home)) == 78
    assert desk("login", str(desk.home / "none")) == 78
    assert "No such file" in desk.err


def test_a_bundle_comes_over_a_pipe(
    desk: Desk, hosts: tuple[Served, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = hosts
    data = bundle_of(first.site, first.url).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert desk("login", "-", "--json") == 0
    told = json.loads(desk.out)
    assert told["host"] == HERE
    assert told["identity"] == {
        "cn": "alice",
        "owner": "alice",
        "roles": ["approver"],
        "autonomy": "supervised",
        "host": HERE,
    }


def test_a_wrong_name_is_a_usage_error(desk: Desk) -> None:
    for name in ("../x", "", ".x", "a/b", "a b", "a\n"):
        assert desk("login", "x", "--host", name) == 64
    assert desk("logout", "none") == 78
    assert desk("hosts", "list") == 0
    assert "there is none" in desk.err


def test_an_owner_approves_for_her_agent_and_not_for_herself(
    desk: Desk, hosts: tuple[Served, Served]
) -> None:
    first, _ = hosts
    for cn in ("deployer", "alice"):
        bundle = bundle_of(first.site, first.url, cn=cn)
        assert desk("login", desk.write(bundle), "--host", cn) == 0
    words = [f"{key}={value}" for key, value in first.site.pull().items()]
    assert desk("call", "git.pull", *words, "--host", "deployer", "--json") == 75
    request = json.loads(desk.out)
    said = ("requests", "approve", request["request_id"], "--yes", "--digest", request["digest"])
    assert desk(*said, "--host", "deployer") == 77
    assert desk(*said, "--host", "alice") == 0
    assert (
        desk("requests", "show", request["request_id"], "--wait", "30", "--host", "deployer") == 0
    )
