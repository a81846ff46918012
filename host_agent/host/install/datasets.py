"""Which ZFS datasets the agent itself lies on, from the table of mounts."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

_TYPES = frozenset({"zfs", "fuse.zfs", "fuse"})
_DATASET = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*(?:/[A-Za-z0-9_.:-]+)*", re.ASCII)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def datasets_of(paths: Iterable[str], mountinfo: str) -> tuple[str, ...]:
    """Return the datasets that hold `paths`, from the text of `/proc/self/mountinfo` (proc(5))."""
    mounts = tuple(_mounts(mountinfo))
    found: dict[str, None] = {}
    for path in paths:
        above = {PurePosixPath(path), *PurePosixPath(path).parents}
        # The deepest mount, and of several at one place the last, which hides the others.
        holding = max(
            (mount for mount in enumerate(mounts) if mount[1][0] in above),
            key=lambda mount: (len(mount[1][0].parts), mount[0]),
            default=None,
        )
        if holding is not None:
            _, (_, kind, source) = holding
            if kind in _TYPES and _DATASET.fullmatch(source):
                found[source] = None
    return tuple(sorted(found))


def _mounts(mountinfo: str) -> Iterator[tuple[PurePosixPath, str, str]]:
    """Yield mount point, type and source of each line."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, rest) = before.split(" "), after.partition(" ")
        if len(fields) >= 5 and rest:
            yield PurePosixPath(_plain(fields[4])), kind, _plain(rest.split(" ")[0])


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
