"""SQLite's quick check of the store at its start, and what follows from damage."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from host_agent.errors import StoreUnavailableError
from host_agent.store.database import damage, unavailable

CHECK_SECONDS = 0.1
"""How long a start waits for the integrity check; a larger file is checked beside the service."""

_log = logging.getLogger("host_agent.store")


class Integrity:
    """Whether the file is whole, as far as it has been looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_closing = threading.Event()
        self._is_damaged = False
        self.beside: asyncio.Task[None] | None = None
        """The check of a file that is too large to wait for."""

    async def check(self) -> None:
        """Run the quick check; go on beside the service where it takes too long.

        Raises:
            StoreUnavailableError: damage was found at once.
        """
        deadline = time.monotonic() + CHECK_SECONDS
        try:
            found = await self._look(lambda: time.monotonic() > deadline)
        except TimeoutError:
            self.beside = asyncio.create_task(self._check_whole(), name="request store check")
            return
        except sqlite3.Error as error:
            raise unavailable(error) from error
        if found is not None:
            raise _damaged(found)

    def require_whole(self) -> None:
        """Refuse once damage was found.

        Raises:
            StoreUnavailableError: it was.
        """
        if self._is_damaged:
            raise StoreUnavailableError(_DAMAGED)

    async def close(self) -> None:
        """End the check that is under way; safe to call twice."""
        self._is_closing.set()
        if self.beside is not None:
            await self.beside

    async def _check_whole(self) -> None:
        try:
            found = await self._look(self._is_closing.is_set)
        except TimeoutError:
            return
        except sqlite3.Error as error:
            found = str(error)
        if found is not None:
            self._is_damaged = True
            _damaged(found)

    async def _look(self, should_stop: Callable[[], bool]) -> str | None:
        return await asyncio.to_thread(damage, self._path, should_stop=should_stop)


def _damaged(found: str) -> StoreUnavailableError:
    _log.critical("the request store is damaged: %s", found)
    return StoreUnavailableError(_DAMAGED)


_DAMAGED = "The request store is damaged; its file must be restored. Nothing is stored or run."
