"""The doctor on the booted host: green means that root, sudo and the agent's own user agree."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.installed import AUDIT, PROGRAM, UNIT, USER, Host
from tests.support.machine import Done

CRL = "/etc/host-agent/pki/ca.crl"
PACKAGES = "/opt/host-agent/lib/python3.11/site-packages"


def problems(host: Host) -> dict[str, list[str]]:
    """Return the sentences and remedies of every problem, by the name of the check."""
    done = host.machine.run(PROGRAM, "doctor", "--json")
    found: dict[str, list[str]] = {}
    for check in json.loads(done.stdout)["checks"]:
        if check["state"] == "problem":
            found.setdefault(check["name"], []).append(f"{check['sentence']} {check['remedy']}")
    assert done.exit_code == (1 if found else 0)
    return found


@contextmanager
def changed(host: Host, *there: str, back: str) -> Iterator[Done]:
    """Do something to the host, and undo it whatever happens."""
    try:
        yield host.machine.run("bash", "-c", there[0])
    finally:
        host.machine.must("bash", "-c", back)


def test_without_a_fault_there_is_no_problem(host: Host) -> None:
    assert problems(host) == {}
    assert host.metric("host_agent_crl_file_ok") == 1


def test_a_list_that_only_root_can_read_is_no_green(host: Host) -> None:
    """F4: as root with umask 077 puts it there."""
    spoil = f"umask 077; cp {CRL} {CRL}.new; chown root:root {CRL}.new; mv {CRL}.new {CRL}"
    mend = f"chgrp {USER} {CRL}; chmod 0644 {CRL}"
    with changed(host, spoil, back=mend):
        host.machine.until(
            lambda: host.metric("host_agent_crl_file_ok") == 0, "the metric does not tell"
        )
        found = problems(host)
        assert "permission denied" in found["revocation list"][0]
        assert "What was revoked since then is let in" in found["revocation list that serves"][0]
        status = host.machine.must("systemctl", "show", "-P", "StatusText", UNIT)
        assert "permission denied" in status
    host.machine.until(lambda: host.metric("host_agent_crl_file_ok") == 1, "it is not used again")
    assert problems(host) == {}


@pytest.mark.parametrize(
    ("spoil", "mend", "name"),
    [
        ("chmod 0700 {pki}", "chmod 0750 {pki}", "start"),
        ("chown root:root {key}; chmod 0600 {key}", "chown {key}", "server certificate"),
        ("chmod 0700 {wrappers}/zfs-list", "chmod 0755 {wrappers}/zfs-list", "start"),
    ],
    ids=["a directory above", "the private key", "a wrapper"],
)
def test_what_the_agents_user_cannot_read_is_no_green(
    host: Host, spoil: str, mend: str, name: str
) -> None:
    pki = "/etc/host-agent/pki"
    places = {"pki": pki, "key": f"{pki}/server.key", "wrappers": "/usr/local/lib/host-agent"}
    keep = host.machine.must("stat", "-c", "%U:%G %a", pki, f"{pki}/server.key").split("\n")
    (owner, mode), (key_owner, key_mode) = (line.split() for line in keep[:2])
    mend = (
        f"chown {owner} {pki}; chmod {mode} {pki}; chown {key_owner} {pki}/server.key;"
        f" chmod {key_mode} {pki}/server.key; chmod 0755 {places['wrappers']}/zfs-list"
    )
    with changed(host, spoil.format(**places), back=mend):
        assert name in problems(host)
    assert problems(host) == {}


def test_a_foreign_fragment_that_grants_much_is_a_problem(host: Host) -> None:
    """F5: the own fragment is as it should be, and another one gives root away."""
    fragment = "/etc/sudoers.d/zz-local"
    line = f"{USER} ALL=(ALL) NOPASSWD: /usr/bin/less /var/log/*"
    spoil = f"echo '{line}' >{fragment}; chmod 0440 {fragment}"
    with changed(host, spoil, back=f"rm -f {fragment}"):
        (said, *_) = problems(host)["what sudo grants"]
        assert f"{fragment}:1" in said
        assert host.machine.run(PROGRAM, "sudoers", "check").exit_code == 1  # the same truth
    assert problems(host) == {}
    assert host.machine.run(PROGRAM, "sudoers", "check").exit_code == 0


@pytest.mark.parametrize("who", [USER, "librarian"])
def test_a_group_that_is_as_good_as_root_is_a_problem(host: Host, who: str) -> None:
    with changed(host, f"gpasswd -a {who} disk", back=f"gpasswd -d {who} disk"):
        (said,) = problems(host)["what sudo grants"]
        assert f"{who} is in the group disk" in said
    assert problems(host) == {}


def test_a_group_that_reads_logs_is_a_warning(host: Host) -> None:
    with changed(host, f"gpasswd -a {USER} adm", back=f"gpasswd -d {USER} adm"):
        done = host.machine.run(PROGRAM, "doctor")
        assert (done.exit_code, "in the group adm" in done.stdout) == (0, True)


def test_a_package_that_is_missing_is_named_by_doctor_install_and_journal(host: Host) -> None:
    """F2: nothing but the journal and these two say what failed."""
    package = f"{PACKAGES}/quart"
    back = f"mv /root/aside {package}; systemctl restart {UNIT}"
    with changed(host, f"mv {package} /root/aside", back=back):
        (said,) = problems(host)["start"]
        assert "No module named 'quart'" in said
        done = host.machine.run(PROGRAM, "install")
        assert done.exit_code == 1
        assert "No module named 'quart'" in done.stderr
        host.leave()
        host.machine.run("systemctl", "restart", UNIT)
        shown = host.machine.must("systemctl", "show", "-P", "ExecMainStatus", UNIT).strip()
        assert shown == "78"
        errors = host.machine.must("journalctl", "-u", UNIT, "-p", "err", "-n", "20", "-o", "cat")
        assert "No module named 'quart'" in errors
        assert "agent.py:" in errors  # where it came from
    assert problems(host) == {}
    assert host.machine.run(PROGRAM, "install").exit_code == 0


def test_a_log_without_its_seal_names_what_is_missing(host: Host) -> None:
    """F19: where chattr is missing it is not the file system's fault."""
    spoil = f"chattr -a {AUDIT} && mv /usr/bin/chattr /root/chattr"
    mend = "mv /root/chattr /usr/bin/chattr 2>/dev/null; /usr/local/lib/host-agent/audit-rotate"
    with changed(host, spoil, back=mend) as done:
        if done.exit_code != 0:
            pytest.skip("this machine may not set the attribute")
        (said,) = problems(host)["audit log, append-only"]
        assert "apt-get install e2fsprogs" in said
        assert "/usr/bin/chattr is not installed" in said
    assert problems(host) == {}


def test_a_finished_file_that_others_may_change_is_a_problem(host: Host) -> None:
    folder = AUDIT.rpartition("/")[0]
    name = f"{folder}/audit-20260101T000000000000Z.jsonl"
    with changed(host, f"install -o {USER} -m 0640 /dev/null {name}", back=f"rm -f {name}"):
        (said,) = problems(host)["audit log, finished files"]
        assert name.rpartition("/")[2] in said
    assert problems(host) == {}
