"""The webhook: signed events to one receiver, whose people answer through a bridge."""

from typing import ClassVar

from pydantic import Field

from host_agent.config.channels.declaration import (
    ChannelSection,
    OutboundUrl,
    PublicFile,
    SecretFile,
)


class WebhookSection(ChannelSection):
    """CloudEvents to one receiver, signed as Standard Webhooks."""

    name: ClassVar = "webhook"
    remedy: ClassVar = "docs/how-to/approve-over-webhook.md"
    is_relayed: ClassVar = True

    url: OutboundUrl = Field(description="Where they are posted. https, or http to loopback.")
    secret_file: SecretFile = Field(description="The secret that they are signed with.")
    previous_secret_file: SecretFile | None = Field(
        default=None, description="The secret before it, signed with too while receivers change."
    )
    ca_file: PublicFile | None = Field(
        default=None, description="Authorities to believe instead of the system's, PEM."
    )
