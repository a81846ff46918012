"""Apprise: notices over many services, and nothing back."""

from typing import ClassVar

from pydantic import Field

from host_agent.config.channels.declaration import ChannelSection, SecretFile


class AppriseSection(ChannelSection):
    """Notices over any service that Apprise knows. Nothing comes back."""

    name: ClassVar = "apprise"
    remedy: ClassVar = "look at the lines of its urls_file"

    urls_file: SecretFile = Field(
        description="Apprise URLs, one a line, `#` before a remark. They hold credentials."
    )
