"""The Debian package on each release that it is built for: installed, used, upgraded, purged.

In their order, on one machine of each release. What a person types is what the pages say. While it
is installed, what a start of a unit may start is asked of the systemd of that release.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.debian_package import build, next_version, wheels
from tests.support.installed import WRAPPERS, as_service
from tests.support.machine import PACKAGED, Machine, Release
from tests.support.packaged import ROOT, build_wheel
from tests.support.starts import active_targets, every_unit, reaches_protected, targets, units
from tests.support.walkthrough import blocks, steps

UNIT = "host-agent.service"
AUTHORITY = "/root/host-agent-ca"
BUNDLES = "/root/host-agent-bundles"
TRIAL = "try-host-agent.service"
CONFIGURATION = "/etc/host-agent/config.toml"
LOG = "/var/log/host-agent"
FRAGMENT = "/etc/sudoers.d/host-agent"
WRAPPER = f"{WRAPPERS}/systemd-restart"
_LISTING = r"""
find /etc /opt /root /usr /srv /home /var/lib/host-agent /var/log/host-agent -xdev \
  ! -name '*.pyc' ! -name __pycache__ ! -path '/usr/share/man/*' ! -path '/etc/.pwd.lock' \
  ! -name 'passwd-' ! -name 'group-' ! -name 'shadow-' ! -name 'gshadow-' \
  -printf '%p\n' 2>/dev/null || true
"""


@dataclass
class Box:
    """A machine of one release, with the package of this checkout at hand."""

    machine: Machine
    cache: Path
    directory: Path
    package: str
    """The package's path inside."""
    before: set[str] = field(default_factory=set, repr=False)
    """Every path that was there before the package came."""

    @property
    def release(self) -> Release:
        return self.machine.release

    def apt(self, *arguments: str) -> str:
        """Run apt-get as a person does who answers yes; it has no network."""
        return self.machine.must(
            *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"), *arguments, timeout=300
        )

    def put(self, package: Path) -> str:
        """Copy a package inside and return its path there."""
        path = f"/root/{package.name}"
        self.machine.write(path, package.read_bytes())
        return path

    def listing(self) -> set[str]:
        """Return every path where a package, an installation or an agent puts something."""
        return set(self.machine.must("bash", "-c", _LISTING).splitlines())

    def ask(self, who: str, *words: str, status: int = 0) -> dict[str, Any]:
        """Return the JSON that a command prints."""
        answer: dict[str, Any] = json.loads(self.command(who, *words, "--json", status=status))
        return answer

    def restart_by_approval(self) -> None:
        """Have the caller restart a unit: asked for, held, approved, run."""
        before = self.invocation
        words = ("systemd.restart", f"unit={TRIAL}", "--wait", "0")
        held = self.ask("deployer", "call", *words, status=75)
        assert self.invocation == before
        number = held["request_id"]
        digest = self.ask("alice", "requests", "show", number)["digest"]
        self.ask("alice", "requests", "approve", number, "--yes", "--digest", digest)
        ended = self.ask("deployer", "requests", "show", number, "--wait", "60")
        assert ended["state"] == "succeeded", ended
        assert self.invocation != before

    @property
    def invocation(self) -> str:
        """Return what is another one after each start of the unit that may be restarted."""
        return self.machine.must("systemctl", "show", "-P", "InvocationID", TRIAL)

    def doctor(self) -> list[dict[str, Any]]:
        """Return what the doctor finds not to be well; it must find no problem."""
        done = self.machine.run("host-agent", "doctor", "--json", timeout=120)
        checks = json.loads(done.stdout)["checks"]
        assert [check for check in checks if check["state"] == "problem"] == []
        assert done.exit_code == 0
        return [check for check in checks if check["state"] != "ok"]

    def install(self) -> str:
        """Install and start it as the page says, and hand out the bundles; return what it said."""
        address = ("--address", self.release.address)
        people = ("--caller", "deployer", "--approver", "alice")
        said = self.machine.must("host-agent", "install", "--bootstrap", *address, *people)
        self.machine.must("systemctl", "enable", "--now", UNIT)
        for person in ("deployer", "alice"):
            home = self.directory / person
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            bundle = self.machine.path(f"{BUNDLES}/{person}.bundle").read_text()
            self.command(person, "login", "-", stdin=bundle)
        return said

    def command(self, who: str, *words: str, status: int = 0, stdin: str = "") -> str:
        """Run a command out here as `who` does, at their own machine; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "host_agent", *words],
            env={"HOME": str(self.directory / who), "PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module", params=PACKAGED, ids=lambda release: release.suite)
def box(
    request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    release: Release = request.param
    package = build(cache, release)
    with Machine(cache, release) as machine:
        made = Box(machine, cache, tmp_path_factory.mktemp("people"), "")
        made.package = made.put(package)
        made.before = made.listing()
        yield made


def test_the_package_brings_the_command_and_grants_and_starts_nothing(box: Box) -> None:
    said = box.apt("install", box.package)

    assert "host-agent install --bootstrap" in said
    machine = box.machine
    assert machine.run("id", "host-agent").exit_code != 0
    assert machine.run("systemctl", "is-enabled", UNIT).stdout == "disabled\n"
    assert machine.run("systemctl", "is-active", UNIT).stdout == "inactive\n"
    assert machine.must("bash", "-c", "ls /etc/sudoers.d") == "README\n"
    assert machine.must("host-agent", "--version").strip()
    for path in (
        "/usr/share/man/man1/host-agent.1.gz",
        "/usr/share/bash-completion/completions/host-agent",
        "/usr/share/zsh/vendor-completions/_host-agent",
        "/usr/share/fish/vendor_completions.d/host-agent.fish",
        "/usr/share/doc/host-agent/how-to/README.md",
    ):
        machine.must("test", "-s", path)
    assert machine.must("dpkg", "--verify", "host-agent") == ""
    assert UNIT not in machine.run("systemd-analyze", "verify", "--man=no", UNIT).stderr


def test_nobody_but_root_can_change_what_it_brought(box: Box) -> None:
    script = "dpkg -L host-agent | xargs -d '\\n' stat --format='%A %U:%G %n'"
    lines = box.machine.must("bash", "-c", script).splitlines()
    assert len(lines) > 1000
    wrong = [line for line in lines if line[0] != "l" and "w" in line[5] + line[8]]
    assert wrong + [line for line in lines if line.split()[1] != "root:root"] == []


def test_what_a_caller_asks_for_is_held_approved_and_run(box: Box) -> None:
    said = box.install()
    assert FRAGMENT in said
    assert f"systemctl enable --now {UNIT}" in said
    assert box.machine.run("test", "-e", f"/etc/systemd/system/{UNIT}").exit_code != 0

    box.restart_by_approval()


def test_the_doctor_finds_every_part_well(box: Box) -> None:
    box.doctor()
    assert box.machine.must("host-agent", "install").startswith("There is nothing to do")


def test_sudo_rs_in_the_place_of_sudo_serves_as_well(box: Box) -> None:
    machine = box.machine
    if machine.run("test", "-e", "/usr/bin/sudo-rs").exit_code != 0:
        pytest.skip(f"{box.release.suite} has no sudo-rs")
    machine.must("mv", "/usr/bin/sudo", "/usr/bin/sudo.before")
    machine.must("mv", "/usr/sbin/visudo", "/usr/sbin/visudo.before")
    machine.must("ln", "-s", "sudo-rs", "/usr/bin/sudo")
    try:
        box.restart_by_approval()
        box.doctor()
        machine.must("rm", FRAGMENT)
        refused = box.ask("deployer", "call", "systemd.status", f"unit={TRIAL}", status=1)
        assert refused["code"] == "host:sudo-refused"
        assert FRAGMENT in machine.must("host-agent", "install")  # visudo-rs has passed on it
        box.ask("deployer", "call", "systemd.status", f"unit={TRIAL}")
    finally:
        machine.must("mv", "/usr/bin/sudo.before", "/usr/bin/sudo")
        machine.must("mv", "/usr/sbin/visudo.before", "/usr/sbin/visudo")
        machine.must("host-agent", "install")


def test_without_chattr_that_is_said_and_the_next_start_with_it_seals_the_log(box: Box) -> None:
    machine, live = box.machine, f"{LOG}/audit.jsonl"
    machine.must("systemctl", "stop", UNIT)
    machine.must("chattr", "-a", live)  # as it is where the first start found no chattr
    machine.must("mv", "/usr/bin/chattr", "/usr/bin/chattr.before")
    try:
        machine.must("systemctl", "start", UNIT)
        assert "e2fsprogs" in machine.run("host-agent", "doctor").stdout
        assert "e2fsprogs" in machine.must("host-agent", "install")
    finally:
        machine.must("mv", "/usr/bin/chattr.before", "/usr/bin/chattr")
    machine.must("systemctl", "restart", UNIT)
    assert [check for check in box.doctor() if check["name"] == "audit log, append-only"] == []
    assert "a" in machine.must("lsattr", live).split()[0]
    machine.must("bash", "-c", f"host-agent audit verify {LOG}/audit-*.jsonl {live}")
    assert "e2fsprogs" not in machine.must("host-agent", "install")


# -- what a start may start ------------------------------------------------------------------------

DOORS = {
    *("poweroff.target", "reboot.target", "halt.target", "kexec.target", "soft-reboot.target"),
    *("rescue.target", "emergency.target", "sleep.target", "initrd.target"),
    *("system-update.target", "factory-reset.target", "storage-target-mode.target"),
}
"""Targets that end the host, or open it: those of them that a release has."""


@pytest.fixture
def every_unit_listed(box: Box) -> Iterator[None]:
    with every_unit(box.machine):
        yield


@pytest.mark.usefixtures("every_unit_listed")
def test_no_target_that_reaches_a_protected_unit_is_started(box: Box) -> None:
    machine, shipped = box.machine, targets(box.machine)
    assert len(shipped) > 40
    assert ("storage-target-mode.target" in shipped) == (box.release.suite != "bookworm")
    before = active_targets(machine)
    passed: set[str] = set()
    for target in shipped:
        done = machine.run(f"{WRAPPERS}/systemd-inspect", "start", target)
        assert done.exit_code in (0, 66, 77), (target, done.stderr)
        if done.exit_code == 0:
            assert reaches_protected(machine, target) is None, target
            passed.add(target)
    assert DOORS & passed == set()
    assert {"bluetooth.target", "printer.target", "sound.target"} <= passed
    assert active_targets(machine) == before


@pytest.mark.usefixtures("every_unit_listed")
def test_a_unit_that_wants_poweroff_is_not_started(box: Box) -> None:
    machine, sudo = box.machine, ("/usr/bin/sudo", "-n", "--")
    runs = "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    files = {
        "bye.service": f"[Unit]\nDefaultDependencies=no\nWants=poweroff.target\n[Service]\n{runs}",
        "hello.service": f"[Unit]\nWants=greeted.service\n[Service]\n{runs}",
        "greeted.service": f"[Service]\n{runs}",
    }
    with units(machine, files):
        before = active_targets(machine)
        done = as_service(machine, *sudo, f"{WRAPPERS}/systemd-start", "bye.service", "a" * 64)
        assert done.exit_code == 77
        assert "started with it is protected: poweroff.target" in done.stderr
        assert _is_down(machine, "bye.service")
        assert active_targets(machine) == before
        told = as_service(machine, *sudo, f"{WRAPPERS}/systemd-inspect", "start", "hello.service")
        assert told.exit_code == 0, told.stderr
        start = (f"{WRAPPERS}/systemd-start", "hello.service", _state(told.stdout))
        done = as_service(machine, *sudo, *start)
        assert done.exit_code == 0, done.stderr
        machine.must("systemctl", "is-active", "hello.service", "greeted.service")


@pytest.mark.usefixtures("every_unit_listed")
def test_what_a_change_stops_is_what_systemd_stops(box: Box) -> None:
    """Otherclock and its rival, app and its helper: predicted, and then seen."""
    machine = box.machine
    inspect, protected = f"{WRAPPERS}/systemd-inspect", f"{WRAPPERS}/protected"
    sleeps = "[Unit]\n{}\n[Service]\nExecStart=/bin/sleep infinity\n"
    files = {
        "keep-time.service": sleeps.format(""),
        "otherclock.service": sleeps.format("Conflicts=keep-time.service"),
        "keep-helper.service": sleeps.format("StopWhenUnneeded=yes"),
        "app.service": sleeps.format("Wants=keep-helper.service"),
    }
    with units(machine, files):
        machine.must("systemctl", "start", "keep-time.service", "app.service")
        kept = machine.must("cat", protected)
        try:
            machine.write(protected, kept + "systemd keep-.*\n")
            for verb, unit in (
                ("start", "otherclock.service"),
                ("restart", "otherclock.service"),
                ("stop", "app.service"),
                ("restart", "app.service"),
            ):
                done = machine.run(inspect, verb, unit)
                assert done.exit_code == 77, (verb, unit, done.stderr)
        finally:
            machine.write(protected, kept)
        machine.must("systemctl", "is-active", "keep-time.service", "keep-helper.service")
        for verb, unit, stopped in (
            ("restart", "otherclock.service", "keep-time.service"),
            ("stop", "app.service", "keep-helper.service"),
        ):
            told = machine.must(inspect, verb, unit)
            assert f"\naffected\t{stopped}\n" in told
            machine.must(f"{WRAPPERS}/systemd-{verb}", unit, _state(told))
            machine.until(partial(_is_down, machine, stopped), f"{stopped} is not stopped")


def _state(told: str) -> str:
    found = re.search(r"^state\t([0-9a-f]{64})$", told, re.MULTILINE)
    assert found is not None, told
    return found[1]


def _is_down(machine: Machine, unit: str) -> bool:
    return machine.run("systemctl", "is-active", unit).exit_code != 0


# -- as it comes, so it goes -----------------------------------------------------------------------


def test_an_upgrade_waits_for_root_and_then_serves(
    box: Box, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("later")
    later = next_version(directory / "source", wrapper="systemd-restart")
    package = build(box.cache, box.release, source=later, out=directory)
    pid = box.machine.must("systemctl", "show", "-P", "MainPID", UNIT)
    wrapper = box.machine.must("cat", WRAPPER)

    said = box.apt("install", box.put(package))

    assert "host-agent install && systemctl restart host-agent.service" in said
    assert box.machine.must("host-agent", "--version") == "99.0\n"
    assert box.machine.must("systemctl", "show", "-P", "MainPID", UNIT) == pid
    assert box.machine.must("cat", WRAPPER) == wrapper
    (older,) = [check for check in box.doctor() if check["name"] == "wrapper files"]
    assert "systemd-restart" in older["sentence"]
    assert f"replaced  {WRAPPER}" in box.machine.must("host-agent", "install")
    box.machine.must("systemctl", "restart", UNIT)
    assert [check for check in box.doctor() if check["name"] == "wrapper files"] == []
    box.restart_by_approval()


def test_a_removal_takes_back_what_was_granted_and_keeps_what_is_somebodys(box: Box) -> None:
    said = box.apt("remove", "host-agent")

    machine = box.machine
    assert f"kept      {LOG}" in said
    assert "NOPASSWD" not in machine.must("sudo", "-l", "-U", "host-agent")
    for path in (FRAGMENT, WRAPPER, "/opt/host-agent", "/usr/bin/host-agent"):
        assert machine.run("test", "-e", path).exit_code != 0, path
    assert machine.run("systemctl", "is-active", UNIT).stdout in ("inactive\n", "unknown\n")
    for path in (CONFIGURATION, "/var/lib/host-agent/host-agent.db", f"{LOG}/audit.jsonl"):
        machine.must("test", "-f", path)


def test_a_purge_leaves_the_audit_log_and_the_authority_and_nothing_else(box: Box) -> None:
    said = box.apt("purge", "host-agent")

    left = box.listing() - box.before
    kept = (LOG, AUTHORITY, BUNDLES)
    assert {path for path in left if not path.startswith(("/root/host-agent_", *kept))} == set()
    assert {f"{LOG}/audit.jsonl", f"{AUTHORITY}/ca.key"} <= left
    for path in (*kept, "the user and group host-agent"):
        assert f"kept {path}" in said
    assert box.before - box.listing() == set()
    box.machine.must("id", "host-agent")


def test_after_a_purge_it_begins_anew_from_the_lock_with_the_hosts_own_pip(
    box: Box, tmp_path: Path
) -> None:
    """The page's second way, its commands as they stand; the index is a directory."""
    machine = box.machine
    wheel = build_wheel(tmp_path)
    machine.must("mkdir", "-p", "/root/wheels")
    machine.write(f"/root/{wheel.name}", wheel.read_bytes())
    machine.write(
        "/root/requirements-server.lock", (ROOT / "requirements-server.lock").read_bytes()
    )
    machine.write("/root/wheels.tar", wheels(box.cache, machine).read_bytes())
    machine.must("tar", "-C", "/root/wheels", "-xf", "/root/wheels.tar")
    text = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    block = next(b for b in blocks(text) if "--require-hashes" in b.text)
    for step in steps(block):
        if not step.command.startswith("apt "):
            offline = "cd /root; export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels"
            machine.must("bash", "-euc", f"{offline}; {step.command}", timeout=300)
    assert machine.must("/opt/host-agent/bin/pip", "check") == "No broken requirements found.\n"

    box.install()
    box.restart_by_approval()
    box.doctor()
    machine.must("test", "-f", f"/etc/systemd/system/{UNIT}")
