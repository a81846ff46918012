"""Owners and modes of the files that the agent trusts, or that must stay secret.

Private keys, the store, the state directory and the audit log give nothing to group or others. An
append-only audit log belongs to root, with its directory; the agent's group may write the file.
Configuration, `conf.d`, the client authority, its list and the wrappers belong to root or to the
agent's user, and nobody else may write them; nor may anybody else replace a directory above any of
these. The directories above a channel's socket belong to root, the agent's user or the daemon's. A
sticky directory of root (`/tmp`) is accepted above: in it nobody replaces what is another's.
"""

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host_agent.config.models import Config

_GROUP_OR_OTHERS = 0o077
_WRITE_OF_GROUP = 0o020
_WRITE_OF_OTHERS = 0o002


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """What one path must be: its dotted key, and whether it is secret or only not to be written."""

    key: str
    path: Path
    is_secret: bool = False
    is_roots: bool = False
    group_may_write: bool = False
    is_socket: bool = False
    also: frozenset[int] = frozenset()


def check_permissions(config: "Config", *, uid: int) -> list[str]:
    """Return a line for every path whose owner or mode `config` may not be used with.

    `uid` is the agent's user. Paths that do not exist are passed over: `load` names the files that
    must, and the agent makes the others itself. Wrappers may be writable by their group under
    runner `direct`, where they have no more rights than the agent.
    """
    faults: dict[str, None] = {}
    for demand in _demands(config):
        faults.update(dict.fromkeys(_faults(demand, uid)))
    return list(faults)


def _demands(config: "Config") -> Iterator[_Demand]:
    for file in config.files:
        yield _Demand(key="configuration", path=file)
    for folder in {file.parent / "conf.d" for file in config.files[:1]}:
        yield _Demand(key="configuration", path=folder)
    yield _Demand(key="server.private_key", path=config.server.private_key, is_secret=True)
    yield _Demand(key="server.client_ca", path=config.server.client_ca)
    if config.server.crl is not None:
        # An older list is signed as well: who could put it back would undo a revocation.
        yield _Demand(key="server.crl", path=config.server.crl)
    state = config.store.path.parent
    yield _Demand(key="store.url", path=state, is_secret=True)
    for suffix in ("", "-wal", "-shm"):
        file = config.store.path.with_name(config.store.path.name + suffix)
        yield _Demand(key="store.url", path=file, is_secret=True)
    log, is_roots = config.audit.path, config.audit.append_only
    if log.parent != state:
        yield _Demand(key="audit.path", path=log.parent, is_roots=is_roots)
    yield _Demand(
        key="audit.path", path=log, is_secret=True, is_roots=is_roots, group_may_write=is_roots
    )
    for key, file in config.secret_files:
        yield _Demand(key=key, path=file, is_secret=True)
    for section in config.channels.sections:
        for socket in section.sockets:
            daemon = frozenset(_uids(socket.user))
            key = f"channels.{section.name}.{socket.key}"
            yield _Demand(key=key, path=socket.path, is_socket=True, also=daemon)
    is_direct = config.execution.runner == "direct"
    folder = config.execution.wrapper_dir
    for wrapper in (folder, *_entries(folder)):
        yield _Demand(key="execution.wrapper_dir", path=wrapper, group_may_write=is_direct)


def _uids(user: str) -> Iterator[int]:
    with suppress(KeyError):
        yield pwd.getpwnam(user).pw_uid


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return ()


def _faults(demand: _Demand, uid: int) -> Iterator[str]:
    if demand.is_socket:
        # The kernel says who listens; here it is only who could put another one there.
        for folder in filter(Path.exists, _above(demand.path)):
            status = folder.lstat()
            by = status.st_uid if status.st_uid in demand.also else uid
            if said := _above_fault(status, by, group_may_write=False):
                yield f"{demand.key}: {folder}, above {demand.path}, {said}"
        return
    try:
        status = demand.path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{demand.key}: {demand.path} cannot be looked at ({error.strerror})"
        return
    if demand.is_roots and status.st_uid != 0:
        fault: str | None = f"belongs to uid {status.st_uid}; with append_only it must be root's"
    elif demand.is_secret:
        fault = _secret_fault(status, uid, group_may_write=demand.group_may_write)
    else:
        fault = _written_fault(status, uid, group_may_write=demand.group_may_write)
    if fault:
        yield f"{demand.key}: {demand.path} {fault}"
    for folder in _above(demand.path):
        if fault := _above_fault(folder.lstat(), uid, group_may_write=demand.group_may_write):
            yield f"{demand.key}: {folder}, above {demand.path}, {fault}"


def _above(path: Path) -> Iterator[Path]:
    """Yield every directory above `path`, by its name and by where links lead."""
    real = Path(os.path.realpath(path))
    seen = dict.fromkeys((*real.parents, *path.parents))
    yield from (folder for folder in seen if not folder.is_symlink())


def configuration_fault(status: os.stat_result, uid: int) -> str | None:
    """Return why a configuration file of this owner and mode is not read, or None."""
    return _written_fault(status, uid, group_may_write=False)


def program_fault(path: str) -> str | None:
    """Return why a program is not root's alone to write and to replace, or None.

    Directories above it, by name and by where links lead, have to be root's; a sticky one will do.
    """
    named = Path(path)
    if not named.is_absolute() or os.path.normpath(path) != path:
        return "must be a path from the root, without '.', '..' and '//'"
    try:
        status = named.lstat()
        above = {*named.parents, *(named.parent.resolve() / named.name).parents}
        open_ones = [folder for folder in sorted(above) if not _is_held(folder.lstat())]
    except (OSError, ValueError, RuntimeError):
        return f"{path} cannot be read"
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return f"{path} is no program"
    if status.st_uid != 0:
        return f"{path} belongs to uid {status.st_uid}; it must belong to root"
    if status.st_mode & (_WRITE_OF_GROUP | _WRITE_OF_OTHERS):
        return f"{path} may be written by others than root"
    if open_ones:
        return f"{path} may be replaced by others than root, who may write {open_ones[0]}"
    return None


def _is_held(directory: os.stat_result) -> bool:
    """Return whether only root can put something else in the place of root's file there.

    A link's own mode means nothing; where it leads is looked at as well.
    """
    may_write = directory.st_mode & (_WRITE_OF_GROUP | _WRITE_OF_OTHERS)
    is_open = bool(may_write) and not directory.st_mode & stat.S_ISVTX
    return directory.st_uid == 0 and (stat.S_ISLNK(directory.st_mode) or not is_open)


def _owner_fault(status: os.stat_result, uid: int) -> str | None:
    if status.st_uid in (0, uid):
        return None
    return f"belongs to uid {status.st_uid}, neither root nor the agent's user (uid {uid})"


def _secret_fault(status: os.stat_result, uid: int, *, group_may_write: bool) -> str | None:
    if fault := _owner_fault(status, uid):
        return fault
    if group_may_write:
        return _written_fault(status, uid, group_may_write=True)
    if status.st_mode & _GROUP_OR_OTHERS:
        return f"is mode {_mode(status)} and must give nothing to group or others (chmod go=)"
    return None


def _written_fault(status: os.stat_result, uid: int, *, group_may_write: bool) -> str | None:
    if fault := _owner_fault(status, uid):
        return fault
    if status.st_mode & _WRITE_OF_OTHERS:
        return f"is mode {_mode(status)} and must not be writable by others (chmod go-w)"
    if status.st_mode & _WRITE_OF_GROUP and not group_may_write:
        return f"is mode {_mode(status)} and must not be writable by its group (chmod g-w)"
    return None


def _above_fault(status: os.stat_result, uid: int, *, group_may_write: bool) -> str | None:
    if status.st_uid == 0 and status.st_mode & stat.S_ISVTX:
        return None
    return _written_fault(status, uid, group_may_write=group_may_write)


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
