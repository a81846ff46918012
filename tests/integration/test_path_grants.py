"""Grants and the brake through the whole agent, driven by the commands that people type."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.__main__ import main
from tests.support.site import Served, Site, make_site

MORE = """
[limits]
held_off_after = 2
[[approvers]]
owner = "alice"
channels = ["signal"]
[channels.signal]
socket = "/run/signal-cli/socket"
account = "+431234567"
[approvals]
command_line = true
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(make_site(tmp_path / "site", extra=MORE)) as running:
        yield running


@pytest.fixture
def site(served: Served) -> Site:
    return served.site


class Person:
    """Runs command lines in this process as one certificate."""

    def __init__(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        self._served = served
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, cn: str, *arguments: str) -> int:
        site = self._served.site
        leaf = site.client(cn)
        files = ("--cert", str(leaf.certificate_path), "--key", str(leaf.key_path))
        where = ("--url", self._served.url, "--ca", str(site.pki.ca_path))
        status = main([*arguments, *where, *files])
        self.out, self.err = self._capsys.readouterr()
        return status

    def held(self) -> tuple[str, str]:
        """Ask for a pull, which is held; return its id and digest."""
        site = self._served.site
        words = [f"{name}={value}" for name, value in site.pull().items()]
        assert self("deployer", "call", "git.pull", *words, "--json") == 75, self.out + self.err
        body = json.loads(self.out)
        return body["request_id"], body["digest"]

    def reset(self) -> int:
        """Ask for what a pull could be had by too."""
        repository = f"repository={self._served.site.repository.path}"
        why = ("--reason", "as well")
        return self("deployer", "call", "git.reset", repository, "ref=main", *why)


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str]) -> Person:
    return Person(served, capsys)


def pull(site: Site) -> list[str]:
    return ["call", "git.pull", *(f"{name}={value}" for name, value in site.pull().items())]


def test_a_grant_runs_again_until_it_is_revoked(run: Person, site: Site) -> None:
    request_id, digest = run.held()
    approve = ("requests", "approve", request_id, "--yes", "--digest", digest)
    assert run("alice", *approve, "--for", "30m") == 0
    assert "For 30 minutes, deployer may run git.pull" in run.err
    assert run("deployer", "requests", "show", request_id, "--wait", "30") == 0

    assert run("alice", "grants", "list", "--live", "--json") == 0
    (grant,) = json.loads(run.out)["grants"]
    assert (grant["caller"], grant["used"], grant["given_by"]) == ("deployer", 0, ["alice"])

    tip = site.repository.push_elsewhere()
    assert run("deployer", *pull(site), "--json") == 0
    assert json.loads(run.out)["grant"] == grant["grant_id"]
    assert site.repository.head == tip
    started = [r for r in site.records() if r["event"] == "operation.started"]
    assert [record.get("grant") for record in started] == [None, grant["grant_id"]]

    assert run("alice", "grants", "revoke", grant["grant_id"][:8]) == 0
    site.repository.push_elsewhere()
    run.held()
    assert site.repository.head == tip
    assert "grant.revoked" in site.events()


def test_who_tries_another_way_is_denied_and_an_admin_lets_go(run: Person, site: Site) -> None:
    head = site.repository.head
    request_id, _ = run.held()
    assert run.reset() == 77
    assert "is waiting for a person" in run.err
    assert run("alice", "requests", "deny", request_id) == 0
    assert run.reset() == 77
    assert "Do not try it another way" in run.err
    assert run("alice", "requests", "deny", run.held()[0]) == 0

    assert run("deployer", *pull(site)) == 75
    assert "put before people" in run.err
    assert run("alice", "identities", "release", "deployer") == 77
    assert run("root-admin", "identities", "release", "nobody") == 65
    assert run("root-admin", "identities", "release", "deployer") == 0
    assert run.reset() == 75
    assert run.err.startswith("held   ")

    assert site.repository.head == head
    events = site.events()
    assert events.count("policy.denied") == 2
    assert events.count("identity.released") == 1
    assert "operation.started" not in events


def test_an_admin_sees_and_enrols_approvers(run: Person, site: Site) -> None:
    assert run("root-admin", "approver", "list", "--json") == 0
    (alice,) = json.loads(run.out)["approvers"]
    assert alice["channels"] == [{"channel": "signal", "state": "not enrolled", "address": None}]
    assert run("root-admin", "approver", "enrol", "alice", "--channel", "signal", "--json") == 0
    code = json.loads(run.out)["code"]
    assert run("alice", "approver", "enrol", "alice", "--channel", "signal") == 77
    assert run("root-admin", "approver", "enrol", "bob", "--channel", "signal") == 65
    assert site.events().count("enrolment.offered") == 1
    assert code not in site.audit_path.read_text()
    assert code.encode() not in site.store_path.read_bytes()
