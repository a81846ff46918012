"""What is between the queue and people, as the agent puts it together.

The channels that are configured, the outbox that sends over them, and what they bring.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from host_agent.approvals.channels.outbox import Outbox
from host_agent.approvals.channels.port import Channel
from host_agent.approvals.notification import Kind, Notification
from host_agent.approvals.prompts import HOW, Prompt, render_outcome, render_prompt
from host_agent.approvals.request import Request
from host_agent.audit.record import Event
from host_agent.config import Config, SignalDriver
from host_agent.errors import AuditUnavailableError, ConfigurationError, HostAgentError
from host_agent.execution.runner import ProgramRunner
from host_agent.identity.files import read_linked
from host_agent.pipeline import Pipeline, Rooms
from host_agent.pipeline.plugin import DEADLINE_SECONDS, MAX_ANSWER_BYTES, Exchange, Plugin

_log = logging.getLogger("host_agent.agent")

LINGER_SECONDS = 30.0
"""How long the channels of an old configuration may end what they send."""


class Messaging:
    """The agent's way to people. Begun once; renewed at each reload."""

    def __init__(self, rooms: Rooms, pipeline: Pipeline) -> None:
        self._rooms = rooms
        self._pipeline = pipeline
        self._channels: dict[str, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: list[asyncio.Task[None]] = []
        self._key: object = None
        self.outbox = Outbox(
            rooms.store,
            clock=rooms.clock,
            compose=self._compose,
            address_of=lambda owner, channel: rooms.book.address(owner, channel),
            on_result=rooms.metrics.notified,
            on_failed=self._failed,
            on_identity_changed=pipeline.identity_changed,
            prompts_per_minute=lambda: rooms.snapshot.config.approvals.prompts_per_minute,
        )

    async def start(self) -> None:
        """Begin to send and to listen."""
        self._rooms.wake_outbox = self.outbox.wake
        await self.renew(make_channels(self._rooms.snapshot.config, self._wall))
        self._keep(asyncio.create_task(self.outbox.send_forever(), name="outbox"))

    async def renew(self, channels: Mapping[str, Channel]) -> None:
        """Send and listen over these channels from now on; the old ones may end what they do."""
        old, self._channels = self._channels, dict(channels)
        self.outbox.use(self._channels)
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        hear = self._pipeline.hearing.hear
        self._listening = [
            asyncio.create_task(channel.listen(hear), name=f"listen {name}")
            for name, channel in self._channels.items()
        ]
        if old:
            self._keep(asyncio.create_task(_close_later(old), name="old channels"))

    async def close(self) -> None:
        """Stop listening, end what is being sent, close the channels."""
        self._rooms.wake_outbox = lambda: None
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

    def _wall(self) -> datetime:
        return self._rooms.clock.wall()

    # -- what the outbox asks ---------------------------------------------------------------------

    def _compose(
        self, request: Request, row: Notification, code: str | None, channel: Channel
    ) -> Prompt:
        rooms = self._rooms
        if row.kind is Kind.OUTCOME:
            return render_outcome(
                request,
                owner=row.owner,
                channel=row.channel,
                audit_head=rooms.audit.head,
                audit_sequence=rooms.audit.sequence,
                host=rooms.snapshot.config.host,
                now=rooms.clock.now(),
                max_characters=channel.max_characters,
            )
        return render_prompt(
            request,
            owner=row.owner,
            channel=row.channel,
            code=code,
            audit_head=rooms.audit.head,
            audit_sequence=rooms.audit.sequence,
            host=rooms.snapshot.config.host,
            now=rooms.clock.now(),
            max_characters=channel.max_characters,
            how=HOW[channel.name],
        )

    async def _failed(self, row: Notification) -> None:
        """Write down that somebody could not be told."""
        try:
            await self._rooms.audit.append(
                Event.NOTIFICATION_FAILED,
                request_id=row.request_id,
                approver_owner=row.owner,
                channel=row.channel,
                cause=None if row.failure is None else row.failure.value,
            )
        except AuditUnavailableError:
            _log.critical("a dead letter of request %s is not in the audit log", row.request_id)


# -- made of a configuration ----------------------------------------------------------------------


def make_channels(config: Config, now: Callable[[], datetime]) -> dict[str, Channel]:
    """Return the configured channels, not connected. What is not configured is not imported.

    Raises:
        ConfigurationError: a URL may not be sent to.
    """
    made: dict[str, Channel] = {}
    for name, make in (
        ("signal", _signal),
        ("webhook", _webhook),
        ("ntfy", _ntfy),
        ("apprise", _apprise),
    ):
        if name in config.channels.names:
            try:
                made[name] = make(config, now)
            except ValueError as error:
                raise ConfigurationError([f"channels.{name}.url: {error}"]) from error
    return made


def _signal(config: Config, now: Callable[[], datetime]) -> Channel:
    from host_agent.approvals.channels.signal import Driver, SignalChannel

    section = config.channels.signal
    driver: Driver
    if section is not None and section.socket is not None:
        from host_agent.approvals.channels.signal_cli import SignalCli

        driver = SignalCli(section.socket, section.account)
    elif section is not None and section.driver is SignalDriver.REST and section.url is not None:
        from host_agent.approvals.channels.outbound import Outbound
        from host_agent.approvals.channels.signal_rest import SignalRest

        driver = SignalRest(
            Outbound(section.url, max_answer_bytes=1_048_576, now=now), section.account
        )
    else:
        message = "names no program that speaks Signal"
        raise ValueError(message)
    return SignalChannel(driver)


def _webhook(config: Config, now: Callable[[], datetime]) -> Channel:
    from host_agent.approvals.channels.outbound import Outbound
    from host_agent.approvals.channels.webhook import WebhookChannel

    section = config.channels.webhook
    if section is None:
        raise ValueError
    return WebhookChannel(
        Outbound(section.url, ca_file=section.ca_file, now=now),
        secret_file=section.secret_file,
        previous_secret_file=section.previous_secret_file,
        host=config.host,
        now=now,
    )


def _ntfy(config: Config, now: Callable[[], datetime]) -> Channel:
    from host_agent.approvals.channels.ntfy import NtfyChannel
    from host_agent.approvals.channels.outbound import Outbound

    section = config.channels.ntfy
    if section is None:
        raise ValueError
    return NtfyChannel(
        Outbound(section.url, ca_file=section.ca_file, now=now),
        token_file=section.token_file,
        reply_topic=section.reply_topic,
        reply_token_file=section.reply_token_file,
        review_url=section.review_url,
        now=now,
    )


def _apprise(config: Config, _now: Callable[[], datetime]) -> Channel:
    from host_agent.approvals.channels.apprise import AppriseChannel

    section = config.channels.apprise
    if section is None:
        raise ValueError
    return AppriseChannel(section.urls_file)


def make_bridge_secrets(config: Config) -> dict[str, tuple[bytes, ...]]:
    """Return the secrets that each bridge may sign with, by its common name.

    Raises:
        ConfigurationError: one cannot be read, or is none.
    """
    if not config.bridges:
        return {}
    from host_agent.approvals.channels.signing import read_secret

    secrets: dict[str, tuple[bytes, ...]] = {}
    for index, bridge in enumerate(config.bridges):
        files = (bridge.secret_file, bridge.previous_secret_file)
        try:
            secrets[bridge.cn] = tuple(read_secret(read_linked(file)) for file in files if file)
        except ValueError as error:
            raise ConfigurationError([f"bridges[{index}].secret_file: {error}"]) from error
    return secrets


def make_plugin(config: Config, now: Callable[[], datetime]) -> Plugin | None:
    """Return the configured identity plugin.

    Raises:
        ConfigurationError: its URL may not be sent to.
    """
    said = config.approvals.plugin
    if said is None:
        return None
    path = said.removeprefix("command:")
    try:
        return Plugin(_of_service(said, now) if path == said else _of_program(Path(path)))
    except ValueError as error:
        raise ConfigurationError([f"approvals.plugin: {error}"]) from error


def _of_program(path: Path) -> Exchange:
    program = ProgramRunner(
        str(path), timeout_seconds=DEADLINE_SECONDS, max_output_bytes=MAX_ANSWER_BYTES
    )

    async def exchange(question: bytes) -> bytes:
        output = await program.run(question)
        if output.exit_code != 0 or output.timed_out or output.truncated:
            message = "The identity plugin failed."
            raise HostAgentError(message)
        return output.stdout.encode()

    return exchange


def _of_service(url: str, now: Callable[[], datetime]) -> Exchange:
    from host_agent.approvals.channels.outbound import Outbound

    service = Outbound(
        url, deadline_seconds=DEADLINE_SECONDS, max_answer_bytes=MAX_ANSWER_BYTES, now=now
    )

    async def exchange(question: bytes) -> bytes:
        answer = await service.post(question, headers={"Content-Type": "application/json"})
        return answer.body

    return exchange


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
