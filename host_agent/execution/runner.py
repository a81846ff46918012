"""The only door to a process: a wrapper through `sudo -n`, or directly as the agent's own user.

There is no shell and nothing is inherited: the environment is built from nothing, standard input is
/dev/null (for `ProgramRunner`, what the program is asked), the working directory is `/`, no other
descriptor passes, and the process leads a session and a group of its own. This is the one module
that starts a process; `process` sees it to its end.
"""

import asyncio
import errno
import logging
import os
import pwd
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Protocol

from host_agent.config.permissions import program_fault
from host_agent.errors import (
    AdapterUnavailableError,
    InvalidParameterError,
    PolicyDeniedError,
    SudoRefusedError,
    correct,
)
from host_agent.execution.process import Child, ProcessWatch
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Invocation, Output, RunAs

_log = logging.getLogger(__name__)

ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""All that a process gets; sudo adds HOME, USER and its own to what the wrapper sees."""
UMASK = 0o077

_WRAPPER_NAME = re.compile(r"[a-z][a-z0-9-]*")
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")  # never "-u...", never sudo's "#0"
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_SHORTAGE_RETRY_SECONDS = 5.0
_SHOWN_LENGTH = 120


class Runner(Protocol):
    """Runs invocations: what the pipeline holds."""

    def user_of(self, run_as: RunAs, unix_user: str | None) -> str | None:
        """Return the user that a process declared `run_as` runs as; None where there is none."""
        ...

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        """Run `invocation` and return what it left behind, at its deadline at the latest.

        The time allowed is the invocation's, else the configured one; `deadline`, an instant of
        `time.monotonic`, shortens it. If that is past already, nothing is started and the output
        says `timed_out`. A failure of the command itself is an output too, never an exception.
        A cancelled run ends its process, and waits for that for at most two seconds.

        Raises:
            AdapterUnavailableError: the wrapper cannot be started. Nothing ran.
            SudoRefusedError: sudo would not run the wrapper. Nothing ran.
            PolicyDeniedError: the invocation may not run as `unix_user` here. Nothing ran.
            InvalidParameterError: an argument that no command line can carry. Nothing ran.
        """
        ...


class SudoRunner:
    """Runs wrappers through `sudo -n`, as root or as the identity's unix user.

    At the deadline sudo gets SIGTERM and relays it. It never gets SIGKILL, so a root process that
    resists lives on until the limits of its own wrapper end it; the answer does not wait for it.
    """

    def __init__(
        self,
        wrapper_dir: Path,
        timeout_seconds: float,
        max_output_bytes: int,
        sudo: str = "/usr/bin/sudo",
    ) -> None:
        self._wrapper_dir = wrapper_dir
        self._sudo = sudo
        self._launcher = _Launcher(timeout_seconds, max_output_bytes, ends_group=False)

    def user_of(self, run_as: RunAs, unix_user: str | None) -> str | None:
        """Return the user that sudo changes to: root, or the identity's unix user."""
        return "root" if run_as is RunAs.ROOT else unix_user

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        """Run `invocation` as `Runner.run` promises; an existing wrapper is sudo's to check."""
        wrapper = _wrapper_path(self._wrapper_dir, invocation)
        user = _checked_user(self.user_of(invocation.run_as, unix_user), invocation.run_as)
        argv = [self._sudo, "-n", "-u", user, "--", wrapper, *invocation.arguments]
        output = await self._launcher.run(argv, invocation, deadline)
        if is_sudo_refusal(output):
            _refused_by_sudo(wrapper, user, output)
        return output


class UnsafeDirectRunner:
    """Runs wrappers as the agent's own user, with no privilege change: development and the demo.

    Unsafe, because an operation can do whatever the agent itself can, its keys and store included.
    """

    def __init__(self, wrapper_dir: Path, timeout_seconds: float, max_output_bytes: int) -> None:
        self._wrapper_dir = wrapper_dir
        self._own_user = _own_user()
        self._launcher = _Launcher(timeout_seconds, max_output_bytes, ends_group=True)
        if os.geteuid() == 0:
            _log.warning(
                "The direct runner runs as root: every operation runs with all of root's rights. "
                "Use the sudo runner and a user without privileges for anything but a trial."
            )

    def user_of(self, run_as: RunAs, unix_user: str | None) -> str | None:  # noqa: ARG002
        """Return the agent's own user: nothing is changed to."""
        return self._own_user

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        """Run `invocation` as `Runner.run` promises, as the agent's own user whatever it names."""
        if unix_user is not None and unix_user != self._own_user:
            message = (
                "This agent runs everything as its own user, which is not the identity's unix user."
            )
            raise PolicyDeniedError(message)
        argv = [_wrapper_path(self._wrapper_dir, invocation), *invocation.arguments]
        return await self._launcher.run(argv, invocation, deadline)


class _Launcher:
    """What both runners share: the one place where a process starts."""

    def __init__(self, timeout_seconds: float, max_output_bytes: int, *, ends_group: bool) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_output_bytes = max_output_bytes
        self._ends_group = ends_group
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._null)
        self._watch: ProcessWatch | None = None

    async def run(
        self,
        argv: list[str],
        invocation: Invocation,
        latest: float | None,
        *,
        stdin: int | None = None,
    ) -> Output:
        loop = asyncio.get_running_loop()
        started = loop.time()
        allowed = invocation.timeout_seconds
        deadline = started + (self._timeout_seconds if allowed is None else allowed)
        if latest is not None and latest < deadline:
            deadline = latest
        if deadline <= started:
            return Output(exit_code=-signal.SIGTERM, timed_out=True)
        command = _encoded(argv)
        try:
            watch = self._watch_of(loop)
            pid, pipes = self._start(command, self._null if stdin is None else stdin)
        except (OSError, subprocess.SubprocessError) as error:
            _cannot_start(invocation, error)
        child = Child(
            watch,
            pid,
            pipes,
            max_output_bytes=self._max_output_bytes,
            started=started,
            deadline=deadline,
            ends_group=self._ends_group,
        )
        try:
            return await child.ended
        except asyncio.CancelledError:
            await child.stop()
            raise

    def _watch_of(self, loop: asyncio.AbstractEventLoop) -> ProcessWatch:
        if self._watch is None or self._watch.loop is not loop:
            self._watch = ProcessWatch(loop)
        return self._watch

    def _start(self, command: list[bytes], stdin: int) -> tuple[int, tuple[int, int]]:
        """Start `command`; return its process id and the ends to read its two streams from."""
        descriptors: list[int] = []
        try:
            descriptors += os.pipe()
            descriptors += os.pipe()
            stdout, stdout_end, stderr, stderr_end = descriptors
            os.set_blocking(stdout, False)
            os.set_blocking(stderr, False)
            # With these arguments, and without preexec_fn or user, CPython starts it by vfork: no
            # page table is copied, however large the agent is.
            process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                command,
                stdin=stdin,
                stdout=stdout_end,
                stderr=stderr_end,
                env=ENVIRONMENT,
                cwd="/",
                close_fds=True,
                start_new_session=True,
                umask=UMASK,
            )
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        os.close(stdout_end)
        os.close(stderr_end)
        # `process` reaps it, by its pidfd. Marked as ended, Popen waits for no number,
        # which could be another one's by then.
        process.returncode = 0
        return process.pid, (stdout, stderr)


def _wrapper_path(wrapper_dir: Path, invocation: Invocation) -> str:
    if _WRAPPER_NAME.fullmatch(invocation.wrapper) is None:
        message = "The operation declares a wrapper whose name is not one; report this defect."
        raise AdapterUnavailableError(message)
    return f"{wrapper_dir}/{invocation.wrapper}"


def _checked_user(user: str | None, run_as: RunAs) -> str:
    """Return a user that sudo may be told to change to; root only where that is declared."""
    is_root = run_as is RunAs.ROOT
    if user is None or _USER_NAME.fullmatch(user) is None or (user == "root") is not is_root:
        message = "The identity has no unix user that this operation could run as."
        raise PolicyDeniedError(message)
    return user


def _own_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _encoded(argv: list[str]) -> list[bytes]:
    """Return `argv` as UTF-8, whatever the locale of the agent.

    Raises:
        InvalidParameterError: a NUL or a lone surrogate, which an argument cannot hold.
    """
    try:
        command = [argument.encode() for argument in argv]
    except UnicodeEncodeError:
        command = []
    if not command or any(b"\0" in argument for argument in command):
        message = "A parameter holds a character that no command line can carry."
        raise InvalidParameterError(message, recovery=correct(message, "params"))
    return command


def _cannot_start(invocation: Invocation, error: Exception) -> NoReturn:
    number = error.errno if isinstance(error, OSError) else None
    if number in _SHORTAGES:
        message = "The host has no room for another process now; nothing ran. Ask again later."
        raise AdapterUnavailableError(
            message, retry_after_seconds=_SHORTAGE_RETRY_SECONDS
        ) from error
    reason = os.strerror(number) if number is not None else type(error).__name__
    message = (
        f"The wrapper {invocation.wrapper} cannot be started ({reason}); nothing ran. "
        "The administrator of this host finds the cause."
    )
    raise AdapterUnavailableError(message) from error


def is_sudo_refusal(output: Output) -> bool:
    """Return whether sudo itself refused: exit status 1 and its own words first, in the C locale.

    A warning about a host name that does not resolve is no refusal: the command runs after it.
    """
    if output.exit_code != 1 or output.stdout_bytes or output.timed_out:
        return False
    # sudo-rs names itself so where it is called `sudo` too.
    return _sudo_words(output).startswith(("sudo: ", "sudo-rs: ", "Sorry, user "))


def _sudo_words(output: Output) -> str:
    lines = output.stderr.splitlines()
    kept = (line for line in lines if not line.startswith("sudo: unable to resolve host "))
    return next(kept, "")


def _refused_by_sudo(wrapper: str, user: str, output: Output) -> NoReturn:
    if not os.path.lexists(wrapper):
        message = (
            f"The wrapper {Path(wrapper).name} does not exist; nothing ran. "
            "The administrator of this host finds the cause."
        )
        raise AdapterUnavailableError(message)
    said = "".join(c if c.isascii() and c.isprintable() else "?" for c in _sudo_words(output))
    message = (
        f"sudo would not run {wrapper} as {user} ({said[:_SHOWN_LENGTH]}); nothing ran. "
        "The administrator of this host compares what sudo grants with what the agent needs."
    )
    raise SudoRefusedError(message)


TOOLS: Mapping[str, str] = {
    "cvtsudoers": "/usr/bin/cvtsudoers",
    "groupadd": "/usr/sbin/groupadd",
    "groupdel": "/usr/sbin/groupdel",
    "python": sys.executable,
    "runuser": "/usr/sbin/runuser",
    "sudo": "/usr/bin/sudo",
    "systemctl": "/usr/bin/systemctl",
    "systemd-sysusers": "/usr/bin/systemd-sysusers",
    "userdel": "/usr/sbin/userdel",
    "visudo": "/usr/sbin/visudo",
    "visudo-rs": "/usr/bin/visudo-rs",
    **{adapter.tool.name: adapter.tool.path for adapter in CATALOGUE.adapters if adapter.tool},
}
"""The host's own programs that this program runs for itself, and its interpreter, by short name.

Those of the adapters are asked for their versions only."""


class ToolRunner:
    """Runs fixed tools of the host as the present user, within the same bounds as wrappers.

    For what the program asks on its own behalf, never for an operation. Nothing of a caller reaches
    the arguments.
    """

    def __init__(
        self, timeout_seconds: float = 10.0, max_output_bytes: int = 16 * 1024 * 1024
    ) -> None:
        self._launcher = _Launcher(timeout_seconds, max_output_bytes, ends_group=True)

    async def run(self, tool: str, *arguments: str) -> Output:
        """Run `tool`, a name of `TOOLS`, and return what it left behind.

        Raises:
            AdapterUnavailableError: it is not installed, or cannot be started. Nothing ran.
        """
        path = TOOLS[tool]
        if not os.access(path, os.X_OK):
            message = f"{path} is not installed on this host, or may not be run."
            raise AdapterUnavailableError(message)
        invocation = Invocation(wrapper=tool, arguments=arguments, run_as=RunAs.UNIX_USER)
        return await self._launcher.run([path, *arguments], invocation, None)


class ProgramRunner:
    """Runs one program of the administrator's as the present user, with an input.

    The path is looked at before each run: it must be a plain file of root that nobody else may
    write, in directories of root where nobody else may put another in its place.
    """

    def __init__(self, path: str, *, timeout_seconds: float, max_output_bytes: int) -> None:
        self._path = path
        self._launcher = _Launcher(timeout_seconds, max_output_bytes, ends_group=True)

    async def run(self, given: bytes) -> Output:
        """Run it with `given` on its standard input, and return what it left behind.

        Raises:
            AdapterUnavailableError: it is missing, not root's alone, or cannot be started.
        """
        if (fault := program_fault(self._path)) is not None:
            message = f"It was not run: {fault}."
            raise AdapterUnavailableError(message)
        invocation = Invocation(wrapper="plugin", arguments=(), run_as=RunAs.UNIX_USER)
        stdin = os.memfd_create("input", os.MFD_CLOEXEC)
        try:
            os.write(stdin, given)  # memory, whole at once
            os.lseek(stdin, 0, os.SEEK_SET)
            return await self._launcher.run([self._path], invocation, None, stdin=stdin)
        finally:
            os.close(stdin)
