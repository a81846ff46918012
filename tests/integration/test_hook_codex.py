"""Codex itself, with the hook in its settings and a model that asks for one command.

Where `codex` is not on the search path, this is skipped; tried with 0.171.0.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from host_agent.integration.hosts.codex import Codex, trust_hash
from host_agent.integration.integrate import carry_out, plan_put, plan_take, readiness
from tests.support.patience import PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("codex") is None, reason="codex is not installed"),
]
PROGRAM = Path(sys.executable).with_name("host-agent")
USAGE = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 1)


class Model:
    """A model over HTTP (the responses API): it asks for one command, then it is done."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.answers: list[str] = []
        self.url = ""

    def item(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return what the model says next."""
        outputs = [one for one in asked["input"] if one["type"] == "function_call_output"]
        self.answers += [str(one["output"]) for one in outputs]
        if outputs:
            said = [{"type": "output_text", "text": "done"}]
            return {"type": "message", "role": "assistant", "id": "m", "content": said}
        given = json.dumps({"cmd": self.command})
        name = "exec_command"
        return {
            "type": "function_call",
            "id": "f",
            "call_id": "c",
            "name": name,
            "arguments": given,
        }


@contextmanager
def served(model: Model) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            events = [
                {"type": "response.created", "response": {"id": "r"}},
                {"type": "response.output_item.done", "item": model.item(asked)},
                {"type": "response.completed", "response": {"id": "r", "usage": USAGE}},
            ]
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for event in events:
                line = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                self.wfile.write(line.encode())

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class Person:
    """Somebody with Codex and the hook in a home of their own."""

    def __init__(self, home: Path, program: Path) -> None:
        self.home = home
        (home / "work").mkdir()
        self.host = Codex(home / ".codex", str(program))
        carry_out(plan_put(self.host, has_server=False))

    def trust(self) -> None:
        """Trust the hook as it is now, as /hooks does."""
        hooks = self.host.directory / "hooks.json"
        group = json.loads(hooks.read_text())["hooks"]["PreToolUse"][0]
        with (self.host.directory / "config.toml").open("a") as stream:
            stream.write(f'[hooks.state."{hooks}:pre_tool_use:0:0"]\n')
            stream.write(f'trusted_hash = "{trust_hash(group)}"\n')

    def run(self, command: str) -> str:
        """Have Codex run a command, and return what its model was told of it."""
        model = Model(command)
        with served(model):
            flags = {
                "model": "none",
                "model_provider": "own",
                "approval_policy": "never",
                "sandbox_mode": "danger-full-access",
                "model_providers.own.name": "own",
                "model_providers.own.base_url": model.url,
                "model_providers.own.wire_api": "responses",
            }
            options = [x for k, v in flags.items() for x in ("-c", f"{k}={json.dumps(v)}")]
            subprocess.run(
                ["codex", "exec", "--skip-git-repo-check", *options, "go"],
                cwd=self.home / "work",
                env={**os.environ, "HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                check=True,
            )
        return "\n".join(model.answers)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("CODEX_HOME", raising=False)
    return tmp_path


ESCAPE = "touch ran; : sudo systemctl restart nginx"


def test_a_trusted_hook_is_called_and_holds(home: Path) -> None:
    person = Person(home, PROGRAM)
    person.trust()
    assert readiness(person.host).is_trusted
    assert not readiness(person.host).is_ready
    assert "host-agent call OPERATION" in person.run(ESCAPE)
    assert not (home / "work" / "ran").exists()
    assert readiness(person.host).is_ready
    assert "host-agent call zfs.list dataset=tank" in person.run("sudo zfs list tank")
    person.run("touch ran")
    assert (home / "work" / "ran").exists()


def test_a_hook_that_nobody_trusts_is_not_called_and_readiness_says_so(home: Path) -> None:
    person = Person(home, PROGRAM)
    person.run(ESCAPE)
    assert (home / "work" / "ran").exists()
    ready = readiness(person.host)
    assert ready.is_trusted is False
    assert ready.called_at is None


@pytest.mark.parametrize(
    "text", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\nexec tail -f /dev/null\n"]
)
def test_a_hook_that_fails_holds(text: str | None, home: Path) -> None:
    program = home / "host-agent"
    person = Person(home, program)
    person.trust()
    if text is not None:
        program.write_text(text)
        program.chmod(0o755)
    assert "nothing was run" in person.run(ESCAPE)
    assert not (home / "work" / "ran").exists()


def test_what_codex_wrote_meanwhile_stays(home: Path) -> None:
    person = Person(home, PROGRAM)
    person.trust()
    person.run("true")
    kept = (home / ".codex" / "config.toml").read_bytes()
    carry_out(plan_take(person.host))
    assert (home / ".codex" / "config.toml").read_bytes() == kept
    assert not (home / ".codex" / "hooks.json").exists()
