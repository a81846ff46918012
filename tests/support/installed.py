"""The agent as an administrator has it: installed on a machine, served by its unit, asked from out.

`install_agent` does what docs/how-to/install.md says, with the shipped files and nothing else.
"""

import hashlib
import json
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.apt_repository import Package, PackageRepository
from tests.support.machine import ADDRESS, Done, Machine
from tests.support.packaged import ROOT, build_wheel, copy_needed
from tests.support.patience import PATIENCE

PORT = 8443
URL = f"https://{ADDRESS}:{PORT}"
PROGRAM = "/opt/host-agent/bin/host-agent"
AUTHORITY = "/root/host-agent-ca"
CONFIGURATION = "/etc/host-agent/config.toml"
STATE_DIR = "/var/lib/host-agent"
LOG_DIR = "/var/log/host-agent"
AUDIT = f"{LOG_DIR}/audit.jsonl"
WRAPPERS = "/usr/local/lib/host-agent"
FRAGMENT = "/etc/sudoers.d/host-agent"
USER = "host-agent"
UNIT = "host-agent.service"
GREET = "/usr/local/bin/greet.sh"
GREETING = (
    '#!/bin/bash -p\nset -eu\nmkdir -p /var/lib/greetings\necho "$1" >>/var/lib/greetings/all\n'
)
_PACKAGES = ("web-common", "web-denied", "web-tool", "vault")
PEOPLE = ("operator", "watcher", "stranger", "alice", "frank")

IDENTITIES = """
[[identities]]
cn = "operator"
owner = "bob"
unix_user = "librarian"

[[identities]]
cn = "watcher"
owner = "carol"
unix_user = "librarian"
autonomy = "read_only"

[[identities]]
cn = "stranger"
owner = "dave"
unix_user = "librarian"

[[identities]]
cn = "alice"
roles = ["approver"]

[[identities]]
cn = "frank"
roles = ["admin"]
"""
RULES = r"""
[[rules]]
name = "these are left alone"
operations = ["zfs.*", "systemd.*", "pct.*", "git.*", "apt.*", "exec.*"]
resources = ["tank/denied(@.*)?", "denied\\.service", "150", "/srv/denied", "denied", "web-denied"]
verdict = "deny"

[[rules]]
name = "looking is free"
operations = [
  "zfs.list", "zfs.get", "systemd.status", "systemd.logs", "systemd.list",
  "pct.list", "pct.status", "pct.config", "git.status", "git.log", "git.diff",
  "apt.list", "apt.show",
]
identities = ["operator", "watcher"]
verdict = "allow"

[[rules]]
name = "what can be undone is free"
operations = [
  "zfs.snapshot", "zfs.hold", "zfs.release", "systemd.start", "systemd.restart",
  "systemd.reload", "pct.start", "pct.snapshot", "git.fetch", "git.switch",
  "apt.upgrade",
]
identities = ["operator", "watcher"]
verdict = "allow"

[[rules]]
name = "the rest needs a person"
operations = ["zfs.*", "systemd.*", "pct.*", "git.*", "apt.*", "exec.*"]
identities = ["operator", "watcher"]
verdict = "ask"
"""
SECTIONS = rf"""
[zfs]
datasets = ["tank", "tank/(media|files|vault|top|denied)(/.*)?"]
protected = ["tank/vault(/.*)?", "tank/top/keep"]

[systemd]
units = ["(web|idle|denied|frontdoor|ssh|host-agent)\\.service", "poweroff\\.target"]

[pct]
vmids = "100-199"

[apt]
packages = ["web.*", "vault"]
protected = ["vault"]

[[git.repositories]]
path = "/srv/app"
remotes = ["origin"]
branches = ["main", "topic"]

[[git.repositories]]
path = "/srv/denied"
remotes = ["origin"]
branches = ["main"]

[[git.repositories]]
path = "/srv/foreign"
remotes = ["origin"]
branches = ["main"]

[[exec.commands]]
name = "greet"
path = "{GREET}"
sha256 = "sha256:{hashlib.sha256(GREETING.encode()).hexdigest()}"
effect = "change"
arguments = [{{ name = "whom", pattern = "[a-z]+" }}]

[[exec.commands]]
name = "denied"
path = "{GREET}"
sha256 = "sha256:{hashlib.sha256(GREETING.encode()).hexdigest()}"
arguments = [{{ name = "whom", pattern = "[a-z]+" }}]
"""


def configuration(
    *,
    rules: str = RULES,
    sections: str = SECTIONS,
    execution: str = "",
    identities: str = IDENTITIES,
    audit: str = f'path = "{AUDIT}"\nappend_only = true\n',
) -> str:
    """Return the configuration of the machine's agent."""
    return f"""
[server]
bind = "{ADDRESS}:{PORT}"
certificate = "pki/server.crt"
private_key = "pki/server.key"
client_ca = "pki/ca.crt"
crl = "pki/ca.crl"
[store]
url = "sqlite:///{STATE_DIR}/host-agent.db"
[audit]
{audit}
[execution]
{execution}
[limits]
asks_per_second = 500
ask_burst = 500
held_off_after = 1000
{identities}
{rules}
{sections}
"""


# -- what the host has -----------------------------------------------------------------------------

_WEB = """\
[Unit]
Description=A service that can be reloaded
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/bin/web.py
ExecReload=/bin/kill -HUP $MAINPID
"""
_WEB_PROGRAM = """\
import signal
signal.signal(signal.SIGHUP, lambda *_: open("/run/web.reloaded", "a").write("x"))
print("web serves")
while True:
    signal.pause()
"""
_SLEEPS = """\
[Unit]
Description=A service that sleeps
{more}
[Service]
ExecStart=/bin/sleep infinity
"""
_POOL = """\
set -eu
for ((turn = 0; turn < 200; turn++)); do
  [[ ! -S /run/zfs/zfs_socket ]] || break
  sleep 0.05
done
truncate -s 128M /var/lib/pool
zpool create -f tank /var/lib/pool
for name in media vault top top/keep denied private; do
  zfs create -o mountpoint=none "tank/$name"
  zfs snapshot "tank/$name@old"
done
"""
_REPOSITORIES = """\
set -eu
cd /srv/git
export HOME=/home/librarian
git config --global user.name Ann
git config --global user.email ann@example.org
git config --global init.defaultBranch main
git init -q --bare app.git
git clone -q app.git /srv/git/elsewhere 2>/dev/null
cd /srv/git/elsewhere
git commit -q --allow-empty -m first
git push -q origin main
git push -q origin main:topic main:secret
for name in app denied private; do git clone -q /srv/git/app.git "/srv/$name"; done
cd /srv/app
git fetch -q
git branch -q topic origin/topic
"""
_CONTAINERS = {
    "101": "stopped",
    "102": "running",
    "103": "stopped",
    "150": "running",
    "201": "running",
}


def furnish(machine: Machine) -> None:
    """Give the machine a pool, units, containers, repositories and a command to be asked for."""
    machine.must("useradd", "--create-home", "--shell", "/usr/sbin/nologin", "librarian")
    machine.must("bash", "-c", _POOL)
    machine.write("/usr/local/bin/web.py", _WEB_PROGRAM)
    machine.write("/etc/systemd/system/web.service", _WEB)
    for name in ("idle", "denied", "private"):
        machine.write(f"/etc/systemd/system/{name}.service", _SLEEPS.format(more=""))
    # The way in that must stay open, and another name of it.
    machine.write("/etc/systemd/system/ssh.service", _SLEEPS.format(more=""))
    machine.path("/etc/systemd/system/frontdoor.service").symlink_to("ssh.service")
    machine.must("systemctl", "daemon-reload")
    services = ("web", "idle", "denied", "private", "ssh")
    machine.must("systemctl", "start", *(f"{name}.service" for name in services))
    machine.write("/usr/sbin/pct", (ROOT / "tests/support/pct").read_bytes(), mode=0o755)
    # The unit sees /usr read-only, and the stand-in's state lies beside it.
    machine.must("mkdir", "/var/lib/pct.state")
    machine.must("ln", "-s", "/var/lib/pct.state", "/usr/sbin/pct.state")
    for vmid, status in _CONTAINERS.items():
        config = {"arch": "amd64", "cores": "1", "hostname": f"ct{vmid}", "memory": "512"}
        container = {"config": config, "status": status, "snapshots": {}}
        machine.write(f"/var/lib/pct.state/{vmid}.json", json.dumps(container))
    machine.write(GREET, GREETING, mode=0o755)
    for path in ("/srv/git", "/srv/app", "/srv/denied", "/srv/private"):
        machine.must("install", "-d", "-o", "librarian", "-g", "librarian", path)
    as_librarian(machine, _REPOSITORIES)
    machine.must("cp", "-a", "/srv/denied", "/srv/foreign")
    _furnish_packages(machine)
    machine.must("chown", "-R", "root:root", "/srv/foreign")


def _furnish_packages(machine: Machine) -> None:
    with tempfile.TemporaryDirectory() as directory:
        repository = PackageRepository(Path(directory))
        try:
            repository.publish(
                Package(name="web-server", version="1.0"),
                Package(name="web-server", version="2.0", fields={"Depends": "web-common"}),
                *(Package(name=name, version="1.0") for name in _PACKAGES),
            )
            repository.configure(machine)
            repository.show(machine)
        finally:
            repository.close()


def as_librarian(machine: Machine, script: str) -> str:
    """Run a script as the user that owns the repositories."""
    return machine.must("runuser", "-u", "librarian", "--", "bash", "-c", script)


# -- the agent -------------------------------------------------------------------------------------


def put_program(machine: Machine) -> None:
    """Install the wheel of this checkout, and what it needs, into /opt/host-agent."""
    machine.must("python3", "-m", "venv", "/opt/host-agent")
    copy_needed(machine.path("/opt/host-agent/lib/python3.11/site-packages"))
    with tempfile.TemporaryDirectory() as directory:
        wheel = build_wheel(Path(directory))
        machine.write(f"/root/{wheel.name}", wheel.read_bytes())
    machine.must("/opt/host-agent/bin/pip", "install", "--no-index", "-q", f"/root/{wheel.name}")
    machine.must("ln", "-s", PROGRAM, "/usr/local/bin/host-agent")


def install_agent(machine: Machine) -> str:
    """Install with `--bootstrap`, issue certificates, write the configuration; do not start it.

    Returns:
        What the first installation printed.
    """
    said = machine.must(PROGRAM, "install", "--bootstrap")
    issue(machine, "agent-host", "--usage", "server", "--san", f"IP:{ADDRESS}", "--out", "outside")
    machine.must("cp", f"{AUTHORITY}/outside.crt", "/etc/host-agent/pki/server.crt")
    machine.must("cp", f"{AUTHORITY}/outside.key", "/etc/host-agent/pki/server.key")
    for name in PEOPLE:
        issue(machine, name, "--usage", "client")
    write_configuration(machine, configuration())
    machine.must(PROGRAM, "install")
    return said


def write_configuration(machine: Machine, text: str) -> None:
    """Put a configuration in the place of the one that is there."""
    machine.write(CONFIGURATION, text, mode=0o640, owner="root:host-agent")


def main_pid(machine: Machine) -> int:
    """Return the agent's process id, inside."""
    return int(machine.must("systemctl", "show", "-P", "MainPID", UNIT))


def as_service(machine: Machine, *command: str) -> Done:
    """Run a program as a compromised agent would: as its user, in its own namespaces."""
    within = machine.pid_outside(main_pid(machine))
    as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--")
    return machine.run(*as_user, *command, within=within)


def issue(machine: Machine, cn: str, *options: str) -> None:
    """Issue a certificate by the machine's own authority."""
    machine.must(PROGRAM, "pki", "issue", "--dir", AUTHORITY, "--cn", cn, *options)


@dataclass
class Host:
    """The machine with its agent, and the people who ask from outside."""

    machine: Machine
    directory: Path
    installed: str
    """What the first `install` printed."""
    _clients: dict[str, httpx.Client] = field(default_factory=dict)

    # -- people ------------------------------------------------------------------------------------

    def files(self, cn: str) -> tuple[Path, Path, Path]:
        """Return certificate, key and CA of somebody, as files out here."""
        names = (f"{cn}.crt", f"{cn}.key", "ca.crt")
        for name in names:
            place = self.directory / name
            if not place.exists():
                place.touch(0o600)
                place.write_bytes(self.machine.path(f"{AUTHORITY}/{name}").read_bytes())
        first, second, third = (self.directory / name for name in names)
        return first, second, third

    def http(self, cn: str) -> httpx.Client:
        """Return the connection of somebody, always the same one."""
        if cn not in self._clients:
            certificate, key, authority = self.files(cn)
            context = ssl.create_default_context(cafile=str(authority))
            context.load_cert_chain(certificate, key)
            self._clients[cn] = httpx.Client(base_url=URL, verify=context, timeout=PATIENCE)
        return self._clients[cn]

    def leave(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def ask(
        self,
        operation: str,
        params: Mapping[str, object],
        *,
        by: str = "operator",
        reason: str | None = None,
    ) -> httpx.Response:
        """Ask for an operation in the typed form."""
        body: dict[str, object] = {"operation": operation, "params": dict(params)}
        if reason is not None:
            body["reason"] = reason
        return self.http(by).post("/host/op", json=body)

    def held(self, operation: str, **params: object) -> dict[str, Any]:
        """Ask for what needs a person, and return the body of the 202."""
        answer = self.ask(operation, params)
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def decide(self, request: Mapping[str, Any], decision: str = "approve") -> httpx.Response:
        """Let alice decide on a request."""
        body = {"decision": decision, "digest": request["digest"]}
        return self.http("alice").post(f"/requests/{request['request_id']}/decision", json=body)

    def look(
        self, request: Mapping[str, Any], *, by: str = "operator", wait: int | None = None
    ) -> dict[str, Any]:
        """Look at a request as its caller, or somebody else, does."""
        query = "" if wait is None else f"?wait={wait}"
        answer = self.http(by).get(f"/requests/{request['request_id']}{query}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def ended(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Follow a request to its end."""
        for _ in range(20):
            shown = self.look(request, wait=10)
            if shown["finished_at"] is not None:
                return shown
        message = f"it does not end: {shown}"
        raise AssertionError(message)

    def done(self, operation: str, params: Mapping[str, object]) -> dict[str, Any]:
        """Have an operation done: asked, approved where that is needed, and followed."""
        answer = self.ask(operation, params)
        body: dict[str, Any] = answer.json()
        if answer.status_code == 202:
            decided = self.decide(body)
            assert decided.status_code == 200, decided.text
            return self.ended(body)
        assert answer.status_code == 200, answer.text
        return body

    # -- the service -------------------------------------------------------------------------------

    @property
    def main_pid(self) -> int:
        """Return the agent's process id, inside."""
        return main_pid(self.machine)

    def as_service(self, *command: str) -> Done:
        """Run a program as a compromised agent would: as its user, in its own namespaces."""
        return as_service(self.machine, *command)

    def start(self) -> None:
        """Start it again; its unit says when it serves."""
        self.leave()
        self.machine.must("systemctl", "reset-failed", UNIT)
        self.machine.must("systemctl", "restart", UNIT)

    def reload(self, text: str, *, is_rendered: bool = True) -> dict[str, Any]:
        """Write a configuration, let root go by it if it is one, and reload it.

        Returns:
            The audit record of what came of it.
        """
        before = self.sequence
        write_configuration(self.machine, text)
        if is_rendered:
            self.machine.run(PROGRAM, "root", "render", "--yes")
        self.machine.run("systemctl", "reload", UNIT)  # fails where it is rejected
        found: list[dict[str, Any]] = []

        def is_told() -> bool:
            names = ("config.loaded", "config.rejected")
            found.extend(record for record in self.since(before) if record["event"] in names)
            return bool(found)

        self.machine.until(is_told, "the reload is not told of")
        return found[0]

    def inside(self, path: str) -> str:
        """Return what the agent's own listener answers, inside."""
        script = (
            "import sys, urllib.request, urllib.error\n"
            "try: answer = urllib.request.urlopen(sys.argv[1])\n"
            "except urllib.error.HTTPError as error: answer = error\n"
            "sys.stdout.write(answer.read().decode())"
        )
        return self.machine.must("python3", "-c", script, f"http://127.0.0.1:9464{path}")

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        lines = [line for line in self.inside("/metrics").splitlines() if line.startswith(name)]
        (value,) = [line.split()[1] for line in lines if line.split()[0] == name]
        return float(value)

    # -- what is left ------------------------------------------------------------------------------

    def audit_files(self) -> list[str]:
        """Return the files of the audit log, oldest first, the present one last."""
        place = self.machine.path(LOG_DIR)
        older = [file for file in place.glob("audit-*.jsonl") if file.stat().st_size]
        older.sort(key=lambda file: file.stat().st_mtime_ns)
        return [*(f"{LOG_DIR}/{file.name}" for file in older), AUDIT]

    def records(self) -> list[dict[str, Any]]:
        """Return the audit records, those of older files too."""
        lines: list[bytes] = []
        for file in self.audit_files():
            with suppress(FileNotFoundError):  # renamed, and the next one not begun
                lines += self.machine.path(file).read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def sequence(self) -> int:
        """Return the newest sequence on disk."""
        return int(self.records()[-1]["sequence"])

    def since(self, sequence: int) -> list[dict[str, Any]]:
        """Return the audit records after `sequence`."""
        return [record for record in self.records() if record["sequence"] > sequence]

    def require_whole(self) -> None:
        """Verify the audit log, with its older files."""
        done = self.machine.run(PROGRAM, "audit", "verify", *self.audit_files())
        assert done.exit_code == 0, (done.stdout, done.stderr)

    def state(self) -> str:
        """Return what a refusal must not move: datasets, units, containers, repositories."""
        return self.machine.must("bash", "-c", _STATE)


_STATE = """\
dpkg-query --show --showformat='${binary:Package} ${Version} ${db:Status-Abbrev}\\n'
zfs get -H -p -r -o name,property,value guid,createtxg,userrefs tank
systemctl show -p Id,ActiveState,InvocationID,MainPID web idle denied private ssh host-agent
systemctl is-system-running --quiet || true
cat /run/web.reloaded /var/lib/pct.state/* /var/lib/greetings/all 2>/dev/null
for repository in /srv/app /srv/denied /srv/private /srv/foreign /srv/git/app.git; do
  git -c safe.directory='*' -C "$repository" for-each-ref
  git -c safe.directory='*' -C "$repository" rev-parse HEAD
  ls -l --time-style=full-iso "$repository"/.git/FETCH_HEAD 2>/dev/null
done
true
"""
