"""The pages of agent hosts: what they say to type leads to tools and a hook, and out again."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from host_agent.hooks.hosts import NAMES
from tests.support.hook_hosts import BLOCKED, RAN, Host
from tests.support.mcp_client import members
from tests.support.pages import REPOSITORY, links
from tests.support.patience import PATIENCE
from tests.support.simulated import PROGRAM, Simulated
from tests.support.walkthrough import Step, blocks, in_order, steps

HOW_TO = REPOSITORY / "docs/how-to"
SERVERS = {
    "claude-code": (".claude.json", "mcpServers"),
    "codex": (".codex/config.toml", "mcp_servers"),
    "openclaw": (".openclaw/openclaw.json", "mcp.servers"),
}
"""Where each host reads its servers."""

PULL = {"repository": "/srv/app", "remote": "origin", "branch": "main"}
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
HOSTS = [pytest.param(name, marks=needs_node if name == "openclaw" else ()) for name in NAMES]


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    with Simulated() as running:
        yield running


def environment(simulated: Simulated) -> dict[str, str]:
    """Return that of a person who has logged in, whose `client.toml` says the rest."""
    given = {**simulated.environment(), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    return {key: value for key, value in given.items() if not key.startswith("HOST_AGENT_")}


def lines_of(name: str) -> list[Step]:
    page = (HOW_TO / f"{name}.md").read_text(encoding="utf-8")
    found = [one for block in blocks(page) if block.language == "console" for one in steps(block)]
    assert [one.command for one in found] == [
        f"host-agent integrate {name} {option}"
        for option in ("--mcp --dry-run", "--mcp", "--json", "--remove")
    ]
    return found


def typed(line: Step, simulated: Simulated) -> None:
    """Run a line of a page, which must print what the page says."""
    done = subprocess.run(
        ["bash", "-c", line.command],
        env=environment(simulated),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert in_order(line.output, done.stdout), (line, done.stdout)


def settings(home: Path) -> dict[str, bytes]:
    """Return every file of a home but our own state."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and ".local" not in path.parts
    }


def server_of(name: str, home: Path) -> dict[str, Any]:
    """Return how the host was told to start the server."""
    place, keys = SERVERS[name]
    text = (home / place).read_text()
    found = tomllib.loads(text) if place.endswith(".toml") else json.loads(text)
    for key in keys.split("."):
        found = found[key]
    return dict(found["host-agent"])


@pytest.mark.parametrize("name", HOSTS)
async def test_what_the_page_says_gives_tools_and_a_hook(
    name: str, simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in [
        key for key in os.environ if re.match("CLAUDE_|CODEX_|OPENCLAW_|XDG_|HOST_AGENT_", key)
    ]:
        monkeypatch.delenv(key)
    for key, value in environment(simulated).items():
        monkeypatch.setenv(key, value)
    tried, written, proved, removed = lines_of(name)
    before = settings(simulated.home)
    typed(tried, simulated)
    assert settings(simulated.home) == before
    typed(written, simulated)
    after = settings(simulated.home)
    assert before.items() < after.items()

    host = Host(name, simulated.home, PROGRAM)
    assert settings(simulated.home) == after
    assert host.call("true")[0] == RAN
    verdict, reason = host.call("sudo systemctl restart web.service")
    assert verdict == BLOCKED
    assert "systemd_restart" in reason
    typed(proved, simulated)

    server = server_of(name, simulated.home)
    parameters = StdioServerParameters(
        command=server["command"], args=[*server["args"], "--wait", "0"], env=environment(simulated)
    )
    async with Client(parameters) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert {"git_pull", "systemd_restart", "request_status"} <= tools
        held = members(await client.call_tool("git_pull", {**PULL, "reason": "a test"}))
        assert held["state"] == "pending"

    typed(removed, simulated)
    assert settings(simulated.home) == before


def test_every_page_is_two_clicks_from_the_front_page() -> None:
    assert "docs/how-to/plug-in-an-agent.md" in links(REPOSITORY / "README.md")
    pages = {link.partition("#")[0] for link in links(HOW_TO / "plug-in-an-agent.md")}
    others = ("github-actions", "ansible", "curl", "mcp", "guard-an-agents-shell", "simulate")
    assert {f"{name}.md" for name in (*NAMES, *others)} <= pages
    assert "../reference/python-client.md" in pages
