"""The sudo runner, against a stand-in for sudo and, where there is one, against the real sudo."""

import asyncio
import os
import shutil
import signal
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.errors import AdapterUnavailableError, SudoRefusedError
from host_agent.execution.runner import SudoRunner
from host_agent.operations.catalogue import Invocation, RunAs
from tests.support.patience import OUTLASTING, PATIENCE

REAL_SUDO = shutil.which("sudo")
needs_sudo = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be let through sudo"),
    pytest.mark.skipif(REAL_SUDO is None, reason="needs sudo"),
]


def script(path: Path, body: str) -> Path:
    path.write_text("#!/bin/bash -p\n" + textwrap.dedent(body) + "\n")
    path.chmod(0o755)
    return path


def probe(
    *arguments: str, run_as: RunAs = RunAs.UNIX_USER, timeout_seconds: float | None = None
) -> Invocation:
    return Invocation(
        wrapper="probe", arguments=arguments, run_as=run_as, timeout_seconds=timeout_seconds
    )


def runner(directory: Path, sudo_body: str) -> SudoRunner:
    script(directory / "probe", 'echo "wrapper $*"')
    return SudoRunner(directory, 20, 4096, sudo=str(script(directory / "sudo", sudo_body)))


@pytest.mark.parametrize(("run_as", "user"), [(RunAs.ROOT, "root"), (RunAs.UNIX_USER, "alice")])
async def test_sudo_is_asked_without_a_prompt_for_exactly_this_wrapper(
    tmp_path: Path, run_as: RunAs, user: str
) -> None:
    output = await runner(tmp_path, r'printf "%s\n" "$@"').run(
        probe("status", "-x", run_as=run_as), unix_user="alice"
    )
    assert output.stdout.splitlines() == [
        *("-n", "-u", user, "--", str(tmp_path / "probe"), "status", "-x")
    ]


async def test_sudos_refusal_is_named_with_what_to_do(tmp_path: Path) -> None:
    refusing = runner(tmp_path, r"echo -e 'sudo: a password is required\x1b[31m' >&2; exit 1")
    with pytest.raises(SudoRefusedError) as refusal:
        await refusing.run(probe("status"), unix_user="alice")
    detail = refusal.value.detail
    assert str(tmp_path / "probe") in detail
    assert "alice" in detail
    assert "a password is required" in detail
    assert "compares what sudo grants with what the agent needs" in detail
    assert "\x1b" not in detail


async def test_a_wrapper_that_is_missing_is_told_apart_from_a_refusal(tmp_path: Path) -> None:
    refusing = runner(tmp_path, "echo 'sudo: a password is required' >&2; exit 1")
    (tmp_path / "probe").unlink()
    with pytest.raises(AdapterUnavailableError, match="does not exist"):
        await refusing.run(probe("status"), unix_user="alice")


async def test_a_wrappers_own_exit_status_1_is_an_output(tmp_path: Path) -> None:
    output = await runner(tmp_path, "echo 'fatal: no' >&2; exit 1").run(
        probe("status"), unix_user="alice"
    )
    assert (output.exit_code, output.stderr) == (1, "fatal: no\n")


@pytest.mark.promise("c37")
async def test_a_sudo_that_resists_gets_sigterm_only_and_the_answer_comes(
    tmp_path: Path,
) -> None:
    resisting = runner(
        tmp_path,
        f"""
        trap 'echo term >> {tmp_path}/signals' TERM
        echo $$ > {tmp_path}/pid
        until [[ -e {tmp_path}/enough ]]; do sleep 0.05; done
        """,
    )
    started = time.monotonic()
    output = await resisting.run(probe(timeout_seconds=0.3), unix_user="alice")
    assert output.timed_out
    assert time.monotonic() - started < PATIENCE
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)  # it was not killed
    assert (tmp_path / "signals").read_text() == "term\n"
    (tmp_path / "enough").touch()
    async with asyncio.timeout(PATIENCE):  # and it is reaped when it ends, though long answered for
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


class TestRealSudo:
    pytestmark = needs_sudo

    @pytest.fixture
    def tmp_path(self) -> Iterator[Path]:
        """A directory that every user may enter, which pytest's own is not."""
        with tempfile.TemporaryDirectory(prefix="host-agent-") as name:
            Path(name).chmod(0o755)
            yield Path(name)

    def real(self, directory: Path, body: str) -> SudoRunner:
        script(directory / "probe", body)
        return SudoRunner(directory, 20, 4096, sudo=str(REAL_SUDO))

    async def test_a_wrapper_runs_as_the_unix_user(self, tmp_path: Path) -> None:
        output = await self.real(tmp_path, 'id -un; echo "$1"; exit 5').run(
            probe("a b"), unix_user="nobody"
        )
        assert (output.stdout, output.exit_code) == ("nobody\na b\n", 5)

    async def test_a_wrapper_runs_as_root(self, tmp_path: Path) -> None:
        output = await self.real(tmp_path, "id -un").run(
            probe(run_as=RunAs.ROOT), unix_user="nobody"
        )
        assert output.stdout == "root\n"

    async def test_an_unknown_user_is_sudos_refusal(self, tmp_path: Path) -> None:
        with pytest.raises(SudoRefusedError, match="unknown user"):
            await self.real(tmp_path, "id").run(probe(), unix_user="nobody-of-that-name")

    async def test_a_missing_wrapper_is_unavailable(self, tmp_path: Path) -> None:
        sudo = self.real(tmp_path, "id")
        (tmp_path / "probe").unlink()
        with pytest.raises(AdapterUnavailableError):
            await sudo.run(probe(), unix_user="nobody")

    @pytest.mark.promise("c37")
    async def test_the_deadline_reaches_the_wrapper_through_sudo(self, tmp_path: Path) -> None:
        started = time.monotonic()
        output = await self.real(tmp_path, f"echo $$; exec sleep {OUTLASTING}").run(
            probe(timeout_seconds=0.5), unix_user="nobody"
        )
        assert output.timed_out
        assert time.monotonic() - started < PATIENCE
        pid = int(output.stdout)
        async with asyncio.timeout(PATIENCE):
            while Path(f"/proc/{pid}").exists():
                await asyncio.sleep(0.01)

    @pytest.mark.promise("c36")
    async def test_a_root_child_that_resists_does_not_delay_the_answer(
        self, tmp_path: Path
    ) -> None:
        started = time.monotonic()
        output = await self.real(
            tmp_path, "trap '' TERM; echo $$; while :; do sleep 0.1; done"
        ).run(probe(run_as=RunAs.ROOT, timeout_seconds=0.3), unix_user=None)
        assert output.timed_out
        assert time.monotonic() - started < PATIENCE
        os.kill(int(output.stdout), signal.SIGKILL)
