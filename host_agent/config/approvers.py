"""The people who approve, `[[approvers]]`, and the programs that relay them, `[[bridges]]`."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, create_model

from host_agent.config.channels.declaration import ChannelTable, SecretFile, check_url
from host_agent.config.channels.registry import CHANNELS, ChannelName
from host_agent.config.values import CommonName, NotEmpty, Owner
from host_agent.operations.section import grammar

_PLUGIN = re.compile(r"command:/[^\0]+")


def check_plugin(plugin: str) -> str:
    """Accept `command:` and an absolute path, or an https URL."""
    if _PLUGIN.fullmatch(plugin):
        return plugin
    if plugin.startswith("https://"):
        return check_url(plugin)
    message = "must be command: and an absolute path, or an https URL"
    raise ValueError(message)


class ReachedApprover(ChannelTable):
    """A person, and how they are reached."""

    owner: Owner = Field(description="Who it is, as in `owner` of identities; case aside.")
    roles: Annotated[tuple[Literal["approver", "admin"], ...], NotEmpty] = Field(
        default=("approver",),
        description="What answers over these channels count for. It lends no certificate a role.",
    )
    channels: Annotated[tuple[ChannelName, ...], NotEmpty] = Field(
        description="How they are reached, in this order: the next one after `escalate_seconds`."
    )

    @property
    def acts_for(self) -> str:
        """Return the owner, case-folded."""
        return self.owner.casefold()

    def address(self, channel: str) -> str | None:
        """Return the address that is written here for a channel; None: none is."""
        declared = CHANNELS[channel].address
        found = None if declared is None else getattr(self, declared.key)
        return found if isinstance(found, str) else None


if TYPE_CHECKING:
    Approver = ReachedApprover
else:
    Approver = create_model(
        "Approver",
        __base__=ReachedApprover,
        __doc__=ReachedApprover.__doc__,
        **{
            declared.address.key: (
                declared.address.grammar | None,
                Field(default=None, description=declared.address.description),
            )
            for declared in CHANNELS.values()
            if declared.address is not None
        },
    )


class Bridge(ChannelTable):
    """A program that relays people's answers, with a certificate of its own."""

    cn: CommonName = Field(description="Its common name: an identity with the role `bridge`.")
    secret_file: SecretFile = Field(description="The secret that it signs with.")
    previous_secret_file: SecretFile | None = Field(
        default=None, description="The secret before it, taken too while the bridge changes."
    )
    approvers: Mapping[
        Annotated[str, grammar(r"[!-~]{1,128}", "must be visible ASCII, at most 128")], Owner
    ] = Field(description="Its users' ids, each with the owner who it is.", min_length=1)
