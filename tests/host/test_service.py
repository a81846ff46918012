"""The agent as its own service under the shipped unit, asked from outside."""

import json
import re
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import make_pki
from tests.support.installed import (
    AUDIT,
    AUTHORITY,
    CONFIGURATION,
    FRAGMENT,
    PROGRAM,
    RULES,
    STATE_DIR,
    UNIT,
    URL,
    USER,
    WRAPPERS,
    Host,
    configuration,
    issue,
    write_configuration,
)
from tests.support.patience import PATIENCE


def show(host: Host, name: str) -> str:
    """Return a property of the agent's unit."""
    return host.machine.must("systemctl", "show", "-P", name, UNIT).strip()


# -- the unit --------------------------------------------------------------------------------------


def test_it_runs_under_the_shipped_unit_as_its_own_user(host: Host) -> None:
    assert show(host, "ActiveState") == "active"
    assert show(host, "Type") == "notify"
    assert re.fullmatch(r"serves: [0-9]+ identities, [0-9]+ rules", show(host, "StatusText"))
    assert show(host, "NoNewPrivileges") == "no"  # sudo needs them
    status = host.machine.must("cat", f"/proc/{host.main_pid}/status")
    uid = host.machine.must("id", "-u", USER).strip()
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert "CapEff:\t0000000000000000\n" in status
    shipped = host.machine.must("systemd-analyze", "verify", "--man=no", UNIT)
    assert UNIT not in shipped


def test_the_unit_hides_what_it_says(host: Host) -> None:
    within = host.machine.pid_outside(host.main_pid)
    for script in ("touch /etc/x", "touch /usr/x", "touch /home/x", "mkdir /sys/fs/cgroup/x"):
        done = host.machine.run("bash", "-c", script, within=within)
        assert "Read-only file system" in done.stderr, (script, done)


def test_installing_again_changes_nothing(host: Host) -> None:
    before = _files(host)
    said = host.machine.must(PROGRAM, "install")
    assert said.startswith("There is nothing to do")
    assert _files(host) == before


def test_what_an_administrator_changed_is_kept(host: Host) -> None:
    logrotate = "/etc/logrotate.d/host-agent"
    shipped = host.machine.must("cat", logrotate)
    host.machine.write(logrotate, f"# ours\n{shipped}")
    try:
        said = host.machine.must(PROGRAM, "install")
        assert "an administrator changed it" in said
        assert host.machine.must("cat", logrotate).startswith("# ours\n")
    finally:
        host.machine.write(logrotate, shipped)
        host.machine.must(PROGRAM, "install")
    assert host.machine.must(PROGRAM, "install").startswith("There is nothing to do")


def test_what_install_made_belongs_to_root(host: Host) -> None:
    for path, wanted in (
        (FRAGMENT, "root:root 440"),
        (WRAPPERS, "root:root 755"),
        (f"{WRAPPERS}/zfs-destroy", "root:root 755"),
        (f"{WRAPPERS}/protected", "root:root 644"),
        (CONFIGURATION, "root:host-agent 640"),
        (f"{AUTHORITY}/ca.key", "root:root 600"),
        ("/var/lib/host-agent", "host-agent:host-agent 700"),
        ("/var/log/host-agent", "root:host-agent 750"),
        (AUDIT, "root:host-agent 660"),
        ("/etc/host-agent/pki/server.key", "host-agent:root 400"),
    ):
        assert host.machine.must("stat", "-c", "%U:%G %a", path).strip() == wanted, path
    assert "systemd host-agent\\.service\n" in host.machine.must("cat", f"{WRAPPERS}/protected")


def test_the_doctor_finds_every_part_well_and_names_what_is_not(host: Host) -> None:
    done = host.machine.run(PROGRAM, "doctor", "--json")
    checks = json.loads(done.stdout)["checks"]
    problems = [check for check in checks if check["state"] == "problem"]
    assert (done.exit_code, problems) == (0, [])
    host.machine.must("mv", FRAGMENT, "/root/fragment")
    try:
        done = host.machine.run(PROGRAM, "doctor")
        assert done.exit_code == 1
        assert "sudo" in done.stdout
    finally:
        host.machine.must("mv", "/root/fragment", FRAGMENT)


def _files(host: Host) -> str:
    places = ("/etc", "/usr/local", "/opt/host-agent/share", "/var/lib/host-agent")
    script = 'find "$@" -type f ! -name "*.db-*" ! -name "audit*" -printf "%p %u %m %T@ %s\\n"'
    return host.machine.must("bash", "-c", script, "x", *places)


# -- callers from outside --------------------------------------------------------------------------


def test_git_runs_as_another_user_than_the_agent(host: Host) -> None:
    done = host.done("git.fetch", {"repository": "/srv/app", "remote": "origin"})
    assert done["state"] == "succeeded"
    owner = host.machine.must("stat", "-c", "%U", "/srv/app/.git/FETCH_HEAD").strip()
    assert owner == "librarian"


def test_the_command_line_asks_from_outside(host: Host) -> None:
    certificate, key, authority = map(str, host.files("operator"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "host_agent", "call", "zfs.get", "dataset=tank/media"),
            *("properties=guid", "--json", "--url", URL),
            *("--cert", certificate, "--key", key, "--ca", authority),
        ],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"]["data"]["properties"]["guid"]["value"].isdigit()


def test_a_foreign_certificate_and_none_at_all_get_nowhere(host: Host, tmp_path: Path) -> None:
    foreign = make_pki(tmp_path / "foreign").client("operator")
    for leaf in (foreign, None):
        context = ssl.create_default_context(cafile=str(host.files("operator")[2]))
        if leaf is not None:
            context.load_cert_chain(leaf.certificate_path, leaf.key_path)
        # TLS 1.3: the refusal comes after the client's last word of the handshake.
        with (
            httpx.Client(base_url=URL, verify=context) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.get("/health")
    assert host.ask("zfs.list", {}).status_code == 200


@pytest.mark.promise("c9")
def test_a_revoked_caller_is_refused_on_its_next_request(host: Host) -> None:
    text = configuration().replace('cn = "stranger"', 'cn = "leaver"')
    issue(host.machine, "leaver", "--usage", "client")
    assert host.reload(text)["event"] == "config.loaded"
    assert host.http("leaver").get("/health").status_code == 200
    host.machine.must(PROGRAM, "pki", "revoke", "--dir", AUTHORITY, "--cn", "leaver")
    host.machine.must(
        *("install", "-m", "0644", f"{AUTHORITY}/ca.crl", "/etc/host-agent/pki/ca.crl.new")
    )
    host.machine.must("mv", "/etc/host-agent/pki/ca.crl.new", "/etc/host-agent/pki/ca.crl")
    host.machine.until(
        lambda: host.http("leaver").get("/health").status_code == 403, "it is let in"
    )
    assert host.http("leaver").get("/health").json()["code"] == "identity:revoked"
    assert host.reload(configuration())["event"] == "config.loaded"


# -- reload, rotation, crash -----------------------------------------------------------------------


def test_systemctl_reload_takes_a_good_configuration_and_rejects_a_broken_one(host: Host) -> None:
    pid = host.main_pid
    denied = RULES.replace('name = "looking is free"', 'name = "looking is over"').replace(
        'identities = ["operator", "watcher"]\nverdict = "allow"', 'verdict = "deny"', 1
    )
    assert host.reload(configuration(rules=denied))["event"] == "config.loaded"
    assert host.ask("zfs.list", {}).json()["code"] == "policy:denied"
    rejected = host.reload(configuration(rules='[[rules]]\nname = 1\nverdict = "maybe"\n'))
    assert rejected["event"] == "config.rejected"
    assert host.metric("host_agent_config_reload_ok") == 0
    assert host.ask("zfs.list", {}).json()["code"] == "policy:denied"
    assert host.reload(configuration())["event"] == "config.loaded"
    assert host.metric("host_agent_config_reload_ok") == 1
    assert host.ask("zfs.list", {}).status_code == 200
    assert host.main_pid == pid


def errors_since(host: Host, cursor: str) -> str:
    """Return what is in the journal of the unit with priority err or worse."""
    asked = ("journalctl", "-u", UNIT, "-p", "err", "-o", "cat", f"--after-cursor={cursor}")
    return host.machine.run(*asked).stdout


def cursor(host: Host) -> str:
    said = host.machine.must("journalctl", "-n", "0", "--show-cursor")
    return said.strip().rpartition("-- cursor: ")[2]  # "-- No entries --" may stand before it


def test_a_rejected_reload_fails_and_says_why_and_a_good_one_says_what_serves(host: Host) -> None:
    try:
        for text, said, remedy in (
            (configuration().replace('verdict = "allow"', 'verdict = "alow"', 1), "verdict", ""),
            (configuration().replace(":8443", ":8444", 1), "server.bind", "systemctl restart"),
        ):
            before = cursor(host)
            write_configuration(host.machine, text)
            done = host.machine.run("systemctl", "reload", UNIT)
            assert done.exit_code != 0
            status = show(host, "StatusText")
            assert status.startswith("serves: ")
            assert re.search(rf"; last reload rejected: (rules\[[0-9]+\]\.)?{said}: ", status)
            assert remedy in status
            assert said in errors_since(host, before)
            assert show(host, "ActiveState") == "active"
            assert host.ask("zfs.list", {}).status_code == 200
    finally:
        write_configuration(host.machine, configuration())
    before = cursor(host)
    host.machine.must("systemctl", "reload", UNIT)
    assert re.fullmatch(r"serves: [0-9]+ identities, [0-9]+ rules", show(host, "StatusText"))
    assert errors_since(host, before) == ""


def test_a_reload_of_an_agent_that_is_stopped_in_its_tracks_is_no_success(host: Host) -> None:
    asked = ("runuser", "-u", USER, "--", PROGRAM, "reload", "--timeout", "1")
    host.machine.must("kill", "-STOP", str(host.main_pid))
    try:
        assert host.machine.run(*asked).exit_code == 69
    finally:
        host.machine.must("kill", "-CONT", str(host.main_pid))
    assert host.machine.run(*asked).exit_code == 0
    other = host.machine.run("runuser", "-u", "librarian", "--", PROGRAM, "reload")
    assert (other.exit_code, "Permission denied" in other.stderr) == (69, True)


@pytest.mark.promise("c6")
def test_logrotate_renames_a_log_that_the_agent_keeps_and_the_chain_goes_on(host: Host) -> None:
    own = f"{STATE_DIR}/audit.jsonl"
    host.leave()
    host.machine.must("systemctl", "stop", UNIT)
    write_configuration(host.machine, configuration(audit=f'path = "{own}"'))
    try:
        host.start()
        for _ in range(2):
            assert host.ask("zfs.list", {}).status_code == 200
        host.machine.must("logrotate", "-f", "/etc/logrotate.d/host-agent")
        host.machine.until(
            lambda: host.machine.run("test", "-s", own).exit_code == 0,
            "nothing is written after the rename",
        )
        assert host.ask("zfs.list", {}).status_code == 200
        files = host.machine.must("bash", "-c", f"ls {STATE_DIR}/audit*.jsonl").split()
        assert len(files) == 2
        host.machine.must(PROGRAM, "audit", "verify", *files)
        assert "audit.rotated" in host.machine.must("cat", own)
    finally:
        host.leave()
        host.machine.must("systemctl", "stop", UNIT)
        host.machine.must("bash", "-c", f"rm -f {STATE_DIR}/audit* {STATE_DIR}/.audit*")
        write_configuration(host.machine, configuration())
        host.start()


def test_logrotate_leaves_a_log_that_root_keeps_alone(host: Host) -> None:
    files = host.audit_files()
    host.machine.must("logrotate", "-f", "/etc/logrotate.d/host-agent")
    assert host.ask("zfs.list", {}).status_code == 200
    assert host.audit_files() == files
    host.require_whole()


@pytest.mark.promise("c1")
def test_killed_it_is_started_again_by_systemd_with_its_queue(host: Host) -> None:
    host.machine.must("zfs", "snapshot", "tank/media@kept")
    held = host.held("zfs.destroy", dataset="tank/media@kept")
    pid, restarts = host.main_pid, int(show(host, "NRestarts"))
    host.leave()
    host.machine.must("kill", "-KILL", str(pid))
    host.machine.until(
        lambda: (
            (int(show(host, "NRestarts")), show(host, "ActiveState")) == (restarts + 1, "active")
        ),
        "systemd does not start it again",
    )
    assert host.main_pid != pid
    assert host.look(held)["state"] == "pending"
    host.machine.must("zfs", "list", "tank/media@kept")
    assert host.decide(held).status_code == 200
    assert host.ended(held)["outcome"]["verified"] is True
    assert host.machine.run("zfs", "list", "tank/media@kept").exit_code != 0
    host.require_whole()


def test_a_broken_configuration_stops_the_start_and_is_not_tried_again(host: Host) -> None:
    host.leave()
    host.machine.must("systemctl", "stop", UNIT)
    assert show(host, "Result") == "success"
    good = host.machine.must("cat", CONFIGURATION)
    host.machine.must("bash", "-c", f"echo 'unknown = 1' >>{CONFIGURATION}")
    try:
        assert host.machine.run("systemctl", "start", UNIT).exit_code != 0
        assert (show(host, "ExecMainStatus"), show(host, "ActiveState")) == ("78", "failed")
        checked = host.machine.run(PROGRAM, "config", "check", "--user", USER)
        assert checked.exit_code == 78
        assert "unknown" in checked.stderr + checked.stdout
    finally:
        host.machine.write(CONFIGURATION, good, mode=0o640, owner="root:host-agent")
        host.start()
    assert host.ask("zfs.list", {}).status_code == 200
    assert host.machine.run(PROGRAM, "config", "check", "--user", USER).exit_code == 0


@pytest.mark.promise("c13", "c35")
@pytest.mark.parametrize("loosened", [f"chmod 0666 {CONFIGURATION}", f"chmod 0777 {WRAPPERS}/git"])
def test_it_does_not_start_with_files_that_others_may_write(host: Host, loosened: str) -> None:
    _, mode, path = loosened.split()
    usual = host.machine.must("stat", "-c", "%a", path).strip()
    host.leave()
    host.machine.must("systemctl", "stop", UNIT)
    host.machine.must("chmod", mode, path)
    try:
        assert host.machine.run("systemctl", "start", UNIT).exit_code != 0
        assert show(host, "ExecMainStatus") == "78"
        said = host.machine.must("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, "-n", "20")
        assert path in said
    finally:
        host.machine.must("chmod", usual, path)
        host.start()
    assert host.ask("zfs.list", {}).status_code == 200
