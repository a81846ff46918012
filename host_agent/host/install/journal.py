"""The way back: what was done, so that it can be undone in reverse order."""

import logging
from collections.abc import Callable

from host_agent.errors import HostAgentError
from host_agent.host.install.values import InstallationError

_log = logging.getLogger("host_agent.host.install")


class Journal:
    """Holds how to undo each thing that was done."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, Callable[[], None]]] = []

    def note(self, what: str, undo: Callable[[], None]) -> None:
        """Remember how to undo `what`. Called right before it is done: undoing takes either."""
        self._entries.append((what, undo))

    def undo(self) -> list[str]:
        """Undo everything, newest first, and return what could not be undone.

        One that fails does not keep the others from being undone.
        """
        failed: list[str] = []
        while self._entries:
            what, act = self._entries.pop()
            try:
                act()
            except (OSError, HostAgentError, InstallationError) as error:
                _log.error("%s could not be undone: %s", what, error)
                failed.append(what)
        return failed
