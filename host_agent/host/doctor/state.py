"""What the agent keeps: its store, its audit log, the room for both, and the clock they need."""

import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from host_agent.audit.record import Record
from host_agent.audit.rotation import finished, read_tail
from host_agent.audit.verify import Concern, NotAnAuditFileError, verify
from host_agent.config import Config
from host_agent.host.doctor.values import Check, instant, ok, problem, warning

NOT_BEFORE = datetime(2026, 11, 1, tzinfo=UTC)
"""When this release was made: a clock before it is wrong."""

_SKEW = timedelta(seconds=5)
_CHECK_SECONDS = 10.0
_PROGRESS_STEPS = 20_000
_VERIFIED_BYTES = 64 * 1024 * 1024
_LITTLE_BYTES, _SOME_BYTES = 100 * 1024 * 1024, 1024 * 1024 * 1024
_LITTLE_FILES = 1000
_NOT_YET = "start the agent: systemctl start host-agent.service"
_AS_ROOT = "run the doctor as root, or as the agent's user"
_RESTORE = "restore it: docs/how-to/restore.md"


def state_checks(config: Config, now: datetime) -> Iterator[Check]:
    """Yield the checks of clock, store, audit log and disks."""
    newest = _newest(config.audit.path)
    yield clock_check(now, newest)
    yield store_check(config.store.path)
    yield from audit_checks(config.audit.path, newest)
    for folder in dict.fromkeys((config.store.path.parent, config.audit.path.parent)):
        yield disk_check(folder)


def clock_check(now: datetime, newest: Record | OSError | None) -> Check:
    """Return whether the clock can be right, by this release and by what is recorded already."""
    name, remedy = "clock", "set the clock, and let NTP keep it: timedatectl"
    if now < NOT_BEFORE:
        return problem(name, f"It says {instant(now)}, before this release was made.", remedy)
    if isinstance(newest, Record):
        recorded = datetime.fromisoformat(str(newest.members["time"]))
        if recorded > now + _SKEW:
            sentence = (
                f"It says {instant(now)}, and the audit log has a record of {instant(recorded)}."
            )
            return problem(name, sentence, remedy)
    return ok(name, f"It says {instant(now)}, later than everything that is recorded.")


# -- the store ------------------------------------------------------------------------------------


def store_check(path: Path) -> Check:
    """Return whether the database can be read and is whole; it is not written."""
    name = "store"
    try:
        size = path.stat().st_size
        found, count = _look(path)
    except FileNotFoundError:
        return warning(name, f"There is no {path} yet.", _NOT_YET)
    except PermissionError:
        return warning(name, f"{path} cannot be read by this user.", _AS_ROOT)
    except TimeoutError:
        sentence = (
            f"{path} ({size} bytes) was not read through in {_CHECK_SECONDS:.0f} s; so far good."
        )
        return warning(name, sentence, "look again while the host has less to do")
    except (OSError, sqlite3.Error) as error:
        return problem(name, f"{path} cannot be read: {error}.", _RESTORE)
    if found != "ok":
        return problem(name, f"{path} is damaged: {found}.", _RESTORE)
    return ok(name, f"{path} is whole; requests in it: {count}.")


def _look(path: Path) -> tuple[str, int]:
    """Return what SQLite's quick check says, and the number of requests.

    Without a journal nobody has it open: then it is read as it lies, so that no journal is made.
    """
    journal = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if journal.exists() else "mode=ro&immutable=1"
    until = time.monotonic() + _CHECK_SECONDS
    with path.open("rb"):
        raw = sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=2.0)
    try:
        raw.set_progress_handler(lambda: time.monotonic() > until, _PROGRESS_STEPS)
        found = str(raw.execute("PRAGMA quick_check(1)").fetchone()[0])
        count = int(raw.execute("SELECT count(*) FROM requests").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise TimeoutError from None
        raise
    finally:
        raw.close()
    return found, count


# -- the audit log --------------------------------------------------------------------------------


def audit_checks(path: Path, newest: Record | OSError | None) -> Iterator[Check]:
    """Yield whether the log can be written, and whether its newest file is what was written."""
    name = "audit log"
    if isinstance(newest, FileNotFoundError):
        yield warning(name, f"There is no {path} yet.", _NOT_YET)
        return
    if isinstance(newest, PermissionError):
        yield warning(name, f"{path} cannot be read by this user.", _AS_ROOT)
        return
    if isinstance(newest, OSError):
        yield problem(name, f"{path} cannot be read: {newest.strerror}.", _RESTORE)
        return
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        remedy = f"mount it for writing again: findmnt --target {path}"
        yield problem(name, f"{path} lies on a file system that is read-only.", remedy)
    if newest is None:
        yield ok(name, f"{path} has no record yet.")
    else:
        sentence = f"The newest record is {newest.sequence}; this is the head: {newest.hash}"
        yield ok(name, sentence)
    yield _chain(path)


def _chain(path: Path) -> Check:
    name, size = "audit chain", path.stat().st_size
    if size > _VERIFIED_BYTES:
        remedy = f"verify it by itself: host-agent audit verify {path}"
        return warning(name, f"{path} is large ({size} bytes) and was not read through.", remedy)
    files = [*_newest_finished(path, _VERIFIED_BYTES - size), *([path] if size else [])]
    if not files:
        return ok(name, f"{path} is empty.")
    try:
        report = verify(files)
    except NotAnAuditFileError as error:
        return problem(name, f"{error}.", _RESTORE)
    before = len(files) - bool(size)
    and_before = f" and the {before} before it" if before else ""
    # Where the files begin, and whether some are missing, is for `audit verify` over all of them.
    if report.is_clean(Concern.INTEGRITY):
        return ok(name, f"{report.records} records of {path}{and_before} are what was written.")
    bad = next((one.file for one in report.findings if one.concern is Concern.INTEGRITY), path)
    sentence = f"{bad} is not what was written, first at record {report.first_bad}."
    return problem(name, sentence, "find out who changed it: docs/how-to/verify-the-log.md")


def _newest_finished(path: Path, room: int) -> list[Path]:
    """Return the newest finished files beside `path` that `room` bytes hold, oldest first."""
    found: list[Path] = []
    for _, file in sorted(finished(path), reverse=True):
        room -= file.stat().st_size
        if room < 0:
            break
        found.insert(0, file)
    return found


def _newest(path: Path) -> Record | OSError | None:
    """Return the newest record, None where there is none, or why it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return error
    try:
        return read_tail(descriptor).record
    except OSError as error:
        return error
    finally:
        os.close(descriptor)


# -- the disk -------------------------------------------------------------------------------------


def disk_check(folder: Path) -> Check:
    """Return whether there is room for more records; without it, operations are refused."""
    name, remedy = "disk space", f"make room on the file system of {folder}"
    try:
        status = os.statvfs(folder)
    except FileNotFoundError:
        return warning(name, f"There is no {folder} yet.", _NOT_YET)
    except OSError as error:
        return warning(name, f"{folder} cannot be looked at: {error.strerror}.", _AS_ROOT)
    free = status.f_bavail * status.f_frsize
    sentence = f"{folder} has {free // 2**20} MiB left."
    if status.f_files and status.f_favail < _LITTLE_FILES:
        return problem(name, f"{folder} has room for {status.f_favail} more files.", remedy)
    if free < _LITTLE_BYTES:
        return problem(name, sentence, remedy)
    return warning(name, sentence, remedy) if free < _SOME_BYTES else ok(name, sentence)
