"""Agent hosts as they document themselves: what becomes of a tool call, given a hook's end.

See docs/reference/hooks.md for what each documents. None of them is imported or started here.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host_agent.integration.hosts import HOSTS
from host_agent.integration.integrate import carry_out, plan_put

RAN, BLOCKED = "ran", "blocked"

NODE = """
import { readFileSync } from "node:fs";
const plugin = (await import(process.argv[1])).default;
let handler;
plugin.register({ on: (name, given) => { if (name === "before_tool_call") handler = given; } });
const answer = await handler(JSON.parse(readFileSync(0, "utf8")));
process.stdout.write(answer?.block === true ? `blocked ${answer.blockReason}` : "ran");
"""
"""The gateway: only `block: true` stops a call."""


class Host:
    """One host with the hook in its settings, in a home of its own."""

    def __init__(self, name: str, home: Path, program: Path) -> None:
        self.name = name
        self.home = home
        kind = HOSTS[name]
        self.settings = kind(kind.default_directory(home, {}), str(program))
        carry_out(plan_put(self.settings, has_server=False))

    def call(self, command: str | None, *, raw: bytes | None = None) -> tuple[str, str]:
        """Return what becomes of a tool call and why; `raw` is sent in the place of the event."""
        event = json.dumps(self.event(command)).encode() if raw is None else raw
        if self.name == "openclaw":
            return self._openclaw(event)
        handler = self.handler()
        return (
            _claude_code(handler, event, self.environment())
            if self.name == "claude-code"
            else _codex(handler, event, self.environment())
        )

    def event(self, command: str | None) -> dict[str, Any]:
        """Return the event of a shell call."""
        given = {} if command is None else {"command": command}
        if self.name == "openclaw":
            return {"toolName": "exec", "params": given, "toolCallId": "call-1"}
        return {
            "session_id": "s",
            "transcript_path": None,
            "cwd": str(self.home),
            "permission_mode": "bypassPermissions",
            "hook_event_name": "PreToolUse",
            "tool_name": "Bash",
            "tool_input": given,
            "tool_use_id": "t",
        }

    def handler(self) -> dict[str, Any]:
        """Return the handler of the hook, from the file that the host reads."""
        path = next(iter(self.settings.hook_files())).path
        group = json.loads(path.read_text())["hooks"]["PreToolUse"][-1]
        return dict(group["hooks"][0])

    def environment(self) -> dict[str, str]:
        """Return the environment of the host."""
        return {**os.environ, "HOME": str(self.home), "SHELL": "/bin/sh"}

    def _openclaw(self, event: bytes) -> tuple[str, str]:
        module = self.settings.directory / "extensions" / "host-agent-guard" / "index.js"
        done = subprocess.run(
            ["node", "--input-type=module", "-e", NODE, str(module)],
            input=event,
            capture_output=True,
            env=self.environment(),
            check=True,
        )
        verdict, _, reason = done.stdout.decode().partition(" ")
        return verdict, reason


def _claude_code(
    handler: Mapping[str, Any], event: bytes, environment: Mapping[str, str]
) -> tuple[str, str]:
    """Status 0: JSON decides; 2: blocked; anything else: as `onFailure` says, else it runs."""
    failed = BLOCKED if handler.get("onFailure") == "block" else RAN
    try:
        done = _run(["/bin/sh", "-c", handler["command"]], handler["timeout"], event, environment)
    except subprocess.TimeoutExpired:
        return failed, "timed out"
    if done.returncode == 2:
        return BLOCKED, done.stderr.decode()
    if done.returncode != 0:
        return failed, done.stderr.decode()
    said = done.stdout.decode().strip()
    decision = json.loads(said)["hookSpecificOutput"] if said.startswith("{") else {}
    if decision.get("permissionDecision") == "deny":
        return BLOCKED, str(decision["permissionDecisionReason"])
    return RAN, said


def _codex(
    handler: Mapping[str, Any], event: bytes, environment: Mapping[str, str]
) -> tuple[str, str]:
    """Only status 2 with a reason, or a denial in JSON with one, blocks; whatever else runs."""
    try:
        done = _run(["/bin/sh", "-lc", handler["command"]], handler["timeout"], event, environment)
    except subprocess.TimeoutExpired:
        return RAN, "timed out"
    reason = done.stderr.decode().strip()
    if done.returncode == 2 and reason:
        return BLOCKED, reason
    said = done.stdout.decode().strip()
    if done.returncode == 0 and said.startswith("{"):
        decision = json.loads(said).get("hookSpecificOutput", {})
        if decision.get("permissionDecision") == "deny" and decision["permissionDecisionReason"]:
            return BLOCKED, str(decision["permissionDecisionReason"])
    return RAN, reason


def _run(
    words: list[str], timeout: float, event: bytes, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        words, input=event, capture_output=True, env=environment, timeout=timeout, check=False
    )
