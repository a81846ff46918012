"""The administrator's own program: run with a question, as long as it is root's alone."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from host_agent.errors import AdapterUnavailableError
from host_agent.execution.runner import ProgramRunner
from tests.support.patience import OUTLASTING, PATIENCE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of root")

QUESTION = json.dumps({"version": 1, "text": "\u00e4" * 50_000}).encode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def program(directory: Path, script: str) -> Path:
    path = directory / "check"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def runner(path: Path | str, *, seconds: float = 5.0, most: int = 65_536) -> ProgramRunner:
    return ProgramRunner(str(path), timeout_seconds=seconds, max_output_bytes=most)


async def test_it_gets_the_whole_question_and_its_answer_is_brought(directory: Path) -> None:
    path = program(directory, f"cat > {directory}/got; echo '{{\"allow\": true}}'")
    output = await runner(path).run(QUESTION)
    assert (output.exit_code, output.stdout) == (0, '{"allow": true}\n')
    assert (directory / "got").read_bytes() == QUESTION


async def test_it_inherits_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    output = await runner(program(directory, "env; pwd; ls /proc/$$/fd | wc -l")).run(b"{}")
    assert "A_SECRET" not in output.stdout
    assert output.stdout.splitlines()[-2] == "/"


async def test_a_failure_is_an_output(directory: Path) -> None:
    assert (await runner(program(directory, "exit 3")).run(b"{}")).exit_code == 3


async def test_it_ends_at_its_deadline_with_all_its_children(directory: Path) -> None:
    path = program(directory, f"sleep {OUTLASTING} & sleep {OUTLASTING}")
    began = time.monotonic()
    output = await runner(path, seconds=0.2).run(b"{}")
    assert output.timed_out
    assert time.monotonic() - began < PATIENCE


async def test_a_long_answer_is_cut_and_said_to_be(directory: Path) -> None:
    output = await runner(program(directory, "head -c 100000 /dev/zero"), most=1000).run(b"{}")
    assert output.truncated
    assert len(output.stdout) <= 1000


async def test_it_is_looked_at_before_each_run(directory: Path) -> None:
    path = program(directory, f"echo ran >> {directory}/ran")
    runs = runner(path)
    await runs.run(b"{}")
    path.chmod(0o775)
    with pytest.raises(AdapterUnavailableError):
        await runs.run(b"{}")
    assert (directory / "ran").read_text() == "ran\n"


def written_by_others(path: Path) -> None:
    path.chmod(0o757)


def of_somebody_else(path: Path) -> None:
    os.chown(path, 65534, 65534)


def no_program(path: Path) -> None:
    path.chmod(0o644)


def gone(path: Path) -> None:
    path.unlink()


def a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def in_a_directory_that_others_may_write(path: Path) -> None:
    path.parent.chmod(0o777)


def in_a_directory_of_somebody_else(path: Path) -> None:
    os.chown(path.parent, 65534, 65534)


@pytest.mark.parametrize(
    "spoil",
    [
        written_by_others,
        of_somebody_else,
        no_program,
        gone,
        a_link,
        a_directory,
        in_a_directory_that_others_may_write,
        in_a_directory_of_somebody_else,
    ],
)
async def test_what_is_not_roots_alone_is_not_run(directory: Path, spoil: object) -> None:
    place = directory / "place"
    place.mkdir(mode=0o755)
    path = program(place, f"echo ran >> {directory}/ran")
    spoil(path)  # type: ignore[operator]
    with pytest.raises(AdapterUnavailableError):
        await runner(path).run(b"{}")
    assert not (directory / "ran").exists()


async def test_a_link_above_it_is_followed_to_where_it_leads(directory: Path) -> None:
    place = directory / "place"
    place.mkdir(mode=0o755)
    program(place, "exit 0")
    (directory / "short").symlink_to(place)
    through = runner(directory / "short" / "check")
    assert (await through.run(b"{}")).exit_code == 0
    place.chmod(0o777)
    with pytest.raises(AdapterUnavailableError):
        await through.run(b"{}")


async def test_many_at_once_each_get_their_own_question(directory: Path) -> None:
    runs = runner(program(directory, "cat"))
    outputs = await asyncio.gather(*(runs.run(str(number).encode()) for number in range(8)))
    assert [output.stdout for output in outputs] == [str(number) for number in range(8)]


@pytest.mark.parametrize("path", ["check", "", "/nowhere/check", "/bin/\0true"])
async def test_a_path_that_is_none_is_not_run(path: str) -> None:
    with pytest.raises(AdapterUnavailableError):
        await runner(path).run(b"{}")
