"""How people are reached: `[channels.*]`, `[[approvers]]` and `[[bridges]]`."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from host_agent.config.values import (
    CommonName,
    HostPath,
    NotEmpty,
    Owner,
    UnixUser,
    is_loopback,
)
from host_agent.operations.section import grammar


class SignalDriver(StrEnum):
    """Which program speaks Signal."""

    SIGNAL_CLI = "signal-cli"
    REST = "rest"


class ChannelName(StrEnum):
    """A way to reach people."""

    SIGNAL = "signal"
    WEBHOOK = "webhook"
    NTFY = "ntfy"
    APPRISE = "apprise"


def _check_url(url: str) -> str:
    """Accept an https URL without credentials; http for loopback only."""
    if not url.isascii() or not url.isprintable() or " " in url:
        message = "must be visible ASCII characters"
        raise ValueError(message)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = "must be an https URL"
        raise ValueError(message)
    if "@" in parts.netloc or parts.fragment or "#" in url:
        message = "must hold no credentials and no fragment; secrets are files"
        raise ValueError(message)
    _ = parts.port  # raises ValueError where it is none
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        message = "must be https: only a loopback address is spoken to in the clear"
        raise ValueError(message)
    return url


OutboundUrl = Annotated[str, Field(max_length=2000), AfterValidator(_check_url)]
Aci = Annotated[
    str,
    grammar(
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "must be an ACI: a UUID in lower case",
    ),
]
PhoneNumber = Annotated[
    str, grammar(r"\+[1-9][0-9]{4,14}", "must be a phone number in international form, as +431234")
]
Topic = Annotated[
    str, grammar(r"[A-Za-z0-9_-]{1,64}", "must be 1 to 64 of letters, digits, '_' and '-'")
]
_PLUGIN = re.compile(r"command:/[^\0]+")


def check_plugin(plugin: str) -> str:
    """Accept `command:` and an absolute path, or an https URL."""
    if _PLUGIN.fullmatch(plugin):
        return plugin
    if plugin.startswith("https://"):
        return _check_url(plugin)
    message = "must be command: and an absolute path, or an https URL"
    raise ValueError(message)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SignalChannel(_Table):
    """Prompts and answers over Signal, by a program that holds an account of its own."""

    driver: SignalDriver = Field(
        default=SignalDriver.SIGNAL_CLI,
        description="`signal-cli`: its daemon's unix socket. `rest`: signal-cli-rest-api.",
    )
    socket: HostPath | None = Field(
        default=None, description="The daemon's socket, for driver `signal-cli`."
    )
    url: OutboundUrl | None = Field(
        default=None, description="The service's address, for driver `rest`."
    )
    account: PhoneNumber = Field(description="The account that prompts come from.")
    user: UnixUser = Field(
        default="signal-cli",
        description="The unix user whose process answers on `socket`, as the kernel says; root and "
        "the agent's own user count too. Nobody else is told or believed anything.",
    )
    trusts_local_users: bool = Field(
        default=False,
        description="For a `url` of http: every local user who takes that port speaks for every "
        "approver. Say true only where none of them would.",
    )
    ca_file: HostPath | None = Field(
        default=None,
        description="For a `url` of https: authorities to believe instead of the system's, PEM.",
    )
    client_certificate: HostPath | None = Field(
        default=None, description="For a `url` of https: what the agent shows there, PEM."
    )
    client_key_file: HostPath | None = Field(
        default=None, description="The private key of `client_certificate`, PEM."
    )

    @model_validator(mode="after")
    def _proven(self) -> Self:
        """Refuse a service that anybody on this host could be, or speak to."""
        shown = (self.client_certificate, self.client_key_file)
        is_secure = self.url is not None and self.url.startswith("https:")
        if not is_secure and any((*shown, self.ca_file)):
            message = "ca_file, client_certificate and client_key_file go with a url of https"
            raise ValueError(message)
        if is_secure and not all(shown):
            message = (
                "a url of https needs client_certificate and client_key_file: without them the "
                "service does whatever anybody on its host asks"
            )
            raise ValueError(message)
        if self.url is not None and not is_secure and not self.trusts_local_users:
            message = (
                "any local user could answer on a port: use driver signal-cli, or https with"
                " client_certificate, or set trusts_local_users = true where nobody would"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        """Hold the keys to the driver."""
        wants_socket = self.driver is SignalDriver.SIGNAL_CLI
        if wants_socket and (self.socket is None or self.url is not None):
            message = "driver signal-cli takes socket, and no url"
            raise ValueError(message)
        if not wants_socket and (self.url is None or self.socket is not None):
            message = "driver rest takes url, and no socket"
            raise ValueError(message)
        return self


class WebhookChannel(_Table):
    """CloudEvents to one receiver, signed as Standard Webhooks."""

    url: OutboundUrl = Field(description="Where they are posted. https, or http to loopback.")
    secret_file: HostPath = Field(description="The secret that they are signed with.")
    previous_secret_file: HostPath | None = Field(
        default=None, description="The secret before it, signed with too while receivers change."
    )
    ca_file: HostPath | None = Field(
        default=None, description="Authorities to believe instead of the system's, PEM."
    )


class NtfyChannel(_Table):
    """Prompts to a topic a person, and denials back over a private topic. ntfy cannot approve."""

    url: OutboundUrl = Field(description="The server. Use one of your own, with access control.")
    token_file: HostPath | None = Field(
        default=None, description="The agent's access token: writes topics, reads `reply_topic`."
    )
    reply_topic: Topic | None = Field(
        default=None,
        description="The private topic that denials come back on. Left out: no deny button.",
    )
    reply_token_file: HostPath | None = Field(
        default=None,
        description="A token that may only write to `reply_topic`. It is part of the button: "
        "every subscriber of a topic sees it.",
    )
    review_url: OutboundUrl | None = Field(
        default=None,
        description="Where a person looks at a request: its id is appended. Left out: no button.",
    )
    ca_file: HostPath | None = Field(
        default=None, description="Authorities to believe instead of the system's, PEM."
    )

    @model_validator(mode="after")
    def _reply(self) -> Self:
        """Refuse a reply token that nothing would use."""
        if self.reply_token_file is not None and self.reply_topic is None:
            message = "reply_token_file has no meaning without reply_topic"
            raise ValueError(message)
        return self


class AppriseChannel(_Table):
    """Notices over any service that Apprise knows. Nothing comes back."""

    urls_file: HostPath = Field(
        description="Apprise URLs, one a line, `#` before a remark. They hold credentials."
    )


class Channels(_Table):
    """The ways to reach people. None: approvers look into the queue by themselves."""

    signal: SignalChannel | None = Field(default=None, description=SignalChannel.__doc__)
    webhook: WebhookChannel | None = Field(default=None, description=WebhookChannel.__doc__)
    ntfy: NtfyChannel | None = Field(default=None, description=NtfyChannel.__doc__)
    apprise: AppriseChannel | None = Field(default=None, description=AppriseChannel.__doc__)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of those that are configured."""
        return tuple(name.value for name in ChannelName if getattr(self, name.value) is not None)


class Approver(_Table):
    """A person, and how they are reached."""

    owner: Owner = Field(description="Who it is, as in `owner` of identities; case aside.")
    roles: Annotated[tuple[Literal["approver", "admin"], ...], NotEmpty] = Field(
        default=("approver",),
        description="What answers over these channels count for. It lends no certificate a role.",
    )
    signal: Aci | None = Field(
        default=None,
        description="Their ACI. Left out: as enrolled by `host-agent approver enrol`.",
    )
    ntfy_topic: Topic | None = Field(default=None, description="Their topic, a long random name.")
    channels: Annotated[tuple[ChannelName, ...], NotEmpty] = Field(
        description="How they are reached, in this order: the next one after `escalate_seconds`."
    )

    @property
    def acts_for(self) -> str:
        """Return the owner, case-folded."""
        return self.owner.casefold()


class Bridge(_Table):
    """A program that relays people's answers, with a certificate of its own."""

    cn: CommonName = Field(description="Its common name: an identity with the role `bridge`.")
    secret_file: HostPath = Field(description="The secret that it signs with.")
    previous_secret_file: HostPath | None = Field(
        default=None, description="The secret before it, taken too while the bridge changes."
    )
    approvers: Mapping[
        Annotated[str, grammar(r"[!-~]{1,128}", "must be visible ASCII, at most 128")], Owner
    ] = Field(description="Its users' ids, each with the owner who it is.", min_length=1)
