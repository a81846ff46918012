"""Channels, bridges' secrets and the identity plugin, made of a configuration.

What is not configured is not imported. Nothing here connects.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from host_agent.config import Config, SignalDriver
from host_agent.errors import ConfigurationError, HostAgentError
from host_agent.execution.runner import ProgramRunner
from host_agent.identity.files import read_linked
from host_agent.notify.channel import Channel
from host_agent.pipeline.plugin import DEADLINE_SECONDS, MAX_ANSWER_BYTES, Exchange, Plugin


def _wall() -> datetime:
    return datetime.now(UTC)


def make_channels(config: Config, now: Callable[[], datetime] = _wall) -> dict[str, Channel]:
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
    from host_agent.notify.signal.channel import Driver, SignalChannel

    section = config.channels.signal
    driver: Driver
    if section is not None and section.socket is not None:
        from host_agent.notify.signal.signal_cli import SignalCli

        driver = SignalCli(section.socket, section.account, user=section.user)
    elif section is not None and section.driver is SignalDriver.REST and section.url is not None:
        from host_agent.notify.outbound import Outbound
        from host_agent.notify.signal.signal_rest import SignalRest

        shown = (section.client_certificate, section.client_key_file)
        outbound = Outbound(
            section.url,
            ca_file=section.ca_file,
            pair=None if shown[0] is None or shown[1] is None else (shown[0], shown[1]),
            max_answer_bytes=1_048_576,
            now=now,
        )
        driver = SignalRest(outbound, section.account)
    else:
        message = "names no program that speaks Signal"
        raise ValueError(message)
    return SignalChannel(driver)


def _webhook(config: Config, now: Callable[[], datetime]) -> Channel:
    from host_agent.notify.outbound import Outbound
    from host_agent.notify.webhook import WebhookChannel

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
    from host_agent.notify.ntfy import NtfyChannel
    from host_agent.notify.outbound import Outbound

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
    from host_agent.notify.apprise import AppriseChannel

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
    from host_agent.notify.signing import read_secret

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
    from host_agent.notify.outbound import Outbound

    service = Outbound(
        url, deadline_seconds=DEADLINE_SECONDS, max_answer_bytes=MAX_ANSWER_BYTES, now=now
    )

    async def exchange(question: bytes) -> bytes:
        answer = await service.post(question, headers={"Content-Type": "application/json"})
        return answer.body

    return exchange
