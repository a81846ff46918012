"""Channels, bridges' secrets and the identity plugin, made of a configuration.

What is not configured is not imported. Nothing here connects.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from host_agent.config import Config
from host_agent.errors import ConfigurationError, HostAgentError
from host_agent.execution.runner import ProgramRunner
from host_agent.identity.files import read_linked
from host_agent.notify.channel import Channel, Surroundings
from host_agent.pipeline.plugin import DEADLINE_SECONDS, MAX_ANSWER_BYTES, AskPlugin, Plugin


def _wall() -> datetime:
    return datetime.now(UTC)


def make_channels(config: Config, now: Callable[[], datetime] = _wall) -> dict[str, Channel]:
    """Return the configured channels, not connected. What is not configured is not imported.

    Raises:
        ConfigurationError: a URL may not be sent to.
    """
    surroundings = Surroundings(host=config.host, state=config.store.path.parent, now=now)
    made: dict[str, Channel] = {}
    for section in config.channels.sections:
        make = import_module(f"host_agent.notify.{section.name}").make_channel
        try:
            made[section.name] = make(section, surroundings)
        except ValueError as error:
            raise ConfigurationError([f"channels.{section.name}.url: {error}"]) from error
    return made


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


def _of_program(path: Path) -> AskPlugin:
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


def _of_service(url: str, now: Callable[[], datetime]) -> AskPlugin:
    from host_agent.notify.outbound import Outbound

    service = Outbound(
        url, deadline_seconds=DEADLINE_SECONDS, max_answer_bytes=MAX_ANSWER_BYTES, now=now
    )

    async def exchange(question: bytes) -> bytes:
        answer = await service.post(question, headers={"Content-Type": "application/json"})
        return answer.body

    return exchange
