"""The client commands against a running agent: the fake one's bodies are the real one's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.__main__ import main
from tests.support.site import Served, Site, make_site


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(make_site(tmp_path_factory.mktemp("site"))) as running:
        yield running


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


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str]) -> Person:
    return Person(served, capsys)


@pytest.fixture
def site(served: Served) -> Site:
    return served.site


def words(site: Site) -> list[str]:
    return [f"{name}={value}" for name, value in site.pull().items()]


def test_a_read_is_printed(run: Person, site: Site) -> None:
    assert run("deployer", "operations") == 0
    assert "git.status" in run.out

    assert run("deployer", "call", "git.log", f"repository={site.repository.path}", "limit=1") == 0
    assert run.out.strip()


def test_refusals_have_their_exit_status(run: Person, site: Site, tmp_path: Path) -> None:
    repository = f"repository={site.repository.path}"

    assert run("stranger", "operations") == 77
    assert "identity:unknown" in run.err
    assert run("deployer", "call", "git.frobnicate") == 65
    assert run("deployer", "call", "git.log", repository, "limit=many") == 65
    assert run("deployer", "call", "git.status", f"repository={tmp_path}") == 77
    assert run("deployer", "call", "git.reset", repository, "ref=main") == 65
    assert run("watcher", "call", "git.pull", *words(site)) == 77
    assert run("deployer", "requests", "show", "0" * 32) == 65


def test_a_change_is_held_denied_and_approved(run: Person, site: Site) -> None:
    assert run("deployer", "call", "git.pull", *words(site), "--json", "--reason", "release") == 75
    first = json.loads(run.out)["request_id"]

    assert run("deployer", "requests", "deny", first) == 77
    assert run("bobs-phone", "requests", "deny", first) == 77
    assert "approval:self-approval" in run.err
    assert run("alice", "requests", "show", first) == 0
    assert "release" in run.out
    assert run("alice", "requests", "deny", first[:20], "--reason", "not now") == 0
    assert run("deployer", "requests", "show", first, "--wait", "5", "--json") == 0
    assert json.loads(run.out)["state"] == "denied"

    assert run("deployer", "call", "git.pull", *words(site), "--json") == 75
    second = json.loads(run.out)
    request_id, digest = second["request_id"], second["digest"]
    assert run("alice", "requests", "list", "--state", "pending", "--json") == 0
    assert [row["request_id"] for row in json.loads(run.out)["requests"]] == [request_id]
    wrong = "sha256:" + "0" * 64
    assert run("alice", "requests", "approve", request_id, "--yes", "--digest", wrong) == 75
    assert "approval:digest-mismatch" in run.err
    assert run("alice", "requests", "approve", request_id, "--yes", "--digest", digest) == 0
    assert run("deployer", "requests", "show", request_id, "--wait", "20", "--json") == 0
    shown = json.loads(run.out)
    assert (shown["state"], shown["outcome"]["verified"]) == ("succeeded", True)
    assert run("alice", "requests", "deny", request_id) == 75
    assert "approval:already-decided" in run.err


def test_a_caller_withdraws_its_own_request(run: Person, site: Site) -> None:
    switch = ("git.switch", f"repository={site.repository.path}", "branch=topic")
    assert run("deployer", "call", *switch, "--json") == 75
    request_id = json.loads(run.out)["request_id"]

    assert run("deployer", "requests", "cancel", request_id, "--reason", "mistake") == 0
    assert run("deployer", "requests", "list", "--state", "pending") == 0
    assert "No requests" in run.err
