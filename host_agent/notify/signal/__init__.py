"""Signal, over one of two programs that hold the account."""

from typing import TYPE_CHECKING

from host_agent.config.channels.signal import SignalSection
from host_agent.notify.channel import Surroundings

if TYPE_CHECKING:
    from host_agent.notify.signal.channel import Driver, SignalChannel


def make_channel(section: SignalSection, surroundings: Surroundings) -> "SignalChannel":
    """Return the channel of a section; nothing is read or connected.

    Raises:
        ValueError: its URL may not be sent to.
    """
    from host_agent.notify.signal.channel import SignalChannel

    return SignalChannel(_driver(section, surroundings))


def _driver(section: SignalSection, surroundings: Surroundings) -> "Driver":
    if section.socket is not None:
        from host_agent.notify.signal.signal_cli import SignalCli

        return SignalCli(section.socket, section.account, user=section.user)
    from host_agent.notify.outbound import Outbound
    from host_agent.notify.signal.signal_rest import SignalRest

    shown = (section.client_certificate, section.client_key_file)
    outbound = Outbound(
        section.url or "",
        ca_file=section.ca_file,
        pair=None if shown[0] is None or shown[1] is None else (shown[0], shown[1]),
        max_answer_bytes=1_048_576,
        now=surroundings.now,
    )
    return SignalRest(outbound, section.account)
