"""The first quarter of an hour: a bare Debian, one install, and a first approval from outside.

The first of this tier: afterwards the machine is as it was.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_agent.client.bundle import decode
from tests.support.installed import AUTHORITY, CONFIGURATION, LOG_DIR, PROGRAM, UNIT, put_program
from tests.support.machine import ADDRESS, Done, Machine
from tests.support.pages import REPOSITORY
from tests.support.walkthrough import blocks, steps

NAME = "web-1.example.org"
BUNDLES = "/root/host-agent-bundles"
TRIAL = "try-host-agent.service"
LEFT = (AUTHORITY, BUNDLES, "/etc/host-agent", "/var/lib/host-agent", LOG_DIR)
"""What `uninstall` keeps, and this module takes away."""


PAGE = (REPOSITORY / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")


def of_page(beginning: str, text: str = PAGE) -> str:
    """Return the page's first command that begins so."""
    commands = (step.command for block in blocks(text) for step in steps(block))
    return next(command for command in commands if command.startswith(beginning))


@pytest.fixture(scope="module")
def bare(machine: Machine) -> Iterator[Machine]:
    """Install as the page says, for two programs and one person."""
    assert machine.run("id", "host-agent").exit_code != 0, "this module needs a bare machine"
    put_program(machine)
    for command in (of_page("host-agent install --bootstrap"), of_page("systemctl enable")):
        machine.must("bash", "-euc", command.replace("192.0.2.10", ADDRESS))
    yield machine
    machine.must(PROGRAM, "uninstall")
    machine.must("chattr", "-R", "-f", "-a", LOG_DIR)
    machine.must("rm", "-rf", *LEFT, "/opt/host-agent", "/usr/local/bin/host-agent")
    machine.must("userdel", "host-agent")


@dataclass
class Desk:
    """A person's own machine: out here, with a home of its own and nothing of the host's."""

    home: Path

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "host_agent", *arguments],
            env={"HOME": str(self.home), "PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd=REPOSITORY,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
        )
        return Done(
            command=arguments,
            exit_code=done.returncode,
            stdout=done.stdout.decode(),
            stderr=done.stderr.decode(),
        )

    def must(self, *arguments: str, status: int = 0) -> Done:
        done = self(*arguments)
        assert done.exit_code == status, done
        return done

    def take(self, machine: Machine, cn: str) -> Done:
        """Copy a bundle out and log in with it."""
        path = self.home / f"{cn}.bundle"
        path.touch(0o600)
        path.write_bytes(machine.path(f"{BUNDLES}/{cn}.bundle").read_bytes())
        return self("login", str(path))


@pytest.fixture
def desks(tmp_path: Path) -> tuple[Desk, Desk]:
    """Return the desks of the program and of the person."""
    for name in ("deployer", "alice"):
        (tmp_path / name).mkdir()
    return Desk(tmp_path / "deployer"), Desk(tmp_path / "alice")


def state(machine: Machine) -> str:
    return machine.must("systemctl", "show", "-P", "ActiveState", TRIAL).strip()


def test_a_first_approval_from_outside_right_after_the_installation(
    bare: Machine, desks: tuple[Desk, Desk]
) -> None:
    deployer, alice = desks
    said = deployer.take(bare, "deployer")
    assert said.exit_code == 0, said
    assert f"deployer at https://{ADDRESS}:8443" in said.stdout  # its name leads nowhere here
    assert "agent-host answers: you are deployer (caller)" in said.stdout
    piped = bare.path(f"{BUNDLES}/alice.bundle").read_bytes()
    printed = alice("login", "-", stdin=piped).stdout.splitlines()
    (login,) = (s for b in blocks(PAGE) for s in steps(b) if s.command.endswith("login -"))
    url = f"https://{ADDRESS}:8443"
    for line in login.output.splitlines():
        wanted = line.replace(f"https://{NAME}:8443", url).replace("web-1", "agent-host")
        assert wanted == "..." or wanted in printed
    assert state(bare) == "inactive"

    held = deployer.must(
        *("call", "systemd.restart", f"unit={TRIAL}", "--reason", "first try", "--json"), status=75
    )
    request = json.loads(held.stdout)
    decision = ("requests", "approve", request["request_id"], "--yes", "--digest")

    # Who asks does not approve, and who approves does not ask.
    deployer.must(*decision, request["digest"], status=77)
    alice.must("call", "systemd.restart", f"unit={TRIAL}", status=77)
    assert state(bare) == "inactive"
    alice.must(*decision, request["digest"], "--host", "agent-host")

    shown = deployer.must("requests", "show", request["request_id"], "--wait", "60", "--json")
    told = json.loads(shown.stdout)
    assert (told["state"], told["outcome"]["verified"]) == ("succeeded", True)
    assert state(bare) == "active"
    deployer.must("call", "systemd.status", f"unit={TRIAL}")
    deployer.must("call", "systemd.restart", f"unit={UNIT}", status=77)
    deployer.must("call", "systemd.restart", "unit=dbus.service", status=77)


def test_the_doctor_is_green_and_root_names_no_user(bare: Machine) -> None:
    done = bare.run(PROGRAM, "doctor", "--json")
    bad = [c for c in json.loads(done.stdout)["checks"] if c["state"] == "problem"]
    assert (done.exit_code, bad) == (0, [])
    bare.must(PROGRAM, "config", "check")
    bare.must(PROGRAM, "config", "check", "--config", CONFIGURATION)
    assert bare.run(PROGRAM, "config", "check", "--user", "root").exit_code == 78


def test_bundles_are_roots_alone(bare: Machine) -> None:
    assert bare.must("stat", "-c", "%U:%G %a", BUNDLES).strip() == "root:root 700"
    for cn in ("deployer", "alices-agent", "alice"):
        path = f"{BUNDLES}/{cn}.bundle"
        assert bare.must("stat", "-c", "%U:%G %a", path).strip() == "root:root 600"
        for user in ("host-agent", "nobody"):
            assert bare.run("runuser", "-u", user, "--", "cat", path).exit_code != 0
        assert bare.run("test", "-e", f"{AUTHORITY}/{cn}.key").exit_code != 0


def test_installing_again_makes_nobody_another_key(bare: Machine) -> None:
    look = f"sha256sum {AUTHORITY}/* {BUNDLES}/* {CONFIGURATION} /etc/host-agent/pki/*"
    before = bare.must("bash", "-c", look)
    for more in (("--caller", "deployer"), ()):
        assert bare.must(PROGRAM, "install", "--bootstrap", *more).startswith("There is nothing")
    assert bare.must("bash", "-c", look) == before


def test_a_bundle_of_another_host_is_refused_here(bare: Machine, desks: tuple[Desk, Desk]) -> None:
    desk, _ = desks
    place = desk.home / "foreign"
    url = f"https://{ADDRESS}:8443"
    desk.must("pki", "init", "--dir", str(place))
    desk.must("pki", "issue", "--dir", str(place), "--cn", "deployer", "--usage", "client")
    out = desk.home / "foreign.bundle"
    desk.must(
        *("pki", "bundle", "--dir", str(place), "--cn", "deployer", "--host", "agent-host"),
        *("--url", url, "--out", str(out)),
    )
    refused = desk.must("login", str(out), status=69)
    assert "could not be verified" in refused.stderr
    assert desk.take(bare, "deployer").exit_code == 64  # the name is another authority's
    # With this host's own authority put in its place, it is this host that refuses.
    own = decode(bare.path(f"{BUNDLES}/deployer.bundle").read_bytes())
    (desk.home / ".config/host-agent/hosts/agent-host/ca.pem").write_text(own.ca)
    assert "refused this client's certificate" in desk.must("operations", status=77).stderr
    desk.must("logout", "agent-host")
    assert desk.take(bare, "deployer").exit_code == 0


def test_an_address_that_the_certificate_does_not_name_is_refused(
    bare: Machine, desks: tuple[Desk, Desk]
) -> None:
    desk, _ = desks
    desk.take(bare, "deployer")
    number = int.from_bytes(bytes(map(int, ADDRESS.split("."))), "big")  # the same, as one number
    bundle = str(desk.home / "deployer.bundle")
    refused = desk.must("login", bundle, "--url", f"https://{number}:8443", status=69)
    assert "mismatch" in refused.stderr
    desk.must("login", bundle, "--url", f"https://{ADDRESS}:8443")
    desk.must("operations")


def checks_of_pages() -> list[str]:
    """Return every command of the pages that only looks at the installation, each once."""
    looks = ("config check", "doctor", "sudoers check", "sudoers render", "audit head")
    found: dict[str, None] = {}
    for page in sorted((REPOSITORY / "docs" / "how-to").glob("*.md")):
        for block in blocks(page.read_text(encoding="utf-8")):
            for step in steps(block) if block.language == "console" else ():
                words = step.command.split()
                if words[0] == "host-agent" and step.command.startswith(
                    tuple(f"host-agent {look}" for look in looks)
                ):
                    found[step.command] = None
    return list(found)


def test_every_look_of_the_pages_finds_a_healthy_host_well(bare: Machine) -> None:
    commands = checks_of_pages()
    assert "host-agent config check" in commands
    assert "host-agent doctor" in commands
    bad = []
    for command in commands:
        named = [word for word in command.split() if word.endswith((".toml", ".json", ".fragment"))]
        if all(word.startswith("/etc/host-agent/") for word in named) and "<" not in command:
            done = bare.run("bash", "-c", f"cd /root; {command} >/dev/null")
            if done.exit_code != 0:
                bad.append((command, done))
    assert not bad


@pytest.mark.parametrize("page", ["approve-over-webhook.md", "approve-over-ntfy.md"])
def test_the_commands_that_make_secrets_run_as_the_page_has_them(bare: Machine, page: str) -> None:
    text = (REPOSITORY / "docs" / "how-to" / page).read_text(encoding="utf-8")
    commands = [
        step.command
        for block in blocks(text)
        if block.language == "console"
        for step in steps(block)
        if "/etc/host-agent/secrets/" in step.command and ".new" not in step.command
    ]
    assert len(commands) == 2
    for command in commands:
        bare.must("bash", "-euc", command, stdin="tk_secret\n")
    made = bare.must("bash", "-c", "stat -c '%U %a' /etc/host-agent/secrets/*").splitlines()
    assert set(made) <= {"host-agent 400", "host-agent 600"}
    bare.must("bash", "-c", "rm /etc/host-agent/secrets/*")
