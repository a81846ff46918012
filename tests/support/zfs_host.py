"""A host with ZFS in namespaces of its own: the wrappers run there unmodified, as root.

Nothing of it is seen outside: mounts, processes and the state directories of ZFS are its own, and
all of it ends with its first process. The ZFS is either zfs-fuse with a pool in a file, or the
stand-in `openzfs`, put in the place of /usr/sbin/zfs.
"""

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
from host_agent.operations.zfs.adapter import ADAPTER
from tests.support.wrapper_host import WrapperHost

REPOSITORY = Path(__file__).resolve().parents[2]
WRAPPERS = REPOSITORY / "wrappers"
CATALOGUE = Catalogue((ADAPTER,))
PLACE = "/run/host-agent-wrappers"
ALLOWED = "# what is allowed\nversion 1\nnames zfs tank(/.*)?\nallowed zfs.*\n"
PROTECTED = "# what is never destroyed\nsystemd ssh\\.service\nzfs tank/vault(/.*)?\nzfs .*/keep\n"

_COMMON = f"""
set -euo pipefail
mount -t tmpfs tmpfs /run
mkdir -p /run/lock {PLACE}
cp -- {WRAPPERS}/zfs-* {PLACE}/
chmod 0755 {PLACE}/zfs-*
umask 022
printf %s "$1" >{PLACE}/protected
printf %s "$2" >{PLACE}/allowed
"""
_FUSE = """
mount -t tmpfs tmpfs /var/lib/zfs
mount -t tmpfs tmpfs /mnt
zfs-fuse --no-daemon >/run/zfs-fuse.log 2>&1 </dev/null &
for ((turn = 0; turn < 200; turn++)); do
  [[ ! -S /run/zfs/zfs_socket ]] || break
  read -r -t 0.05 <> <(:) || true
done
truncate -s 100M /run/disk
zpool create -m /mnt/tank tank /run/disk >&2
"""
_STAND_IN = f"""
mkdir /run/openzfs
printf '%s' "$3" >/run/openzfs/state.json
cp -- {REPOSITORY}/tests/support/openzfs /run/openzfs/zfs
mount -t tmpfs tmpfs /usr/sbin
cp -- /run/openzfs/zfs /usr/sbin/zfs
chmod 0755 /usr/sbin/zfs
"""
_READY = """
echo ready
sleep infinity & # and this shell reaps what is left behind
wait "$!"
"""


def can_run_fuse() -> bool:
    """Return whether a pool of zfs-fuse can be made on this machine."""
    return (
        os.geteuid() == 0
        and Path("/dev/fuse").exists()
        and all(map(shutil.which, ("zfs-fuse", "zpool", "unshare", "nsenter")))
    )


def can_run_stand_in() -> bool:
    """Return whether namespaces can be made on this machine."""
    return os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter")))


class ZfsHost(WrapperHost):
    """Starts on `__enter__`, ends with everything in it on `__exit__`."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._script = script
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._inside: int | None = None

    @classmethod
    def with_fuse(cls, protected: str = PROTECTED, allowed: str = ALLOWED) -> "ZfsHost":
        """Return a host with zfs-fuse and an empty pool `tank`."""
        return cls(_COMMON + _FUSE + _READY, protected, allowed)

    @classmethod
    def with_stand_in(
        cls, state: Mapping[str, Any], protected: str = PROTECTED, allowed: str = ALLOWED
    ) -> "ZfsHost":
        """Return a host with the stand-in for OpenZFS, in `state`."""
        return cls(_COMMON + _STAND_IN + _READY, protected, allowed, json.dumps(state))

    def __enter__(self) -> Self:
        command = [
            *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *("bash", "-c", self._script, "zfs-host", *self._arguments),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        if self._process.stdout is None or self._process.stdout.readline() != b"ready\n":
            self.__exit__()
            message = "the host did not start"
            raise RuntimeError(message)
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._inside = int(children[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def inside(self) -> int:
        """Return the process id, out here, of the first process in there."""
        assert self._inside is not None
        return self._inside

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Output:
        """Run a program inside, with nothing but `environment`."""
        done = subprocess.run(
            [
                shutil.which("nsenter") or "nsenter",
                f"--target={self.inside}",
                "--mount",
                "--pid",
                "--",
                *command,
            ],
            env={"PATH": os.environ["PATH"], **(environment or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
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

    def must(self, *command: str) -> str:
        """Run a program that must succeed, and return what it printed."""
        output = self.run(*command)
        assert output.exit_code == 0, (command, output.stderr)
        return output.stdout

    def wrapper(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Output:
        """Run a wrapper inside."""
        return self.run(f"{PLACE}/{name}", *arguments, environment=environment)

    def datasets(self) -> list[str]:
        """Return the names of everything that there is, snapshots too."""
        types = "filesystem,snapshot,volume"
        return self.must("/usr/sbin/zfs", "list", "-H", "-o", "name", "-t", types).split()

    def calls(self) -> list[Sequence[str]]:
        """Return every command line that the stand-in got."""
        lines = self.must("cat", "/run/openzfs/argv").splitlines()
        return [json.loads(line)["argv"] for line in lines]

    def environments(self) -> list[Mapping[str, str]]:
        """Return every environment that the stand-in got."""
        lines = self.must("cat", "/run/openzfs/argv").splitlines()
        return [json.loads(line)["environment"] for line in lines]


def operation(name: str, /, **params: JsonValue) -> Operation:
    """Return a validated operation of the zfs adapter."""
    return CATALOGUE.parse(name, params)
