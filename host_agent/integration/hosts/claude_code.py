"""Claude Code: `settings.json` has the hook, `.claude.json` the MCP servers of the person."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from host_agent.integration.files import content_of
from host_agent.integration.hosts.host import AgentHost, HostState
from host_agent.integration.json_text import Plain
from host_agent.integration.settings_file import (
    JsonItem,
    JsonMember,
    SettingsFile,
    inside,
    mcp_path,
    mcp_server,
    read_json,
)

_MATCHER = "Bash|PowerShell|Monitor"
_WHERE = ("hooks", "PreToolUse")
_SINCE = (2, 1, 295)
"""The first version that knows `onFailure`; what an older one does with it is not documented."""

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,6})", re.ASCII)


class ClaudeCode(AgentHost):
    """The settings of one person, for all projects."""

    name: ClassVar[str] = "claude-code"
    directory_variable: ClassVar[str] = "CLAUDE_CONFIG_DIR"
    directory_name: ClassVar[str] = ".claude"
    next_step: ClassVar[str] = (
        "Start Claude Code anew and have it run any command, such as `true`; then look again."
    )

    @property
    def settings(self) -> Path:
        """Return the file that has the hook."""
        return self.directory / "settings.json"

    def hook_files(self) -> Sequence[SettingsFile]:
        known = {} if _is_too_old(installed_version()) else {"onFailure": "block"}
        return [
            JsonItem(
                path=self.settings,
                where=_WHERE,
                item=self.group(_MATCHER, **known),
                is_ours=self.is_group,
            )
        ]

    def server_files(self) -> Sequence[SettingsFile]:
        """Return the file of the person's MCP servers, beside the directory or in a given one."""
        beside = self.directory.name == ".claude"
        path = (self.directory.parent if beside else self.directory) / ".claude.json"
        value: dict[str, Plain] = {"type": "stdio", **mcp_server(self.program)}
        return [JsonMember(path=path, where=mcp_path("mcpServers"), value=value)]

    def state(self) -> HostState:
        """Return how the settings stand now."""
        said = read_json(self.settings, content_of(self.settings))
        groups = inside(said, *_WHERE)
        ours = [one for one in groups if self.is_group(one)] if isinstance(groups, list) else []
        obstacles = []
        if inside(said, "disableAllHooks") is True:
            obstacles.append(f"{self.settings} turns all hooks off (`disableAllHooks`).")
        if _is_too_old(installed_version()):
            wanted = ".".join(map(str, _SINCE))
            obstacles.append(
                f"Claude Code is older than {wanted}: a hook that it cannot start or that takes too"
                " long lets the command run."
            )
        handlers = inside(ours[0], "hooks") if ours else None
        command = inside(handlers[0], "command") if isinstance(handlers, list) else None
        return HostState(
            command=command if isinstance(command, str) else None, obstacles=tuple(obstacles)
        )


def installed_version() -> tuple[int, ...] | None:
    """Return the version of Claude Code on the search path; None where it cannot be told.

    It is read from where the program lies, as the native and the npm installation lay it down.
    """
    found = shutil.which("claude")
    if found is None:
        return None
    place = Path(found).resolve()
    texts = [place.name]
    for directory in place.parents[:4]:
        manifest = directory / "package.json"
        if manifest.is_file():
            said = read_json(manifest, content_of(manifest))
            texts.append(str(inside(said, "version")))
            break
    for text in texts:
        match = _VERSION.match(text)
        if match is not None:
            return tuple(map(int, match.groups()))
    return None


def _is_too_old(version: tuple[int, ...] | None) -> bool:
    return version is not None and version < _SINCE
