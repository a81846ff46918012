"""A channel as the outbox and the pipeline see it, and the values that cross it.

A channel sends a message that is made for one owner, and brings what people answer. It proves who
answered; it decides nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeAlias

from host_agent.notify.prompts import Prompt
from host_agent.requests.facts import RequestFacts
from host_agent.requests.model import Request
from host_agent.requests.notification import Failure, Kind, Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The number of the newest audit record, and its hash with its `sha256:`.

    Kept outside the host it proves later that the log was not cut.
    """

    sequence: int
    head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One notification as it goes out: text and code made for this sending.

    `id` is the notification's, the same at each try. `code` is in `prompt.answer` already where the
    channel shows it; None where the channel takes no code (`Channel.purpose`). `reply_to` is the
    reference of the prompt that an outcome answers; `audit` the newest audit record. Nothing of
    this is logged.
    """

    id: str
    kind: Kind
    owner: str
    address: str | None
    prompt: Prompt
    facts: RequestFacts
    audit: AuditHead
    code: str | None = None
    reply_to: str | None = None

    @property
    def request(self) -> Request:
        return self.facts.request


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """It was taken by the other side. `reference` is the channel's own name for the message.

    `answer_reference` is that of the second message, where there was one.
    """

    reference: str | None = None
    answer_reference: str | None = None


class ChannelError(Exception):
    """A sending that failed. Its text is a sentence of ours, safe to log, without code or secret.

    `retry_after_seconds` is what the other side asked for. `is_final`: another try cannot help.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        is_final: bool = False,
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.retry_after_seconds = retry_after_seconds
        self.is_final = is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelReply:
    """What one person sent, as the channel proved it.

    `address` is the proven sender (Signal: the ACI). `sent_at` is the sender's own clock.
    `reference` is the channel's name for this message: the same one twice is one message.
    `quotes` is the reference of our message that it answers. `reaction` is the emoji of a reaction
    to that message; its `text` is empty then.
    """

    channel: str
    address: str
    text: str
    sent_at: datetime
    reference: str
    quotes: str | None = None
    reaction: str | None = None


Hear: TypeAlias = Callable[[ChannelReply], Awaitable[str | None]]
"""Takes what was heard and returns what to answer in the same chat, or None for nothing.

It raises nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a channel is made with beside its section: `make_channel(section, surroundings)`.

    `host` is this host's name, as the digest has it; `state` the agent's own directory, for what a
    channel has to know after a restart; `now` the wall clock.
    """

    host: str
    state: Path
    now: Callable[[], datetime]


class Channel(Protocol):
    """One way to reach people. Its capabilities are declared in `config.channels`."""

    @property
    def name(self) -> str:
        """The channel's name, as declared."""
        ...

    @property
    def purpose(self) -> Purpose | None:
        """What a code in its prompts is for: to approve or deny, or only to deny; None: no code."""
        ...

    @property
    def max_characters(self) -> int:
        """The longest text that it carries whole."""
        ...

    async def send(self, message: Message) -> Delivery:
        """Hand one message over, in as many pieces as the channel needs, in their order.

        Each within its own deadline of at most 15 seconds. Returns once all of them were taken;
        after an error, all of them are sent again.

        Raises:
            ChannelError: it was not taken.
        """
        ...

    async def listen(self, hear: Hear) -> None:
        """Bring what people answer, until cancelled; reconnect with backoff, never end by itself.

        A channel that brings no answers waits for its cancellation.
        """
        ...

    async def probe(self) -> str:
        """Return a sentence about the other side, for `doctor`: that it answers, and which it is.

        Raises:
            ChannelError: it cannot be used, and why.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        ...
