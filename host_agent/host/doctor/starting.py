"""Whether the service could start as its own user: asked of the program itself, as that user.

What root can read, the agent may not: a file of mode 0600, a directory above it. So a process of
the agent's user does all that a start does before it opens anything (`serve --check`).
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host_agent.errors import AdapterUnavailableError
from host_agent.host.doctor.values import Check, ok, problem, warning
from host_agent.host.install.values import Tools
from host_agent.operations.catalogue import Output

OWN_PROGRAM = (sys.executable, "-I", "-m", "host_agent")
_NAME = "start"
_SAID = "host-agent: "
_LAST = "not started"
_KEY = "start"
_INSTALL = "install what is missing: docs/how-to/install.md"
_READ = "give it owner and mode so that this user can read it, and enter every directory above it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a start as the agent's user came to. `faults` is None where it could not be tried."""

    user: str
    faults: tuple[str, ...] | None
    reason: str = ""

    def fault_of(self, *keys: str, known: Sequence[str] = ()) -> str | None:
        """Return the first fault that is about one of these dotted keys and not `known`."""
        begins = tuple(f"{key}:" for key in keys)
        faults = (fault for fault in self.faults or () if fault not in known)
        return next((fault for fault in faults if fault.startswith(begins)), None)


def try_start(
    path: Path, user: str, uid: int, tools: Tools, program: tuple[str, ...] = OWN_PROGRAM
) -> Start:
    """Have `user` do what a start under the configuration at `path` does, opening nothing.

    `program` is what the service is started with, where root asks; default: this one.
    """
    asked = ("serve", "--check", "--config", str(path.absolute()))  # it runs elsewhere
    try:
        if os.geteuid() == uid:
            output = tools("python", *OWN_PROGRAM[1:], *asked)
        elif os.geteuid() == 0:
            output = tools("runuser", "-u", user, "--", *program, *asked)
        else:
            return Start(user=user, faults=None, reason=f"Only root and {user} can try it.")
    except AdapterUnavailableError as error:
        return Start(user=user, faults=None, reason=error.detail)
    return Start(user=user, faults=_faults(output))


def _faults(output: Output) -> tuple[str, ...]:
    if output.exit_code == 0 and not output.timed_out:
        return ()
    found = tuple(_told(output.stderr.splitlines()))
    if found:
        return found
    if output.timed_out:
        return (f"{_KEY}: it did not end in time",)
    last = output.stderr.strip().rpartition("\n")[2] or f"exit status {output.exit_code}"
    return (f"{_KEY}: {last}",)


def _told(lines: Sequence[str]) -> Iterator[str]:
    """Yield what `serve --check` said was wrong; its warnings are told elsewhere."""
    for line in lines:
        if line.startswith(_SAID) and not line.startswith(_SAID + _LAST):
            yield line.removeprefix(_SAID)
        elif line.startswith("{"):
            entry = _entry(line)
            if entry.get("level") == "critical":
                yield f"{_KEY}: {entry.get('message')}"


def _entry(line: str) -> Mapping[str, object]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def start_checks(start: Start, known: Sequence[str]) -> Iterator[Check]:
    """Yield what a start as the agent's user came to; faults that are `known` are told already."""
    if start.faults is None:
        yield warning(_NAME, start.reason, f"run the doctor as root or as {start.user}")
        return
    for fault in start.faults:
        if fault in known:
            continue
        is_ours = fault.startswith(f"{_KEY}:")
        sentence = f"As {start.user}: {fault.removeprefix(f'{_KEY}: ').rstrip('.')}."
        yield problem(_NAME, sentence, _INSTALL if is_ours else _READ)
    if not start.faults:
        sentence = f"All of the service can be imported, and {start.user} can use what it reads."
        yield ok(_NAME, sentence)
