"""Codex: `hooks.json` has the hook, `config.toml` the MCP servers and what a person trusts."""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from host_agent.errors import ConfigurationError
from host_agent.integration.command import is_bounded
from host_agent.integration.files import content_of
from host_agent.integration.hosts.host import AgentHost, HostState
from host_agent.integration.json_text import Plain
from host_agent.integration.settings_file import (
    JsonItem,
    SettingsFile,
    TomlTable,
    decoded,
    inside,
    mcp_path,
    read_json,
)

_MATCHER = "^Bash$"
_EVENT = "PreToolUse"
_KEY = "pre_tool_use"
_WHERE = ("hooks", _EVENT)
_MANAGED = Path("/etc/codex/requirements.toml")


class Codex(AgentHost):
    """The settings of one person, for all projects."""

    name: ClassVar[str] = "codex"
    directory_variable: ClassVar[str] = "CODEX_HOME"
    directory_name: ClassVar[str] = ".codex"
    next_step: ClassVar[str] = (
        "Start Codex, type /hooks, look at the hook and trust it; then have it run any command,"
        " such as `true`, and look again."
    )

    @property
    def hooks(self) -> Path:
        """Return the file that has the hook."""
        return self.directory / "hooks.json"

    @property
    def configuration(self) -> Path:
        """Return the file that has the MCP servers."""
        return self.directory / "config.toml"

    def hook_files(self) -> Sequence[SettingsFile]:
        """Return the file of hooks; ours is the last, because trust goes by the place."""
        return [
            JsonItem(
                path=self.hooks, where=_WHERE, item=self.group(_MATCHER), is_ours=self.is_group
            )
        ]

    def server_files(self) -> Sequence[SettingsFile]:
        """Return the configuration."""
        values = {"command": self.program, "args": ["mcp"]}
        header = ".".join(mcp_path("mcp_servers"))
        return [TomlTable(path=self.configuration, header=header, values=values)]

    def state(self) -> HostState:
        """Return how the settings stand now, and whether a person trusts the hook as it is."""
        groups = inside(read_json(self.hooks, content_of(self.hooks)), *_WHERE)
        numbered = list(enumerate(groups)) if isinstance(groups, list) else []
        ours = [(number, group) for number, group in numbered if self.is_group(group)]
        if not ours:
            return HostState(command=None)
        number, group = ours[0]
        handlers = inside(group, "hooks")
        command = inside(handlers[0], "command") if isinstance(handlers, list) else None
        said = _toml(self.configuration)
        state = _table(said, "hooks", "state", f"{self.hooks}:{_KEY}:{number}:0")
        obstacles = []
        if _table(said, "features").get("hooks") is False:
            obstacles.append(f"{self.configuration} turns hooks off (`features.hooks`).")
        if state.get("enabled") is False:
            obstacles.append("A person has turned this hook off in /hooks.")
        if _toml(_MANAGED).get("allow_managed_hooks_only") is True:
            obstacles.append(f"{_MANAGED} allows the administrator's hooks only.")
        if not is_bounded(str(command)):
            obstacles.append(
                "`timeout` was not found: Codex lets a command run whose hook takes too long."
            )
        return HostState(
            command=str(command),
            obstacles=tuple(obstacles),
            is_trusted=state.get("trusted_hash") == trust_hash(group),
        )


def trust_hash(group: Plain) -> str:
    """Return the hash by which Codex knows a hook that a person trusts.

    It is over the group as canonical JSON, with the event and with defaults filled in.
    """
    handlers = inside(group, "hooks")
    handler = handlers[0] if isinstance(handlers, list) else None
    identity = {
        "event_name": _KEY,
        "matcher": inside(group, "matcher"),
        "hooks": [{"async": False, **(handler if isinstance(handler, dict) else {})}],
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _toml(path: Path) -> dict[str, Any]:
    content = content_of(path)
    if content is None:
        return {}
    try:
        return tomllib.loads(decoded(path, content).removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{path}: {error}."]) from None


def _table(said: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        found = said.get(name)
        said = found if isinstance(found, dict) else {}
    return said
