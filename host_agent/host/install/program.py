"""The program that the service will start: which one, and whether the agent's user may run it.

It must be readable by everybody and changeable by root alone, the whole way down from `/`, and lie
where the service sees it. A virtual environment below a private home is neither.
"""

import os
import re
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import host_agent
from host_agent.errors import ConfigurationError

_NAME = "host-agent"
_PLAIN = re.compile(r"(?:/[A-Za-z0-9._+@-]+)+", re.ASCII)
_UNSEEN = ("/tmp", "/var/tmp")  # noqa: S108 - not used, refused: the unit has a /tmp of its own
_MAX_LINKS = 40
_ADVICE = (
    "install the program for everybody: its Debian package, or an environment in /opt/host-agent as"
    " docs/how-to/install.md says; and run the command from there"
)


def own_program(root: Path) -> str:
    """Return the `host-agent` beside the running interpreter, as the host in `root` sees it.

    Raises:
        ConfigurationError: there is none, as when it runs from an archive.
    """
    found = Path(sysconfig.get_path("scripts")) / _NAME
    inside = found.relative_to(root) if root != Path("/") and found.is_relative_to(root) else None
    program = str(found) if inside is None else f"/{inside}"
    if not os.access(found, os.X_OK):
        fault = f"{found}: there is no such program beside this interpreter; {_ADVICE}"
        raise ConfigurationError([fault])
    return program


def check_program(root: Path, program: str) -> None:
    """Return if the service in `root` can run `program`, and nobody but root can change it.

    Raises:
        ConfigurationError: why not, each place in one line, with advice.
    """
    faults = [fault for path in _needed(root, program) for fault in _faults(root, path)]
    if not _PLAIN.fullmatch(program):
        faults.insert(0, f"{program!a}: a unit cannot name such a path; {_ADVICE}")
    if faults:
        raise ConfigurationError([f"{fault}; {_ADVICE}" for fault in dict.fromkeys(faults)])


def _needed(root: Path, program: str) -> Iterator[str]:
    """Yield the program, its interpreter, and on this host the libraries: Python's and ours."""
    yield program
    try:
        with (root / program.lstrip("/")).open("rb") as stream:
            first = stream.readline(256)
    except OSError:
        return
    if first.startswith(b"#!/") and b" " not in first:
        yield os.fsdecode(first[2:].strip())
    if root == Path("/"):
        yield os.__file__
        yield host_agent.__file__


def _faults(root: Path, path: str) -> Iterator[str]:
    if any(Path(path).is_relative_to(unseen) for unseen in _UNSEEN):
        yield f"{path}: the service has a /tmp of its own and does not see it"
    try:
        for place in walk(root, path):
            yield from _place_faults(root, place)
    except OSError as error:
        yield f"{path}: cannot be looked at ({error.strerror or error})"


def _place_faults(root: Path, place: str) -> Iterator[str]:
    status = (root / place.lstrip("/")).lstat()
    if stat.S_ISLNK(status.st_mode):
        return  # its own mode means nothing; where it leads is looked at too
    is_directory = stat.S_ISDIR(status.st_mode)
    needed = 0o001 if is_directory else 0o004
    if status.st_mode & needed != needed:
        word = "enter" if is_directory else "read"
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        yield f"{place}: the agent's user may not {word} it (mode {mode})"
    is_shared = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid)
    if status.st_uid != 0 or (is_shared and not status.st_mode & stat.S_ISVTX):
        yield f"{place}: somebody other than root can change it"


def walk(root: Path, path: str) -> Iterator[str]:
    """Yield everything that is passed on the way from `/` of `root` to `path`, links followed.

    Raises:
        OSError: a part does not exist, or the links have no end.
    """
    todo = [part for part in reversed(path.split("/")) if part]
    at: list[str] = []
    links = 0
    yield "/"
    while todo:
        part = todo.pop()
        if part in {".", ".."}:
            at = at[:-1] if part == ".." else at
            continue
        place = "/" + "/".join([*at, part])
        yield place
        real = root / place.lstrip("/")
        if not stat.S_ISLNK(real.lstat().st_mode):
            at.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            message = "its links have no end"
            raise OSError(message)
        target = os.fspath(real.readlink())
        at = [] if target.startswith("/") else at
        todo.extend(step for step in reversed(target.split("/")) if step)
