"""What to do about one file: pure, from what should be there, what is, and what was put there."""

from enum import Enum, auto

from host_agent.installation.values import Found


class Deed(Enum):
    """What to do about a file."""

    CREATE = auto()
    REPLACE = auto()
    ADJUST = auto()
    """The content is right, its owner or mode is not."""
    LEAVE = auto()
    BESIDE = auto()
    """An administrator changed it: the new version goes beside it, and theirs stays."""


def decide(
    wanted: str, attributes: tuple[int, int, int], found: Found | None, recorded: str | None
) -> Deed:
    """Return what to do about a file whose content should have the digest `wanted`.

    `attributes` are the mode, uid and gid that it should have. `recorded` is the digest of what an
    earlier installation put there. A file that is neither what is wanted nor what was recorded is
    somebody else's, whoever put it there; one that was removed is made again.
    """
    if found is None:
        return Deed.CREATE
    if found.digest == wanted:
        is_right = (found.mode, found.uid, found.gid) == attributes
        return Deed.LEAVE if is_right else Deed.ADJUST
    if found.digest is not None and found.digest == recorded:
        return Deed.REPLACE
    return Deed.BESIDE


def may_remove(found: Found | None, recorded: str) -> bool:
    """Return whether what is there is what was put there, so that it may go."""
    return found is not None and found.digest == recorded
