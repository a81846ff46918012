"""The wrapper files: where they are, and the hash of what they are now.

The hash is part of the digest that is approved, so a wrapper that was changed after the approval
does not run. Reading one costs a stat; the bytes are read again only when the stat has changed.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from host_agent.errors import AdapterUnavailableError
from host_agent.text import sha256_digest

MAX_BYTES = 1 << 20


_WRITE_OF_OTHERS = 0o002
_WRITE_OF_GROUP = 0o020


class WrapperDigests:
    """Hashes of the files in the wrapper directory.

    `group_may_write` as the runner `direct` has it: there a wrapper has no more rights than the
    agent. What could not be started with is not run later either.
    """

    def __init__(self, directory: Path, *, group_may_write: bool = False) -> None:
        self._directory = directory
        self._foreign = _WRITE_OF_OTHERS | (0 if group_may_write else _WRITE_OF_GROUP)
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    def digest(self, wrapper: str) -> str:
        """Return `sha256:` and the SHA-256 of the wrapper's bytes.

        Raises:
            AdapterUnavailableError: it is missing, not a regular executable file, too large, or can
                be changed by somebody who is neither root nor the agent's user.
        """
        path = self._directory / wrapper
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            message = f"The wrapper {wrapper} of this operation cannot be read on this host."
            raise AdapterUnavailableError(message) from error
        try:
            return self._digest_of(descriptor, wrapper)
        finally:
            os.close(descriptor)

    def digest_all(self, wrappers: Sequence[str]) -> str:
        """Return the hash of one wrapper; of several, the hash over their names and hashes.

        Raises:
            AdapterUnavailableError: as `digest` does, for any of them.
        """
        if len(wrappers) == 1:
            return self.digest(wrappers[0])
        lines = "".join(f"{name} {self.digest(name)}\n" for name in wrappers)
        return sha256_digest(lines.encode("ascii"))

    def _digest_of(self, descriptor: int, wrapper: str) -> str:
        now = os.fstat(descriptor)
        if not stat.S_ISREG(now.st_mode) or not now.st_mode & 0o111 or now.st_size > MAX_BYTES:
            message = f"The wrapper {wrapper} of this operation is not a program of this service."
            raise AdapterUnavailableError(message)
        if now.st_mode & self._foreign or now.st_uid not in (0, os.geteuid()):
            message = (
                f"The wrapper {wrapper} of this operation can be changed by others on this host; "
                "it is not run. The administrator of this host finds the cause."
            )
            raise AdapterUnavailableError(message)
        seen = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_mode)
        known = self._known.get(wrapper)
        if known is not None and known[0] == seen:
            return known[1]
        digest = sha256_digest(os.read(descriptor, MAX_BYTES))
        self._known[wrapper] = (seen, digest)
        return digest
