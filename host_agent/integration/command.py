"""The command that a host is told to run before each command of its agent."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from host_agent.errors import ConfigurationError

PROGRAM = "host-agent"
HOST_TIMEOUT_SECONDS = 10
"""How long a host is told to wait for the hook."""

BOUND_SECONDS = 6
"""After which `timeout` ends a hook that did not end by itself."""


def program() -> str:
    """Return the absolute path of this program.

    Raises:
        ConfigurationError: it was started in another way, and is not on the search path.
    """
    started = Path(sys.argv[0]).absolute()
    if started.name == PROGRAM and os.access(started, os.X_OK):
        return str(started)
    found = shutil.which(PROGRAM)
    if found is None:
        fault = f"`{PROGRAM}` is not on the search path, so no host could run it."
        raise ConfigurationError([fault])
    return str(Path(found).absolute())


def hook_words(program_path: str, host: str) -> list[str]:
    """Return the hook as an argument vector, ended by `timeout` where that is installed."""
    bound = shutil.which("timeout")
    words = [program_path, "hook", host]
    return words if bound is None else [bound, "-k", "1", str(BOUND_SECONDS), *words]


def guarded(words: list[str]) -> str:
    """Return the hook for a shell, so that whatever goes wrong ends with status 2 and a reason.

    Claude Code and Codex let a command run after any other status.
    """
    hook = shlex.join(words)
    script = f"{hook} || {{ echo {PROGRAM}: nothing was run >&2; exit 2; }}"
    return f"sh -c {shlex.quote(script)}"


def is_bounded(command: str) -> bool:
    """Return whether a hook that `guarded` made is ended where it does not end by itself."""
    return "/timeout -k " in command


def is_hook(command: object, host: str) -> bool:
    """Return whether a command of a host's settings is one that `guarded` made."""
    if not isinstance(command, str):
        return False
    return f"/{PROGRAM} hook {host} " in command.replace("'", "").replace('"', "")
