"""Renders `sudoers/host-agent`: the fragment of an example in which every adapter is configured."""

import tomllib
from pathlib import Path

from host_agent.config.models import Config
from host_agent.operations import CATALOGUE
from host_agent.sudoers.render import grants, render

EXAMPLE = """
[server]
certificate = "pki/server.crt"
private_key = "pki/server.key"
client_ca = "pki/ca.crt"
[store]
[audit]
[[identities]]
cn = "librarian"
unix_user = "librarian"
owner = "alice"
[[identities]]
cn = "alice"
roles = ["approver"]
[zfs]
datasets = ["tank(/.*)?"]
protected = ["tank/vault(/.*)?"]
[systemd]
units = ["nginx\\\\.service"]
[pct]
vmids = "100-199"
[apt]
packages = ["nginx.*"]
[[git.repositories]]
path = "/srv/app"
remotes = ["origin"]
branches = ["main"]
"""


def example() -> Config:
    """Return the example configuration; its users and files need not exist."""
    return Config.model_validate(
        tomllib.loads(EXAMPLE), context={"base": Path("/etc/host-agent")}, strict=False
    )


def sudoers_example() -> str:
    """Return the fragment."""
    return render(grants(example(), CATALOGUE))
