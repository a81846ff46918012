"""How a wrapper can end otherwise than well: what its exit status means, and the words of its tool.

The statuses are those of every wrapper (sysexits(3), and what a shell tells of a command that was
ended or not found); each adapter says in its own words what they mean for it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    InvalidOutputError,
    InvalidParameterError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import Output

Ending: TypeAlias = tuple[type[HostAgentError], str]
"""An error and its sentence, without the full stop."""
Endings: TypeAlias = Mapping[int, Ending]
"""Endings by the exit status as a shell tells it."""
Words: TypeAlias = tuple[str, type[HostAgentError], str]
"""An expression that is looked for in standard error, the error, and its whole sentence."""


def wrapper_endings(tool: str, resource: str, *, nothing: str = "done") -> Endings:
    """Return what a wrapper of `tool` itself refuses by, for `The dataset` or the like."""
    return {
        64: (InvalidParameterError, "The wrapper does not accept the form of a parameter"),
        65: (InvalidOutputError, f"What {tool} answers is not understood here"),
        66: (HostNotFoundError, "What was asked for does not exist"),
        69: (AdapterUnavailableError, f"{tool} cannot be used on this host"),
        75: (
            TargetChangedError,
            f"{resource} has changed since it was asked for; nothing was {nothing}",
        ),
        77: (ProtectedError, "This is protected on the host"),
    }


def tool_endings(tool: str, *, after: str = "") -> Endings:
    """Return what befalls `tool` from outside; `after` is added where it was ended in its work."""
    return {
        124: (HostTimedOutError, f"{tool} was ended at the limit of its wrapper{after}"),
        126: (AdapterUnavailableError, f"{tool} cannot be started on this host"),
        127: (
            AdapterUnavailableError,
            f"{tool} or a tool of its wrapper is missing on this host",
        ),
        137: (HostTimedOutError, f"{tool} was killed at the limit of its wrapper{after}"),
        143: (HostTimedOutError, f"{tool} was ended before it was done{after}"),
    }


def by_status(output: Output, endings: Endings) -> HostAgentError | None:
    """Return the error of an exit status, with the wrapper's own last sentence; None if unknown.

    Of standard error nothing else gets into the detail, and that in printable ASCII.
    """
    known = endings.get(output.shell_status)
    if known is None:
        return None
    error, sentence = known
    return error(f"{sentence}: {output.said}." if output.said else f"{sentence}.")


def by_words(output: Output, words: Iterable[Words]) -> HostAgentError | None:
    """Return the error of the first expression that standard error has; None if it has none."""
    for expression, error, sentence in words:
        if re.search(expression, output.stderr):
            return error(sentence)
    return None


def unknown(output: Output, tool: str) -> HostFailedError:
    """Return the error of an ending that nobody knows."""
    cause = f": {output.said}." if output.said else "."
    return HostFailedError(
        f"{tool} ended with exit status {output.exit_code}; see its standard error{cause}"
    )
