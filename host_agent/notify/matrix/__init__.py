"""Matrix, over the client-server API of a homeserver."""

from urllib.parse import urlsplit

from host_agent.config.channels.matrix import MatrixSection
from host_agent.notify.channel import Surroundings
from host_agent.notify.matrix.channel import MatrixChannel
from host_agent.notify.matrix.homeserver import MAX_ANSWER_BYTES, Homeserver
from host_agent.notify.outbound import Outbound


def make_channel(section: MatrixSection, surroundings: Surroundings) -> MatrixChannel:
    """Return the channel of a section; nothing is read or connected.

    Raises:
        ValueError: its URL may not be sent to.
    """
    outbound = Outbound(
        section.url,
        ca_file=section.ca_file,
        max_answer_bytes=MAX_ANSWER_BYTES,
        now=surroundings.now,
    )
    homeserver = Homeserver(
        outbound,
        base=urlsplit(section.url).path.rstrip("/"),
        user=section.user,
        token_file=section.token_file,
    )
    return MatrixChannel(homeserver, domains=section.domains, state=surroundings.state)
