"""The hook's own file, and the events and answers of each host."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from host_agent.hooks import hook
from host_agent.hooks.hosts import NAMES, ToolCall, UnknownEventError, read_event, refusal
from host_agent.hooks.settings import (
    HookSettings,
    HookSettingsError,
    load_settings,
    settings_path,
)
from host_agent.integration.hosts import HOSTS


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(str(tmp_path / "hook.toml")) == HookSettings()
    assert load_settings("/dev/null/hook.toml") == HookSettings()


def test_the_file_says_what_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "hook.toml"
    path.write_text(
        'repositories = ["/srv/app/", "//srv//b"]\nreads = "deny"\nuser_units = "deny"\n'
    )
    assert load_settings(str(path)) == HookSettings(("/srv/app", "/srv/b"), False, False)


@pytest.mark.parametrize(
    "text",
    [
        "repositories = ['app']",
        "repositories = ['/']",
        "repositories = ['//']",
        "repositories = [1]",
        "repositories = '/srv'",
        "reads = 'maybe'",
        "user_units = true",
        "repository = []",
        "[x",
        "a" * 70_000,
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hook.toml"
    path.write_text(text)
    with pytest.raises(HookSettingsError, match=r"hook\.toml"):
        load_settings(str(path))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HookSettingsError):
        load_settings(str(tmp_path))


def test_the_file_is_beside_client_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert settings_path({}) == "/home/x/.config/host-agent/hook.toml"
    assert settings_path({"XDG_CONFIG_HOME": "/c"}) == "/c/host-agent/hook.toml"
    assert settings_path({"XDG_CONFIG_HOME": "c"}) == "/home/x/.config/host-agent/hook.toml"


def test_the_hook_knows_the_hosts_that_can_be_integrated() -> None:
    assert tuple(HOSTS) == NAMES


@pytest.mark.parametrize("tool", ["Bash", "PowerShell", "Monitor", "shell", "exec_command"])
def test_shells_are_judged(tool: str) -> None:
    event = {
        "hook_event_name": "PreToolUse",
        "tool_name": tool,
        "tool_input": {"command": "ls"},
        "cwd": "/x",
    }
    assert read_event("codex", json.dumps(event).encode()) == ToolCall("ls", "/x")
    event["tool_input"] = {"command": ["bash", "-lc", "it's"]}
    found = read_event("codex", json.dumps(event).encode())
    assert found == ToolCall("'bash' '-lc' 'it'\\''s'", "/x")
    event["cwd"] = "x"
    assert read_event("codex", json.dumps(event).encode()) == found._replace(directory="/")


@pytest.mark.parametrize("tool", ["Edit", "mcp__host-agent__zfs_destroy", "Read"])
def test_other_tools_are_none_of_ours(tool: str) -> None:
    event = {"hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": {"command": "sudo"}}
    assert read_event("claude-code", json.dumps(event).encode()) is None


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ({"toolName": "exec", "params": {"command": "ls", "workdir": "/w"}}, ToolCall("ls", "/w")),
        ({"toolName": "bash", "params": {"command": "ls"}}, ToolCall("ls", "/")),
        ({"toolName": "process", "params": {"data": "sudo ls\n"}}, ToolCall("sudo ls\n", "/")),
        ({"toolName": "process", "params": {"action": "list"}}, None),
        ({"toolName": "web_search", "params": {"query": "sudo"}}, None),
    ],
)
def test_events_of_openclaw(event: dict[str, object], found: ToolCall | None) -> None:
    assert read_event("openclaw", json.dumps(event).encode()) == found


@pytest.mark.parametrize("event", [{}, {"toolName": "exec"}, {"toolName": "exec", "params": {}}])
def test_events_of_openclaw_that_cannot_be_judged(event: dict[str, object]) -> None:
    with pytest.raises(UnknownEventError):
        read_event("openclaw", json.dumps(event).encode())


def test_a_refusal_always_has_a_reason() -> None:
    assert refusal("codex", "why").stderr == "why\n"
    assert json.loads(refusal("openclaw", "why").stdout) == {"block": True, "blockReason": "why"}


class Stream:
    """Standard input with these bytes."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def run(monkeypatch: pytest.MonkeyPatch, content: bytes, host: str = "codex") -> int:
    monkeypatch.setattr(sys, "stdin", Stream(content))
    monkeypatch.setattr(signal, "alarm", lambda _seconds: 0)
    return hook.main(host)


def test_an_unknown_host_is_denied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, b"{}", host="cursor") == 2
    assert "'cursor' is none of" in capsys.readouterr().err


def test_a_command_without_end_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "MAX_EVENT_BYTES", 10)
    event = b'{"hook_event_name": "PreToolUse", "tool_name": "Edit"}'
    assert run(monkeypatch, event) == 2
    monkeypatch.setattr(hook, "MAX_EVENT_BYTES", 1000)
    assert run(monkeypatch, event) == 0


def test_the_mark_of_a_call_is_moved_only_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    event = b'{"hook_event_name": "PreToolUse", "tool_name": "Edit"}'
    mark = Path(hook.mark_path("codex"))
    assert run(monkeypatch, event) == 0
    assert not mark.exists()
    mark.parent.mkdir(parents=True)
    mark.touch()
    mark.chmod(0o600)
    os.utime(mark, (0, 0))
    assert run(monkeypatch, b"no event") == 2
    assert mark.stat().st_mtime == 0
    assert run(monkeypatch, event) == 0
    assert mark.stat().st_mtime > 0


def test_whatever_is_raised_is_a_denial(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(hook, "judge", fail)
    monkeypatch.setattr("os.dup2", lambda _old, _new: 1)
    event = (
        b'{"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": "ls"}}'
    )
    assert run(monkeypatch, event) == 2
    assert "MemoryError" in capfd.readouterr().err
