"""`config check`: every fault on its line and 78, or what each identity may do."""

import json
from pathlib import Path

import pytest

from host_agent.__main__ import main
from tests.support.certificates import make_pki
from tests.support.configurations import MINIMAL, write

POLICY = """
[[identities]]
cn = "librarian"
owner = "bob"
[[identities]]
cn = "watcher"
owner = "carol"
autonomy = "read_only"
[[identities]]
cn = "alice"
roles = ["approver"]
[[rules]]
name = "looking is free"
operations = ["git.status", "git.log"]
verdict = "allow"
[[rules]]
name = "the vault is shut"
operations = ["git.pull"]
resources = ["/srv/vault"]
verdict = "deny"
[[rules]]
name = "pulling needs a person"
operations = ["git.pull", "git.switch"]
verdict = "ask"
[[git.repositories]]
path = "/srv/app"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = write(tmp_path, MINIMAL + POLICY)
    pki = make_pki(tmp_path / "pki")
    pki.server()
    return path


def check(path: Path, *options: str) -> int:
    return main(["config", "check", "--config", str(path), *options])


def test_the_effective_policy_is_shown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(config) == 0
    shown = capsys.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["librarian", "bob", "the", "agent's", "user", "caller", "supervised"] in lines
    assert ["librarian", "allow", "git.status,", "git.log", "looking", "is", "free"] in lines
    assert any(line[:3] == ["librarian", "ask", "git.switch"] for line in lines)
    assert any(line[:3] == ["librarian", "depends", "git.pull"] for line in lines)
    (denied,) = (line for line in lines if line[:2] == ["watcher", "deny"])
    assert "git.pull," in denied
    assert "warning: execution.runner: direct" in shown.err


def test_json_says_the_same(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(config, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["faults"]) == (True, [])
    assert any(warning.startswith("identities[2].owner") for warning in answer["warnings"])
    librarian, watcher, alice = answer["identities"]
    verdicts = {entry["name"]: entry["verdict"] for entry in librarian["operations"]}
    assert verdicts["git.status"] == "allow"
    assert verdicts["git.pull"] == "depends"
    assert verdicts["git.reset"] == "deny"
    assert {entry["verdict"] for entry in watcher["operations"]} == {"allow", "deny"}
    assert (alice["roles"], alice["operations"]) == (["approver"], [])
    (pull,) = [entry for entry in librarian["operations"] if entry["name"] == "git.pull"]
    assert pull["rules"] == ["the vault is shut", "pulling needs a person"]


def test_every_fault_has_its_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(MINIMAL + "[limits]\nask_burst = 0\n[nonsense]\n")
    assert check(config) == 78
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "host-agent: limits.ask_burst: must be at least 1",
        "host-agent: nonsense: is not a known key",
    ]


def test_permissions_and_contents_are_faults_too(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "pki" / "server.key").chmod(0o644)
    (config.parent / "pki" / "ca.crt").write_text("nonsense")
    assert check(config) == 78
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["server.private_key", "server.client_ca"]


def test_faults_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[server")
    assert check(config, "--json") == 78
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert len(answer["faults"]) == 1


def test_a_missing_file_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "none.toml") == 78
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.promise("c31")
def test_hostile_text_of_a_file_reaches_no_terminal_raw(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(MINIMAL + '"\\u001b[31m\\u202e" = 1\n')
    assert check(config) == 78
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.root
def test_the_agents_user_may_be_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(config, "--user", "daemon") == 0
    assert check(config, "--user", "no-such-user-here") == 64
    assert "no user of that name" in capsys.readouterr().err


def test_a_verb_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 64
    assert capsys.readouterr().err
