"""ntfy: prompts to a topic a person, and a button that can only deny."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from host_agent.config.channels.declaration import (
    Address,
    ChannelSection,
    OutboundUrl,
    PublicFile,
    SecretFile,
)
from host_agent.operations.section import grammar

PUBLIC_SERVER = "ntfy.sh"
MIN_TOPIC_CHARACTERS = 16
"""Shorter topics are warned of: who guesses one reads along."""
Topic = Annotated[
    str, grammar(r"[A-Za-z0-9_-]{1,64}", "must be 1 to 64 of letters, digits, '_' and '-'")
]


class NtfySection(ChannelSection):
    """Prompts to a topic a person, and denials back over a private topic. ntfy cannot approve."""

    name: ClassVar = "ntfy"
    remedy: ClassVar = "docs/how-to/approve-over-ntfy.md"
    address: ClassVar = Address(
        key="ntfy_topic", grammar=Topic, description="Their topic, a long random name."
    )
    has_buttons: ClassVar = True

    url: OutboundUrl = Field(description="The server. Use one of your own, with access control.")
    token_file: SecretFile | None = Field(
        default=None, description="The agent's access token: writes topics, reads `reply_topic`."
    )
    reply_topic: Topic | None = Field(
        default=None,
        description="The private topic that denials come back on. Left out: no deny button.",
    )
    reply_token_file: SecretFile | None = Field(
        default=None,
        description="A token that may only write to `reply_topic`. It is part of the button: "
        "every subscriber of a topic sees it.",
    )
    review_url: OutboundUrl | None = Field(
        default=None,
        description="Where a person looks at a request: its id is appended. Left out: no button.",
    )
    ca_file: PublicFile | None = Field(
        default=None, description="Authorities to believe instead of the system's, PEM."
    )

    @model_validator(mode="after")
    def _reply(self) -> Self:
        """Refuse a reply token that nothing would use."""
        if self.reply_token_file is not None and self.reply_topic is None:
            message = "reply_token_file has no meaning without reply_topic"
            raise ValueError(message)
        return self

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Yield what is unwise about the section: key and sentence."""
        if urlsplit(self.url).hostname == PUBLIC_SERVER:
            sentence = (
                "a public server: whoever guesses a topic reads what is asked; use a server of your"
                " own with access control"
            )
            yield "url", sentence
        if self.token_file is None:
            yield "token_file", "none, so anybody may read and write the topics"

    def address_warnings(self, address: str) -> Iterator[str]:
        """Yield what is unwise about an approver's topic."""
        if len(address) < MIN_TOPIC_CHARACTERS:
            yield "is short enough to be guessed; take a random one"
