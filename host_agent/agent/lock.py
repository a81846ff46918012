"""One agent for one state directory: a lock that the kernel drops with the process."""

import fcntl
import os
from pathlib import Path

from host_agent.errors import StoreUnavailableError


class AgentLock:
    """An exclusive lock on `agent.lock` in the state directory, which is made with mode 0700."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock, or refuse at once.

        Raises:
            StoreUnavailableError: another agent has it, or the directory cannot be used.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(
                self._directory / "agent.lock",
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            message = f"Another agent works in {self._directory}; stop it, or name another store."
            raise StoreUnavailableError(message) from error
        except OSError as error:
            self.release()
            message = f"{self._directory} cannot be used: {error.strerror}."
            raise StoreUnavailableError(message) from error

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
