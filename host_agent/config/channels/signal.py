"""Signal: prompts with codes, and answers from senders that Signal proves."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from host_agent.config.channels.declaration import (
    Address,
    ChannelSection,
    ChannelSocket,
    OutboundUrl,
    PublicFile,
    SecretFile,
)
from host_agent.config.values import HostPath, UnixUser
from host_agent.operations.section import grammar

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


class SignalDriver(StrEnum):
    """Which program speaks Signal."""

    SIGNAL_CLI = "signal-cli"
    REST = "rest"


class SignalSection(ChannelSection):
    """Prompts and answers over Signal, by a program that holds an account of its own."""

    name: ClassVar = "signal"
    remedy: ClassVar = "docs/how-to/approve-over-signal.md"
    address: ClassVar = Address(
        key="signal",
        grammar=Aci,
        description="Their ACI. Left out: as enrolled by `host-agent approver enrol`.",
    )
    proves_sender: ClassVar = True
    needs_enrolment: ClassVar = True
    carries_codes: ClassVar = True

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
    ca_file: PublicFile | None = Field(
        default=None,
        description="For a `url` of https: authorities to believe instead of the system's, PEM.",
    )
    client_certificate: PublicFile | None = Field(
        default=None, description="For a `url` of https: what the agent shows there, PEM."
    )
    client_key_file: SecretFile | None = Field(
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

    @property
    def sockets(self) -> tuple[ChannelSocket, ...]:
        """The daemon's."""
        if self.socket is None:
            return ()
        return (ChannelSocket(key="socket", path=self.socket, user=self.user),)

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Yield what is unwise about the section: key and sentence."""
        if self.trusts_local_users:
            sentence = (
                "whoever on this host takes the port of channels.signal.url speaks for every"
                " approver"
            )
            yield "trusts_local_users", sentence
