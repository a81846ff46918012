"""Command lines of zpool: no operation changes a pool."""

from collections.abc import Sequence

from host_agent.hooks.shell import names
from host_agent.hooks.translation import READ, UNKNOWN, Translation

_READS = names("list status get iostat history events version help --help -? --version")

_WITH_SCRIPTS = frozenset(["status", "iostat"])


def translate(words: Sequence[str]) -> Translation:
    """Return what the command line does."""
    return READ if not words or words[0] in _READS - _WITH_SCRIPTS or _looks(words) else UNKNOWN


def _looks(words: Sequence[str]) -> bool:
    """Return whether it is a report that runs no script of its own (`-c`)."""
    return words[0] in _WITH_SCRIPTS and not any(
        word.startswith("-") and "c" in word for word in words[1:]
    )
