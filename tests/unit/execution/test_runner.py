"""What the runners refuse before anything is started, and how sudo's words are read."""

import asyncio
import time
from pathlib import Path

import pytest

from host_agent.errors import (
    AdapterUnavailableError,
    InvalidParameterError,
    PolicyDeniedError,
)
from host_agent.execution.runner import Runner, SudoRunner, UnsafeDirectRunner, is_sudo_refusal
from host_agent.operations.catalogue import Invocation, Output, RunAs


def invocation(
    *arguments: str, wrapper: str = "git", run_as: RunAs = RunAs.UNIX_USER
) -> Invocation:
    return Invocation(wrapper=wrapper, arguments=arguments, run_as=run_as)


@pytest.fixture
def sudo(tmp_path: Path) -> Runner:
    return SudoRunner(tmp_path, 5, 1024, sudo=str(tmp_path / "never-there"))


@pytest.fixture
def direct(tmp_path: Path) -> Runner:
    return UnsafeDirectRunner(tmp_path, 5, 1024)


@pytest.mark.parametrize("user", [None, "", "root", "#0", "-i", "a b", "a\n", "alice\0", "%wheel"])
async def test_sudo_refuses_a_unix_user_that_is_none(sudo: Runner, user: str | None) -> None:
    with pytest.raises(PolicyDeniedError):
        await sudo.run(invocation("status"), unix_user=user)


async def test_direct_refuses_a_unix_user_that_is_another(direct: Runner) -> None:
    with pytest.raises(PolicyDeniedError):
        await direct.run(invocation("status"), unix_user="somebody-else")


@pytest.mark.parametrize("wrapper", ["", "../sh", "/bin/sh", "a/b", ".", "-x", "git\n", "git\0"])
async def test_a_wrapper_is_a_plain_name(direct: Runner, sudo: Runner, wrapper: str) -> None:
    for runner in (direct, sudo):
        with pytest.raises(AdapterUnavailableError):
            await runner.run(
                invocation(wrapper=wrapper, run_as=RunAs.ROOT),
                unix_user=None,
            )


@pytest.mark.promise("c21")
@pytest.mark.parametrize("argument", ["a\0b", "\ud800"])
async def test_an_argument_that_cannot_be_one_is_refused(direct: Runner, argument: str) -> None:
    with pytest.raises(InvalidParameterError):
        await direct.run(invocation("status", argument), unix_user=None)


async def test_a_deadline_that_is_past_starts_nothing(direct: Runner) -> None:
    # The wrapper does not exist: an attempt to start it would be an error.
    output = await direct.run(invocation(), unix_user=None, deadline=time.monotonic())
    assert output.timed_out
    assert output.exit_code != 0


async def test_a_missing_wrapper_is_unavailable_and_named(direct: Runner) -> None:
    with pytest.raises(AdapterUnavailableError, match="git cannot be started") as refusal:
        await direct.run(invocation(), unix_user=None)
    assert "nothing ran" in refusal.value.detail


async def test_a_missing_sudo_is_unavailable(sudo: Runner) -> None:
    with pytest.raises(AdapterUnavailableError):
        await sudo.run(invocation(), unix_user="alice")
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "stderr",
    [
        "sudo: a password is required\n",
        "sudo: unknown user: nobody-here\n",
        "Sorry, user agent is not allowed to execute '/x/git' as root on host.\n",
        "sudo: unable to resolve host web1: unknown\nsudo: a password is required\n",
    ],
)
def test_sudos_own_refusal_is_told_apart(stderr: str) -> None:
    assert is_sudo_refusal(Output(exit_code=1, stderr=stderr))


@pytest.mark.parametrize(
    "output",
    [
        Output(exit_code=1, stderr="fatal: not a git repository\n"),
        Output(exit_code=1, stderr=""),
        Output(exit_code=1, stderr="remote: \nsudo: a password is required\n"),
        Output(exit_code=128, stderr="sudo: a password is required\n"),
        Output(exit_code=0, stderr="sudo: a password is required\n"),
        Output(exit_code=1, stdout_bytes=3, stderr="sudo: a password is required\n"),
        Output(exit_code=1, timed_out=True, stderr="sudo: a password is required\n"),
        Output(
            exit_code=1,
            stderr="sudo: unable to resolve host web1: Name or service not known\nfatal: no\n",
        ),
    ],
)
def test_a_wrappers_failure_is_never_taken_for_sudos(output: Output) -> None:
    assert not is_sudo_refusal(output)
