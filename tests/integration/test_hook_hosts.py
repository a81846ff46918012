"""Whatever fails, a host that acts as it documents does not run the command."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_agent.hooks.hosts import NAMES
from host_agent.integration import command
from tests.support.hook_hosts import BLOCKED, RAN, Host

PROGRAM = Path(sys.executable).with_name("host-agent")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
HOSTS = [pytest.param(name, marks=needs_node if name == "openclaw" else ()) for name in NAMES]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def settings(home: Path, text: str) -> None:
    path = home / ".config" / "host-agent" / "hook.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.mark.parametrize("name", HOSTS)
def test_a_privileged_command_is_blocked_and_another_runs(name: str, home: Path) -> None:
    host = Host(name, home, PROGRAM)
    assert host.call("ls -l")[0] == RAN
    assert host.call("echo 'systemctl restart nginx'")[0] == RAN
    verdict, reason = host.call("sudo systemctl restart nginx")
    assert verdict == BLOCKED
    assert "host-agent call systemd.restart unit=nginx.service" in reason


@pytest.mark.parametrize("name", HOSTS)
def test_the_hook_goes_by_its_own_file(name: str, home: Path) -> None:
    host = Host(name, home, PROGRAM)
    assert host.call("systemctl status nginx")[0] == RAN
    settings(home, 'reads = "deny"\n')
    assert host.call("systemctl status nginx")[0] == BLOCKED


def no_program(path: Path) -> None:
    path.unlink()


def not_executable(path: Path) -> None:
    path.chmod(0o644)


def no_interpreter(path: Path) -> None:
    path.write_text("#!/nonexistent/python\n")


def hangs(path: Path) -> None:
    path.write_text("#!/bin/sh\nexec tail -f /dev/null\n")


def hangs_and_ignores_the_end(path: Path) -> None:
    path.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do tail -f /dev/null; done\n")


def is_killed(path: Path) -> None:
    path.write_text("#!/bin/sh\nkill -KILL $$\n")


def crashes(path: Path) -> None:
    path.write_text(f"#!{sys.executable}\nraise RuntimeError\n")


def fails_silently(path: Path) -> None:
    path.write_text("#!/bin/sh\nexit 1\n")


def is_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN = [
    no_program,
    not_executable,
    no_interpreter,
    hangs,
    hangs_and_ignores_the_end,
    is_killed,
    crashes,
    fails_silently,
    is_a_directory,
]


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_hook_blocks(
    name: str, broken: Callable[[Path], None], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BOUND_SECONDS", 1)
    program = home / "bin" / "host-agent"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '{}'\n" if name == "openclaw" else "#!/bin/sh\n")
    program.chmod(0o755)
    host = Host(name, home, program)
    assert host.call("ls")[0] == RAN
    broken(program)
    verdict, reason = host.call("ls")
    assert verdict == BLOCKED
    assert reason


def test_a_hook_without_its_guard_would_let_the_command_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "host_agent.integration.hosts.host.guarded", lambda words: f"{' '.join(words)} "
    )
    host = Host("codex", home, home / "host-agent")
    assert host.call("sudo systemctl restart nginx")[0] == RAN


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize(
    "text", ["repositories = 'x'", "reads = 3", "not toml", "unknown = 1", "repositories = ['/']"]
)
def test_a_file_of_its_own_that_cannot_be_used_blocks(name: str, text: str, home: Path) -> None:
    host = Host(name, home, PROGRAM)
    settings(home, text)
    verdict, reason = host.call("ls")
    assert verdict == BLOCKED
    assert "hook.toml" in reason


@pytest.mark.parametrize("name", [name for name in NAMES if name != "openclaw"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"hook_event_name": "PreToolUse"}',
        b'{"hook_event_name": "PostToolUse", "tool_name": "Bash"}',
        b'{"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {}}',
        b'{"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": 3}}',
        b'{"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": []}}',
        b"[" * 100_000,
    ],
)
def test_an_event_that_cannot_be_read_blocks(name: str, raw: bytes, home: Path) -> None:
    verdict, reason = Host(name, home, PROGRAM).call(None, raw=raw)
    assert verdict == BLOCKED
    assert "nothing" in reason


@needs_node
def test_a_call_without_a_command_blocks_in_openclaw(home: Path) -> None:
    assert Host("openclaw", home, PROGRAM).call(None)[0] == BLOCKED


@contextmanager
def agent(answer: bytes | None) -> Iterator[tuple[int, list[object]]]:
    """Listen as an agent that gives everybody one answer; None is nobody listening any more."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if answer is None:
            server.close()
            yield port, calls
            return

        def serve() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                calls.append(peer)
                with connection:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield port, calls
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


ANSWERS = {
    "down": None,
    "403": b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
    "held": b'HTTP/1.1 202 Accepted\r\ncontent-length: 19\r\n\r\n{"state":"pending"}',
    "expired": b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"state":"expired"}',
    "unknown operation": b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    "garbage": b"\x00\x01\x02",
}


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("state", ANSWERS)
def test_whatever_the_agent_answers_it_is_not_asked_and_nothing_runs(
    name: str, state: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(ANSWERS[state]) as (port, calls):
        monkeypatch.setenv("HOST_AGENT_URL", f"https://127.0.0.1:{port}")
        host = Host(name, home, PROGRAM)
        assert host.call("zfs destroy tank/x")[0] == BLOCKED
        assert host.call("systemctl enable nginx")[0] == BLOCKED
        assert not calls


SEEN = """
import io, json, sys
before = set(sys.modules)
from host_agent.__main__ import main
opened = []
def seen(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
    elif event.startswith(("socket.", "subprocess.", "os.system", "os.posix_spawn", "os.exec")):
        raise SystemExit(f"{event} {arguments}")
class Input:
    buffer = io.BytesIO(sys.stdin.buffer.read())
sys.stdin = Input()
sys.addaudithook(seen)
status = main(["hook", "claude-code"])
names = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = sorted(names - set(sys.stdlib_module_names) - {"host_agent"})
slow = sorted(names & {"asyncio", "ssl", "dataclasses", "inspect", "pathlib", "subprocess",
                         "argparse"})
opened = [path for path in opened if not path.endswith((".py", ".pyc"))]
print(json.dumps({"status": status, "foreign": foreign, "slow": slow, "opened": opened}))
"""


@pytest.mark.parametrize(
    ("text", "status"), [("sudo zfs list", 2), ("git pull", 0), ("ls | zfs x", 2)]
)
def test_the_hook_imports_nothing_foreign_and_opens_only_its_own_file(
    text: str, status: int, home: Path
) -> None:
    settings(home, 'repositories = ["/srv/app"]\n')
    event = {
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "cwd": "/",
        "tool_input": {"command": text},
    }
    done = subprocess.run(
        [sys.executable, "-c", SEEN],
        input=json.dumps(event).encode(),
        capture_output=True,
        env={**os.environ, "HOME": str(home)},
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "status": status,
        "foreign": [],
        "slow": [],
        "opened": [str(home / ".config" / "host-agent" / "hook.toml")],
    }
