"""What is between the queue and people, as the agent puts it together.

The channels that are configured, the outbox that sends over them, and what they bring.
"""

import asyncio
from collections.abc import Mapping

from host_agent.audit.record import Event
from host_agent.notify.channel import AuditHead, Channel
from host_agent.notify.outbox import Outbox
from host_agent.notify.outcomes import render_outcome
from host_agent.notify.prompts import Prompt, how_over, render_prompt
from host_agent.pipeline import Context, Pipeline
from host_agent.pipeline.context import record
from host_agent.pipeline.views import facts_with_history
from host_agent.requests.facts import RequestFacts
from host_agent.requests.model import Request
from host_agent.requests.notification import Kind, Notification

LINGER_SECONDS = 30.0
"""How long the channels of an old configuration may end what they send."""


class Messaging:
    """The agent's way to people. Begun once; renewed at each reload."""

    def __init__(self, context: Context, pipeline: Pipeline) -> None:
        self._context = context
        self._pipeline = pipeline
        self._channels: dict[str, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: list[asyncio.Task[None]] = []
        self._key: object = None
        self.outbox = Outbox(
            context.store,
            clock=context.clock,
            facts_of=self._facts_of,
            compose=self._compose,
            audit_head=self._audit_head,
            address_of=lambda owner, channel: context.contacts.address(owner, channel),
            on_result=context.metrics.notified,
            on_failed=self._failed,
            on_identity_changed=pipeline.enrolment.identity_changed,
            prompts_per_minute=lambda: context.snapshot.config.approvals.prompts_per_minute,
        )

    async def start(self, channels: Mapping[str, Channel]) -> None:
        """Begin to send and to listen over `channels`."""
        self._context.wake_outbox = self.outbox.wake
        await self.renew(channels)
        self._keep(asyncio.create_task(self.outbox.send_forever(), name="outbox"))

    async def renew(self, channels: Mapping[str, Channel]) -> None:
        """Send and listen over these channels from now on; the old ones may end what they do."""
        old, self._channels = self._channels, dict(channels)
        self.outbox.use(self._channels)
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        hear = self._pipeline.replies.hear
        self._listening = [
            asyncio.create_task(channel.listen(hear), name=f"listen {name}")
            for name, channel in self._channels.items()
        ]
        if old:
            self._keep(asyncio.create_task(_close_later(old), name="old channels"))

    async def close(self) -> None:
        """Stop listening, end what is being sent, close the channels."""
        self._context.wake_outbox = lambda: None
        for task in self._listening:
            task.cancel()
        await self.outbox.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._listening, *self._tasks, return_exceptions=True)
        await close_all(self._channels)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what the outbox asks ---------------------------------------------------------------------

    async def _facts_of(self, request: Request) -> RequestFacts:
        return await facts_with_history(self._context, request)

    def _compose(
        self, facts: RequestFacts, row: Notification, code: str | None, channel: Channel
    ) -> Prompt:
        if row.kind is Kind.OUTCOME:
            return render_outcome(facts, max_characters=channel.max_characters)
        return render_prompt(
            facts,
            code=code,
            now=self._context.clock.now(),
            max_characters=channel.max_characters,
            how=how_over(channel.name),
        )

    def _audit_head(self) -> AuditHead:
        audit = self._context.audit
        return AuditHead(sequence=audit.sequence, head=audit.head)

    async def _failed(self, row: Notification) -> None:
        """Write down that somebody could not be told."""
        await record(
            self._context,
            Event.NOTIFICATION_FAILED,
            f"a dead letter of request {row.request_id}",
            request_id=row.request_id,
            approver_owner=row.owner,
            channel=row.channel,
            cause=None if row.failure is None else row.failure.value,
        )


async def close_all(channels: Mapping[str, Channel]) -> None:
    """Close every channel, whatever closing one of them does."""
    await asyncio.gather(
        *(channel.close() for channel in channels.values()), return_exceptions=True
    )


async def _close_later(channels: Mapping[str, Channel]) -> None:
    try:
        await asyncio.sleep(LINGER_SECONDS)
    finally:
        await close_all(channels)
