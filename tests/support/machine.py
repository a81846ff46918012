"""A Debian with systemd of its own, in a container: booted, looked into, and ended by process id.

The root file system is made once with mmdebstrap and kept below `$XDG_CACHE_HOME` or `/var/cache`,
by the packages in it; each machine gets a copy, which goes with it. Its network is one link to this
host, on addresses that are for documentation, so callers are really outside.
"""

import fcntl
import hashlib
import os
import platform
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from tests.support.patience import PATIENCE

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "sudo", "procps", "iproute2", "logrotate"),
    *("python3", "python3-venv", "git", "openssl"),
)
ADDRESS = "198.51.100.2"
TOOLS = (
    *("mmdebstrap", "systemd-nspawn", "nsenter", "setpriv", "tar", "ip"),
    *("dpkg-deb", "gpg", "gpgconf"),
)
BOOT_SECONDS = 60.0
_ZFS_UNIT = """\
# In the place of Debian's, whose script wants to protect itself from the kernel's memory killer,
# which a container may not.
[Unit]
Description=ZFS in user space

[Service]
ExecStart=/usr/sbin/zfs-fuse --no-daemon

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A Debian release as a machine of it is made: what is in it, and where it can be reached.

    Its network is a /30 of documentation's addresses: out here the first, the machine the second.
    """

    suite: str
    packages: tuple[str, ...]
    address: str = ADDRESS
    has_zfs: bool = False

    @property
    def host_address(self) -> str:
        """Return the address out here of the link to the machine."""
        start, _, last = self.address.rpartition(".")
        return f"{start}.{int(last) - 1}"


BOOKWORM = Release(suite="bookworm", packages=(*PACKAGES, "zfs-fuse"), has_zfs=True)
"""The whole tier's machine. Those below are for the package: each release that it is built for."""
PACKAGED = (
    replace(BOOKWORM, address="198.51.100.6", has_zfs=False),
    Release(suite="trixie", packages=(*PACKAGES, "e2fsprogs", "sudo-rs"), address="198.51.100.10"),
)


def why_not() -> str | None:
    """Return the reason why no machine can be booted here; None where one can."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    if not Path("/etc/debian_version").exists():
        return "a machine is made of Debian packages, and this is no Debian"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse, which the machine's ZFS needs"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)} missing (tests/support/prepare-host)" if missing else None


def why_no_shared_packages() -> str | None:
    """Return the reason why this environment's packages are none for a Debian 12."""
    if platform.python_version_tuple()[:2] != ("3", "11"):
        return "the machine has Python 3.11, and this is another, so packages cannot be shared"
    return None


# -- the root file system --------------------------------------------------------------------------


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    directory = Path(home if home.startswith("/") else "/var/cache") / "host-agent-tests"
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    return directory


@contextmanager
def alone() -> Iterator[Path]:
    """Yield the cache, for one run of tests at a time: addresses and zfs-fuse are one of a kind."""
    directory = _cache()
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def base_archive(cache: Path, release: Release) -> Path:
    """Return the archive of a root file system of `release`, made at its first use.

    Raises:
        RuntimeError: mmdebstrap could not make it.
    """
    named = " ".join((release.suite, *sorted(release.packages)))
    key = hashlib.sha256(named.encode()).hexdigest()[:16]
    archive = cache / f"{release.suite}-{key}.tar"
    if archive.exists():
        return archive
    for old in cache.glob(f"{release.suite}-*.tar*"):
        old.unlink()
    fresh = archive.with_suffix(".tar.new")
    done = subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar"),
            *(f"--include={','.join(release.packages)}", release.suite, str(fresh)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        fresh.unlink(missing_ok=True)
        message = f"mmdebstrap failed: {done.stderr[-2000:]}"
        raise RuntimeError(message)
    fresh.rename(archive)
    return archive


def _unpack(archive: Path, root: Path, release: Release) -> None:
    subprocess.run(["tar", "-C", root, "--numeric-owner", "-xf", archive], check=True)
    (root / "etc/hostname").write_text("agent-host\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{release.address} agent-host\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    if not release.has_zfs:
        (root / "etc/systemd/system/zfs-fuse.service").symlink_to("/dev/null")
        return
    units = root / "etc/systemd/system"
    (units / "zfs-fuse.service").write_text(_ZFS_UNIT)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "zfs-fuse.service").symlink_to("/etc/systemd/system/zfs-fuse.service")


# -- a booted one ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a program inside left behind."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


class Machine:
    """Boots on `__enter__`, and ends with everything in it on `__exit__`."""

    def __init__(self, cache: Path, release: Release = BOOKWORM) -> None:
        self._cache = cache
        self.release = release
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._leader: int | None = None

    def __enter__(self) -> Self:
        archive = base_archive(self._cache, self.release)
        self._directory = Path(tempfile.mkdtemp(prefix="host-agent-machine-"))
        try:
            root = self._directory / "root"
            root.mkdir()
            _unpack(archive, root, self.release)
            self._boot(root)
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End its first process, and with that every other; then remove its files."""
        if self._process is not None:
            for pid in (self._leader, self._process.pid):
                if pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
        if self._directory is not None:
            logs = self._directory / "root/var/log"
            subprocess.run(["chattr", "-R", "-f", "-a", str(logs)], check=False)
            shutil.rmtree(self._directory)

    def _boot(self, root: Path) -> None:
        assert self._directory is not None
        name = f"agent-{secrets.token_hex(2)}"
        command = [
            # Should the tests be killed, the machine goes too.
            *("setpriv", "--pdeathsig=TERM", "systemd-nspawn", "--quiet", "--boot"),
            *("--register=no", "--keep-unit", "--network-veth", "--bind=/dev/fuse"),
            *("--console=pipe", f"--machine={name}", f"--directory={root}"),
        ]
        with (self._directory / "console").open("wb") as console:
            self._process = subprocess.Popen(
                command,
                # Without it `zfs rollback` does its work and fails.
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._link = f"ve-{name}"
        self.until(self._is_up, "the machine does not come up", seconds=BOOT_SECONDS)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._directory is not None
        if self._process.poll() is not None:
            said = (self._directory / "console").read_text(errors="replace")
            message = f"the machine did not boot: {said[-2000:]}"
            raise RuntimeError(message)
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return False
        self._leader = int(children[0])
        return self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def _join(self) -> None:
        for command in (
            ("ip", "address", "add", f"{self.release.host_address}/30", "dev", self._link),
            ("ip", "link", "set", self._link, "up"),
        ):
            subprocess.run(command, check=True, capture_output=True)
        self.must("ip", "address", "add", f"{self.release.address}/30", "dev", "host0")
        self.must("ip", "link", "set", "host0", "up")

    # -- inside ------------------------------------------------------------------------------------

    @property
    def leader(self) -> int:
        """Return the process id, out here, of its first process."""
        assert self._leader is not None
        return self._leader

    def path(self, path: str) -> Path:
        """Return where a path of the machine is seen from here. Links are not for this."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 60,
        within: int | None = None,
    ) -> Done:
        """Run a program inside as root, in the namespaces of the first process or of `within`."""
        nsenter = ("nsenter", f"--target={within or self.leader}", "--all", "--")
        done = subprocess.run(
            [shutil.which("nsenter") or nsenter[0], *nsenter[1:], *command],
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LC_ALL": "C.UTF-8",
                **(environment or {}),
            },
            input=stdin.encode(),
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        return Done(
            command=command,
            exit_code=done.returncode,
            stdout=done.stdout.decode(errors="replace"),
            stderr=done.stderr.decode(errors="replace"),
        )

    def must(self, *command: str, stdin: str = "", timeout: float = 60) -> str:
        """Run a program that must succeed, and return what it printed."""
        done = self.run(*command, stdin=stdin, timeout=timeout)
        assert done.exit_code == 0, f"{command}: {done.exit_code}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(
        self, path: str, content: str | bytes, *, mode: int = 0o644, owner: str = "root:root"
    ) -> None:
        """Put a file inside, in one step."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.fresh")
        fresh.write_bytes(content if isinstance(content, bytes) else content.encode())
        fresh.chmod(mode)
        if owner != "root:root":
            self.must("chown", owner, str(Path(path).with_name(fresh.name)))
        fresh.rename(place)

    def pid_outside(self, pid: int) -> int:
        """Return the process id out here of the process that is `pid` inside.

        Raises:
            ProcessLookupError: there is none.
        """
        own = Path(f"/proc/{self.leader}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            with suppress(OSError, StopIteration):
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == own:
                    lines = (entry / "status").read_text().splitlines()
                    known = next(line for line in lines if line.startswith("NSpid:"))
                    if int(known.split()[-1]) == pid:
                        return int(entry.name)
        raise ProcessLookupError(pid)

    @staticmethod
    def until(is_so: Callable[[], bool], sentence: str, *, seconds: float = PATIENCE) -> None:
        """Ask again until it is so.

        Raises:
            AssertionError: it never was.
        """
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, sentence
            time.sleep(0.05)
