"""A first authority, certificates and configuration, for a host that has none of them yet.

Each piece is made where it is missing and never touched again. The authority's directory is root's
alone and stays there only until somebody moves it to another machine.
"""

import re
import socket
from collections.abc import Iterator
from datetime import datetime

from host_agent.identity import authority
from host_agent.identity.profiles import Usage
from host_agent.installation import layout
from host_agent.installation.values import Report, WantedDirectory, WantedFile
from host_agent.installation.work import Work

CALLER, APPROVER, SERVER = "caller", "approver", "server"
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}", re.ASCII)
_PUBLIC_MODE = 0o644
_KEY_MODE = 0o400
_CONFIGURATION_MODE = 0o640
_PRIVATE_DIRECTORY_MODE = 0o700

FIRST_CONFIGURATION = f"""\
# The agent's configuration. `host-agent config check --user {layout.USER}` names every fault and
# shows what each identity may do. After a change: `systemctl reload {layout.USER}`; and where
# identities or sections of adapters changed, `host-agent install` before it: what sudo grants and
# root's list of what is protected follow from them.

[server]
bind = "127.0.0.1:8443"            # this host only; name the address that callers reach
certificate = "pki/server.crt"
private_key = "pki/server.key"
client_ca = "pki/ca.crt"
crl = "pki/ca.crl"                 # it ends: sign it again in time

[store]
url = "sqlite:///{layout.STATE_DIR}/host-agent.db"

[audit]
path = "{layout.LOG_DIR}/audit.jsonl"
append_only = true                 # the agent can add to it, and change nothing in it

[[identities]]
cn = "{CALLER}"                      # the name in its certificate
owner = "{CALLER}"                   # whom it acts for; nobody approves for their own owner
unix_user = "nobody"               # whom git runs as: the owner of the repositories

[[identities]]
cn = "{APPROVER}"
owner = "{APPROVER}"
roles = ["approver"]

[[rules]]                          # the first rule that matches decides; none: denied
name = "looking is free"
operations = ["systemd.status", "systemd.logs", "systemd.list"]
verdict = "allow"

[[rules]]
name = "the rest needs a person"
operations = ["systemd.*"]
verdict = "ask"

[systemd]
units = ["host-agent\\\\.service"]   # what may be looked at; this one is never stopped
"""


def missing_pieces(work: Work) -> Iterator[str]:
    """Yield the paths that a bootstrap would make here."""
    for path in (f"{layout.AUTHORITY_DIR}/ca.crt", *_copies(), layout.CONFIGURATION):
        if work.tree.find(path) is None:
            yield path


def make_first(work: Work, *, now: datetime, report: Report) -> None:
    """Make what is missing of authority, certificates and configuration.

    Raises:
        ConfigurationError: the authority's directory holds none that can be used.
        InstallationError, OSError: it cannot be written.
    """
    if work.is_dry:
        for path in missing_pieces(work):
            report.changes.append(work.would_make(path))
        return
    if any(path != layout.CONFIGURATION for path in missing_pieces(work)):
        _make_certificates(work, now=now, report=report)
    configuration = WantedFile(
        path=layout.CONFIGURATION,
        content=FIRST_CONFIGURATION.encode(),
        mode=_CONFIGURATION_MODE,
        group=layout.USER,
    )
    work.put_once(configuration, report)


def _make_certificates(work: Work, *, now: datetime, report: Report) -> None:
    work.directory(WantedDirectory(path=layout.AUTHORITY_DIR, mode=_PRIVATE_DIRECTORY_MODE), report)
    work.tree.guard(layout.AUTHORITY_DIR)
    place = work.tree.at(layout.AUTHORITY_DIR)
    if not (place / "ca.crt").exists():
        authority.init(place, name=f"host-agent CA of {_host_name()}", now=now)
        report.advice.append(
            f"Move {layout.AUTHORITY_DIR} to another machine and remove it here: whoever takes"
            " ca.key can be anybody. Before the revocation list ends (30 days), sign it again"
            " there with `host-agent pki crl` and copy ca.crl here."
        )
    for name, usage in (
        (SERVER, Usage.SERVER),
        (CALLER, Usage.CLIENT),
        (APPROVER, Usage.CLIENT),
    ):
        if not (place / f"{name}.crt").exists():
            common_name = _host_name() if usage is Usage.SERVER else name
            authority.issue(place, common_name=common_name, usage=usage, out=name, now=now)
            path = f"{layout.AUTHORITY_DIR}/{name}.crt"
            report.changes.append(work.made(f"{path} and its key"))
    for path, (name, mode, owner) in _copies().items():
        content = (place / name).read_bytes()
        work.put_once(WantedFile(path=path, content=content, mode=mode, owner=owner), report)
    report.advice.append(
        f"Hand {layout.AUTHORITY_DIR}/{CALLER}.crt and .key to the first caller, {APPROVER}.crt and"
        " .key to the first approver, with ca.crt for both."
    )


def _copies() -> dict[str, tuple[str, int, str]]:
    """Return what the agent gets of the authority's files: target, file, mode, owner."""
    pki = layout.PKI_DIR
    return {
        f"{pki}/ca.crt": ("ca.crt", _PUBLIC_MODE, "root"),
        f"{pki}/ca.crl": ("ca.crl", _PUBLIC_MODE, "root"),
        f"{pki}/server.crt": (f"{SERVER}.crt", _PUBLIC_MODE, "root"),
        f"{pki}/server.key": (f"{SERVER}.key", _KEY_MODE, layout.USER),
    }


def _host_name() -> str:
    name = socket.gethostname()
    return name if _HOST_NAME.fullmatch(name) else "localhost"
