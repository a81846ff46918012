"""The agent hosts: what their hook events look like, and the answers that they understand.

`docs/reference/hooks.md` has what each of them documents.
"""

import json
from typing import Any, NamedTuple

from host_agent.hooks.judgement import CommandDenial
from host_agent.hooks.wording import sentence


class ToolCall(NamedTuple):
    """What a host is about to run in a shell: the text, and the directory that it would run in."""

    command: str
    directory: str


class Answer(NamedTuple):
    """What the hook prints, and its exit status."""

    status: int
    stdout: str = ""
    stderr: str = ""


class UnknownEventError(Exception):
    """The event is not one that can be judged; the message says why."""


BLOCK = 2
"""The exit status by which Claude Code and Codex take standard error as the reason of a denial."""

NAMES = ("claude-code", "codex", "openclaw")

_SHELL_TOOLS = frozenset(["Bash", "PowerShell", "Monitor", "shell", "local_shell", "exec_command"])
_OPENCLAW_SHELL_TOOLS = frozenset(["exec", "bash"])
_OPENCLAW_INPUT = ("data", "text", "literal")
"""What the tool `process` of OpenClaw types into a program that runs already."""


def read_event(host: str, content: bytes) -> ToolCall | None:
    """Return the call that `host` tells of; None where no shell is in it.

    Raises:
        UnknownEventError: it is not JSON, or not an event of that host.
    """
    try:
        event = json.loads(content)
    except (ValueError, RecursionError):
        message = "the event is not JSON"
        raise UnknownEventError(message) from None
    if not isinstance(event, dict):
        message = "the event is not an object"
        raise UnknownEventError(message)
    return _openclaw(event) if host == "openclaw" else _pre_tool_use(event)


def answer(host: str, denial: CommandDenial | None) -> Answer:
    """Return how `host` is told of a denial, or that there is no opinion."""
    if denial is None:
        return Answer(0, stdout="{}\n" if host == "openclaw" else "")
    return refusal(host, sentence(denial))


def refusal(host: str, reason: str) -> Answer:
    """Return how `host` is told that the command must not run."""
    if host == "openclaw":
        return Answer(0, stdout=json.dumps({"block": True, "blockReason": reason}) + "\n")
    return Answer(BLOCK, stderr=f"{reason}\n")


def _pre_tool_use(event: dict[str, Any]) -> ToolCall | None:
    if event.get("hook_event_name") != "PreToolUse":
        message = "the event is not PreToolUse"
        raise UnknownEventError(message)
    tool, given = event.get("tool_name"), event.get("tool_input")
    if not isinstance(tool, str):
        message = "the event names no tool"
        raise UnknownEventError(message)
    command = given.get("command") if isinstance(given, dict) else None
    if tool not in _SHELL_TOOLS:
        return None
    return ToolCall(_text(command), _directory(event.get("cwd")))


def _openclaw(event: dict[str, Any]) -> ToolCall | None:
    tool, given = event.get("toolName"), event.get("params")
    if not isinstance(tool, str) or not isinstance(given, dict):
        message = "the event is not before_tool_call"
        raise UnknownEventError(message)
    directory = _directory(given.get("workdir"))
    if tool in _OPENCLAW_SHELL_TOOLS:
        return ToolCall(_text(given.get("command")), directory)
    if tool == "process":
        typed = [given[name] for name in _OPENCLAW_INPUT if isinstance(given.get(name), str)]
        return ToolCall("\n".join(typed), directory) if typed else None
    return None


def _text(command: object) -> str:
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        return " ".join("'" + word.replace("'", "'\\''") + "'" for word in command)
    if not isinstance(command, str):
        message = "the event of a shell has no command"
        raise UnknownEventError(message)
    return command


def _directory(value: object) -> str:
    return value if isinstance(value, str) and value.startswith("/") else "/"
