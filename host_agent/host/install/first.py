"""What a bootstrap is asked for, and the configuration that follows from it.

Each program that asks is an owner of its own, and so is each person who approves: nobody approves
for their own owner, so a person approves for their agents as long as these act for themselves.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from host_agent.client.bundle import url_of
from host_agent.host.install import layout
from host_agent.identity.registry import is_common_name
from host_agent.pki.authority import general_name

PORT = 8443
_LOOPBACK = "127.0.0.1"
CALLER, APPROVER = "caller", "approver"
"""Who asks and who approves where nobody was named."""

_EVERY_ADDRESS = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - only where several addresses were given
_COLUMN = 35

_HEAD = f"""\
# The agent's configuration. `host-agent config check` names every fault and shows what each
# identity may do. After a change, as root: `host-agent root render`, then `systemctl reload
# {layout.USER}`. What root's wrappers do at all and what sudo grants follow from identities, rules
# and the sections of adapters; root goes by them once it has seen how its own lists change.
"""
_REST = f"""\
[[rules]]                          # the first rule that matches decides; none: denied
name = "looking is free"
operations = ["systemd.status", "systemd.logs", "systemd.list"]
verdict = "allow"

[[rules]]
name = "the rest needs a person"
operations = ["systemd.*"]
verdict = "ask"

[systemd]
units = [                          # what may be asked about; all others are out of reach
  "host-agent\\\\.service",          # to be looked at; this one is never stopped
  {json.dumps(layout.TRIAL_PATTERN)},      # does nothing: to try an approval on
]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """Under which names and addresses the host is reached, who asks and who approves.

    `callers` and `approvers` are the names in their certificates, which are their owners too.

    Raises:
        ValueError: a name that cannot be used, or one that would ask and approve; the message is
            one sentence.
    """

    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            general_name(f"DNS:{name}")
            if "*" in name:
                message = f"{name!a} stands for many names; give each one that is used"
                raise ValueError(message)
        for address in self.addresses:
            general_name(f"IP:{address}")
            if ip_address(address).is_unspecified:
                message = f"{address} is no address that a caller could reach"
                raise ValueError(message)
        for person in self.people:
            if not is_common_name(person):
                message = (
                    f"{person!a} cannot name an identity: 1 to 64 of a-z 0-9 _ . -, the first a"
                    " letter or _, and not root"
                )
                raise ValueError(message)
        if both := sorted(set(self.callers) & set(self.approvers)):
            message = (
                f"{both[0]} would ask and approve: nobody approves what they asked for. Give the"
                f" program a name of its own, as in {both[0]}-agent"
            )
            raise ValueError(message)

    def completed(self) -> "First":
        """Return the same with somebody to ask and somebody to approve."""
        return replace(
            self, callers=self.callers or (CALLER,), approvers=self.approvers or (APPROVER,)
        )

    @property
    def people(self) -> tuple[str, ...]:
        """Return everybody who gets a certificate and a bundle, callers first."""
        return (*dict.fromkeys(self.callers), *dict.fromkeys(self.approvers))

    def alternative_names(self, host: str) -> tuple[str, ...]:
        """Return the subject alternative names of the server's certificate."""
        own = f"DNS:{host}" if host else ""
        given = (*(f"DNS:{n}" for n in self.names), *(f"IP:{a}" for a in self.addresses))
        local = ("DNS:localhost", f"IP:{_LOOPBACK}", "IP:::1")
        return tuple(dict.fromkeys(name for name in (own, *given, *local) if name))

    def urls(self, port: int) -> tuple[str, ...]:
        """Return where callers reach the agent, by name first."""
        reached = (*self.names, *self.addresses) or ("localhost",)
        return tuple(dict.fromkeys(url_of(name, port) for name in reached))

    def bind(self) -> str:
        """Return what the agent listens on.

        The one address that was given, where this host has it; loopback where nothing was given;
        else every address.
        """
        if not self.names and not self.addresses:
            return f"{_LOOPBACK}:{PORT}"
        versions = {ip_address(address).version for address in self.addresses}
        if len(self.addresses) == 1 and _is_own(self.addresses[0]):
            return url_of(self.addresses[0], PORT).removeprefix("https://")
        every = _EVERY_ADDRESS[6 if 6 in versions else 4]
        return url_of(every, PORT).removeprefix("https://")

    def configuration(self) -> str:
        """Return the configuration of a host that has none."""
        return "\n".join([_HEAD, self._server(), *self._identities(), _REST])

    def _server(self) -> str:
        bind = f'bind = "{self.bind()}"'
        meaning = "where it listens" if self.names or self.addresses else "this host only"
        return (
            f"[server]\n{bind:<{_COLUMN - 1}} # {meaning}\n"
            'certificate = "pki/server.crt"\n'
            'private_key = "pki/server.key"\n'
            'client_ca = "pki/ca.crt"\n'
            f"{'crl = ' + chr(34) + 'pki/ca.crl' + chr(34):<{_COLUMN - 1}} # it ends: sign it again"
            " in time\n\n"
            f'[store]\nurl = "sqlite:///{layout.STATE_DIR}/host-agent.db"\n\n'
            f'[audit]\npath = "{layout.LOG_DIR}/audit.jsonl"\n'
            f"{'append_only = true':<{_COLUMN - 1}} # the agent can add to it, and change nothing"
            " in it\n"
        )

    def _identities(self) -> Iterator[str]:
        yield (
            "# Who asks. Each program is an owner of its own, so that a person can approve for"
            " their own\n# agents: nobody approves for their own owner.\n"
        )
        for caller in dict.fromkeys(self.callers):
            yield identity(caller, is_approver=False)
        yield "# Who approves.\n"
        for approver in dict.fromkeys(self.approvers):
            yield identity(approver, is_approver=True)


def identity(cn: str, *, is_approver: bool) -> str:
    head = f'[[identities]]\ncn = "{cn}"\nowner = "{cn}"\n'
    if is_approver:
        return f'{head}roles = ["approver"]\n'
    user = 'unix_user = "nobody"'
    return f"{head}{user:<{_COLUMN - 1}} # whom git runs as: the owner of the repositories\n"


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
