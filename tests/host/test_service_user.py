"""A shell as the agent's own user, in the agent's own namespaces: what it cannot do."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.installed import (
    AUDIT,
    AUTHORITY,
    CONFIGURATION,
    FRAGMENT,
    LOG_DIR,
    PROGRAM,
    STATE_DIR,
    UNIT,
    USER,
    WRAPPERS,
    Host,
    configuration,
    write_configuration,
)


def test_sudo_grants_exactly_the_rendered_lines(host: Host) -> None:
    rendered = host.machine.must(PROGRAM, "sudoers", "render").splitlines()
    wanted = {line for line in rendered if not line.startswith("#")}
    assert host.machine.must("cat", FRAGMENT).splitlines() == rendered
    shown = host.machine.must("sudo", "-l", "-U", USER)
    _, _, granted = shown.partition(f"User {USER} may run the following commands")
    lines = [line.strip() for line in granted.splitlines()[1:] if line.strip()]
    assert {f"{USER} ALL={line}" for line in lines} == wanted
    assert len(lines) == len(wanted)
    host.machine.must("visudo", "-c")


def test_what_is_granted_is_what_is_there(host: Host) -> None:
    shown = host.machine.must("sudo", "-l", "-U", USER)
    granted = {word for word in shown.split() if word.startswith(f"{WRAPPERS}/")}
    there = host.machine.must("find", WRAPPERS, "-type", "f", "-perm", "/111").split()
    assert granted == set(there)
    owners = host.machine.must("find", WRAPPERS, "-printf", r"%u:%g %m %f\n").splitlines()
    assert {line.rpartition(" ")[0] for line in owners} <= {"root:root 755", "root:root 644"}


TRIES = {
    "zfs itself": "zfs destroy tank/top@old",
    "zfs through sudo": "sudo -n /usr/sbin/zfs destroy tank/top@old",
    "zfs under another path": "sudo -n /sbin/zfs destroy tank/top@old",
    "a shell of root": "sudo -n /bin/sh -c true",
    "a shell of a caller's user": "sudo -n -u librarian /bin/sh -c true",
    "editing as root": "sudo -n -e /etc/hosts",
    "a root wrapper as another user": f"sudo -n -u librarian {WRAPPERS}/zfs-list one filesystem",
    "the git wrapper as root": f"sudo -n {WRAPPERS}/git status /srv/app",
    "a copy of a wrapper": f"cp {WRAPPERS}/zfs-list /tmp/ && sudo -n /tmp/zfs-list one filesystem",
    "a changed environment": f"sudo -n BASH_ENV=/tmp/x {WRAPPERS}/zfs-list one filesystem",
    "a pool root": f"sudo -n {WRAPPERS}/zfs-destroy tank recursive 1 {'a' * 64}",
    "a protected dataset": f"sudo -n {WRAPPERS}/zfs-destroy tank/vault one 1 {'a' * 64}",
    "a dataset that it has not seen": f"sudo -n {WRAPPERS}/zfs-destroy tank/top one 1 {'a' * 64}",
    "an option": f"sudo -n {WRAPPERS}/zfs-destroy -rf one 1 {'a' * 64}",
    "a longer name": f"sudo -n {WRAPPERS}/zfs-destroy 'tank/top;id' one 1 {'a' * 64}",
    "ssh": f"sudo -n {WRAPPERS}/systemd-stop ssh.service {'a' * 64}",
    "its own unit": f"systemctl stop {UNIT}",
    "another unit": "systemctl stop idle.service",
    "a unit of its own": "systemd-run true",
    "the first process": "kill -9 1",
    "the authority's key": f"cat {AUTHORITY}/ca.key",
    "the shadow file": "cat /etc/shadow",
    "the configuration": f"echo >>{CONFIGURATION}",
    "the configuration's directory": "mkdir /etc/host-agent/conf.d",
    "another configuration": f"mv {CONFIGURATION} /var/lib/host-agent/",
    "the list of revoked": "echo >/etc/host-agent/pki/ca.crl",
    "the authority's certificate": "echo >/etc/host-agent/pki/ca.crt",
    "a wrapper": f"echo >>{WRAPPERS}/zfs-destroy",
    "a new wrapper": f"touch {WRAPPERS}/zfs-new",
    "a wrapper in the place of another": f"mv -f /bin/true {WRAPPERS}/zfs-list",
    "the list of what is protected": f"echo >{WRAPPERS}/protected",
    "the list of what is allowed": f"echo 'allowed zfs.*' >>{WRAPPERS}/allowed",
    "the list of commands": f"echo >>{WRAPPERS}/commands",
    "sudoers": f"echo >>{FRAGMENT}",
    "another fragment": "touch /etc/sudoers.d/more",
    "the unit": f"echo >>/etc/systemd/system/{UNIT}",
    "a unit in a directory above": "mkdir -p /etc/systemd/system/host-agent.service.d",
    "the program": "touch /opt/host-agent/lib/python3.11/site-packages/host_agent/more.py",
    "the interpreter": "mv /opt/host-agent/bin/python3 /tmp/",
    "a repository": "touch /srv/app/file",
    "a user's files": "touch /home/librarian/file",
    "root's journal": "rm -rf /var/log/journal /run/log/journal",
    "more rights": "mount -t tmpfs x /mnt",
}


@pytest.mark.parametrize("script", TRIES.values(), ids=TRIES.keys())
def test_a_shell_as_the_service_user_gets_nowhere(host: Host, script: str) -> None:
    before = host.state() + _files(host)
    done = host.as_service("bash", "-c", script)
    assert done.exit_code != 0, (done.stdout, done.stderr)
    assert host.state() + _files(host) == before


def _files(host: Host) -> str:
    """Return what such a shell must not change: of every file, owner, mode, time and size."""
    places = ("/etc", "/usr/local", "/opt/host-agent", AUTHORITY, "/srv", "/home")
    return host.machine.must("find", *places, "-printf", r"%p %u:%g %m %T@ %s\n")


@pytest.mark.promise("c34")
def test_what_comes_along_in_the_environment_runs_nothing(host: Host) -> None:
    script = (
        "echo 'touch /tmp/canary' >/tmp/evil; "
        "export BASH_ENV=/tmp/evil ENV=/tmp/evil PATH=/tmp:$PATH LD_PRELOAD=/tmp/evil.so; "
        "printf '#!/bin/sh\\ntouch /tmp/canary\\n' >/tmp/timeout; chmod +x /tmp/timeout; "
        f"env 'BASH_FUNC_log%%=() {{ touch /tmp/canary; }}' sudo -n {WRAPPERS}/zfs-list one "
        "filesystem 2>/dev/null | grep -q tank; echo $? $(ls /tmp/canary 2>&1)"
    )
    done = host.as_service("bash", "-c", script)
    assert done.stdout.startswith("0 "), (done.stdout, done.stderr)
    assert "No such file" in done.stdout
    assert not host.machine.path("/tmp/canary").exists()


WRITES = {
    "an edit": 'printf x | dd of="$log" conv=notrunc bs=1 seek=20',
    "an edit by a program that opens it to write": "python3 -c \"open('$log', 'r+b')\"",
    "an edit through memory": (
        "python3 -c \"import mmap, os; mmap.mmap(os.open('$log', os.O_RDWR | os.O_APPEND), 20)\""
    ),
    "an edit behind the agent's own descriptor": (
        "python3 -c \"import fcntl, os; fd = os.open('$log', os.O_RDWR | os.O_APPEND);"
        ' fcntl.fcntl(fd, fcntl.F_SETFL, 0)"'
    ),
    "a cut": 'truncate --size=100 "$log"',
    "emptying it": ': >"$log"',
    "a hole": 'fallocate --punch-hole --offset 0 --length 100 "$log"',
    "another name": 'mv "$log" "$log.old"',
    "a second name": 'ln "$log" /var/lib/host-agent/log',
    "removing it": 'rm -f "$log"',
    "another file in its place": 'cp "$log" /tmp/log && mv -f /tmp/log "$log"',
    "taking the attribute away": 'chattr -a "$log"',
    "other rights": 'chmod 0666 "$log"',
    "a file beside it": 'touch "${log%/*}/audit-20200101T000000000000Z.jsonl"',
    "an edit of a finished one": 'printf x | dd of="$old" conv=notrunc bs=1 seek=20',
    "removing a finished one": 'rm -f "$old"',
    "other rights of a finished one": 'chmod 0660 "$old"',
    "the directory": 'mv "${log%/*}" /tmp/logs',
    "its own retention": f"sudo -n {WRAPPERS}/audit-rotate 1",
    "its own path": f"sudo -n {WRAPPERS}/audit-rotate /tmp/x",
    "root's word on it": f"echo 'days 1' >>{WRAPPERS}/audit",
    "the lock of rotations": 'flock -n "${log%/*}/.rotate.lock" true',
}


@pytest.fixture(scope="module")
def finished(host: Host) -> str:
    """Return a finished file of the audit log."""
    assert host.ask("zfs.list", {}).status_code == 200
    done = host.as_service("sudo", "-n", f"{WRAPPERS}/audit-rotate")
    assert done.exit_code == 0, (done.stdout, done.stderr)
    return f"{LOG_DIR}/{done.stdout.strip()}"


@pytest.mark.promise("c7")
@pytest.mark.parametrize("script", WRITES.values(), ids=WRITES.keys())
def test_the_service_user_cannot_change_a_past_line(host: Host, finished: str, script: str) -> None:
    assert host.ask("zfs.list", {}).status_code == 200
    before = {file: host.machine.path(file).read_bytes() for file in host.audit_files()}
    assert {AUDIT, finished} <= set(before)
    done = host.as_service("env", f"log={AUDIT}", f"old={finished}", "bash", "-c", script)
    assert done.exit_code != 0, (done.stdout, done.stderr)
    assert set(host.audit_files()) == set(before)
    for file, content in before.items():
        assert host.machine.path(file).read_bytes().startswith(content), file
    assert host.ask("zfs.list", {}).status_code == 200
    host.require_whole()


NOT_OF_FILES = ("directory", "retention", "own path", "word on it", "lock of")


@pytest.mark.parametrize(
    "script",
    [script for name, script in WRITES.items() if not any(w in name for w in NOT_OF_FILES)],
)
def test_a_log_of_its_own_it_could_change(host: Host, script: str) -> None:
    """What is refused above is refused for whose file it is, not for how it is tried."""
    own = "/var/lib/host-agent/twin"
    lay = f"mkdir -p {own} && head -c 2000 /dev/zero | tee {own}/audit.jsonl >{own}/old"
    try:
        assert host.as_service("bash", "-c", lay).exit_code == 0
        done = host.as_service(
            "env", f"log={own}/audit.jsonl", f"old={own}/old", "bash", "-c", script
        )
        assert done.exit_code == 0, (done.stdout, done.stderr)
    finally:
        host.machine.must("rm", "-rf", own, "/var/lib/host-agent/log")


@pytest.mark.promise("c6")
def test_whoever_finishes_the_file_the_chain_goes_on_in_the_next(host: Host) -> None:
    wrapper = f"{WRAPPERS}/audit-rotate"
    for is_root in (False, True):
        assert host.ask("zfs.list", {}).status_code == 200
        files, before = host.audit_files(), host.sequence
        done = host.machine.run(wrapper) if is_root else host.as_service("sudo", "-n", wrapper)
        assert done.exit_code == 0
        assert host.ask("zfs.list", {}).status_code == 200
        assert len(host.audit_files()) == len(files) + 1
        assert "audit.rotated" in [record["event"] for record in host.since(before)]
        assert [record["sequence"] for record in host.records()] == list(
            range(1, host.sequence + 1)
        )
        host.require_whole()


@pytest.mark.promise("c6")
def test_while_others_have_files_finished_nothing_is_refused_or_lost(host: Host) -> None:
    often = f"for ((turn = 0; turn < 15; turn++)); do {WRAPPERS}/audit-rotate || exit 1; done"
    before = host.sequence
    with ThreadPoolExecutor(1) as others:
        turning = others.submit(host.machine.run, "bash", "-c", often)
        answers = [host.ask("zfs.list", {}).status_code]
        while not turning.done():
            answers.append(host.ask("zfs.list", {}).status_code)
    assert turning.result().exit_code == 0
    assert set(answers) == {200}
    causes = [r["cause"] for r in host.since(before) if r["event"] == "audit.rotated"]
    assert len(causes) > 5
    assert set(causes) <= {"unlinked", "replaced", "moved"}  # as the agent happened to look
    assert [record["sequence"] for record in host.records()] == list(range(1, host.sequence + 1))
    host.require_whole()


def test_the_agent_begins_a_new_file_where_only_root_may(host: Host) -> None:
    host.leave()
    host.machine.must("systemctl", "stop", UNIT)
    try:
        audit = f'path = "{AUDIT}"\nappend_only = true\nmax_bytes = 4096\n'
        write_configuration(host.machine, configuration(audit=audit))
        host.start()
        files, before = host.audit_files(), host.sequence
        for _ in range(12):
            assert host.ask("zfs.list", {}).status_code == 200
        assert len(host.audit_files()) >= len(files) + 2
        rotated = [r for r in host.since(before) if r["event"] == "audit.rotated"]
        assert {record["cause"] for record in rotated} == {"size"}
        assert {f"{LOG_DIR}/{record['file']}" for record in rotated} <= set(host.audit_files())
        host.require_whole()
    finally:
        write_configuration(host.machine, configuration())
        host.start()


def test_a_log_of_the_agents_own_moves_to_root_and_the_chain_goes_on(host: Host) -> None:
    """As docs/how-to/keep-the-log.md says, to another directory than this machine's."""
    own, kept = f"{STATE_DIR}/audit.jsonl", "/var/log/kept"
    try:
        write_configuration(host.machine, configuration(audit=f'path = "{own}"\nmax_bytes = 4096'))
        host.start()
        for _ in range(8):
            assert host.ask("zfs.list", {}).status_code == 200
        host.leave()
        host.machine.must("systemctl", "stop", UNIT)
        audit = f'path = "{kept}/audit.jsonl"\nappend_only = true'
        write_configuration(host.machine, configuration(audit=audit))
        move = (
            f"install -d -o root -g host-agent -m 0750 {kept} && "
            f"install -o root -g host-agent -m 0440 {STATE_DIR}/audit-*.jsonl {kept}/ && "
            f"install -o root -g host-agent -m 0440 {own} "
            f"{kept}/audit-$(date --utc +%Y%m%dT%H%M%S%6NZ).jsonl"
        )
        host.machine.must("bash", "-c", move)
        host.machine.must(PROGRAM, "install")
        host.start()
        assert host.ask("zfs.list", {}).status_code == 200
        files = host.machine.must("bash", "-c", f"ls {kept}/audit*.jsonl").split()
        assert len(files) > 3
        verified = host.machine.must(PROGRAM, "audit", "verify", *files)
        assert "audit-" in verified
        first = json.loads(host.machine.must("head", "-n1", f"{kept}/audit.jsonl"))
        assert (first["event"], first["sequence"] > 8) == ("audit.rotated", True)
    finally:
        host.leave()
        host.machine.must("systemctl", "stop", UNIT)
        write_configuration(host.machine, configuration())
        host.machine.must(PROGRAM, "install")
        host.machine.must("bash", "-c", f"rm -f {STATE_DIR}/audit* {STATE_DIR}/.audit*")
        host.machine.must("chattr", "-R", "-f", "-a", kept)
        host.machine.must("rm", "-r", kept)
        host.start()


@pytest.mark.promise("c7")
def test_a_line_changed_by_root_is_found(host: Host) -> None:
    host.ask("zfs.list", {})
    lines = host.machine.path(AUDIT).read_bytes().splitlines(keepends=True)
    copy = "/root/audit.copy"
    host.machine.write(copy, b"".join(lines))
    assert host.machine.run(PROGRAM, "audit", "verify", copy).exit_code == 0
    host.machine.write(copy, b"".join(lines).replace(b'"operator"', b'"nobody"'))
    changed = host.machine.run(PROGRAM, "audit", "verify", copy)
    assert (changed.exit_code, "first bad sequence" in changed.stdout) == (1, True)
    host.machine.write(copy, b"".join(lines[:-1]))
    head = json.loads(lines[-1])["hash"]
    cut = host.machine.run(PROGRAM, "audit", "verify", "--head", head, copy)
    assert cut.exit_code != 0, (cut.stdout, cut.stderr)


def test_a_zfs_line_in_sudoers_changes_the_gauge_and_says_why(host: Host) -> None:
    clean = host.http("frank").get("/admin/sudoers").json()
    assert (clean["scan_ok"], clean["entries"]) == (True, [])
    assert host.metric("host_agent_sudoers_risky_entries") == 0
    assert host.metric("host_agent_sudoers_scan_ok") == 1
    assert host.machine.run(PROGRAM, "sudoers", "check").exit_code == 0
    sequence = host.sequence
    host.machine.write(
        "/etc/sudoers.d/extra", f"{USER} ALL=(root) NOPASSWD: /sbin/zfs\n", mode=0o440
    )
    try:
        host.machine.must("systemctl", "reload", UNIT)
        host.machine.until(
            lambda: host.http("frank").get("/admin/sudoers").json()["entries"] != [],
            "the entry is not found",
        )
        found = host.http("frank").get("/admin/warn-permissions").json()
        entry = found["entries"][0]
        assert (entry["file"], entry["line"]) == ("/etc/sudoers.d/extra", 1)
        assert entry["severity"] == "critical"
        assert "/sbin/zfs" in entry["reason"]
        assert entry["remedy"]
        assert host.metric("host_agent_sudoers_risky_entries") == len(found["entries"])
        assert "not known to be safe" in host.inside("/ready")
        (told,) = [r for r in host.since(sequence) if r["event"] == "sudoers.changed"]
        assert "/sbin/zfs" in str(told["faults"])
        checked = host.machine.run(PROGRAM, "sudoers", "check", "--json")
        assert checked.exit_code == 1
        assert json.loads(checked.stdout)["entries"] == found["entries"]
        refused = host.http("operator").get("/admin/sudoers")
        assert refused.json()["code"] == "identity:role-required"
    finally:
        host.machine.must("rm", "/etc/sudoers.d/extra")
        host.machine.must("systemctl", "reload", UNIT)
    host.machine.until(
        lambda: host.http("frank").get("/admin/sudoers").json()["entries"] == [],
        "the entry is still found",
    )
    assert host.metric("host_agent_sudoers_risky_entries") == 0


def test_a_fragment_that_cannot_be_read_is_unknown_never_zero(host: Host) -> None:
    host.machine.write("/etc/sudoers.d/broken", "this is no sudoers line\n", mode=0o440)
    try:
        host.machine.must("systemctl", "reload", UNIT)
        host.machine.until(
            lambda: host.http("frank").get("/admin/sudoers").json()["scan_ok"] is False,
            "it counts as read",
        )
        assert host.metric("host_agent_sudoers_scan_ok") == 0
    finally:
        host.machine.must("rm", "/etc/sudoers.d/broken")
        host.machine.must("systemctl", "reload", UNIT)
    host.machine.until(
        lambda: host.http("frank").get("/admin/sudoers").json()["scan_ok"] is True, "it stays"
    )
