"""The outbox at a workbench: a real store, scripted channels, a clock that is held."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from host_agent.errors import StoreUnavailableError
from host_agent.notify.channel import AuditHead, Channel, Delivery, Hear, Message
from host_agent.notify.outbox import Outbox
from host_agent.notify.outcomes import render_outcome
from host_agent.notify.prompts import Prompt, how_over, render_prompt
from host_agent.requests.facts import RequestFacts
from host_agent.requests.model import Request, State
from host_agent.requests.notification import (
    CodeHash,
    DeliveryState,
    Kind,
    Notification,
    Purpose,
    prompt,
)
from host_agent.store.store import RequestStore
from tests.support.audit_files import HeldClock
from tests.support.patience import PATIENCE
from tests.support.stored_requests import NOW, a_request, facts_of

HEAD = "sha256:" + "ab" * 32


class ScriptedChannel:
    """A channel that does what its script says, and keeps what it was given.

    The script's next entry is an error to raise, an event to wait for before delivering, or None
    for a delivery; past its end `always` counts.
    """

    def __init__(
        self,
        name: str = "signal",
        *script: BaseException | asyncio.Event | None,
        purpose: Purpose | None = Purpose.CONFIRM,
        max_characters: int = 2000,
        always: BaseException | asyncio.Event | None = None,
    ) -> None:
        self._name = name
        self._purpose = purpose
        self._max_characters = max_characters
        self.script = list(script)
        self.always = always
        self.sent: list[Message] = []
        self.under_way = 0
        self.most_under_way = 0
        self.changed: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        return self._name

    @property
    def purpose(self) -> Purpose | None:
        return self._purpose

    @property
    def max_characters(self) -> int:
        return self._max_characters

    async def send(self, message: Message) -> Delivery:
        self.sent.append(message)
        number = len(self.sent)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.changed()
        try:
            step = self.script.pop(0) if self.script else self.always
            if isinstance(step, BaseException):
                raise step
            if step is not None:
                await step.wait()
            second = None if message.prompt.answer is None else f"{self.name}-{number}-code"
            return Delivery(reference=f"{self.name}-{number}", answer_reference=second)
        finally:
            self.under_way -= 1

    async def listen(self, hear: Hear) -> None:
        await asyncio.Event().wait()

    async def probe(self) -> str:
        return "it is scripted"

    async def close(self) -> None:
        pass

    @property
    def codes(self) -> list[str | None]:
        return [message.code for message in self.sent]


class FaultyStore(RequestStore):
    """A store some of whose methods are not available. `before_code` runs before a code is kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.down: set[str] = set()
        self.defective: set[str] = set()
        self.refused = 0
        self.changed: Callable[[], None] = lambda: None
        self.before_code: Callable[[], Awaitable[None]] | None = None

    def _require(self, method: str) -> None:
        if method in self.down:
            self.refused += 1
            self.changed()
            raise StoreUnavailableError("not now")
        if method in self.defective:
            self.refused += 1
            self.changed()
            raise RuntimeError("do-not-log-me")

    async def get(self, request_id: str) -> Request | None:
        self._require("get")
        return await super().get(request_id)

    async def due_notifications(self, now: datetime, *, limit: int) -> list[Notification]:
        self._require("due_notifications")
        return await super().due_notifications(now, limit=limit)

    async def add_code(self, code: CodeHash) -> bool:
        self._require("add_code")
        if self.before_code is not None:
            await self.before_code()
        return await super().add_code(code)

    async def settle_notification(self, notification: Notification, *, expected_tries: int) -> bool:
        self._require("settle_notification")
        return await super().settle_notification(notification, expected_tries=expected_tries)


@dataclass
class Bench:
    """An outbox that runs, and what it told."""

    store: FaultyStore
    clock: HeldClock = field(default_factory=lambda: HeldClock(NOW))
    addresses: dict[tuple[str, str], str | None] = field(default_factory=dict)
    results: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Notification] = field(default_factory=list)
    changed_identities: list[tuple[str, str, str]] = field(default_factory=list)
    per_minute: int = 1000
    draw: Callable[[float, float], float] = lambda _low, high: high
    news: asyncio.Event = field(default_factory=asyncio.Event)
    on_failed_raises: BaseException | None = None
    compose_raises: BaseException | None = None

    def __post_init__(self) -> None:
        self.store.changed = self.news.set
        self.outbox = self.made()

    def made(self, *, deadline_seconds: float = PATIENCE, grace_seconds: float = 0.05) -> Outbox:
        """Return an outbox that is not running yet."""
        return Outbox(
            self.store,
            clock=self.clock,
            facts_of=self.facts_of,
            compose=self.compose,
            audit_head=lambda: AuditHead(sequence=1, head=HEAD),
            address_of=self.address_of,
            on_result=self.on_result,
            on_failed=self.on_failed,
            on_identity_changed=self.on_identity_changed,
            prompts_per_minute=lambda: self.per_minute,
            uniform=lambda low, high: self.draw(low, high),
            deadline_seconds=deadline_seconds,
            store_retry_seconds=0.01,
            pause_seconds=0.0,
            grace_seconds=grace_seconds,
        )

    async def facts_of(self, request: Request) -> RequestFacts:
        (before,) = await self.store.asked_before([request], self.clock.now() - timedelta(days=1))
        return facts_of(request, before=before)

    def compose(
        self, facts: RequestFacts, row: Notification, code: str | None, channel: Channel
    ) -> Prompt:
        if self.compose_raises is not None:
            raise self.compose_raises
        if row.kind is Kind.OUTCOME:
            return render_outcome(facts, max_characters=channel.max_characters)
        return render_prompt(
            facts,
            code=code,
            now=self.clock.now(),
            max_characters=channel.max_characters,
            how=how_over(channel.name),
        )

    def address_of(self, owner: str, channel: str) -> str | None:
        return self.addresses.get((owner, channel), f"address-of-{owner}")

    def on_result(self, channel: str, result: str) -> None:
        self.results.append((channel, result))
        self.news.set()

    async def on_failed(self, notification: Notification) -> None:
        self.failed.append(notification)
        self.news.set()
        if self.on_failed_raises is not None:
            raise self.on_failed_raises

    async def on_identity_changed(self, owner: str, channel: str, address: str) -> None:
        self.changed_identities.append((owner, channel, address))

    def use(self, *channels: ScriptedChannel) -> None:
        for channel in channels:
            channel.changed = self.news.set
        self.outbox.use({channel.name: channel for channel in channels})

    def results_of(self, channel: str) -> list[str]:
        return [result for name, result in self.results if name == channel]

    async def hold(self, number: int = 1, *ways: tuple[str, str, float], **changes: Any) -> Request:
        """Store a pending request with a prompt for each (owner, channel, seconds from now)."""
        now = self.clock.now()
        made = a_request(number, **{"created_at": now, **changes})
        prompts = [
            prompt(made.id, owner, channel, now=now, at=now + timedelta(seconds=seconds))
            for owner, channel, seconds in ways or (("bob", "signal", 0.0),)
        ]
        inserted = await self.store.insert(
            made, max_pending=100_000, max_pending_per_caller=100_000, notifications=prompts
        )
        self.outbox.wake()
        return inserted.request

    async def row(self, request: Request, index: int = 0) -> Notification:
        return (await self.store.notifications_of(request.id))[index]

    async def state(self, request: Request) -> State:
        found = await self.store.get(request.id)
        assert found is not None
        return found.state

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something that was told makes `is_so` true."""
        async with asyncio.timeout(PATIENCE):
            while not is_so():
                self.news.clear()
                await self.news.wait()

    async def until_settled(self, request: Request, state: DeliveryState, index: int = 0) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await self.row(request, index)).state is not state:
                await asyncio.sleep(0)

    async def until_nothing_due(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.store.due_notifications(self.clock.now(), limit=1):
                await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)
        self.outbox.wake()


@contextlib.asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[None]:
    """Run the outbox; no error may end it."""
    task = asyncio.create_task(outbox.send_forever())
    try:
        yield
    finally:
        await outbox.close()
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert ended is None or isinstance(ended, asyncio.CancelledError)


@contextlib.asynccontextmanager
async def bench(directory: Path) -> AsyncIterator[Bench]:
    """Give a workbench whose outbox runs, with no channels yet."""
    store = FaultyStore(directory / "store.db")
    await store.open()
    try:
        made = Bench(store)
        async with running(made.outbox):
            yield made
    finally:
        await store.close()
