"""A host with `pct` and registered commands in namespaces of its own, for the wrappers as root.

They run there unmodified. Nothing of it is seen outside; all of it ends with its first process.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from host_agent.canonical import JsonValue
from host_agent.operations.catalogue import Catalogue, Operation, Output
from host_agent.operations.exec.adapter import ADAPTER as EXEC_ADAPTER
from host_agent.operations.pct.adapter import ADAPTER as PCT_ADAPTER
from tests.support.wrapper_host import WrapperHost

REPOSITORY = Path(__file__).resolve().parents[2]
WRAPPERS = REPOSITORY / "wrappers"
CATALOGUE = Catalogue((PCT_ADAPTER, EXEC_ADAPTER))
PLACE = "/run/host-agent-wrappers"
STATE = "/usr/sbin/pct.state"
ALLOWED = """\
version 1
names pct 100-199
allowed pct.*,exec.run
"""
PROTECTED = "# what is never changed\nzfs tank/vault\npct 15[0-9]\n"

_SCRIPT = f"""
set -euo pipefail
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p {PLACE}
cp -- {WRAPPERS}/pct-* {WRAPPERS}/exec-run {PLACE}/
chmod 0755 {PLACE} {PLACE}/*
umask 022
printf %s "$1" >{PLACE}/protected
printf %s "$2" >{PLACE}/allowed
cp -- {REPOSITORY}/tests/support/pct /run/pct
mount -t tmpfs -o mode=755 tmpfs /usr/sbin
mkdir {STATE}
install -m 0755 -- /run/pct /usr/sbin/pct
echo ready
sleep infinity & # and this shell reaps what is left behind
wait "$!"
"""


def can_run() -> bool:
    """Return whether namespaces can be made on this machine."""
    return os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter")))


def container(status: str = "stopped", **config: str) -> dict[str, Any]:
    """Return a container as the stand-in keeps it."""
    settings = {
        "arch": "amd64",
        "hostname": "web",
        "memory": "512",
        "rootfs": "local-zfs:subvol-101-disk-0,size=8G",
        "unprivileged": "1",
        **config,
    }
    raw = [["lxc.cgroup2.devices.allow", "c 10:200 rwm"]]
    return {"status": status, "config": settings, "lxc": raw, "snapshots": {}}


class PctHost(WrapperHost):
    """Starts on `__enter__`, ends with everything in it on `__exit__`."""

    def __init__(self, protected: str = PROTECTED, allowed: str = ALLOWED) -> None:
        self._protected = protected
        self._allowed = allowed
        self._process: subprocess.Popen[bytes] | None = None
        self._inside = 0

    def __enter__(self) -> Self:
        command = [
            *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *("bash", "-c", _SCRIPT, "pct-host", self._protected, self._allowed),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        if self._process.stdout is None or self._process.stdout.readline() != b"ready\n":
            self.__exit__()
            message = "the host did not start"
            raise RuntimeError(message)
        pid = self._process.pid
        self._inside = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs `command` inside."""
        nsenter = shutil.which("nsenter") or "nsenter"
        return [nsenter, f"--target={self._inside}", "--mount", "--pid", "--", *command]

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
        text: str = "",
    ) -> Output:
        """Run a program inside, with nothing but `environment`."""
        done = subprocess.run(
            self.command(*command),
            env=dict(environment or {}),
            cwd="/",
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        return Output(
            exit_code=done.returncode,
            stdout=done.stdout.decode(errors="replace"),
            stderr=done.stderr.decode(errors="replace"),
            stdout_bytes=len(done.stdout),
            stderr_bytes=len(done.stderr),
        )

    def must(self, *command: str, text: str = "") -> str:
        """Run a program that must succeed, and return what it printed."""
        output = self.run(*command, text=text)
        assert output.exit_code == 0, (command, output.stderr)
        return output.stdout

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file inside, whose directory is made where it is missing."""
        self.must("/usr/bin/install", "-D", "-m", mode, "/dev/stdin", path, text=text)

    def wrapper(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Output:
        """Run a wrapper inside."""
        return self.run(f"{PLACE}/{name}", *arguments, environment=environment)

    # -- containers --------------------------------------------------------------------------------

    def put(self, vmid: str, state: Mapping[str, Any]) -> None:
        """Make a container, or change one."""
        self.write(f"{STATE}/{vmid}.json", json.dumps(state))

    def containers(self) -> dict[str, Any]:
        """Return every container that there is."""
        script = f"for file in {STATE}/*.json; do cat -- $file; echo; done"
        names = self.must("/bin/bash", "-c", f"shopt -s nullglob; cd {STATE}; echo *.json").split()
        found = self.must("/bin/bash", "-c", f"shopt -s nullglob; {script}").splitlines()
        texts = [line for line in found if line]
        return dict(zip(names, map(json.loads, texts), strict=True))

    def fault(self, text: str) -> None:
        """Have one command of pct fail or hang."""
        self.write(f"{STATE}/fault", text)

    def calls(self, *verbs: str) -> list[dict[str, Any]]:
        """Return every call of the stand-in, or those of `verbs`."""
        lines = self.run("/bin/cat", f"{STATE}/calls").stdout.splitlines()
        calls: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [call for call in calls if not verbs or call["argv"][0] in verbs]

    def changes(self) -> list[list[str]]:
        """Return the command lines of pct that were more than a look."""
        looks = ("list", "status", "config")
        return [call["argv"] for call in self.calls() if call["argv"][0] not in looks]

    # -- commands ----------------------------------------------------------------------------------

    def register(self, text: str, mode: str = "0644", also: Sequence[str] = ()) -> None:
        """Write root's list of commands; root allows those that it names, and `also`."""
        names = {*(line.split()[0] for line in text.splitlines() if line.strip()), *also} - {"#"}
        self.write(f"{PLACE}/commands", text, mode)
        named = "".join(f"names exec {name}\n" for name in sorted(names))
        self.write(f"{PLACE}/allowed", self._allowed + named)

    def install(self, path: str, text: str, mode: str = "0755") -> str:
        """Write a program and return the hash of its bytes."""
        self.write(path, text, mode)
        return hashlib.sha256(text.encode()).hexdigest()


def operation(name: str, /, **params: JsonValue) -> Operation:
    """Return a validated operation of the two adapters."""
    return CATALOGUE.parse(name, params)
