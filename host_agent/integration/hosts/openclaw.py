"""OpenClaw: a plugin of ours calls the hook; `openclaw.json` turns it on."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import ClassVar

from host_agent import __version__
from host_agent.integration.command import HOST_TIMEOUT_SECONDS, hook_words
from host_agent.integration.files import content_of
from host_agent.integration.hosts.host import AgentHost, HostState
from host_agent.integration.json_text import Plain
from host_agent.integration.settings_file import (
    JsonListEntry,
    JsonMember,
    OwnFile,
    SettingsFile,
    Together,
    as_text,
    inside,
    mcp_path,
    mcp_server,
    read_json,
)

PLUGIN = "host-agent-guard"
_PLACE = "@WORDS@"
_LIMIT = "@MILLISECONDS@"


class OpenClaw(AgentHost):
    """The settings of one gateway."""

    name: ClassVar[str] = "openclaw"
    directory_variable: ClassVar[str] = "OPENCLAW_STATE_DIR"
    directory_name: ClassVar[str] = ".openclaw"
    next_step: ClassVar[str] = (
        "Restart the gateway (`openclaw gateway restart`) and have the agent run any command, such"
        " as `true`; then look again."
    )

    @property
    def settings(self) -> Path:
        """Return the configuration, JSON5."""
        return self.directory / "openclaw.json"

    @property
    def plugin(self) -> Path:
        """Return the directory of the plugin."""
        return self.directory / "extensions" / PLUGIN

    def hook_files(self) -> Sequence[SettingsFile]:
        """Return the plugin's files, and then the configuration that turns it on."""
        manifest: dict[str, Plain] = {
            "id": PLUGIN,
            "name": "host-agent guard",
            "description": "Privileged commands are asked for as operations of host-agent",
            "activation": {"onCapabilities": ["hook"]},
            "configSchema": {"type": "object", "additionalProperties": False, "properties": {}},
        }
        package: dict[str, Plain] = {
            "name": PLUGIN,
            "version": __version__,
            "private": True,
            "type": "module",
            "openclaw": {"extensions": ["./index.js"]},
        }
        return [
            OwnFile(path=self.plugin / "openclaw.plugin.json", content=as_text(manifest)),
            OwnFile(path=self.plugin / "package.json", content=as_text(package)),
            OwnFile(path=self.plugin / "index.js", content=self.module()),
            Together(path=self.settings, parts=self._parts()),
        ]

    def server_files(self) -> Sequence[SettingsFile]:
        """Return the configuration, with the plugin and the MCP server."""
        where = mcp_path("mcp", "servers")
        server = JsonMember(path=self.settings, where=where, value=mcp_server(self.program))
        return [Together(path=self.settings, parts=[*self._parts(), server])]

    def _parts(self) -> list[SettingsFile]:
        where = ("plugins", "entries", PLUGIN)
        return [
            JsonMember(path=self.settings, where=where, value={"enabled": True}),
            JsonListEntry(path=self.settings, where=("plugins", "allow"), name=PLUGIN),
        ]

    def module(self) -> str:
        """Return the plugin's program."""
        source = resources.files("host_agent.integration.hosts").joinpath("openclaw_plugin.js")
        words = json.dumps(hook_words(self.program, self.name))
        limit = str((HOST_TIMEOUT_SECONDS - 2) * 1000)
        return source.read_text("utf-8").replace(_PLACE, words).replace(_LIMIT, limit)

    def state(self) -> HostState:
        """Return how the settings stand now."""
        is_there = content_of(self.plugin / "index.js") == self.module().encode()
        said = read_json(self.settings, content_of(self.settings))
        allowed, refused = inside(said, "plugins", "allow"), inside(said, "plugins", "deny")
        obstacles = []
        if inside(said, "plugins", "enabled") is False:
            obstacles.append(f"{self.settings} turns all plugins off.")
        if inside(said, "plugins", "entries", PLUGIN, "enabled") is not True:
            obstacles.append(f"{self.settings} does not turn the plugin {PLUGIN} on.")
        if isinstance(allowed, list) and PLUGIN not in allowed:
            obstacles.append(f"`plugins.allow` in {self.settings} is without {PLUGIN}.")
        if isinstance(refused, list) and PLUGIN in refused:
            obstacles.append(f"`plugins.deny` in {self.settings} has {PLUGIN}.")
        return HostState(command=self.command() if is_there else None, obstacles=tuple(obstacles))
