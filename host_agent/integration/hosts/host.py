"""What every agent host answers: its files, and the state of its settings."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from host_agent.integration.command import HOST_TIMEOUT_SECONDS, guarded, hook_words, is_hook
from host_agent.integration.json_text import Plain
from host_agent.integration.settings_file import SettingsFile


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """How the host's settings stand.

    - `command`: the hook as it stands in them; None where it does not.
    - `obstacles`: why the host would not call it though it is there, in sentences.
    - `is_trusted`: whether a person has said that it may run; None where the host does not ask.
    """

    command: str | None
    obstacles: tuple[str, ...] = ()
    is_trusted: bool | None = None


@dataclass(frozen=True, slots=True)
class AgentHost(ABC):
    """An agent host of one person, with its directory of settings and the program that it calls."""

    directory: Path
    program: str

    name: ClassVar[str]
    next_step: ClassVar[str]
    """What a person does so that the host calls the hook for the first time."""

    directory_variable: ClassVar[str]
    """The environment variable that names the directory; only an absolute path counts."""
    directory_name: ClassVar[str]
    """The directory below a person's home where the variable does not."""

    @classmethod
    def default_directory(cls, home: Path, environment: dict[str, str]) -> Path:
        """Return where the host has its settings."""
        given = environment.get(cls.directory_variable, "")
        return Path(given) if given.startswith("/") else home / cls.directory_name

    @abstractmethod
    def hook_files(self) -> Sequence[SettingsFile]:
        """Return the files that have the hook."""

    @abstractmethod
    def server_files(self) -> Sequence[SettingsFile]:
        """Return the files that have the MCP server."""

    @abstractmethod
    def state(self) -> HostState:
        """Return how the settings stand now.

        Raises:
            ConfigurationError: they cannot be read.
        """

    def command(self) -> str:
        """Return the hook as the host runs it."""
        return guarded(hook_words(self.program, self.name))

    def group(self, matcher: str, **more: Plain) -> dict[str, Plain]:
        """Return the hook for the tools that `matcher` matches, as two of the hosts have it."""
        handler: dict[str, Plain] = {
            "type": "command",
            "command": self.command(),
            "timeout": HOST_TIMEOUT_SECONDS,
        }
        return {"matcher": matcher, "hooks": [handler | more]}

    def is_group(self, value: Plain) -> bool:
        """Return whether a group of hooks is ours: with one hook, which is ours."""
        hooks = value.get("hooks") if isinstance(value, dict) else None
        if not isinstance(hooks, list) or len(hooks) != 1 or not isinstance(hooks[0], dict):
            return False
        return is_hook(hooks[0].get("command"), self.name)
