"""One sending of one notification: from a due row to a settled one.

At least once. A prompt and the code that follows it are one sending: both were taken, or both are
sent again, so that no code stands alone and no prompt goes without its own. The code is made here
and its hash stored before anything is sent; the result is stored after. A crash in between means a
repeat: with the same notification id, by which a receiver knows it, and a new code, which takes the
place of the one that was sent before.

Nothing here logs a text, a code or an address.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias, TypeVar

from host_agent.clock import Clock
from host_agent.errors import StoreUnavailableError
from host_agent.notify.channel import (
    AuditHead,
    Channel,
    ChannelError,
    Delivery,
    Message,
)
from host_agent.notify.prompts import Prompt
from host_agent.notify.rate import Pace, asked_for, backoff
from host_agent.requests import codes
from host_agent.requests.facts import RequestFacts
from host_agent.requests.model import Request, State, is_same_owner
from host_agent.requests.notification import (
    CodeHash,
    DeliveryState,
    Failure,
    Kind,
    Notification,
)
from host_agent.store.store import RequestStore
from host_agent.text import plain

MAX_TRIES = 12
OUTCOME_LIFETIME = timedelta(hours=24)
"""An outcome that could not be told for so long is given up."""
LONGEST_HOLD = timedelta(hours=1)
"""A channel that asks us to wait is left alone for so long at most; single messages for longer."""
_SPREAD_SECONDS = 10.0

_log = logging.getLogger("host_agent.notify.outbox")

FactsOf: TypeAlias = Callable[[Request], Awaitable[RequestFacts]]
"""Derives what people are told about a request, as things are now."""
Compose: TypeAlias = Callable[[RequestFacts, Notification, str | None, Channel], Prompt]
"""Makes the text for one sending: facts, notification, code (or None), channel."""
AddressOf: TypeAlias = Callable[[str, str], str | None]
"""Says where an owner is reached on a channel; None: nowhere, nothing may be sent."""
OnResult: TypeAlias = Callable[[str, str], None]
"""Counts for a channel: delivered, retried, failed or withdrawn."""
OnFailed: TypeAlias = Callable[[Notification], Awaitable[None]]
"""Is told of a notification that was given up."""
OnIdentityChanged: TypeAlias = Callable[[str, str, str], Awaitable[None]]
"""Is told owner, channel and address where another key speaks for the address now."""

_Stored = TypeVar("_Stored")


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderContext:
    """The services that a sending uses; `Outbox` describes each."""

    store: RequestStore
    clock: Clock
    facts_of: FactsOf
    compose: Compose
    audit_head: Callable[[], AuditHead]
    address_of: AddressOf
    on_result: OnResult
    on_failed: OnFailed
    on_identity_changed: OnIdentityChanged
    uniform: Callable[[float, float], float]
    deadline_seconds: float
    store_retry_seconds: float


class Sender:
    """Sends one notification at a time for each owner and channel; safe for several at once."""

    def __init__(self, context: SenderContext, pace: Pace) -> None:
        self._context = context
        self._store = context.store
        self._pace = pace
        self._held: dict[str, datetime] = {}
        self._failing: set[str] = set()

    def forget(self) -> None:
        """Forget which channels asked us to wait: they may be others now."""
        self._held.clear()
        self._failing.clear()

    async def deliver(self, row: Notification, channel: Channel | None) -> None:
        """Send `row` over `channel`, or settle it as what became of it. None: not configured.

        Raises:
            StoreUnavailableError: nothing was sent, and the row waits as before.
        """
        request = await self._store.get(row.request_id)
        now = self._context.clock.now()
        if request is None or _is_moot(row, request):
            await self._withdraw(row)
        elif _deadline(row, request) <= now:
            await self._too_late(row)
        elif channel is None:
            await self._give_up(row, Failure.NOT_CONFIGURED)
        else:
            await self._deliver_now(row, request, channel, now)

    async def _deliver_now(
        self, row: Notification, request: Request, channel: Channel, now: datetime
    ) -> None:
        later = self._not_before(row, now)
        if later is not None and later >= _deadline(row, request):
            await self._give_up(row, row.failure or Failure.RATE_LIMITED)
        elif later is not None:
            await self.defer(row, later)
        else:
            await self._try(row, request, channel)

    def _not_before(self, row: Notification, now: datetime) -> datetime | None:
        """Return until when the row has to wait for its turn; None: not at all."""
        held = self._held.get(row.channel)
        if held is not None and held > now:
            return held + timedelta(seconds=self._context.uniform(0.0, _SPREAD_SECONDS))
        if row.kind is not Kind.PROMPT:
            return None
        return self._pace.turn(row.owner, row.channel, now)

    async def defer(self, row: Notification, until: datetime) -> None:
        """Make a row due later, its tries as before."""
        await self._settle(row, replace(row, next_at=until))

    # -- one try ----------------------------------------------------------------------------------

    async def _try(self, row: Notification, request: Request, channel: Channel) -> None:
        address: str | None = None
        try:
            address = self._context.address_of(row.owner, row.channel)
            if address is None:
                await self._give_up(row, Failure.NOT_ENROLLED)
                return
            message = await self._message(row, request, channel, address)
            if message is None:
                await self._withdraw(row)
                return
            delivery = await self._hand_over(channel, message)
        except ChannelError as error:
            await self._failed(row, request, error, address)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - a channel's defect must not end the outbox
            defect = ChannelError(Failure.DEFECT, f"a defect of the agent: {where(error)}")
            await self._failed(row, request, defect, address)
        else:
            await self._delivered(row, delivery)

    async def _message(
        self, row: Notification, request: Request, channel: Channel, address: str
    ) -> Message | None:
        """Return what is sent, its code stored; None where the request is decided by now."""
        purpose = channel.purpose if row.kind is Kind.PROMPT else None
        code = None if purpose is None else codes.make()
        facts = await self._context.facts_of(request)
        prompt = self._context.compose(facts, row, code, channel)
        if not prompt.is_whole:
            code = None  # with a text that hides something nobody can decide
        if code is not None and purpose is not None:
            kept = CodeHash(
                request_id=request.id,
                owner=row.owner,
                channel=row.channel,
                purpose=purpose,
                code_hash=codes.hash_code(code),
            )
            if not await self._store.add_code(kept):
                return None
        return Message(
            id=row.id,
            kind=row.kind,
            owner=row.owner,
            address=address,
            prompt=prompt,
            facts=facts,
            audit=self._context.audit_head(),
            code=code,
            reply_to=await self._prompt_of(row),
        )

    async def _prompt_of(self, row: Notification) -> str | None:
        """Return the reference of the prompt that an outcome answers."""
        if row.kind is Kind.PROMPT:
            return None
        its = Kind.PROMPT, row.owner, row.channel
        rows = await self._store.notifications_of(row.request_id)
        found = (one.reference for one in rows if (one.kind, one.owner, one.channel) == its)
        return next(found, None)

    async def _hand_over(self, channel: Channel, message: Message) -> Delivery:
        """Send within the deadline, whatever the channel does."""
        try:
            async with asyncio.timeout(self._context.deadline_seconds) as scope:
                return await channel.send(message)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise ChannelError(Failure.TIMED_OUT, "it gave no answer in time") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled us: the channel let a cancellation of its own get out.
            defect = ChannelError(Failure.DEFECT, "a defect of the agent: it cancelled itself")
            raise defect from error

    # -- what came of it --------------------------------------------------------------------------

    async def _delivered(self, row: Notification, delivery: Delivery) -> None:
        if row.channel in self._failing:
            self._failing.discard(row.channel)
            _log.info("channel %s takes messages again", row.channel)
        settled = replace(
            row,
            state=DeliveryState.DELIVERED,
            tries=row.tries + 1,
            delivered_at=self._context.clock.now(),
            reference=delivery.reference,
            answer_reference=delivery.answer_reference,
            failure=None,
        )
        if await self._settle(row, settled):
            self._context.on_result(row.channel, "delivered")

    async def _failed(
        self, row: Notification, request: Request, error: ChannelError, address: str | None
    ) -> None:
        now, tries = self._context.clock.now(), row.tries + 1
        self._note(row.channel, error, now)
        if error.failure is Failure.IDENTITY_CHANGED and address is not None:
            told = self._context.on_identity_changed
            await self._tell(lambda: told(row.owner, row.channel, address))
        is_final = error.is_final or error.failure is Failure.IDENTITY_CHANGED
        after = backoff(tries, error.retry_after_seconds, self._context.uniform)
        tried = replace(row, tries=tries, failure=error.failure, next_at=now + after)
        if is_final or tries >= MAX_TRIES or tried.next_at >= _deadline(row, request):
            # The last also where no more is due in time: an owner's next channel need not wait.
            await self._give_up(row, error.failure, tries=tries)
        elif await self._settle(row, tried):
            self._context.on_result(row.channel, "retried")

    def _note(self, channel: str, error: ChannelError, now: datetime) -> None:
        """Log a channel's first failure, and leave it alone where it asks for that."""
        wait = min(asked_for(error.retry_after_seconds), LONGEST_HOLD)
        if error.failure is Failure.RATE_LIMITED and wait:
            self._held[channel] = max(now + wait, self._held.get(channel, now))
        if channel not in self._failing:
            self._failing.add(channel)
            told = plain(str(error))[:200]
            _log.warning("channel %s failed (%s): %s", channel, error.failure.value, told)

    async def _too_late(self, row: Notification) -> None:
        """Settle what is past its time: given up if it was tried, else no longer worth telling."""
        if row.failure is None and row.kind is Kind.PROMPT:
            await self._withdraw(row)
        else:
            await self._give_up(row, row.failure or Failure.TIMED_OUT)

    async def _withdraw(self, row: Notification) -> None:
        if await self._settle(row, replace(row, state=DeliveryState.WITHDRAWN)):
            self._context.on_result(row.channel, "withdrawn")

    async def _give_up(
        self, row: Notification, failure: Failure, *, tries: int | None = None
    ) -> None:
        """Make a dead letter of it, and let the owner's next channel try at once."""
        settled = replace(
            row,
            state=DeliveryState.FAILED,
            failure=failure,
            tries=row.tries if tries is None else tries,
        )
        if not await self._settle(row, settled):
            return
        self._context.on_result(row.channel, "failed")
        if row.kind is Kind.PROMPT:
            now = self._context.clock.now()
            await self._stored(
                lambda: self._store.hasten_notifications(row.request_id, row.owner, now)
            )
        await self._tell(lambda: self._context.on_failed(settled))

    async def _settle(self, row: Notification, settled: Notification) -> bool:
        return await self._stored(
            lambda: self._store.settle_notification(settled, expected_tries=row.tries)
        )

    async def _stored(self, step: Callable[[], Awaitable[_Stored]]) -> _Stored:
        """Take a step until the store took it: what was sent must not be sent again for nothing."""
        while True:
            try:
                return await step()
            except StoreUnavailableError:
                await asyncio.sleep(self._context.store_retry_seconds)

    async def _tell(self, told: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._stored(told)
        except Exception as error:  # noqa: BLE001 - it is settled; the next one must go on
            _log.error("what became of a notification could not be told: %s", where(error))


def _is_moot(row: Notification, request: Request) -> bool:
    """Return whether a prompt is no longer worth telling: nothing is asked of this owner."""
    if row.kind is not Kind.PROMPT:
        return False
    has_spoken = any(is_same_owner(row.owner, spoken.owner) for spoken in request.decisions)
    is_own = is_same_owner(row.owner, request.owner)
    return request.state is not State.PENDING or has_spoken or is_own


def _deadline(row: Notification, request: Request) -> datetime:
    if row.kind is Kind.PROMPT:
        return request.expires_at
    return row.created_at + OUTCOME_LIFETIME


def where(error: BaseException) -> str:
    """Return an error's type and the line it came from: its text may hold what was sent."""
    trace, line = error.__traceback__, ""
    while trace is not None:
        line = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{line}"
