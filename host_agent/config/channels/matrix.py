"""Matrix: prompts with codes in a room with each approver, and answers from its members."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from host_agent.config.channels.declaration import (
    Address,
    ChannelSection,
    OutboundUrl,
    PublicFile,
    SecretFile,
)
from host_agent.config.values import NotEmpty
from host_agent.operations.section import grammar

_DOMAIN = r"(?:[A-Za-z0-9.-]{1,200}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
UserId = Annotated[
    str,
    grammar(
        rf"@[a-z0-9._=/+-]{{1,200}}:{_DOMAIN}",
        "must be a user id in lower case, as @alice:example.org",
    ),
]
Domain = Annotated[
    str, grammar(_DOMAIN, "must be the name of a homeserver, as it stands in its users' ids")
]


def domain_of(user: str) -> str:
    """Return the homeserver that a user id is of."""
    return user.partition(":")[2]


class MatrixSection(ChannelSection):
    """Prompts and answers over Matrix, in rooms that are not end-to-end encrypted."""

    name: ClassVar = "matrix"
    remedy: ClassVar = "docs/how-to/approve-over-matrix.md"
    address: ClassVar = Address(
        key="matrix",
        grammar=UserId,
        description="Their user id. Left out: as enrolled by `host-agent approver enrol`.",
    )
    proves_sender: ClassVar = True
    needs_enrolment: ClassVar = True
    carries_codes: ClassVar = True

    url: OutboundUrl = Field(
        description="The homeserver's client-server API, without `/_matrix`. The server reads every"
        " prompt and every code: use one of your own."
    )
    user: UserId = Field(description="The account that prompts come from.")
    token_file: SecretFile = Field(description="An access token of this account.")
    domains: Annotated[tuple[Domain, ...], NotEmpty] = Field(
        description="The homeservers whose users may answer. Each of them says who a message is"
        " from, so whoever runs it can speak for its users."
    )
    trusts_local_users: bool = Field(
        default=False,
        description="For a `url` of http: every local user who takes that port speaks for every "
        "approver. Say true only where none of them would.",
    )
    ca_file: PublicFile | None = Field(
        default=None, description="Authorities to believe instead of the system's, PEM."
    )

    @model_validator(mode="after")
    def _proven(self) -> Self:
        """Refuse a homeserver that anybody on this host could be."""
        if self.url.startswith("http:") and not self.trusts_local_users:
            message = (
                "any local user could answer on a port: use https, or set trusts_local_users = true"
                " where nobody would"
            )
            raise ValueError(message)
        return self

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Yield what is unwise about the section: key and sentence."""
        if self.trusts_local_users:
            sentence = (
                "whoever on this host takes the port of channels.matrix.url speaks for every"
                " approver"
            )
            yield "trusts_local_users", sentence

    def address_warnings(self, address: str) -> Iterator[str]:
        """Yield what is unwise about an approver's user id."""
        if domain_of(address) not in self.domains:
            yield "is of a homeserver that is not in channels.matrix.domains: nobody is told there"
