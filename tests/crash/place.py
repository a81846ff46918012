"""A directory that an agent serves from, made for being killed in: small files, many turns.

Its wrapper is not `wrappers/git`: it answers in the same form and notes every run in `side`.
"""

import shutil
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.certificates import Pki, make_pki

WRAPPER = Path(__file__).with_name("git-wrapper")
REPOSITORIES = 4
AUDIT_BYTES = 49_152
"""So small that the audit log rotates every few lives."""
ANSWER_SECONDS = 60.0

CONFIGURATION = """
[server]
bind = "127.0.0.1:0"
certificate = "{certificate}"
private_key = "{key}"
client_ca = "{ca}"
crl = "{crl}"
drain_seconds = 10
[metrics]
bind = "127.0.0.1:0"
[audit]
path = "state/audit.jsonl"
max_bytes = {audit_bytes}
[execution]
runner = "direct"
wrapper_dir = "wrappers"
timeout_seconds = 20
[limits]
asks_per_second = 100000
ask_burst = 100000
decisions_per_second = 100000
decision_burst = 100000
held_off_after = 1000000
[approvals]
denial_cooldowns_seconds = []
ttl_seconds = 86400
max_pending = 10000
max_pending_per_caller = 10000
[[identities]]
cn = "deployer"
owner = "bob"
[[identities]]
cn = "robot"
owner = "dave"
[[identities]]
cn = "keeper"
owner = "karl"
[[identities]]
cn = "late"
owner = "lena"
[[identities]]
cn = "alice"
roles = ["approver"]
[[identities]]
cn = "erin"
roles = ["approver"]
[[identities]]
cn = "root-admin"
owner = "frank"
roles = ["admin"]
[[rules]]
name = "looking is free"
operations = ["git.log"]
verdict = "allow"
[[rules]]
name = "robots pull"
operations = ["git.pull"]
identities = ["robot"]
verdict = "allow"
[[rules]]
name = "nobody looks at these"
operations = ["git.switch"]
identities = ["late"]
verdict = "ask"
ttl_seconds = 60
[[rules]]
name = "switching needs a person"
operations = ["git.switch"]
verdict = "ask"
[[rules]]
name = "resetting needs two"
operations = ["git.reset"]
verdict = "ask"
approvals = 2
"""

_REPOSITORY = """
[[git.repositories]]
path = "{path}"
remotes = ["origin"]
branches = ["b-[0-9]+"]
"""

PEOPLE = ("deployer", "keeper", "robot", "late", "alice", "erin", "root-admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The directory, its PKI, and a TLS context for each client."""

    directory: Path
    pki: Pki
    contexts: dict[str, ssl.SSLContext]
    began: float

    @property
    def config_path(self) -> Path:
        return self.directory / "config.toml"

    @property
    def audit_path(self) -> Path:
        return self.directory / "state" / "audit.jsonl"

    @property
    def store_path(self) -> Path:
        return self.directory / "state" / "host-agent.db"

    @property
    def side_path(self) -> Path:
        return self.directory / "side"

    @property
    def log_path(self) -> Path:
        return self.directory / "agent.log"

    def repository(self, number: int) -> str:
        """Return the path of the repository that the wish of this number is about."""
        return str(self.directory / f"repository-{number % REPOSITORIES}")

    def client(self, url: str, cn: str) -> httpx.AsyncClient:
        """Return an HTTP client that is `cn`."""
        return httpx.AsyncClient(
            base_url=url, verify=self.contexts[cn], timeout=ANSWER_SECONDS, trust_env=False
        )


def make_place(directory: Path) -> Place:
    """Make a place in `directory`, which does not exist yet."""
    directory.mkdir(mode=0o700)
    (directory / "state").mkdir(mode=0o700)
    (directory / "wrappers").mkdir()
    shutil.copy(WRAPPER, directory / "wrappers" / "git")
    (directory / "wrappers" / "git").chmod(0o755)
    (directory / "side").touch(mode=0o600)
    pki = make_pki(directory / "pki")
    place = Place(
        directory=directory,
        pki=pki,
        contexts={cn: _context(pki, cn) for cn in PEOPLE},
        began=time.time(),
    )
    _configure(place)
    return place


def _configure(place: Place) -> None:
    server = place.pki.server()
    text = CONFIGURATION.format(
        certificate=server.certificate_path,
        key=server.key_path,
        ca=place.pki.ca_path,
        crl=place.pki.crl_path,
        audit_bytes=AUDIT_BYTES,
    )
    for number in range(REPOSITORIES):
        path = place.repository(number)
        Path(path).mkdir()
        text += _REPOSITORY.format(path=path)
    place.config_path.write_text(text)
    place.config_path.chmod(0o600)


def _context(pki: Pki, cn: str) -> ssl.SSLContext:
    leaf = pki.client(cn)
    context = ssl.create_default_context(cafile=str(pki.ca_path))
    context.load_cert_chain(leaf.certificate_path, leaf.key_path)
    return context
