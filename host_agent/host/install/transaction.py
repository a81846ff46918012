"""Steps, carried out one after the other, and undone together when one of them fails."""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from host_agent.errors import AdapterUnavailableError, ConfigurationError
from host_agent.host.install.journal import Journal
from host_agent.host.install.plan import describe
from host_agent.host.install.values import InstallationError


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationStep:
    """One part of the work, by the name that a person is told when it fails."""

    name: str
    act: Callable[[], None]


class StepFailedError(Exception):
    """A step failed, and what was done is undone; the message is one or two sentences."""


def carry_out(steps: Iterable[InstallationStep], journal: Journal) -> None:
    """Do the steps in order. When one fails, or is interrupted, undo all of them and raise.

    Raises:
        StepFailedError: a step failed; says which, why, and what could not be undone.
        AdapterUnavailableError: a step needs a tool that is not installed; all is undone.
        ConfigurationError: a step found the configuration at fault; all is undone.
    """
    for step in steps:
        try:
            step.act()
        except (OSError, InstallationError, ValueError) as error:
            message = f"{step.name} failed: {describe(error)}. {_told(journal.undo())}"
            raise StepFailedError(message) from error
        except (AdapterUnavailableError, ConfigurationError) as error:
            if left := journal.undo():
                message = f"{step.name} failed: {describe(error)}. {_told(left)}"
                raise StepFailedError(message) from error
            raise
        except BaseException:
            journal.undo()
            raise


def _told(left: list[str]) -> str:
    if not left:
        return "Everything is as it was before."
    return f"What was done could not be undone at: {', '.join(left)}. The rest is as it was before."


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the lock that lets one run at a time work on `root`.

    Raises:
        InstallationError: another one works on it.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        message = f"another installation works on {root}"
        raise InstallationError(message) from error
    try:
        yield
    finally:
        os.close(descriptor)
