"""`host-agent audit` as people and scripts run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from tests.support.audit_files import HeldClock, joined, lines, opened
from tests.support.configurations import MINIMAL, write
from tests.support.patience import PATIENCE


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "host_agent", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made, _ = lines(20)
    file = tmp_path / "audit.jsonl"
    file.write_bytes(joined(made))
    return file


def test_an_untouched_file_verifies(path: Path) -> None:
    done = command("verify", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "integrity: intact" in done.stdout
    assert "completeness: from 1, no gap" in done.stdout


@pytest.mark.promise("c7")
def test_one_changed_byte_is_named_by_its_sequence(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"number":6', b'"number":7', 1))
    done = command("verify", path)
    assert done.returncode == 1
    assert "first bad sequence: 7" in done.stdout
    assert "integrity: BROKEN" in done.stdout
    answer = json.loads(command("verify", path, "--json").stdout)
    assert (answer["ok"], answer["first_bad"], answer["completeness"]) == (False, 7, True)


@pytest.mark.promise("c7")
def test_a_cut_end_is_found_with_the_head(path: Path) -> None:
    _, head = lines(20)
    assert "to the given head" in command("verify", path, "--head", head.hash).stdout
    made, _ = lines(15)
    path.write_bytes(joined(made))
    assert command("verify", path).returncode == 0
    done = command("verify", path, "--head", head.hash)
    assert done.returncode == 1
    assert "completeness: BROKEN" in done.stdout


@pytest.mark.promise("c3")
def test_a_torn_end_is_told_and_passes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])
    done = command("verify", path)
    assert done.returncode == 0
    assert "torn at 20" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["verify", "/etc/passwd"], 65),
        (["verify", "/nonexistent"], 65),
        (["verify", "/dev/zero"], 65),
        (["verify"], 64),
        (["verify", "/etc/passwd", "--head", "abc"], 64),
        (["tail", "/nonexistent"], 65),
        (["tail", "/dev/zero"], 65),
        (["tail", "/etc/passwd", "-n", "-1"], 64),
        (["tail", "/etc/passwd", "-n", "x"], 64),
        (["tail", "/etc/passwd", "--config", "/etc/passwd"], 64),
        (["tail", "--config", "/nonexistent"], 78),
        ([], 64),
    ],
)
def test_what_cannot_be_done_ends_with_its_status_and_one_sentence(
    arguments: list[str], status: int
) -> None:
    done = command(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("host-agent: ")
    assert done.stderr.count("\n") == 1


def test_tail_shows_the_newest(path: Path) -> None:
    done = command("tail", path, "-n", "2")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["19", "20"]
    answer = command("tail", path, "-n", "3", "--json")
    assert [json.loads(line)["sequence"] for line in answer.stdout.splitlines()] == [18, 19, 20]
    assert command("tail", path, "-n", "0").stdout == ""
    assert len(command("tail", path, "-n", "500").stdout.splitlines()) == 20


async def test_tail_says_why_a_configuration_was_rejected(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    faults = ["rules[1].verdict: must be 'allow'", "b: c"]
    async with opened(path) as log:
        await log.append(Event.CONFIG_REJECTED, faults=faults)
        await log.append(Event.CONFIG_REJECTED, faults=["a:b"])
    first, second, *_ = command("tail", path, "-n", "2").stdout.splitlines()
    assert first.endswith(f'config.rejected fault="{faults[0]}" more_faults=1')
    assert second.endswith("config.rejected fault=a:b")


def test_tail_finds_the_file_of_the_configuration(tmp_path: Path) -> None:
    config = write(tmp_path / "etc", MINIMAL + '[audit]\npath = "state/log.jsonl"\n')
    made, _ = lines(3)
    (config.parent / "state/log.jsonl").write_bytes(joined(made))
    done = command("tail", "--config", config)
    assert len(done.stdout.splitlines()) == 3, done.stderr


@pytest.mark.promise("c31")
async def test_hostile_text_is_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with opened(path) as log:
        await log.append(
            Event.POLICY_DENIED,
            caller="a\x1b[2J\u202e\nforged code=ok",
            reason='x" request_id="1',
        )
    with path.open("ab") as stream:
        stream.write(b"\x1b[2J not a record\n")
    for options in ((), ("--json",)):
        done = command("tail", path, *options)
        assert not set(done.stdout + done.stderr) & {"\x1b", "\u202e", "\x00"}
        assert len(done.stdout.splitlines()) == 2 - len(options)
        assert "\\u{1b}[2J" in done.stdout


async def test_follow_shows_what_is_appended_and_goes_on_in_the_next_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await log.append(Event.AGENT_STARTED)
        with subprocess.Popen(
            [sys.executable, "-m", "host_agent", "audit", "tail", path, "--follow", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None
            seen = [json.loads(process.stdout.readline())["event"]]
            await log.append(Event.OPERATION_STARTED)
            seen.append(json.loads(process.stdout.readline())["event"])
            clock.advance(days=1)
            await log.append(Event.OPERATION_FINISHED)
            seen += [json.loads(process.stdout.readline())["event"] for _ in range(2)]
            process.terminate()
    assert seen == ["agent.started", "operation.started", "audit.rotated", "operation.finished"]
