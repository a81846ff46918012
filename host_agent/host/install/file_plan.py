"""What to do about one file: pure, from what should be there, what is, and what was put there."""

from enum import Enum, auto

from host_agent.host.install.values import Found


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


_WRITE_OF_GROUP, _WRITE_OF_OTHERS, _STICKY = 0o020, 0o002, 0o1000
_MASK = "/dev/null"


def foreign(found: Found, *, uid: int, gid: int) -> str | None:
    """Return why what is there is not surely root's own, as the end of a sentence; else None.

    `uid` and `gid` are root's. A unit that root masked, a link to /dev/null, is root's own; so is a
    directory in which nobody removes what is another's (sticky).
    """
    if found.uid != uid:
        return f"belongs to uid {found.uid}"
    if found.link_to is not None:
        return None if found.link_to == _MASK else "is a symbolic link"
    if found.digest is None and not found.is_directory:
        return "is neither a file nor a directory"
    if found.is_directory and found.mode & _STICKY:
        return None
    if found.mode & _WRITE_OF_OTHERS:
        return "can be written by everybody"
    if found.mode & _WRITE_OF_GROUP and found.gid != gid:
        return f"can be written by the group {found.gid}"
    return None


def may_remove(found: Found | None, recorded: str) -> bool:
    """Return whether a file is unchanged since it was installed, and may be removed."""
    return found is not None and found.digest == recorded
