"""What a bridge relays of Signal (POST /webhook/signal), the older way in for its answers. Pure."""

from host_agent.config import Channels
from host_agent.config.channels.signal import SignalSection
from host_agent.errors import ASK_A_PERSON, InvalidParameterError
from host_agent.notify.channel import ChannelReply
from host_agent.notify.signal.envelope import Params, read_envelope


def read_relayed(channels: Channels, params: Params) -> ChannelReply | None:
    """Return what one person sent to the account, or None where it is nothing to act on.

    Raises:
        InvalidParameterError: no account of Signal is configured here.
    """
    section = channels.section(SignalSection)
    if section is None:
        message = "No account of Signal is configured here."
        raise InvalidParameterError(message, recovery=ASK_A_PERSON)
    return read_envelope(params, account=section.account)
