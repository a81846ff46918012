"""A whole site in a directory: certificates, a repository with a remote, wrappers, configuration.

For tests that need a running agent, in this process (`running`) or as a process of its own
(`Served`), which can be killed.
"""

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.described import ASYNC_HOOKS, HOOKS
from tests.support.patience import PATIENCE
from tests.support.repositories import Checkout, make_checkout

ROOT = Path(__file__).resolve().parents[2]
WRAPPERS = ROOT / "wrappers"
START_SECONDS = PATIENCE

RULES = """
[[rules]]
name = "looking is free"
operations = ["git.status", "git.log", "git.diff"]
verdict = "allow"

[[rules]]
name = "fetching is free"
operations = ["git.fetch"]
verdict = "allow"

[[rules]]
name = "pulling needs a person"
operations = ["git.pull", "git.switch"]
verdict = "ask"

[[rules]]
name = "resetting needs two"
operations = ["git.reset"]
verdict = "ask"
approvals = 2
require_reason = true
"""

IDENTITIES = """
[[identities]]
cn = "deployer"
owner = "bob"

[[identities]]
cn = "watcher"
owner = "carol"
autonomy = "read_only"

[[identities]]
cn = "robot"
owner = "dave"
autonomy = "full"
skip_ask = true

[[identities]]
cn = "alice"
roles = ["approver"]

[[identities]]
cn = "erin"
roles = ["approver"]

[[identities]]
cn = "bobs-phone"
owner = "Bob"
roles = ["approver"]

[[identities]]
cn = "root-admin"
owner = "frank"
roles = ["admin"]
"""


@dataclass
class Site:
    """A directory that an agent can serve from. `configure` writes its configuration anew."""

    directory: Path
    pki: Pki
    server: Leaf
    repository: Checkout
    clients: dict[str, Leaf] = field(default_factory=dict)

    @property
    def config_path(self) -> Path:
        return self.directory / "config.toml"

    @property
    def audit_path(self) -> Path:
        return self.directory / "state" / "audit.jsonl"

    @property
    def store_path(self) -> Path:
        return self.directory / "state" / "host-agent.db"

    def configure(
        self,
        *,
        rules: str = RULES,
        identities: str = IDENTITIES,
        extra: str = "",
        server: str = "",
        trusts: str | None = None,
        execution: str = 'runner = "direct"',
        branches: Sequence[str] = ("main", "topic"),
    ) -> None:
        """Write the configuration; ports are free ones. `trusts` replaces `client_ca` and `crl`."""
        # Tests that are not about it ask again at once for what was denied.
        head, found, rest = extra.partition("[approvals]\n")
        cooldowns = "[approvals]\ndenial_cooldowns_seconds = []\n"
        extra = f"{head}{cooldowns}{rest}" if found else f"{cooldowns}{extra}"
        believed = f'client_ca = "{self.pki.ca_path}"\ncrl = "{self.pki.crl_path}"'
        text = f"""
[server]
bind = "127.0.0.1:0"
certificate = "{self.server.certificate_path}"
private_key = "{self.server.key_path}"
{trusts or believed}
{server}
[metrics]
bind = "127.0.0.1:0"
[execution]
wrapper_dir = "wrappers"
{execution}
{extra}
{identities}
{rules}
[[git.repositories]]
path = "{self.repository.path}"
remotes = ["origin"]
branches = {json.dumps(branches)}
"""
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o600)
        fresh.rename(self.config_path)

    def client(self, cn: str) -> Leaf:
        """Return the certificate of `cn`, made at its first use."""
        if cn not in self.clients:
            self.clients[cn] = self.pki.client(cn)
        return self.clients[cn]

    def context(self, leaf: Leaf) -> ssl.SSLContext:
        """Return a client's TLS context that presents `leaf` and trusts the site's CA."""
        context = ssl.create_default_context(cafile=str(self.pki.ca_path))
        context.load_cert_chain(leaf.certificate_path, leaf.key_path)
        return context

    def http(self, url: str, cn: str, *, leaf: Leaf | None = None) -> httpx.Client:
        """Return an HTTP client that is `cn`, and holds every answer to the document."""
        return httpx.Client(
            base_url=url,
            verify=self.context(leaf or self.client(cn)),
            timeout=PATIENCE,
            event_hooks=HOOKS,
        )

    def async_http(self, url: str, cn: str, *, leaf: Leaf | None = None) -> httpx.AsyncClient:
        """Return an asynchronous HTTP client that is `cn`, and holds every answer likewise."""
        return httpx.AsyncClient(
            base_url=url,
            verify=self.context(leaf or self.client(cn)),
            timeout=PATIENCE,
            event_hooks=ASYNC_HOOKS,
        )

    @property
    def audit_files(self) -> list[Path]:
        """Return the files of the audit log, oldest first."""
        return [*sorted(self.audit_path.parent.glob("audit-*.jsonl")), self.audit_path]

    def records(self) -> list[dict[str, Any]]:
        """Return the audit records so far, over all files; rotation at midnight is left out."""
        written = (path.read_bytes().split(b"\n")[:-1] for path in self.audit_files)
        records = [json.loads(line) for lines in written for line in lines]
        return [record for record in records if record.get("cause") != "day"]

    def events(self) -> list[str]:
        """Return the names of the audit events so far, in order."""
        return [record["event"] for record in self.records()]

    def steps(self) -> list[str]:
        """Return the same without the inspections: what became of what was asked."""
        return [event for event in self.events() if event != "operation.inspected"]

    def pull(self) -> dict[str, object]:
        """Return the parameters of a pull."""
        return {"repository": str(self.repository.path), "remote": "origin", "branch": "main"}

    def status(self) -> dict[str, object]:
        """Return the parameters of a status."""
        return {"repository": str(self.repository.path)}


def make_site(directory: Path, **configuration: str) -> Site:
    """Make a site in `directory`, with a remote that is one commit ahead."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "state").mkdir(mode=0o700)
    (directory / "wrappers").mkdir()
    for wrapper in filter(Path.is_file, WRAPPERS.iterdir()):
        shutil.copy(wrapper, directory / "wrappers" / wrapper.name)
        (directory / "wrappers" / wrapper.name).chmod(0o755)
    pki = make_pki(directory / "pki")
    (directory / "work").mkdir()
    repository = make_checkout(directory / "work", branches=("topic",))
    repository.push_elsewhere()
    site = Site(directory, pki, pki.server(), repository)
    site.configure(**configuration)
    return site


class Served:
    """An agent as a process of its own, on a site. A context manager; `kill` is SIGKILL."""

    def __init__(
        self,
        site: Site,
        *,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        program: Sequence[str] = ("-m", "host_agent", "serve", "--config"),
    ) -> None:
        self.site = site
        self._program = program
        self._environment = {**os.environ, **(environment or {})}
        self._python = python
        self.log = site.directory / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            RuntimeError: it ended, or did not serve in 30 seconds.
        """
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self._python, *self._program, self.site.config_path],
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                cwd=ROOT,
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            found = re.search(r"serving on (https://[^\"]+)", self.log.read_text())
            if found is not None:
                self.url = found.group(1)
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        message = f"the agent does not serve: {self.log.read_text()}"
        raise RuntimeError(message)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def stop(self) -> int:
        """End it as systemd does, and return its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
