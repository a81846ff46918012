"""Signal: prompts with a code to one person each, and what they answer.

A driver speaks to the program that holds the account; what is the same for both is here. A sender
is who Signal proves: the ACI. Numbers can be absent, and are given to somebody else in time.
"""

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from host_agent.config.channels.signal import SignalSection
from host_agent.notify.channel import ChannelError, ChannelReply, Delivery, Hear, Message
from host_agent.notify.flood import Complaints, Manners
from host_agent.notify.signal.arrivals import Inbox
from host_agent.notify.signal.envelope import Params, is_aci, read_envelope
from host_agent.requests.notification import Failure, Purpose

_log = logging.getLogger("host_agent.notify.signal")

MAX_CHARACTERS = 2_000
"""Longer texts become an attachment on some phones; a prompt has to be read where it is shown."""
MAX_REMEMBERED = 2_000
"""References by which a message that comes twice is known."""
MAX_ANSWERS = 200
"""Answers that wait to be sent."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
LOST_SECONDS = 30.0
"""After so long without a connection it is said that messages may be lost, where they can be."""
FINISH_SECONDS = 2.0
"""For messages that were taken before listening ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The message that another one answers: its timestamp, who sent it, and how it began."""

    timestamp: str
    author: str
    text: str


class OnOpened(Protocol):
    """Called when a connection is open and messages arrive."""

    def __call__(self, *, keeps: bool) -> None:
        """`keeps`: messages that were sent while nobody listened arrive as well."""
        ...


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

    def receive(self, opened: OnOpened) -> AsyncGenerator[Params, None]:
        """Yield what arrives.

        Raises:
            ChannelError: the connection is lost, or cannot be made.
        """
        ...

    async def about(self) -> str:
        """Return a clause that says which program answers.

        Raises:
            ChannelError: none does, or it cannot do what is needed.
        """
        ...

    async def hang_up(self) -> Sequence[Params]:
        """Receive and send nothing more; return the messages that were not yielded yet."""
        ...

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        ...


def _wall() -> datetime:
    return datetime.now(UTC)


class SignalChannel:
    """The channel `signal` over one driver.

    `lost_since` is when the last outage began in which messages may have been lost, or None.
    """

    name = SignalSection.name
    purpose = Purpose.CONFIRM
    max_characters = MAX_CHARACTERS

    def __init__(
        self,
        driver: Driver,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _wall,
    ) -> None:
        self._driver = driver
        self._pause = pause
        self._jitter = jitter
        self._monotonic = monotonic
        self._now = now
        complaints = Complaints(_log, monotonic)
        self._inbox = Inbox(complaints)
        self._manners = Manners(complaints, monotonic)
        self._answers: asyncio.Queue[tuple[ChannelReply, str]] = asyncio.Queue(MAX_ANSWERS)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._opened_at: float | None = None
        self._away: tuple[float, datetime] | None = None
        self.lost_since: datetime | None = None

    async def send(self, message: Message) -> Delivery:
        """Send a text, and after it what is to be sent back to approve, as a message of its own.

        Their timestamps are the references.

        Raises:
            ChannelError: it was not taken.
        """
        if message.address is None or not is_aci(message.address):
            error = "This approver has no address on Signal."
            raise ChannelError(Failure.NOT_ENROLLED, error, is_final=True)
        quote = None
        if message.reply_to is not None and _is_timestamp(message.reply_to):
            quote = Quote(
                timestamp=message.reply_to,
                author=self._driver.account,
                text=message.prompt.title,
            )
        timestamp = await self._driver.send(message.address, message.prompt.text, quote=quote)
        if message.prompt.answer is None:
            return Delivery(reference=timestamp)
        second = await self._driver.send(message.address, message.prompt.answer)
        return Delivery(reference=timestamp, answer_reference=second)

    async def probe(self) -> str:
        """Return which program answers.

        Raises:
            ChannelError: none does, or it cannot do what is needed.
        """
        return await self._driver.about()

    async def close(self) -> None:
        """Let go of the driver's connections."""
        await self._driver.close()

    # -- what is heard --------------------------------------------------------------------------

    async def listen(self, hear: Hear) -> None:
        """Bring what people send, until cancelled.

        Receiving does nothing but put into a queue: the program on the other side drops what is
        not taken at once. What was taken is read and answered, for a moment, after cancellation.
        """
        workers = [
            asyncio.create_task(self._hear_forever(hear), name="signal hearing"),
            asyncio.create_task(self._answer_forever(), name="signal answers"),
        ]
        try:
            await self._receive_forever()
        finally:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(FINISH_SECONDS):
                        await self._inbox.emptied()
                        await self._answers.join()
                # What the other side has handed over meanwhile is not kept there any more.
                with suppress(TimeoutError):
                    async with asyncio.timeout(FINISH_SECONDS):
                        for params in await self._driver.hang_up():
                            self._take(params)
                        await self._inbox.emptied()
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _receive_forever(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._opened_at = None
            try:
                async with aclosing(self._driver.receive(self._opened)) as arriving:
                    async for params in arriving:
                        pause = FIRST_PAUSE_SECONDS
                        self._take(params)
            except ChannelError as error:
                _log.warning("Signal is not heard (%s); trying again", error)
            except Exception as error:  # noqa: BLE001 - or nobody would be heard any more
                _log.error("Signal is not heard: a defect, %s", type(error).__name__)
            if self._broke():
                pause = FIRST_PAUSE_SECONDS
            await self._pause(pause * (0.5 + self._jitter() / 2))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _opened(self, *, keeps: bool) -> None:
        self._opened_at = self._monotonic()
        away, self._away = self._away, None
        if away is None or keeps or self._opened_at - away[0] < LOST_SECONDS:
            return
        self.lost_since = away[1]
        seconds = int(self._opened_at - away[0])
        _log.warning("Signal was not heard for %d s: what was sent then must be repeated", seconds)

    def _broke(self) -> bool:
        """Note that nothing is heard now; return whether the connection had held for a while."""
        now = self._monotonic()
        if self._away is None:
            self._away = (now, self._now())
        return self._opened_at is not None and now - self._opened_at >= LONGEST_PAUSE_SECONDS

    def _take(self, params: Params) -> None:
        reply = read_envelope(params, account=self._driver.account)
        if reply is None or reply.reference in self._known:
            return
        self._known[reply.reference] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        self._inbox.put(reply)

    # -- what is answered -----------------------------------------------------------------------

    async def _hear_forever(self, hear: Hear) -> None:
        """Decide one by one; an answer on its way holds up no decision."""
        while True:
            reply = await self._inbox.get()
            try:
                answer = await hear(reply)
            except Exception as error:  # noqa: BLE001 - or nobody would be heard any more
                _log.error("a message over Signal was not read: a defect, %s", type(error).__name__)
                continue
            if answer is None or not self._manners.may_answer(reply.address):
                continue
            if self._answers.full():
                self._answers.get_nowait()
                self._answers.task_done()
                _log.warning("answers over Signal do not get out; the oldest was dropped")
            self._answers.put_nowait((reply, answer))

    async def _answer_forever(self) -> None:
        while True:
            reply, answer = await self._answers.get()
            quote = Quote(
                timestamp=reply.reference.rpartition(":")[2], author=reply.address, text=""
            )
            try:
                await self._driver.send(reply.address, answer, quote=quote)
            except ChannelError as error:
                _log.warning("an answer over Signal was not sent: %s", error)
            except Exception as error:  # noqa: BLE001 - or nobody would be answered any more
                _log.error("an answer over Signal was not sent: a defect, %s", type(error).__name__)
            finally:
                self._answers.task_done()


def _is_timestamp(reference: str) -> bool:
    return reference.isascii() and reference.isdecimal() and len(reference) <= 15


# -- how sendings fail ----------------------------------------------------------------------------

_TYPES: Mapping[str, tuple[Failure, bool]] = {
    "NETWORK_FAILURE": (Failure.UNREACHABLE, False),
    "UNREGISTERED_FAILURE": (Failure.REFUSED, True),
    "IDENTITY_FAILURE": (Failure.IDENTITY_CHANGED, True),
    "RATE_LIMIT_FAILURE": (Failure.RATE_LIMITED, False),
    "INVALID_PRE_KEY_FAILURE": (Failure.REFUSED, False),
}
"""By signal-cli's type of a recipient's result: the failure, and whether a repeat is useless."""
MAX_RETRY_AFTER_SECONDS = 86_400.0


def refusal(
    kind: object, *, retry_after: object = None, wants_captcha: bool = False
) -> ChannelError:
    """Return the error for a recipient's result of this type."""
    failure, is_final = _TYPES.get(str(kind), (Failure.REFUSED, False))
    sentence = {
        Failure.IDENTITY_CHANGED: "Another key speaks for this approver's address now.",
        Failure.RATE_LIMITED: "Signal asks for fewer messages.",
        Failure.UNREACHABLE: "Signal's servers were not reached.",
    }.get(failure, "Signal did not take the message.")
    if wants_captcha and failure is Failure.RATE_LIMITED:
        sentence = "Signal takes no more messages of this account until a captcha is solved."
    seconds = _seconds(retry_after)
    return ChannelError(failure, sentence, retry_after_seconds=seconds, is_final=is_final)


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        return None
    seconds = min(value, MAX_RETRY_AFTER_SECONDS)
    return float(seconds) if math.isfinite(seconds) else None


def require_success(results: object) -> None:
    """Raise for the first recipient's result that is no success.

    Raises:
        ChannelError: as the result says.
    """
    for result in results if isinstance(results, list) else ():
        if isinstance(result, Mapping) and result.get("type") != "SUCCESS":
            raise refusal(
                result.get("type"),
                retry_after=result.get("retryAfterSeconds"),
                wants_captcha=bool(result.get("token")),
            )
