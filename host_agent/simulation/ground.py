"""The directory that a simulation serves from: authority, certificates, configuration, settings.

All of it is made anew, lies in one directory of mode 0700, and is of no use elsewhere: the
authority is of this directory, and the wrappers in it refuse to do anything.
"""

import json
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from host_agent.config import Config, load
from host_agent.errors import ConfigurationError
from host_agent.identity import files
from host_agent.identity.registry import Role
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Effect
from host_agent.pki import authority
from host_agent.pki.profiles import Usage

MARK = "simulation"
"""What the host calls itself, in every prompt and record; the authority has it in its name."""
_SERVER = "SERVER"  # no client's name has a capital
MAX_POLICY_BYTES = 1_048_576
TAKEN = ("identities", "rules", "limits", *(adapter.name for adapter in CATALOGUE.adapters))
"""The tables of a configuration that a simulation goes by."""
_WRAPPER = """\
#!/bin/sh
# A stand-in of a simulation. Nothing is ever run by it.
echo 'host-agent: this is a stand-in of a simulation: nothing is run by it' >&2
exit 69
"""
_USER_LINE = re.compile(r"^[ \t]*unix_user[ \t]*=[^\n]*$", re.MULTILINE)
_ADAPTERS = r"""
[[git.repositories]]
path = "/srv/app"
remotes = ["origin"]
branches = ["main", "topic"]

[[git.repositories]]
path = "/srv/site"
remotes = ["origin"]
branches = ["main"]

[zfs]
datasets = ["tank/media", "tank/scratch(/.*)?", "tank/backup"]
protected = ["tank/backup"]

[systemd]
units = ['web\.service', 'worker\.service', 'idle\.service', 'broken\.service']

[pct]
vmids = "101-119"

[apt]
packages = ["web-.*", "curl"]

[[exec.commands]]
name = "greet"
path = "/usr/local/sbin/greet"
sha256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
effect = "change"
arguments = [{ name = "whom", pattern = "[a-z]+" }]
"""
_IDENTITIES = """
[[identities]]
cn = "deployer"
owner = "bob"

[[identities]]
cn = "watcher"
owner = "carol"
autonomy = "read_only"

[[identities]]
cn = "alice"
roles = ["approver"]

[[identities]]
cn = "erin"
roles = ["approver"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A directory that is ready to serve from, and whose certificates are in it."""

    directory: Path
    config: Config

    @property
    def config_path(self) -> Path:
        """The configuration's file."""
        return self.directory / "config.toml"

    @property
    def ca(self) -> Path:
        """The authority that server and clients believe."""
        return self.directory / "pki" / "ca.crt"

    @property
    def home(self) -> Path:
        """A home directory, with a `client.toml` that has each identity as a host."""
        return self.directory / "home"

    def certificate(self, name: str) -> Path:
        """Return an identity's certificate."""
        return self.directory / "pki" / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Return an identity's private key."""
        return self.directory / "pki" / f"{name}.key"

    def names(self, role: Role) -> tuple[str, ...]:
        """Return the common names with a role, in the order of the configuration."""
        return tuple(entry.cn for entry in self.config.identities if role in entry.roles)

    def write_client_settings(self, url: str) -> Path:
        """Write `client.toml`, in which each identity is a host of its name; return the file."""
        path = self.home / ".config" / "host-agent" / "client.toml"
        path.parent.mkdir(mode=0o700, parents=True)
        names = [entry.cn for entry in self.config.identities]
        callers = self.names(Role.CALLER)
        lines = [f"default_host = {json.dumps(callers[0] if callers else names[0])}"]
        for name in names:
            settings = {
                "url": url,
                "cert": str(self.certificate(name)),
                "key": str(self.key(name)),
                "ca": str(self.ca),
            }
            lines.append(f"\n[hosts.{json.dumps(name)}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        files.create(path, "\n".join([*lines, ""]).encode(), mode=files.PRIVATE)
        return path


def prepare_ground(directory: Path, *, policy: Path | None, port: int, now: datetime) -> Ground:
    """Make everything in `directory`, which is empty and this user's alone.

    `policy` is a file with some of the tables `TAKEN`; without one, a policy is made that lets
    reads through, and asks for everything else.

    Raises:
        ConfigurationError: the policy has a fault, or a table that a simulation does not go by.
    """
    text = _made_policy() if policy is None else read_policy(policy)
    pki, wrappers, more = directory / "pki", directory / "wrappers", directory / "conf.d"
    for place in (wrappers, more, directory / "state"):
        place.mkdir(mode=0o700)
    for name in sorted({wrapper for spec in CATALOGUE for wrapper in spec.wrappers}):
        files.create(wrappers / name, _WRAPPER.encode(), mode=0o700)
    authority.init(pki, name=f"host-agent {MARK} CA", now=now, days=2)
    authority.issue(pki, common_name="localhost", usage=Usage.SERVER, out=_SERVER, days=1, now=now)
    main = _MAIN.format(port=port)
    files.create(directory / "config.toml", main.encode(), mode=files.PRIVATE)
    files.create(more / "policy.toml", text.encode(), mode=files.PRIVATE)
    ground = Ground(directory=directory, config=load(directory / "config.toml"))
    if not ground.names(Role.CALLER):
        raise ConfigurationError(["identities: a simulation needs one with the role caller"])
    for entry in ground.config.identities:
        if entry.fingerprint is not None:
            fault = "fingerprint: a simulation makes certificates of its own; leave it out"
            raise ConfigurationError([fault])
        try:
            authority.issue(pki, common_name=entry.cn, usage=Usage.CLIENT, days=1, now=now)
        except ValueError as error:
            raise ConfigurationError([f"identities: {error}"]) from error
    return ground


_MAIN = """\
# Of a simulation: nothing of a host is behind it, and nothing else may be served from it.
[server]
bind = "127.0.0.1:{port}"
certificate = "pki/SERVER.crt"
private_key = "pki/SERVER.key"
client_ca = "pki/ca.crt"
crl = "pki/ca.crl"

[metrics]
bind = "127.0.0.1:0"

[execution]
runner = "direct"
wrapper_dir = "wrappers"
"""


def _made_policy() -> str:
    reads = [spec.name for spec in CATALOGUE if spec.effect is Effect.READ]
    rules = f"""
[[rules]]
name = "looking is free"
operations = {json.dumps(reads)}
verdict = "allow"

[[rules]]
name = "harmless changes are free"
operations = ["git.fetch", "zfs.snapshot", "systemd.reload"]
verdict = "allow"

[[rules]]
name = "the backups stay as they are"
operations = ["zfs.*"]
resources = ["tank/backup.*"]
verdict = "deny"

[[rules]]
name = "everything else needs a person"
operations = {json.dumps([f"{adapter.name}.*" for adapter in CATALOGUE.adapters])}
verdict = "ask"
"""
    return _IDENTITIES + _ADAPTERS + rules


def read_policy(path: Path) -> str:
    """Return the text of a policy, without the users that its identities have on their host.

    Raises:
        ConfigurationError: it is no TOML, or has a table that a simulation does not go by.
    """
    try:
        text = files.read_plain(path, limit=MAX_POLICY_BYTES).decode()
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        said = str(error)
        raise ConfigurationError([said if str(path) in said else f"{path}: {said}"]) from error
    foreign = [key for key in table if key not in TAKEN]
    if foreign:
        faults = [
            f"{path}: {key}: a simulation has its own, and never uses a configured one;"
            f" it takes {', '.join(TAKEN)}"
            for key in foreign
        ]
        raise ConfigurationError(faults)
    bare = _USER_LINE.sub("", text)
    with suppress(ValueError):
        if _without_users(table) == tomllib.loads(bare):
            return bare
    fault = f"{path}: write each unix_user on a line of its own, or leave it out"
    raise ConfigurationError([fault])


def _without_users(table: dict[str, Any]) -> dict[str, Any]:
    identities = table.get("identities")
    if not isinstance(identities, list):
        return table
    bare = [
        {key: value for key, value in entry.items() if key != "unix_user"}
        if isinstance(entry, dict)
        else entry
        for entry in identities
    ]
    return {**table, "identities": bare}
