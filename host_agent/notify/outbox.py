"""The outbox: takes what is due out of the store and sends it, away from every request's path.

A notification is a durable row before anybody is told. The request path calls `Outbox.wake` and
waits for nothing. Each channel has a lane of its own, so that one that hangs or fails stops nobody
else. Everything is at least once: see `sending`.

Memory is bounded: a lane holds at most `LANE_ROOM` rows; all others stay in the store.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from random import SystemRandom

from host_agent.clock import Clock
from host_agent.errors import StoreUnavailableError
from host_agent.notify.channel import AuditHead, Channel
from host_agent.notify.delivery import (
    AddressOf,
    Compose,
    FactsOf,
    OnFailed,
    OnIdentityChanged,
    OnResult,
    Sender,
    SenderContext,
    where,
)
from host_agent.notify.rate import Pace
from host_agent.requests.notification import Notification
from host_agent.store.store import RequestStore

BATCH = 100
"""So many due rows are read at a time, more only to see past the rows of a channel that is busy."""
WIDEST_BATCH = 2_000
LANE_ROOM = 100
CONCURRENCY = 4
"""So many messages are under way on one channel, never two to the same owner."""
LONGEST_SLEEP_SECONDS = 60.0
BUSY_SLEEP_SECONDS = 1.0
"""So often the store is looked at while rows that are due are under way."""
CLOGGED = timedelta(seconds=30)
"""How long rows of a full lane are put off when they hide rows of other lanes."""

_log = logging.getLogger("host_agent.notify.outbox")
_RANDOM = SystemRandom()


class _Lane:
    """One channel's rows in hand: in order for each owner, the owners by turns."""

    def __init__(self, channel: Channel | None) -> None:
        self.channel = channel
        self.running = 0
        self._queues: dict[str, deque[Notification]] = {}
        self._busy: set[str] = set()
        self._length = 0

    @property
    def has_room(self) -> bool:
        return self._length + self.running < LANE_ROOM

    @property
    def is_empty(self) -> bool:
        return not self._length

    def put(self, row: Notification) -> None:
        self._queues.setdefault(row.owner, deque()).append(row)
        self._length += 1

    def take(self) -> Notification | None:
        """Return the next row whose owner has none under way; None: there is none, or no hand."""
        if self.running >= CONCURRENCY:
            return None
        owner = next((owner for owner in self._queues if owner not in self._busy), None)
        if owner is None:
            return None
        queue = self._queues.pop(owner)
        row = queue.popleft()
        if queue:
            self._queues[owner] = queue
        self._busy.add(owner)
        self._length -= 1
        self.running += 1
        return row

    def done(self, row: Notification) -> None:
        self._busy.discard(row.owner)
        self.running -= 1

    def drop(self) -> list[Notification]:
        """Remove the rows that are not under way, and return them."""
        dropped = [row for queue in self._queues.values() for row in queue]
        self._queues.clear()
        self._length = 0
        return dropped


class Outbox:
    """Sends what is due until it is stopped. It closes no channel: who made them does.

    Args:
        store: where the notifications are.
        clock: what says whether they are due.
        facts_of: derives what people are told about a request.
        compose: makes the text; it is called before the code's hash is stored, and nothing that it
            returns is kept. It gets no code for an outcome, nor on a channel without codes.
        audit_head: says what the newest audit record is.
        address_of: where an owner is reached. None makes a dead letter at once, so a channel that
            reaches people without an address of their own needs another word.
        on_result: counts, by channel: delivered, retried, failed, withdrawn.
        on_failed: is told of each dead letter once it is stored. What it raises is logged.
        on_identity_changed: disables an approver; called before the dead letter is stored, and
            again if the store is not available.
        prompts_per_minute: how many prompts an owner gets on a channel; asked each time.
        uniform: draws from a range, for jitter.
        deadline_seconds: the longest that a channel may take for a prompt and its code together.
        store_retry_seconds: the wait while the store is not available.
        pause_seconds: the wait after a wake, so that many of them are one look at the store.
        grace_seconds: how long a stop waits for what is under way.
    """

    def __init__(
        self,
        store: RequestStore,
        *,
        clock: Clock,
        facts_of: FactsOf,
        compose: Compose,
        audit_head: Callable[[], AuditHead],
        address_of: AddressOf,
        on_result: OnResult,
        on_failed: OnFailed,
        on_identity_changed: OnIdentityChanged,
        prompts_per_minute: Callable[[], int],
        uniform: Callable[[float, float], float] = _RANDOM.uniform,
        deadline_seconds: float = 35.0,
        store_retry_seconds: float = 2.0,
        pause_seconds: float = 0.1,
        grace_seconds: float = 3.0,
    ) -> None:
        self._store = store
        self._clock = clock
        self._store_retry_seconds = store_retry_seconds
        self._pause_seconds = pause_seconds
        self._grace_seconds = grace_seconds
        context = SenderContext(
            store=store,
            clock=clock,
            facts_of=facts_of,
            compose=compose,
            audit_head=audit_head,
            address_of=address_of,
            on_result=on_result,
            on_failed=on_failed,
            on_identity_changed=on_identity_changed,
            uniform=uniform,
            deadline_seconds=deadline_seconds,
            store_retry_seconds=store_retry_seconds,
        )
        self._sender = Sender(context, Pace(prompts_per_minute))
        self._lanes: dict[str, _Lane] | None = None
        self._unconfigured = _Lane(None)
        self._in_hand: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._is_closed = False
        self._is_store_down = False

    def use(self, channels: Mapping[str, Channel]) -> None:
        """Send over these channels from now on; until the first call nothing is sent at all.

        What is under way ends on the channel that it began on. What waits for a channel that is not
        among these becomes a dead letter.
        """
        before = {} if self._lanes is None else self._lanes
        self._lanes = {}
        for name, channel in channels.items():
            lane = before.pop(name, None) or _Lane(channel)
            lane.channel = channel
            self._lanes[name] = lane
        for lane in (*before.values(), self._unconfigured):
            self._in_hand.difference_update(row.id for row in lane.drop())
        self._sender.forget()
        self.wake()

    def wake(self) -> None:
        """Tell that there may be something to send. Returns at once."""
        self._news.set()

    async def send_forever(self) -> None:
        """Send what is due, until cancelled or closed; nothing that it meets ends it."""
        while not self._is_closed:
            self._news.clear()
            try:
                seconds = await self._look()
            except StoreUnavailableError:
                self._tell_store(is_down=True)
                await asyncio.sleep(self._store_retry_seconds)
            except Exception as error:  # noqa: BLE001 - or nobody would be told anything any more
                _log.error("the outbox failed: %s", where(error))
                await asyncio.sleep(self._store_retry_seconds)
            else:
                self._tell_store(is_down=False)
                await self._rest(seconds)

    async def close(self) -> None:
        """Begin nothing more and end what is under way; safe to call twice.

        What has not ended after some seconds is cut off, and sent again at the next start.
        """
        self._is_closed = True
        self.wake()
        for lane in (*(self._lanes or {}).values(), self._unconfigured):
            self._in_hand.difference_update(row.id for row in lane.drop())
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what is due ------------------------------------------------------------------------------

    async def _look(self) -> float:
        """Hand due rows to their lanes; return the seconds until the next one is due."""
        if self._lanes is None:
            return LONGEST_SLEEP_SECONDS
        now = self._clock.now()
        await self._fill(now)
        at = await self._store.next_notification()
        if at is None:
            return LONGEST_SLEEP_SECONDS
        seconds = (at - self._clock.now()).total_seconds()
        if seconds <= 0:
            return BUSY_SLEEP_SECONDS if self._in_hand else 0.0
        return min(seconds, LONGEST_SLEEP_SECONDS)

    async def _fill(self, now: datetime) -> None:
        """Hand due rows to their lanes, past the rows of full ones."""
        limit, is_hidden = BATCH, True
        while is_hidden and not self._is_closed:
            # A row that is settled while the store reads would come back as it was before.
            before = frozenset(self._in_hand)
            rows = await self._store.due_notifications(now, limit=limit + len(before))
            is_hidden = len(rows) >= limit + len(before)
            left = [row for row in rows if row.id not in before and not self._accept(row)]
            if is_hidden and left and limit < WIDEST_BATCH:
                limit = min(limit * 4, WIDEST_BATCH)
            elif is_hidden and left:
                for row in left:
                    await self._sender.defer(row, now + CLOGGED)

    def _accept(self, row: Notification) -> bool:
        lanes = {} if self._lanes is None else self._lanes
        lane = lanes.get(row.channel, self._unconfigured)
        if self._is_closed or not lane.has_room:
            return False
        self._in_hand.add(row.id)
        lane.put(row)
        self._pump(lane)
        return True

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        if not self._is_closed:
            await asyncio.sleep(self._pause_seconds)

    def _tell_store(self, *, is_down: bool) -> None:
        if is_down and not self._is_store_down:
            _log.warning("notifications wait: the store is not available")
        elif self._is_store_down and not is_down:
            _log.info("notifications go on: the store is available again")
        self._is_store_down = is_down

    # -- what is under way ------------------------------------------------------------------------

    def _pump(self, lane: _Lane) -> None:
        while not self._is_closed and (row := lane.take()) is not None:
            task = asyncio.create_task(self._send(lane.channel, row))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, lane, row))

    def _ended(self, lane: _Lane, row: Notification, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_hand.discard(row.id)
        lane.done(row)
        self._pump(lane)
        if lane.is_empty:
            self.wake()

    async def _send(self, channel: Channel | None, row: Notification) -> None:
        try:
            await self._sender.deliver(row, channel)
        except StoreUnavailableError:
            await asyncio.sleep(self._store_retry_seconds)
        except Exception as error:  # noqa: BLE001 - the row waits on, and so do the others
            _log.error("a notification could not be worked on: %s", where(error))
            await asyncio.sleep(self._store_retry_seconds)
