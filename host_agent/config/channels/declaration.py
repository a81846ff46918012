"""What every channel declares: the base of its section, and the grammars that sections share."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from host_agent.config.values import HostPath, is_loopback


class FileMark(Enum):
    """What a key that names a file says of it."""

    SECRET = auto()
    """It holds a secret: nobody but root and the agent may read it."""
    PUBLIC = auto()
    """Anybody may read it."""


SecretFile = Annotated[HostPath, FileMark.SECRET]
PublicFile = Annotated[HostPath, FileMark.PUBLIC]


class ChannelTable(BaseModel):
    """A table about how people are reached: closed, strict and frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True
    )

    @classmethod
    def files(cls, mark: FileMark) -> tuple[str, ...]:
        """Return the keys that name files with this mark."""
        return tuple(
            key
            for key, field in cls.model_fields.items()
            if mark in field.metadata
            or any(mark in getattr(part, "__metadata__", ()) for part in get_args(field.annotation))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How `[[approvers]]` writes where a person is reached: the key, its type and its words."""

    key: str
    grammar: Any
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSocket:
    """A unix socket that a channel goes by: its key, where it is, and whose process answers."""

    key: str
    path: Path
    user: str


class ChannelSection(ChannelTable):
    """The section of one channel. Its class members are the capabilities.

    A subclass says `name` and `remedy`, and those of the others that differ.
    """

    name: ClassVar[str]
    """In the configuration, in the audit log and in metrics; the module in `host_agent.notify`."""
    remedy: ClassVar[str]
    """Where to look when it does not work: a page, or a few words."""
    address: ClassVar[Address | None] = None
    """None: it reaches whoever lists it, without an address of their own."""
    proves_sender: ClassVar[bool] = False
    """An answer comes with an address that the channel vouches for."""
    needs_enrolment: ClassVar[bool] = False
    """A person's address may be left out and proven by a one-time code instead."""
    carries_codes: ClassVar[bool] = False
    """Its prompts have a code that approves: only who is asked reads them."""
    has_buttons: ClassVar[bool] = False
    """Its prompts have a button that can only deny; the button's token alone says who pressed."""
    is_relayed: ClassVar[bool] = False
    """Its answers come through bridges, which vouch for their users."""

    @property
    def sockets(self) -> tuple[ChannelSocket, ...]:
        """The unix sockets whose other end is believed."""
        return ()

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Yield what is unwise about the section: key and sentence."""
        yield from ()

    def address_warnings(self, address: str) -> Iterator[str]:  # noqa: ARG002 - most have none
        """Yield what is unwise about an approver's address."""
        yield from ()


def check_url(url: str) -> str:
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


OutboundUrl = Annotated[str, Field(max_length=2000), AfterValidator(check_url)]
