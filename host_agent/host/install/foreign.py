"""Who but root could put something where root's own files go: looked at before anything is done.

sudo starts whatever is at a wrapper's path, and systemd what a unit file names. So the directories
on the way there are root's alone, and nothing in the wrapper directory is somebody else's, unless
it is our own file, which is made anew.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from host_agent.host.install import layout
from host_agent.host.install.plan import TAKE_AWAY, Work
from host_agent.host.install.program import walk
from host_agent.host.install.source import ShippedFiles
from host_agent.host.install.values import Found, InstallationError

_MOST = 5
_PLACES = (
    layout.WRAPPER_DIR,
    *(f"{path}.d" for path in (layout.UNIT, layout.TRIAL, *layout.RENEWING)),
    *layout.RENEWING,
    *(layout.SUDOERS, layout.UNIT, layout.TRIAL, layout.SYSUSERS, layout.TMPFILES),
    layout.LOGROTATE,
)


def refuse_foreign(work: Work, source: ShippedFiles) -> None:
    """Stop where somebody else than root can change what root would run or believe.

    Raises:
        InstallationError: names each such place, and what to do.
    """
    faults = [*_ways(work), *_inside(work, source)]
    if not faults:
        return
    more = f"; and {len(faults) - _MOST} more" if len(faults) > _MOST else ""
    raise InstallationError("; ".join(faults[:_MOST]) + more)


def _ways(work: Work) -> Iterator[str]:
    """Yield the directories on the way to a place that others could change."""
    seen: dict[str, Found] = {}
    for path in _PLACES:
        for place in walk(work.root, _deepest(work, path)):
            found = work.tree.find(place)
            if found is not None and found.is_directory:
                seen[place] = found
    for place, found in seen.items():
        if fault := work.foreign(found):
            yield (
                f"{place} {fault}, who could put a program there that root runs: see what lies in"
                f" it, then chown root:root {place} and chmod go-w {place}"
            )


def _deepest(work: Work, path: str) -> str:
    """Return the directory at `path`, or the deepest one above it that exists."""
    for place in (PurePosixPath(path), *PurePosixPath(path).parents):
        found = work.tree.find(str(place))
        if found is not None and found.is_directory:
            return str(place)
    return "/"


def _inside(work: Work, source: ShippedFiles) -> Iterator[str]:
    """Yield what lies in a directory of ours and is neither root's nor our own file."""
    ours = {file.path: {file.digest} for file in source.wrapper_files()}
    for path, digest in work.manifest.files.items():
        ours.setdefault(path, set()).add(digest)
    for directory in _PLACES[:3]:
        found = work.tree.find(directory)
        if found is None or not found.is_directory:
            continue
        for entry in sorted(work.tree.at(directory).iterdir()):
            path = f"{directory}/{entry.name}"
            there = work.tree.find(path)
            if there is None or there.digest in ours.get(path, ()):
                continue
            if fault := work.foreign(there):
                yield f"{path} {fault}; {TAKE_AWAY}"
