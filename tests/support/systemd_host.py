"""Runs the wrappers `systemd-*` unmodified, against stand-ins for the programs of systemd.

They call absolute paths, and no variable leads them elsewhere: so the stand-ins are bound over
those paths in a mount namespace that only the wrapper's process has. That needs root.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host_agent.canonical import JsonValue
from host_agent.operations.catalogue import Catalogue, Inspection, Invocation, Operation, Output
from host_agent.operations.systemd.adapter import ADAPTER

WRAPPERS = Path(__file__).resolve().parents[2] / "wrappers"
NAMES = tuple(f"systemd-{verb}" for verb in ("status", "logs", "list", "inspect"))
ALLOWED = "# what root allows\nversion 1\nnames zfs tank\nnames systemd .*\nallowed systemd.*\n"
CHANGES = ("start", "restart", "reload", "stop")
PROGRAMS = ("systemctl", "systemd-run", "journalctl", "logger")
CATALOGUE = Catalogue((ADAPTER,))

_ENTER = """\
set -eu
mount -t tmpfs tmpfs /run
mkdir /run/state
mount --bind "$1/state" /run/state
[ "$2" = no ] || mkdir -p /run/systemd/system
for program in systemctl systemd-run journalctl logger; do
  mount --bind "$1/stand-in" "/usr/bin/$program"
done
shift 2
exec "$@"
"""


def why_not() -> str | None:
    """Return why no test of this kind can run here; None if it can."""
    missing = [name for name in PROGRAMS if not Path("/usr/bin", name).is_file()]
    if os.geteuid() != 0:
        return "needs root, for a mount namespace of its own"
    return f"needs {', '.join(missing)} to put a stand-in over" if missing else None


def done(code: int, stdout: bytes, stderr: bytes) -> Output:
    """Return what a process left behind, as the runner would."""
    return Output(
        exit_code=code,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        stdout_bytes=len(stdout),
        stderr_bytes=len(stderr),
    )


class SystemdHost:
    """A host with units, as far as the wrappers can see. Lives in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wrappers = directory / "wrappers"
        self.protected = self.wrappers / "protected"
        self.state = directory / "state"
        self.is_booted = False
        (self.state / "units").mkdir(parents=True)
        self.wrappers.mkdir()
        for name in (*NAMES, *(f"systemd-{verb}" for verb in CHANGES)):
            shutil.copy2(WRAPPERS / name, self.wrappers / name)
        self.protected.write_text("# root's own list\nzfs tank\nsystemd vault-.*\\.service\n")
        self.protected.chmod(0o644)
        self.allowed = self.wrappers / "allowed"
        self.allowed.write_text(ALLOWED)
        self.allowed.chmod(0o644)
        stand_in = directory / "stand-in"
        source = (Path(__file__).parent / "systemd_stand_in.py").read_text()
        stand_in.write_text(f"#!{sys.executable} -IS\n{source}")
        stand_in.chmod(0o755)

    # -- units ------------------------------------------------------------------------------------

    def unit(self, name: str, **properties: str) -> Path:
        """Add a loaded, running unit with a file; return the file."""
        file = self.directory / name
        file.write_text("[Service]\nExecStart=/bin/true\n")
        known = {
            "Id": name,
            "Names": name,
            "Description": "A unit",
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "UnitFileState": "enabled",
            "FragmentPath": str(file),
            "DropInPaths": "",
            "NeedDaemonReload": "no",
            "CanStart": "yes",
            "CanStop": "yes",
            "CanReload": "yes",
            "TriggeredBy": "",
            "Type": "simple",
            "Result": "success",
            "MainPID": "42",
            "InvocationID": "a" * 32,
            "ActiveEnterTimestamp": f"@{int(time.time()) - 12 * 86_400 - 60}",
        }
        (self.state / "units" / name).write_text(json.dumps(known | properties))
        return file

    def alias(self, name: str, of: str) -> None:
        """Give a unit another name."""
        self.change(of, Names=f"{of} {name}")
        (self.state / "units" / name).symlink_to(of)

    def change(self, name: str, **properties: str) -> None:
        """Change properties of a unit."""
        path = self.state / "units" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | properties))

    def on(self, verb: str, **properties: str) -> None:
        """Say what a verb makes of a unit."""
        (self.state / f"on-{verb}").write_text(json.dumps(properties))

    def answer(self, program: str, code: int, stdout: str = "", stderr: str = "") -> None:
        """Let a program, or one verb of it (`systemctl-start`), answer always the same."""
        (self.state / f"answer-{program}").write_text(json.dumps([code, stdout, stderr]))

    def calls(self, program: str | None = None) -> list[list[str]]:
        """Return the arguments of every call of a program, in order."""
        return [call["arguments"] for call in self._calls() if program in (None, call["program"])]

    def environments(self) -> list[Mapping[str, str]]:
        """Return the environment of every call."""
        return [call["environment"] for call in self._calls()]

    def _calls(self) -> list[dict[str, Any]]:
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def changes(self) -> list[list[str]]:
        """Return the calls of systemctl that are no look."""
        return [call for call in self.calls("systemctl") if not {"show", "list-units"} & set(call)]

    # -- wrappers ---------------------------------------------------------------------------------

    def run(
        self, wrapper: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Output:
        """Run a wrapper with `arguments`."""
        booted = "yes" if self.is_booted else "no"
        enter = ("/usr/bin/unshare", "--mount", "/bin/sh", "-c", _ENTER, "sh")
        clean = ("/usr/bin/env", "-i", *(f"{k}={v}" for k, v in (environment or {}).items()))
        path = str(self.wrappers / wrapper)
        ended = subprocess.run(
            [*enter, str(self.directory), booted, *clean, path, *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return done(ended.returncode, ended.stdout, ended.stderr)

    def invoke(self, invocation: Invocation) -> Output:
        """Run an invocation of the adapter."""
        return self.run(invocation.wrapper, *invocation.arguments)

    def inspect(self, asked: Operation) -> Inspection:
        """Run the inspection of a change and return what it found.

        Raises:
            HostAgentError: what the adapter makes of an exit status other than 0.
        """
        spec = asked.spec
        if spec.inspect is None or spec.parse_inspection is None:
            message = f"{asked.name} has no inspection"
            raise AssertionError(message)
        output = self.invoke(spec.inspect(asked.params))
        if output.exit_code != 0:
            raise spec.failure(asked.params, output)
        return spec.parse_inspection(asked.params, output)

    def perform(
        self, asked: Operation, precondition: Mapping[str, JsonValue] | None = None
    ) -> Output:
        """Run an operation; a change is bound to `precondition`, or to what is found now."""
        if precondition is None:
            precondition = {} if asked.spec.inspect is None else self.inspect(asked).precondition
        return self.invoke(asked.spec.invoke(asked.params, precondition))

    def probe(self, asked: Operation) -> bool:
        """Run the look after a change and return what it saw."""
        spec = asked.spec
        if spec.probe is None or spec.parse_probe is None:
            message = f"{asked.name} has no probe"
            raise AssertionError(message)
        return spec.parse_probe(asked.params, {}, self.invoke(spec.probe(asked.params, {})))


def operation(name: str, **params: JsonValue) -> Operation:
    """Return a validated operation of the systemd adapter."""
    return CATALOGUE.parse(name, params)
