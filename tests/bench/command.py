"""The bare command: the command line that the agent runs, started as cheaply as Python can."""

import os
from collections.abc import Sequence

from host_agent.execution.runner import ENVIRONMENT

_NOWHERE = (
    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
)


class CommandFailedError(Exception):
    """A command that is measured ended with another status than 0."""


def run(argv: Sequence[str]) -> None:
    """Run `argv` with the environment of a wrapper and no output, and wait for its end.

    Raises:
        CommandFailedError: it did not end with status 0.
    """
    pid = os.posix_spawn(argv[0], list(argv), ENVIRONMENT, file_actions=_NOWHERE, setsid=True)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        message = f"{' '.join(argv)}: status {os.waitstatus_to_exitcode(status)}"
        raise CommandFailedError(message)
