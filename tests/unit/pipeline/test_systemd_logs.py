"""A secret in a log is taken out of the answer and of the record, however journalctl encodes it."""

import json
from pathlib import Path

import pytest

from tests.support.pipeline import opened, output
from tests.support.site import RULES

UNIT = "nginx.service"
CONFIGURED = f"""
[[rules]]
name = "logs are free"
operations = ["systemd.*"]
verdict = "allow"
{RULES}
[systemd]
units = ["nginx\\\\.service"]
"""


@pytest.mark.promise("c49")
async def test_a_secret_in_the_journal_reaches_nobody(tmp_path: Path) -> None:
    message = [*b"\x1b[31mpassword=hunter22\x1b[0m"]
    line = json.dumps({"__REALTIME_TIMESTAMP": "1795212000000000", "MESSAGE": message})
    (tmp_path / "wrappers").mkdir(mode=0o700)
    (tmp_path / "wrappers" / "systemd-logs").write_text("#!/bin/sh\n")
    (tmp_path / "wrappers" / "systemd-logs").chmod(0o755)
    async with opened(tmp_path, rules=CONFIGURED) as bench:
        bench.host.answers[UNIT] = output(line + "\n")
        answer = await bench.ask("systemd.logs", {"unit": UNIT})
        said = json.dumps([answer.body, bench.records()])
    outcome = answer.body["outcome"]
    assert isinstance(outcome, dict)
    entries = outcome["data"]["entries"]
    assert [entry["message"] for entry in entries] == ["\x1b[31mpassword=[redacted]\x1b[0m"]
    assert "hunter22" not in said
    assert str(message)[1:-1] not in said
