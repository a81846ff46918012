"""The registry of channels, and the table `[channels]` that has a section for each."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator, Field, WithJsonSchema, create_model

from host_agent.config.channels.apprise import AppriseSection
from host_agent.config.channels.declaration import ChannelSection, ChannelTable
from host_agent.config.channels.matrix import MatrixSection
from host_agent.config.channels.ntfy import NtfySection
from host_agent.config.channels.signal import SignalSection
from host_agent.config.channels.webhook import WebhookSection

CHANNELS: Mapping[str, type[ChannelSection]] = {
    declared.name: declared
    for declared in (SignalSection, WebhookSection, NtfySection, AppriseSection, MatrixSection)
}
"""Every channel by its name. What asks for channels elsewhere asks here."""
(RELAYED,) = (name for name, declared in CHANNELS.items() if declared.is_relayed)
"""The one channel whose answers come through bridges; a second one has no place to be named."""

_Section = TypeVar("_Section", bound=ChannelSection)


def _check_name(name: str) -> str:
    if name not in CHANNELS:
        *most, last = (f"'{known}'" for known in CHANNELS)
        message = f"must be {', '.join(most)} or {last}"
        raise ValueError(message)
    return name


ChannelName = Annotated[
    str,
    AfterValidator(_check_name),
    WithJsonSchema({"type": "string", "enum": list(CHANNELS)}),
]


class ConfiguredChannels(ChannelTable):
    """The ways to reach people. None: approvers look into the queue by themselves."""

    @property
    def sections(self) -> Iterator[ChannelSection]:
        """Yield the sections that are configured, in the registry's order."""
        for name in CHANNELS:
            section = getattr(self, name)
            if isinstance(section, ChannelSection):
                yield section

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of those that are configured."""
        return tuple(section.name for section in self.sections)

    def section(self, kind: type[_Section]) -> _Section | None:
        return next((found for found in self.sections if isinstance(found, kind)), None)


if TYPE_CHECKING:
    Channels = ConfiguredChannels
else:
    Channels = create_model(
        "Channels",
        __base__=ConfiguredChannels,
        __doc__=ConfiguredChannels.__doc__,
        **{
            name: (declared | None, Field(default=None, description=declared.__doc__))
            for name, declared in CHANNELS.items()
        },
    )
