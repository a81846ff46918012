"""Root's list says what some rule could allow to somebody, and no more."""

import os
import tomllib
from pathlib import Path

import pytest

from host_agent.config import Config
from host_agent.config.checking import build
from host_agent.host.install.root_list import ListState, allowed_list, root_list_state

WHERE = """
[server]
bind = "127.0.0.1:8443"
certificate = "/pki/server.crt"
private_key = "/pki/server.key"
client_ca = "/pki/ca.crt"
[store]
url = "sqlite:////var/lib/agent.db"
[audit]
path = "/var/log/audit.jsonl"
"""
IDENTITIES = """
[[identities]]
cn = "operator"
unix_user = "librarian"

[[identities]]
cn = "watcher"
unix_user = "reader"
autonomy = "read_only"

[[identities]]
cn = "alice"
roles = ["approver"]
"""
SECTIONS = r"""
[zfs]
datasets = ["tank/(?:media|files)(/.*)?", "tank/vm-\\d+"]
[systemd]
units = ["web\\.service"]
[pct]
vmids = "100-199,201"
[[git.repositories]]
path = "/srv/app"
[[git.repositories]]
path = "/srv/private"
[[exec.commands]]
name = "greet"
path = "/usr/local/bin/greet.sh"
sha256 = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
"""


def config(
    rules: str, *, identities: str = IDENTITIES, sections: str = SECTIONS, execution: str = ""
) -> Config:
    text = f"{WHERE}\n{execution}\n{identities}\n{rules}\n{sections}"
    return build(tomllib.loads(text), Path("/"), os.geteuid(), (), {}, is_for_this_host=False)


def rule(verdict: str, operations: str, more: str = "") -> str:
    name = f"{verdict} {operations}".replace('"', "")
    return f'[[rules]]\nname = "{name}"\nverdict = "{verdict}"\noperations = {operations}\n{more}\n'


def lines(config: Config) -> list[str]:
    text = allowed_list(config).decode("ascii")
    return [line for line in text.splitlines() if not line.startswith("#")]


def decisions(config: Config) -> list[str]:
    return [line for line in lines(config) if line.startswith(("allowed", "never"))]


def test_what_may_be_named_is_in_the_form_that_the_wrappers_read() -> None:
    assert lines(config(rule("allow", '["git.*"]'))) == [
        "version 1",
        "names git librarian /srv/app",
        "names git reader /srv/app",
        "names git librarian /srv/private",
        "names git reader /srv/private",
        "names zfs tank/(media|files)(/.*)?",
        "names zfs tank/vm-[0-9]+",
        r"names systemd web\.service",
        "names pct 100-199",
        "names pct 201-201",
        "names exec greet",
        "allowed git.*",
    ]


def test_an_operation_that_no_rule_allows_is_in_no_line() -> None:
    assert decisions(config(rule("ask", '["zfs.destroy"]'))) == ["allowed zfs.destroy"]
    assert decisions(config(rule("deny", '["zfs.destroy"]'))) == ["never zfs.destroy"]
    assert decisions(config("")) == []


def test_what_is_denied_to_everybody_comes_before_what_is_allowed_after_it() -> None:
    rules = rule("deny", '["zfs.*"]', r'resources = ["tank/files(@.*)?"]') + rule(
        "ask", '["zfs.destroy", "zfs.get"]'
    )
    assert decisions(config(rules)) == [
        "never zfs.* tank/files(@.*)?",
        "allowed zfs.get,zfs.destroy",
    ]


def test_what_is_denied_to_some_may_still_be_allowed_to_others() -> None:
    rules = rule("deny", '["zfs.get"]', 'identities = ["operator"]') + rule("allow", '["zfs.get"]')
    assert decisions(config(rules)) == ["allowed zfs.get"]


def test_a_rule_behind_one_that_decides_everything_adds_nothing() -> None:
    rules = rule("deny", '["systemd.stop"]') + rule("allow", '["systemd.stop", "systemd.start"]')
    assert decisions(config(rules)) == ["never systemd.stop", "allowed systemd.start"]


def test_who_may_only_read_or_only_approve_adds_no_change() -> None:
    rules = rule("allow", '["git.*"]', 'identities = ["watcher"]')
    rules += rule("allow", '["zfs.*"]', 'identities = ["alice"]')
    assert decisions(config(rules)) == ["allowed git.status,git.log,git.diff"]


def test_a_repository_is_named_for_those_users_whom_a_rule_allows_it() -> None:
    rules = rule("deny", '["git.*"]', 'resources = ["/srv/private"]')
    rules += rule("ask", '["git.pull"]', 'identities = ["operator", "watcher"]')
    named = [line for line in lines(config(rules)) if line.startswith("names git")]
    assert named == ["names git librarian /srv/app"]  # a pull is a change, and watcher only reads


def test_an_adapter_that_is_not_configured_is_not_allowed() -> None:
    sections = '[systemd]\nunits = ["web\\\\.service"]\n'
    found = config(rule("allow", '["zfs.*", "systemd.*", "git.status"]'), sections=sections)
    assert lines(found) == ["version 1", r"names systemd web\.service", "allowed systemd.*"]


# -- how root's file stands to it ------------------------------------------------------------------


def beside(folder: Path, rules: str = "") -> Config:
    execution = f'[execution]\nwrapper_dir = "{folder}"'
    return config(rules or rule("allow", '["zfs.*"]'), execution=execution)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose file it is")
def test_the_state_tells_what_root_goes_by(tmp_path: Path) -> None:
    wanted, file = beside(tmp_path), tmp_path / "allowed"
    assert root_list_state(wanted).state is ListState.MISSING

    file.write_bytes(allowed_list(wanted))
    file.chmod(0o644)
    assert root_list_state(wanted).state is ListState.RENDERED

    other = root_list_state(beside(tmp_path, rule("allow", '["zfs.get"]')))
    assert other.state is ListState.DIFFERS
    assert other.what == ("-allowed zfs.*", "+allowed zfs.get")

    file.chmod(0o664)
    assert root_list_state(wanted).state is ListState.MISSING
    file.chmod(0o644)
    os.chown(file, 65534, 65534)
    assert root_list_state(wanted).state is ListState.MISSING
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert root_list_state(wanted).state is ListState.MISSING


def test_nothing_of_roots_is_asked_for_where_nothing_runs_as_root(tmp_path: Path) -> None:
    execution = f'[execution]\nrunner = "direct"\nwrapper_dir = "{tmp_path}"'
    assert root_list_state(config("", execution=execution, identities="")).is_good
