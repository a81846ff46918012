"""Signal: prompts with a code to one person each, and what they answer.

A driver speaks to the program that holds the account; what is the same for both is here. A sender
is who Signal proves: the ACI. Numbers can be absent, and are given to somebody else in time.
"""

import asyncio
import logging
import random
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from host_agent.approvals.channels.port import ChannelError, Delivery, Hear, Heard, Message
from host_agent.approvals.notification import Failure, Purpose

_log = logging.getLogger("host_agent.approvals.signal")

NAME = "signal"
MAX_CHARACTERS = 2_000
"""Longer texts become an attachment on some phones; a prompt has to be read where it is shown."""
MAX_HEARD_CHARACTERS = 1_000
"""Of a longer message, only the beginning is read."""
MAX_QUEUED = 200
"""Messages that wait to be read. When there are more, the oldest goes: its sender repeats it."""
MAX_REMEMBERED = 2_000
"""References by which a message that comes twice is known."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0

Params: TypeAlias = Mapping[str, object]
"""The `params` of one `receive` notification: `envelope` and `account`."""

_ACI = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OTHERS = (
    "syncMessage",
    "editMessage",
    "storyMessage",
    "receiptMessage",
    "typingMessage",
    "callMessage",
)
"""Envelopes that are no message from a person to us. The first is our own account's devices."""
_LATEST = 253_402_300_799_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The message that another one answers: its timestamp, who sent it, and how it began."""

    timestamp: str
    author: str
    text: str


class Driver(Protocol):
    """A program that holds the account."""

    @property
    def account(self) -> str:
        """The account's number."""
        ...

    async def send(self, aci: str, text: str, *, quote: Quote | None = None) -> str:
        """Send to one person and return the message's timestamp.

        Raises:
            ChannelError: it was not taken.
        """
        ...

    def receive(self) -> AsyncIterator[Params]:
        """Yield what arrives.

        Raises:
            ChannelError: the connection is lost, or cannot be made.
        """
        ...

    async def about(self) -> str:
        """Return a clause that says which program answers.

        Raises:
            ChannelError: none does.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        ...


class SignalChannel:
    """The channel `signal` over one driver."""

    name = NAME
    purpose = Purpose.CONFIRM
    max_characters = MAX_CHARACTERS

    def __init__(
        self,
        driver: Driver,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._driver = driver
        self._pause = pause
        self._jitter = jitter
        self._queue: asyncio.Queue[Heard] = asyncio.Queue(MAX_QUEUED)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def send(self, message: Message) -> Delivery:
        """Send one text; its timestamp is the reference.

        Raises:
            ChannelError: it was not taken.
        """
        if message.address is None or not _ACI.fullmatch(message.address):
            error = "This approver has no address on Signal."
            raise ChannelError(Failure.NOT_ENROLLED, error, is_final=True)
        quote = None
        if message.reply_to is not None:
            quote = Quote(
                timestamp=message.reply_to,
                author=self._driver.account,
                text=message.prompt.title,
            )
        timestamp = await self._driver.send(message.address, message.prompt.text, quote=quote)
        return Delivery(reference=timestamp)

    async def probe(self) -> str:
        """Return which program answers.

        Raises:
            ChannelError: none does.
        """
        return await self._driver.about()

    async def close(self) -> None:
        """Let go of the driver's connections."""
        await self._driver.close()

    # -- what is heard --------------------------------------------------------------------------

    async def listen(self, hear: Hear) -> None:
        """Bring what people send, until cancelled.

        Receiving does nothing but put into a queue: the program on the other side drops what is
        not taken at once.
        """
        answering = asyncio.create_task(self._answer_forever(hear), name="signal answers")
        try:
            await self._receive_forever()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _receive_forever(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async for params in self._driver.receive():
                    pause = FIRST_PAUSE_SECONDS
                    self._take(params)
            except ChannelError as error:
                _log.warning("Signal is not heard (%s); trying again", error)
            except Exception as error:  # noqa: BLE001 - or nobody would be heard any more
                _log.error("Signal is not heard: a defect, %s", type(error).__name__)
            await self._pause(pause * (0.5 + self._jitter() / 2))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _take(self, params: Params) -> None:
        heard = read_envelope(params, account=self._driver.account)
        if heard is None or heard.reference in self._known:
            return
        self._known[heard.reference] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        if self._queue.full():
            self._queue.get_nowait()
            _log.warning(
                "more arrives over Signal than can be read; the oldest message was dropped"
            )
        self._queue.put_nowait(heard)

    async def _answer_forever(self, hear: Hear) -> None:
        while True:
            heard = await self._queue.get()
            answer = await hear(heard)
            if answer is None:
                continue
            quote = Quote(
                timestamp=heard.reference.rpartition(":")[2], author=heard.address, text=""
            )
            try:
                await self._driver.send(heard.address, answer, quote=quote)
            except ChannelError as error:
                _log.warning("an answer over Signal was not sent: %s", error)
            except Exception as error:  # noqa: BLE001 - or nobody would be answered any more
                _log.error("an answer over Signal was not sent: a defect, %s", type(error).__name__)


def read_envelope(params: Params, *, account: str) -> Heard | None:
    """Return what one person sent to `account`, or None where it is nothing to act on.

    Pure. Only messages straight to the account count: nothing of groups, of its own devices, no
    edits, stories or receipts. A quote or a reaction counts only where it is of our own message.
    """
    envelope = params.get("envelope")
    if params.get("account") not in {None, account} or not isinstance(envelope, Mapping):
        return None
    if any(envelope.get(kind) is not None for kind in _OTHERS):
        return None
    aci, data = envelope.get("sourceUuid"), envelope.get("dataMessage")
    sent = _instant(envelope.get("timestamp"))
    if not isinstance(aci, str) or not isinstance(data, Mapping) or sent is None:
        return None
    aci = aci.lower()
    if not _ACI.fullmatch(aci) or envelope.get("sourceNumber") == account:
        return None
    if data.get("groupInfo") is not None or data.get("groupV2") is not None:
        return None
    stamp, sent_at = sent
    if data.get("reaction") is not None:
        return _reaction(data["reaction"], account, aci, stamp, sent_at)
    text = data.get("message")
    if not isinstance(text, str) or not text.strip():
        return None
    return Heard(
        channel=NAME,
        address=aci,
        text=text[:MAX_HEARD_CHARACTERS],
        sent_at=sent_at,
        reference=f"{aci}:{stamp}",
        quotes=_quoted(data.get("quote"), account),
    )


def _reaction(
    reaction: object, account: str, aci: str, stamp: int, sent_at: datetime
) -> Heard | None:
    if not isinstance(reaction, Mapping) or reaction.get("isRemove") is not False:
        return None
    emoji, target = reaction.get("emoji"), _instant(reaction.get("targetSentTimestamp"))
    is_ours = account in {reaction.get("targetAuthorNumber"), reaction.get("targetAuthor")}
    if not is_ours or target is None or not isinstance(emoji, str) or not emoji:
        return None
    return Heard(
        channel=NAME,
        address=aci,
        text="",
        sent_at=sent_at,
        reference=f"{aci}:{stamp}",
        quotes=str(target[0]),
        reaction=emoji[:16],
    )


def _quoted(quote: object, account: str) -> str | None:
    if not isinstance(quote, Mapping):
        return None
    quoted = _instant(quote.get("id"))
    is_ours = account in {quote.get("authorNumber"), quote.get("author")}
    return str(quoted[0]) if is_ours and quoted is not None else None


def _instant(value: object) -> tuple[int, datetime] | None:
    """Return a timestamp of Signal, milliseconds since 1970, as number and instant."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LATEST:
        return None
    return value, datetime.fromtimestamp(value / 1000, UTC)


# -- how sendings fail ----------------------------------------------------------------------------

_TYPES: Mapping[str, tuple[Failure, bool]] = {
    "NETWORK_FAILURE": (Failure.UNREACHABLE, False),
    "UNREGISTERED_FAILURE": (Failure.REFUSED, True),
    "IDENTITY_FAILURE": (Failure.IDENTITY_CHANGED, True),
    "RATE_LIMIT_FAILURE": (Failure.RATE_LIMITED, False),
    "PROOF_REQUIRED_FAILURE": (Failure.RATE_LIMITED, False),
    "INVALID_PRE_KEY_FAILURE": (Failure.REFUSED, False),
}
"""What signal-cli calls a recipient's result: what it is here, and whether a repeat is useless."""
MAX_RETRY_AFTER_SECONDS = 86_400.0


def refusal(kind: object, *, retry_after: object = None) -> ChannelError:
    """Return the error for a recipient's result of this type."""
    failure, is_final = _TYPES.get(str(kind), (Failure.REFUSED, False))
    seconds = None
    if isinstance(retry_after, int | float) and not isinstance(retry_after, bool):
        seconds = min(max(float(retry_after), 0.0), MAX_RETRY_AFTER_SECONDS)
    sentence = {
        Failure.IDENTITY_CHANGED: "Another key speaks for this approver's address now.",
        Failure.RATE_LIMITED: "Signal asks for fewer messages, or for a captcha.",
        Failure.UNREACHABLE: "Signal's servers were not reached.",
    }.get(failure, "Signal did not take the message.")
    return ChannelError(failure, sentence, retry_after_seconds=seconds, is_final=is_final)


def require_success(results: object) -> None:
    """Raise for the first recipient's result that is no success.

    Raises:
        ChannelError: as the result says.
    """
    for result in results if isinstance(results, list) else ():
        if isinstance(result, Mapping) and result.get("type") != "SUCCESS":
            raise refusal(result.get("type"), retry_after=result.get("retryAfterSeconds"))
