"""Whether the channels that are configured can be used, and who is reached over them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

from host_agent.config import CHANNELS, Config
from host_agent.errors import ConfigurationError
from host_agent.host.doctor.values import Check, ok, problem, warning
from host_agent.notify.channel import Channel, ChannelError

_SECONDS = 20.0


def channel_checks(
    config: Config, make: Callable[[Config], Mapping[str, Channel]]
) -> Iterator[Check]:
    """Yield whether each configured channel answers. Nothing is sent to a person."""
    if not config.channels.names:
        return
    try:
        channels = make(config)
    except ConfigurationError as error:
        for fault in error.faults:
            yield problem("channels", f"{fault}.", "host-agent config check shows the same")
        return
    for name, channel in channels.items():
        yield _probed(name, channel)
    reached = {name for entry in config.approvers for name in entry.channels}
    for name in config.channels.names:
        if name not in reached:
            sentence = "No approver lists it, so nobody is told over it."
            yield warning(f"channel {name}", sentence, "name it in [[approvers]] channels")


def _probed(name: str, channel: Channel) -> Check:
    async def probe() -> str:
        try:
            async with asyncio.timeout(_SECONDS):
                return await channel.probe()
        finally:
            await channel.close()

    about, remedy = f"channel {name}", CHANNELS[name].remedy
    try:
        said = asyncio.run(probe())
    except TimeoutError:
        return problem(about, "It does not answer in time.", remedy)
    except ChannelError as error:
        return problem(about, f"{str(error).rstrip('.')}.", remedy)
    return ok(about, f"{said[:1].upper()}{said[1:].rstrip('.')}.")
