"""The direct runner against real processes: what they get, what is told of them, how they end."""

import asyncio
import errno
import gc
import hashlib
import os
import pwd
import resource
import signal
import stat
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_agent.errors import AdapterUnavailableError
from host_agent.execution.process import LOST_STATUS
from host_agent.execution.runner import UnsafeDirectRunner
from host_agent.operations.catalogue import Invocation, Output, RunAs
from tests.support.patience import OUTLASTING, PATIENCE

MEBIBYTE = 1 << 20


class Wrappers:
    """A directory of wrappers that a test writes, and a runner of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runner = self.runner_with()

    def runner_with(
        self, *, timeout_seconds: float = PATIENCE, max_output_bytes: int = 4096
    ) -> UnsafeDirectRunner:
        return UnsafeDirectRunner(self.directory, timeout_seconds, max_output_bytes)

    def write(self, body: str, *, name: str = "probe", shebang: str = "#!/bin/bash -p") -> Path:
        path = self.directory / name
        path.write_text(f"{shebang}\n{textwrap.dedent(body)}\n")
        path.chmod(0o755)
        return path

    async def run(
        self,
        body: str,
        *arguments: str,
        runner: UnsafeDirectRunner | None = None,
        timeout_seconds: float | None = None,
        deadline: float | None = None,
    ) -> Output:
        self.write(body)
        return await (runner or self.runner).run(
            probe(*arguments, timeout_seconds=timeout_seconds), unix_user=None, deadline=deadline
        )


def probe(*arguments: str, timeout_seconds: float | None = None) -> Invocation:
    return Invocation(
        wrapper="probe",
        arguments=arguments,
        run_as=RunAs.UNIX_USER,
        timeout_seconds=timeout_seconds,
    )


@pytest.fixture
def wrappers(tmp_path: Path) -> Wrappers:
    return Wrappers(tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    # A runner keeps one /dev/null and one epoll set, and closes them when it is collected.
    assert open_descriptors() <= before + 8


def open_descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> dict[int, str]:
    """Return the state letter of each child of this process, from proc(5)."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid():
            found[int(entry.name)] = fields[0]
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def eventually(holds: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


# -- what is told ---------------------------------------------------------------------------------


async def test_exit_status_output_and_hash_are_told(wrappers: Wrappers) -> None:
    output = await wrappers.run('printf "out %s" "$2"; printf err >&2; exit 3', "a", "b c")
    assert (output.exit_code, output.stdout, output.stderr) == (3, "out b c", "err")
    assert (output.stdout_bytes, output.stderr_bytes) == (7, 3)
    assert output.stdout_sha256 == hashlib.sha256(b"out b c").hexdigest()
    assert not output.truncated
    assert not output.timed_out
    assert 0 <= output.duration_ms < 5000


async def test_death_by_a_signal_is_a_negative_status(wrappers: Wrappers) -> None:
    assert (await wrappers.run("kill -SEGV $$")).exit_code == -signal.SIGSEGV


async def test_the_identitys_own_unix_user_may_be_named(wrappers: Wrappers) -> None:
    wrappers.write("exit 0")
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert (await wrappers.runner.run(probe(), unix_user=own)).exit_code == 0


async def test_arguments_reach_the_wrapper_byte_for_byte(wrappers: Wrappers) -> None:
    arguments = ("", " ", "$(id)", "a;b", "*", "--", "-x", "é", "a\nb")
    output = await wrappers.run(r'printf "%s\0" "$@"', *arguments)
    assert output.stdout.split("\0")[:-1] == list(arguments)


# -- what a process gets --------------------------------------------------------------------------


@pytest.mark.promise("c34")
async def test_the_environment_is_built_from_nothing(
    wrappers: Wrappers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BASH_ENV", "LD_PRELOAD", "IFS", "GIT_SSH_COMMAND", "PYTHONPATH", "HOME"):
        monkeypatch.setenv(name, "/nowhere/canary")
    monkeypatch.setenv("BASH_FUNC_echo%%", "() { printf canary; }")
    monkeypatch.setenv("PATH", "/nowhere")
    wrappers.write("", shebang="#!/usr/bin/env -S cat /proc/self/environ")
    output = await wrappers.runner.run(probe(), unix_user=None)
    assert sorted(output.stdout.split("\0")[:-1]) == [
        "LC_ALL=C",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]


async def test_standard_input_is_empty_and_nothing_else_is_open(wrappers: Wrappers) -> None:
    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        output = await wrappers.run('wc -c; readlink /proc/$$/fd/0; ls /proc/$$/fd | tr "\\n" " "')
    finally:
        os.close(inheritable)
    count, source, descriptors = output.stdout.splitlines()
    assert (count, source) == ("0", "/dev/null")
    # 255 is bash's own script.
    assert descriptors.split() == ["0", "1", "2", "255"]


async def test_it_leads_a_session_of_its_own_in_the_root_directory(wrappers: Wrappers) -> None:
    output = await wrappers.run("ps -o pid=,pgid=,sid=,tty= -p $$; pwd; umask")
    ids, directory, umask = output.stdout.splitlines()
    pid, group, session, terminal = ids.split()
    assert pid == group == session
    assert (terminal, directory, umask) == ("?", "/", "0077")


# -- bounded output -------------------------------------------------------------------------------


@pytest.mark.promise("c38")
async def test_output_over_the_limit_is_cut_counted_and_hashed(wrappers: Wrappers) -> None:
    output = await wrappers.run("head -c 100000 /dev/zero | tr '\\0' x")
    assert output.truncated
    assert output.stdout == "x" * 4096
    assert output.stdout_bytes == 100_000
    assert output.stdout_sha256 == hashlib.sha256(b"x" * 100_000).hexdigest()
    assert output.exit_code == 0


@pytest.mark.promise("c38")
async def test_exactly_the_limit_is_not_cut(wrappers: Wrappers) -> None:
    output = await wrappers.run("head -c 4096 /dev/zero")
    assert not output.truncated
    assert output.stdout_bytes == 4096


@pytest.mark.promise("c38")
async def test_both_pipes_full_at_once_do_not_block(wrappers: Wrappers) -> None:
    output = await wrappers.run(
        """
        for ((i = 0; i < 40; i++)); do
          head -c 65536 /dev/zero >&2
          head -c 65536 /dev/zero
        done
        """
    )
    assert output.exit_code == 0
    assert output.stdout_bytes == output.stderr_bytes == 40 * 65536
    assert len(output.stderr) == 4096


@pytest.mark.promise("c38")
async def test_binary_output_is_text_with_replacements(wrappers: Wrappers) -> None:
    output = await wrappers.run(r"printf 'a\xff\x00\xc3\xa9'; head -c 9000 /dev/urandom >&2")
    assert output.stdout == "a\ufffd\x00é"
    assert output.stderr_bytes == 9000
    output.stderr.encode("utf-8")


@pytest.mark.promise("c38")
async def test_a_gibibyte_without_a_newline_stays_out_of_memory(wrappers: Wrappers) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is the present from here on
    before = resident_peak()
    output = await wrappers.run("exec head -c 1073741824 /dev/zero")
    assert output.stdout_bytes == 1 << 30
    assert output.truncated
    assert output.exit_code == 0
    assert resident_peak() - before < 8 * MEBIBYTE


def resident_peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(line)


# -- deadlines ------------------------------------------------------------------------------------


async def test_the_configured_time_ends_a_run(wrappers: Wrappers) -> None:
    runner = wrappers.runner_with(timeout_seconds=0.2)
    started = time.monotonic()
    output = await wrappers.run(f"echo begun; exec sleep {OUTLASTING}", runner=runner)
    assert output.timed_out
    assert output.exit_code == -signal.SIGTERM
    assert output.stdout == "begun\n"
    assert time.monotonic() - started < PATIENCE


async def test_the_invocations_own_time_comes_before_the_configured(wrappers: Wrappers) -> None:
    output = await wrappers.run("exec sleep 60", timeout_seconds=0.2)
    assert output.timed_out


async def test_a_deadline_shortens_and_never_lengthens(wrappers: Wrappers) -> None:
    now = time.monotonic()
    assert (await wrappers.run("exec sleep 60", deadline=now + 0.2)).timed_out
    assert (await wrappers.run("exec sleep 60", timeout_seconds=0.2, deadline=now + 60)).timed_out


async def test_a_process_that_cleans_up_at_sigterm_is_heard(wrappers: Wrappers) -> None:
    output = await wrappers.run(
        "trap 'echo cleaned; exit 7' TERM; sleep 60 & wait", timeout_seconds=0.3
    )
    assert output.timed_out
    assert (output.exit_code, output.stdout) == (7, "cleaned\n")


@pytest.mark.promise("c36")
async def test_a_group_that_ignores_sigterm_is_killed(wrappers: Wrappers) -> None:
    started = time.monotonic()
    output = await wrappers.run(
        f"""
        trap '' TERM
        sleep {OUTLASTING} & echo $$ $!
        while true; do sleep {OUTLASTING}; done
        """,
        timeout_seconds=0.2,
    )
    assert output.timed_out
    assert time.monotonic() - started < PATIENCE
    for pid in map(int, output.stdout.split()):
        await eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
    await eventually(lambda: not children())


@pytest.mark.promise("c36")
async def test_a_grandchild_of_another_session_does_not_delay_the_answer(
    wrappers: Wrappers,
) -> None:
    started = time.monotonic()
    output = await wrappers.run(
        f"setsid sleep {OUTLASTING} & echo $!; exec sleep {OUTLASTING}", timeout_seconds=0.3
    )
    try:
        assert output.timed_out
        assert time.monotonic() - started < PATIENCE
    finally:
        os.kill(int(output.stdout), signal.SIGKILL)


@pytest.mark.promise("c36")
async def test_a_grandchild_that_holds_the_pipe_does_not_delay_the_answer(
    wrappers: Wrappers,
) -> None:
    started = time.monotonic()
    output = await wrappers.run(f"setsid sleep {OUTLASTING} & echo $!; exit 4")
    try:
        assert output.exit_code == 4
        assert not output.timed_out
        assert time.monotonic() - started < PATIENCE
    finally:
        os.kill(int(output.stdout), signal.SIGKILL)


@pytest.mark.promise("c36")
async def test_what_is_left_in_the_group_ends_with_its_leader(wrappers: Wrappers) -> None:
    output = await wrappers.run("sleep 60 >&- 2>&- <&- & echo $!")
    assert output.exit_code == 0
    await eventually(lambda: not is_alive(int(output.stdout)))


async def test_the_last_words_of_a_pipeline_are_waited_for(wrappers: Wrappers) -> None:
    output = await wrappers.run("{ sleep 0.2; echo last; } & echo first")
    assert output.stdout == "first\nlast\n"


async def test_closing_both_streams_is_not_taken_for_the_end(wrappers: Wrappers) -> None:
    output = await wrappers.run("exec >&- 2>&-; sleep 0.2; exit 9")
    assert output.exit_code == 9
    assert output.duration_ms >= 200


async def test_output_after_the_cut_is_drained_until_the_deadline(wrappers: Wrappers) -> None:
    output = await wrappers.run("exec cat /dev/zero", timeout_seconds=0.3)
    assert output.timed_out
    assert output.stdout_bytes > MEBIBYTE
    assert len(output.stdout) == 4096


# -- cancelling -----------------------------------------------------------------------------------


async def test_a_cancelled_run_ends_and_reaps_its_process(wrappers: Wrappers) -> None:
    mark = wrappers.directory / "pid"
    task = asyncio.create_task(
        wrappers.run(f"echo $$ > {mark}.new; mv {mark}.new {mark}; sleep 60")
    )
    await eventually(mark.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(int(mark.read_text()))
    assert not children()


async def test_a_run_cancelled_twice_is_reaped_all_the_same(wrappers: Wrappers) -> None:
    mark = wrappers.directory / "pid"
    task = asyncio.create_task(
        wrappers.run(
            f"trap '' TERM; echo $$ > {mark}.new; mv {mark}.new {mark}; while :; do sleep 9; done"
        )
    )
    await eventually(mark.exists)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not children())


async def test_a_run_cancelled_after_its_deadline_is_still_ended(wrappers: Wrappers) -> None:
    mark = wrappers.directory / "termed"
    task = asyncio.create_task(
        wrappers.run(f"trap 'touch {mark}' TERM; while :; do sleep 0.05; done", timeout_seconds=0.2)
    )
    await eventually(mark.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not children())


async def test_a_run_cancelled_while_a_grandchild_holds_its_pipe_ends_at_once(
    wrappers: Wrappers,
) -> None:
    mark = wrappers.directory / "pid"
    task = asyncio.create_task(
        wrappers.run(f"setsid sleep 30 & echo $! > {mark}.new; mv {mark}.new {mark}")
    )
    await eventually(lambda: mark.exists() and "Z" in children().values())
    try:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not children()
    finally:
        os.kill(int(mark.read_text()), signal.SIGKILL)


# -- shortage and broken wrappers -----------------------------------------------------------------


@pytest.mark.promise("c39")
@pytest.mark.parametrize("free", range(10))
async def test_without_descriptors_it_is_refused_or_runs_and_never_leaks(
    wrappers: Wrappers, free: int
) -> None:
    wrappers.write("echo done")
    await wrappers.runner.run(probe(), unix_user=None)
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    fillers = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1 + free, hard))
    answer: Output | BaseException
    try:
        (answer,) = await asyncio.gather(
            wrappers.runner.run(probe(), unix_user=None), return_exceptions=True
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    if isinstance(answer, Output):
        assert answer.stdout == "done\n"
    else:
        assert isinstance(answer, AdapterUnavailableError)
        assert answer.retry_after_seconds is not None
        assert "nothing ran" in answer.detail
    await eventually(lambda: not children())
    assert open_descriptors() <= before
    assert (await wrappers.runner.run(probe(), unix_user=None)).stdout == "done\n"


@pytest.mark.promise("c39")
@pytest.mark.parametrize("body", ["echo done", "echo done; exec sleep 60"])
async def test_a_process_that_cannot_be_watched_at_first_is_not_lost(
    wrappers: Wrappers, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    real, refusals = os.pidfd_open, [errno.EMFILE] * 3

    def short_of_descriptors(pid: int, flags: int = 0) -> int:
        if refusals:
            raise OSError(refusals.pop(), "out of descriptors")
        return real(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", short_of_descriptors)
    output = await wrappers.run(body, timeout_seconds=0.1 if "sleep" in body else None)
    assert output.stdout == "done\n"
    assert output.timed_out == ("sleep" in body)
    assert not children()


@pytest.mark.promise("c40")
async def test_a_status_that_was_taken_away_is_not_success(wrappers: Wrappers) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: wait(2), NOTES
    try:
        output = await wrappers.run("exit 0")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert output.exit_code == LOST_STATUS
    assert not output.timed_out


@pytest.mark.promise("c40")
async def test_a_process_reaped_before_it_was_watched_is_not_signalled(
    wrappers: Wrappers, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pidfd_open

    def too_late(pid: int, flags: int = 0) -> int:
        os.waitpid(pid, 0)
        return real(pid, flags)

    def forbidden(pid: int, number: int) -> None:
        pytest.fail("a number that may be another's was signalled")

    monkeypatch.setattr(os, "pidfd_open", too_late)
    monkeypatch.setattr(os, "killpg", forbidden)
    output = await wrappers.run("echo done")
    assert (output.exit_code, output.stdout) == (LOST_STATUS, "done\n")


@pytest.mark.parametrize("fault", ["missing", "no interpreter", "not a program", "a directory"])
async def test_a_wrapper_that_cannot_start_is_unavailable(wrappers: Wrappers, fault: str) -> None:
    path = wrappers.directory / "probe"
    if fault == "no interpreter":
        wrappers.write("", shebang="#!/nowhere/bash")
    elif fault == "not a program":
        path.write_bytes(b"\x00\x01\x02")
        path.chmod(0o755)
    elif fault == "a directory":
        path.mkdir()
    with pytest.raises(AdapterUnavailableError) as refusal:
        await wrappers.runner.run(probe(), unix_user=None)
    assert refusal.value.retry_after_seconds is None
    assert not children()


async def test_a_wrapper_without_its_execute_bit_is_unavailable(wrappers: Wrappers) -> None:
    path = wrappers.write("exit 0")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    with pytest.raises(AdapterUnavailableError):
        await wrappers.runner.run(probe(), unix_user=None)


async def test_an_argument_beyond_the_hosts_limit_is_unavailable(wrappers: Wrappers) -> None:
    wrappers.write("exit 0")
    with pytest.raises(AdapterUnavailableError):
        await wrappers.runner.run(probe("x" * MEBIBYTE), unix_user=None)


# -- many -----------------------------------------------------------------------------------------


@pytest.mark.promise("c41")
async def test_many_runs_leave_no_zombie_and_no_descriptor(wrappers: Wrappers) -> None:
    wrappers.write('echo "$1"')
    await wrappers.runner.run(probe("0"), unix_user=None)
    before = open_descriptors()

    async def worker(first: int) -> None:
        for number in range(first, 300, 8):
            output = await wrappers.runner.run(probe(str(number)), unix_user=None)
            assert output.stdout == f"{number}\n"

    await asyncio.gather(*(worker(first) for first in range(8)))
    assert not children()
    assert open_descriptors() <= before


@pytest.mark.promise("c40")
async def test_a_signal_after_the_end_reaches_nobody_else(wrappers: Wrappers) -> None:
    # The bystander leads a group of its own; everything the runner signals is bound to its child.
    bystander = await asyncio.create_subprocess_exec("sleep", "30", start_new_session=True)
    try:
        for _ in range(20):
            await wrappers.run("exit 0")
        assert (await wrappers.run("exec sleep 60", timeout_seconds=0.1)).timed_out
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


def test_a_runner_works_on_one_event_loop_after_another(wrappers: Wrappers) -> None:
    for _ in range(3):
        assert asyncio.run(wrappers.run("echo again")).stdout == "again\n"
