"""`host-agent integrate` as a person and an automation meet it."""

import json
import os
import sys
from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.errors import EX_CONFIG, EX_OK, EX_USAGE
from host_agent.hooks.hook import mark_path
from host_agent.hooks.hosts import NAMES


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR", "OPENCLAW_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    program = Path(sys.executable).with_name("host-agent")
    monkeypatch.setattr(sys, "argv", [str(program)])
    return tmp_path


def settings_of(home: Path) -> list[str]:
    return sorted(
        path.relative_to(home).as_posix()
        for path in home.rglob("*")
        if path.is_file() and ".local" not in path.parts
    )


@pytest.mark.parametrize("name", NAMES)
def test_put_look_and_take(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["integrate", name, "--dry-run"]) == EX_OK
    shown = capsys.readouterr().out
    assert "created: " in shown
    assert "host-agent" in shown
    assert settings_of(home) == []
    assert main(["integrate", name]) == EX_OK
    shown = capsys.readouterr().out
    assert "not ready yet" in shown
    assert f"- {name} has not called it yet." in shown
    assert "next: " in shown
    written = settings_of(home)
    assert written
    os.utime(mark_path(name))
    assert main(["integrate", name, "--json"]) == EX_OK
    told = json.loads(capsys.readouterr().out)
    assert told["host"] == name
    assert {one["deed"] for one in told["files"]} == {"unchanged"}
    assert told["readiness"]["installed"] is True
    assert told["readiness"]["called_at"]
    assert told["readiness"]["ready"] is (name != "codex")
    assert settings_of(home) == written
    assert main(["integrate", name]) == EX_OK
    assert ("ready: " in capsys.readouterr().out) is (name != "codex")
    assert main(["integrate", name, "--remove"]) == EX_OK
    assert "removed: " in capsys.readouterr().out
    assert settings_of(home) == []


def test_a_dry_run_shows_only_what_changes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text('{\n  "env": {"TOKEN": "secret"},\n  "model": "x"\n}\n')
    before = path.read_bytes()
    assert main(["integrate", "claude-code", "--dry-run"]) == EX_OK
    shown = capsys.readouterr().out
    assert "PreToolUse" in shown
    assert "secret" not in shown
    assert path.read_bytes() == before
    assert main(["integrate", "claude-code", "--dry-run", "--json"]) == EX_OK
    told = json.loads(capsys.readouterr().out)
    assert told["done"] is False
    assert told["readiness"]["installed"] is False


def test_the_server_comes_where_it_is_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("host_agent.cli.commands.integrate._has_server", lambda: False)
    assert main(["integrate", "codex", "--mcp"]) == EX_USAGE
    assert "the extra mcp" in capsys.readouterr().err
    assert settings_of(home) == []
    monkeypatch.setattr("host_agent.cli.commands.integrate._has_server", lambda: True)
    assert main(["integrate", "codex", "--mcp"]) == EX_OK
    assert settings_of(home) == [".codex/config.toml", ".codex/hooks.json"]
    assert main(["integrate", "codex", "--remove"]) == EX_OK
    assert settings_of(home) == []


def test_another_directory_can_be_named(home: Path) -> None:
    assert main(["integrate", "codex", "--directory", str(home / "x" / ".codex")]) == EX_OK
    assert settings_of(home) == ["x/.codex/hooks.json"]


def test_what_cannot_be_done_changes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / ".codex" / "hooks.json"
    path.parent.mkdir()
    path.write_text("{ broken")
    assert main(["integrate", "codex"]) == EX_CONFIG
    assert "hooks.json: line 1 is not JSON. Nothing was written." in capsys.readouterr().err
    assert path.read_text() == "{ broken"
    assert main(["integrate", "cursor"]) == EX_USAGE
    assert main(["integrate", "codex", "--dry-run", "--remove"]) == EX_USAGE


def test_a_hook_of_no_host_is_a_denial(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hook", "cursor"]) == 2
    assert "none of claude-code, codex, openclaw" in capsys.readouterr().err
    assert main(["hook"]) == EX_USAGE
    assert main(["hook", "--help"]) == EX_OK
