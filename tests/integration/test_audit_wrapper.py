"""Root's wrapper that finishes the audit log's file and begins the next: used, misused, killed."""

import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_agent.audit.log import AuditLog
from host_agent.audit.record import Event
from host_agent.audit.sealing import is_append_only
from host_agent.audit.verify import Concern, verify
from tests.support.audit_files import HeldClock
from tests.support.patience import PATIENCE

WRAPPER = Path(__file__).parents[2] / "wrappers" / "audit-rotate"
GROUP = "nogroup"
NOBODY = pwd.getpwnam("nobody")
FINISHED = re.compile(r"audit-[0-9]{8}T[0-9]{12}Z\.jsonl")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who keeps the log"),
]


@dataclass(frozen=True, slots=True)
class Place:
    """A log that root keeps, and the wrapper beside root's word on it."""

    folder: Path

    @property
    def wrapper(self) -> Path:
        return self.folder / "lib" / "audit-rotate"

    @property
    def log(self) -> Path:
        return self.folder / "log" / "audit.jsonl"

    def register(self, text: str | None = None, *, mode: int = 0o644) -> None:
        word = self.wrapper.with_name("audit")
        word.write_text(f"path {self.log}\ngroup {GROUP}\ndays 30\n" if text is None else text)
        word.chmod(mode)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.wrapper, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env={"PATH": "/usr/bin:/bin", **environment},
        )

    def rotate(self) -> str:
        done = self.run()
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.strip()

    def picture(self) -> dict[str, tuple[int, int, bytes]]:
        return {
            path.name: (path.stat().st_mode, path.stat().st_gid, path.read_bytes())
            for path in self.log.parent.iterdir()
        }


@pytest.fixture
def place() -> Iterator[Place]:
    """A place that others may enter: pytest's own are closed again by every other run of it."""
    with tempfile.TemporaryDirectory(prefix="host-agent-") as name:
        made = Place(Path(name))
        made.folder.chmod(0o755)
        for folder in (made.wrapper.parent, made.log.parent):
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
        shutil.copy(WRAPPER, made.wrapper)
        made.register()
        yield made
        subprocess.run(["chattr", "-R", "-f", "-a", made.folder], check=False)


def as_nobody(act: Callable[[], object]) -> int:
    """Run `act` as nobody in the log's group, and return the errno that it got; 0 for none."""
    child = os.fork()
    if child == 0:
        code = 255
        with suppress(BaseException):
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            try:
                act()
                code = 0
            except OSError as error:
                code = error.errno or 255
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def append(log: Path, data: bytes = b"more\n") -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


# -- what it does ---------------------------------------------------------------------------------


def test_it_begins_a_file_that_the_group_can_append_to_and_nothing_else(place: Place) -> None:
    assert place.rotate() == "-"
    assert (place.log.stat().st_mode & 0o777, place.log.stat().st_uid) == (0o660, 0)
    assert place.log.parent.stat().st_mode & 0o777 == 0o750
    assert is_append_only(place.log)
    assert as_nobody(lambda: append(place.log)) == 0
    for act in (
        lambda: os.open(place.log, os.O_WRONLY),
        lambda: os.truncate(place.log, 0),
        lambda: place.log.rename(place.log.with_name("other")),
        lambda: place.log.unlink(),
        lambda: place.log.chmod(0o666),
        lambda: os.close(os.open(place.log.with_name("new"), os.O_CREAT | os.O_WRONLY)),
        lambda: fcntl.fcntl(os.open(place.log, os.O_WRONLY | os.O_APPEND), fcntl.F_SETFL, 0),
    ):
        assert as_nobody(act) not in {0, 255}
    assert place.log.read_bytes() == b"more\n"


def test_a_finished_file_has_all_of_it_and_is_nobodys_to_write(place: Place) -> None:
    place.rotate()
    assert as_nobody(lambda: append(place.log, b"one\ntwo\n")) == 0
    name = place.rotate()
    finished = place.log.with_name(name)
    assert FINISHED.fullmatch(name)
    assert finished.read_bytes() == b"one\ntwo\n"
    assert (finished.stat().st_mode & 0o777, finished.stat().st_uid) == (0o440, 0)
    assert place.log.read_bytes() == b""
    assert is_append_only(place.log)
    assert as_nobody(lambda: append(finished)) not in {0, 255}
    assert as_nobody(lambda: finished.unlink()) not in {0, 255}
    assert place.rotate() == "-"  # an empty one is not finished


def test_who_has_the_file_open_changes_nothing_of_a_finished_one(place: Place) -> None:
    place.rotate()
    with place.log.open("ab", buffering=0) as held:
        held.write(b"past\n")
        name = place.rotate()
        fcntl.fcntl(held, fcntl.F_SETFL, 0)  # it is nobody's file any more
        os.pwrite(held.fileno(), b"X", 0)
        held.write(b"late\n")
    assert place.log.with_name(name).read_bytes() == b"past\n"
    assert place.log.read_bytes() == b""


def test_files_past_their_days_go_and_no_others(place: Place) -> None:
    place.rotate()
    now = time.time()
    names = {
        days: time.strftime("audit-%Y%m%dT%H%M%S000000Z.jsonl", time.gmtime(now - days * 86_400))
        for days in (29, 31, 400)
    }
    others = ("audit-20200101.jsonl", "other-20200101T000000000000Z.jsonl", "audit-x.jsonl")
    for name in (*names.values(), *others):
        place.log.with_name(name).write_bytes(b"x")
    place.rotate()
    there = {path.name for path in place.log.parent.iterdir()}
    assert {names[29], *others} <= there
    assert not {names[31], names[400]} & there


async def test_the_log_goes_on_over_files_that_root_begins(place: Place) -> None:
    log = AuditLog(
        place.log, max_bytes=4096, retain_days=30, clock=HeldClock(), rotate=place.rotate
    )
    await log.open()
    for number in range(40):
        await log.append(Event.OPERATION_STARTED, caller="librarian", params={"number": number})
        if number == 20:
            place.rotate()  # somebody else does
    await log.close()
    files = sorted(place.log.parent.glob("audit-*.jsonl"))
    assert len(files) > 2
    report = verify([*files, place.log])
    assert all(report.is_clean(concern) for concern in Concern)
    assert report.records == log.sequence
    causes = [line for file in (*files, place.log) for line in file.read_text().splitlines()]
    assert sum('"cause":"unlinked"' in line for line in causes) == 1
    assert sum('"cause":"size"' in line for line in causes) == len(files) - 1


def test_an_empty_file_that_could_be_written_anywhere_is_not_used(place: Place) -> None:
    place.rotate()
    subprocess.run(["/usr/bin/chattr", "-a", place.log], check=True)
    with place.log.open("r+b", buffering=0) as held:
        assert place.rotate() == "-"
        assert is_append_only(place.log)
        append(place.log, b"past\n")
        held.write(b"X")
    assert place.log.read_bytes() == b"past\n"


# -- what an earlier start could not seal ---------------------------------------------------------


def started(place: Place, rotate: Callable[[], str] | None = None) -> AuditLog:
    return AuditLog(
        place.log, max_bytes=10**8, retain_days=30, clock=HeldClock(), rotate=rotate or place.rotate
    )


async def once(log: AuditLog) -> None:
    """Start with the log, write a record and end."""
    await log.open()
    await log.append(Event.AGENT_STARTED)
    await log.close()


def unseal(place: Place) -> None:
    """Leave the live file as a host without `chattr` does."""
    subprocess.run(["/usr/bin/chattr", "-a", place.log], check=True)


async def test_a_file_that_was_begun_without_chattr_is_finished_at_the_next_start(
    place: Place,
) -> None:
    await once(started(place))
    unseal(place)
    with place.log.open("r+b", buffering=0) as held:  # as somebody with the agent's user has it
        await once(started(place))
        held.write(b"XXXXXXXX")

    assert is_append_only(place.log)
    (finished,) = place.log.parent.glob("audit-*.jsonl")
    report = verify([finished, place.log])
    assert (report.records, all(report.is_clean(concern) for concern in Concern)) == (3, True)
    assert b'"cause":"unsealed"' in place.log.read_bytes()


async def test_a_file_that_is_sealed_goes_on(place: Place) -> None:
    for _ in range(3):
        await once(started(place))

    assert not list(place.log.parent.glob("audit-*.jsonl"))


async def test_without_chattr_a_start_makes_no_file_that_is_no_better(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await once(started(place))
    unseal(place)
    monkeypatch.setattr("host_agent.audit.sealing.CHATTR", place.folder / "nothing")

    await once(started(place))

    assert not list(place.log.parent.glob("audit-*.jsonl"))


async def test_where_it_cannot_be_finished_the_log_goes_on_and_is_tried_at_the_next_start(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await once(started(place))
    unseal(place)
    tries = 0

    def fails() -> str:
        nonlocal tries
        tries += 1
        raise OSError(5, "no")

    log = started(place, fails)
    await log.open()
    for number in range(3):
        await log.append(Event.OPERATION_STARTED, params={"number": number})
    await log.close()

    assert tries == 1
    assert "is due for rotation and stays" in caplog.text
    assert not list(place.log.parent.glob("audit-*.jsonl"))
    await once(started(place))
    assert is_append_only(place.log)


def test_the_directory_is_not_filled_with_crumbs(place: Place) -> None:
    place.rotate()
    today = time.strftime("audit-%Y%m%dT000000", time.gmtime())
    for number in range(500):
        place.log.with_name(f"{today}{number:06}Z.jsonl").write_bytes(b"x")
    append(place.log, b"x" * 65_535)
    done = place.run(SUDO_UID="999")
    assert (done.returncode, "too many small files" in done.stderr) == (75, True)
    assert place.log.stat().st_size == 65_535
    append(place.log, b"x")
    assert FINISHED.fullmatch(place.rotate())


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("1",), ("",), ("--help",), ("/etc/passwd",), ("-", "x")])
def test_it_takes_no_argument(place: Place, arguments: tuple[str, ...]) -> None:
    place.rotate()
    append(place.log)
    before = place.picture()
    assert place.run(*arguments).returncode == 64
    assert place.picture() == before


WORDS = {
    "no path": "group nogroup\ndays 30\n",
    "a relative path": "path log/audit.jsonl\ngroup nogroup\ndays 30\n",
    "dots in the path": "path {folder}/../log/audit.jsonl\ngroup nogroup\ndays 30\n",
    "a pattern": "path {folder}/*.jsonl\ngroup nogroup\ndays 30\n",
    "a command": "path {folder}/$(touch canary).jsonl\ngroup nogroup\ndays 30\n",
    "a name without an end": "path {folder}/audit\ngroup nogroup\ndays 30\n",
    "no days": "path {folder}/audit.jsonl\ngroup nogroup\ndays 0\n",
    "negative days": "path {folder}/audit.jsonl\ngroup nogroup\ndays -1\n",
    "days that are none": "path {folder}/audit.jsonl\ngroup nogroup\ndays 1 year ago\n",
    "a group that is an option": "path {folder}/audit.jsonl\ngroup --help\ndays 30\n",
    "another key": "path {folder}/audit.jsonl\ngroup nogroup\ndays 30\nrun id\n",
    "nothing": "",
}


@pytest.mark.parametrize("text", WORDS.values(), ids=WORDS)
def test_what_root_did_not_write_in_this_form_is_refused(place: Place, text: str) -> None:
    place.rotate()
    append(place.log)
    before = place.picture()
    place.register(text.format(folder=place.log.parent))
    done = place.run()
    assert (done.returncode, done.stdout) == (77, ""), done
    assert place.picture() == before


def test_a_word_that_others_may_write_is_not_roots(place: Place) -> None:
    place.rotate()
    word = place.wrapper.with_name("audit")
    copy = place.folder / "word"
    shutil.copy(word, copy)
    for spoiled in ("its group may write", "others may write", "another's", "a link", "missing"):
        place.register()
        match spoiled:
            case "its group may write":
                word.chmod(0o664)
            case "others may write":
                word.chmod(0o646)
            case "another's":
                os.chown(word, NOBODY.pw_uid, 0)
            case "a link":
                word.unlink()
                word.symlink_to(copy)
            case _:
                word.unlink()
        assert place.run().returncode == 77, spoiled
        word.unlink(missing_ok=True)
    place.register()
    assert place.rotate() == "-"


def test_a_directory_that_others_may_replace_is_not_roots(place: Place) -> None:
    place.rotate()
    append(place.log)
    before = place.picture()
    folder = place.log.parent
    folder.chmod(0o770)
    assert place.run().returncode == 77
    folder.chmod(0o750)
    os.chown(folder, NOBODY.pw_uid, 0)
    assert place.run().returncode == 77
    os.chown(folder, 0, NOBODY.pw_gid)
    place.folder.chmod(0o777)
    assert place.run().returncode == 77
    place.folder.chmod(0o755)
    link = place.folder / "link"
    link.symlink_to(folder)
    place.register(f"path {link}/audit.jsonl\ngroup {GROUP}\ndays 30\n")
    assert place.run().returncode == 77
    assert place.picture() == before


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "file of somebody"])
def test_what_lies_at_the_path_and_is_no_file_of_roots_stays(place: Place, kind: str) -> None:
    target = place.folder / "target"
    target.write_bytes(b"target")
    match kind:
        case "link":
            place.log.symlink_to(target)
        case "directory":
            place.log.mkdir()
        case "fifo":
            os.mkfifo(place.log)
        case _:
            place.log.write_bytes(b"x")
            os.chown(place.log, NOBODY.pw_uid, NOBODY.pw_gid)

    def facts() -> tuple[int, ...]:  # all but when it was last looked at
        there = place.log.lstat()
        return there.st_mode, there.st_ino, there.st_uid, there.st_size, there.st_mtime_ns

    before = facts()
    assert place.run().returncode == 77
    assert facts() == before
    assert target.read_bytes() == b"target"
    assert place.log.parent.stat().st_mode & 0o777 == 0o750  # it is open again


@pytest.mark.promise("c34")
def test_what_comes_along_in_the_environment_runs_nothing(place: Place) -> None:
    canary = place.folder / "canary"
    evil = place.folder / "evil"
    evil.write_text(f"touch {canary}\n")
    for name in ("date", "cp", "rm", "chattr", "chgrp", "mv"):
        tool = place.folder / name
        tool.write_text(f"#!/bin/sh\ntouch {canary}\n")
        tool.chmod(0o755)
    along = {
        "PATH": str(place.folder),
        "BASH_ENV": str(evil),
        "ENV": str(evil),
        "SHELLOPTS": "xtrace",
        "PS4": f"$(touch {canary})",
        "TZ": "Asia/Tokyo",
        "SUDO_UID": "$(id)",
    }
    done = place.run(**along)
    assert (done.returncode, done.stdout) == (0, "-\n"), done
    assert place.run(**along, **{"BASH_FUNC_log%%": f"() {{ touch {canary}; }}"}).returncode == 64
    assert not canary.exists()


# -- half done ------------------------------------------------------------------------------------


@pytest.mark.promise("c3")
def test_killed_anywhere_nothing_is_lost_and_the_next_run_completes_it(place: Place) -> None:
    place.rotate()
    written = b""
    for turn in range(40):
        line = b"%d " % turn + b"x" * 2000 + b"\n"
        append(place.log, line)
        written += line
        running = subprocess.Popen([place.wrapper], stdout=subprocess.DEVNULL)
        time.sleep(0.002 * turn)
        running.kill()
        running.wait()
        place.run()
        place.rotate()
        assert is_append_only(place.log)
        assert place.log.parent.stat().st_mode & 0o777 == 0o750
    files = sorted(p for p in place.log.parent.iterdir() if FINISHED.fullmatch(p.name))
    assert b"".join(file.read_bytes() for file in files) + place.log.read_bytes() == written
    assert not (place.log.parent / ".next").exists()


def test_two_at_once_finish_it_once(place: Place) -> None:
    place.rotate()
    append(place.log)
    running = [
        subprocess.Popen([place.wrapper], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    said = [process.communicate(timeout=PATIENCE)[0].strip() for process in running]
    assert sorted(said)[:5] == ["-"] * 5
    assert len(list(place.log.parent.glob("audit-*.jsonl"))) == 1


def test_after_a_run_the_directory_stays_open_before_the_next_begins(place: Place) -> None:
    place.rotate()
    with (place.log.parent / ".rotate.lock").open("rb") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert place.log.parent.stat().st_mode & 0o777 == 0o750
    place.rotate()  # it is given up by itself


# -- by whom, and how it is started ----------------------------------------------------------------


def is_open(place: Place) -> bool:
    return place.log.parent.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("arguments", [(), ("1",)])
def test_who_does_not_read_what_it_says_closes_nothing(
    place: Place, arguments: tuple[str, ...]
) -> None:
    place.rotate()
    append(place.log)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    with subprocess.Popen([place.wrapper, *arguments], stdout=writing, stderr=writing) as stuck:
        try:
            if not arguments:
                until(lambda: any(place.log.parent.glob("audit-*")))
            until(lambda: is_open(place) and place.log.exists())
            append(place.log)
            assert FINISHED.fullmatch(place.rotate())
        finally:
            stuck.kill()
            os.close(reading)
            os.close(writing)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", ["TSTP", "TTIN", "TTOU", "QUIT", "INT", "TERM", "HUP", "PIPE"])
def test_no_signal_of_a_terminal_stops_it(place: Place, number: str) -> None:
    place.rotate()
    append(place.log)
    append(place.log, b"x" * 100_000_000)
    with subprocess.Popen([place.wrapper], stdout=subprocess.PIPE, text=True) as run:
        until(lambda: not is_open(place))
        for _ in range(20):
            run.send_signal(signal.Signals[f"SIG{number}"])
            time.sleep(0.005)
        assert FINISHED.fullmatch(run.communicate(timeout=PATIENCE)[0].strip())
    assert is_open(place)


def test_small_limits_cut_nothing_off(place: Place) -> None:
    place.rotate()
    append(place.log, b"x" * 100_000)
    limited = f"ulimit -S -f 40; exec {place.wrapper}"
    name = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=True)
    assert place.log.with_name(name.stdout.strip()).stat().st_size == 100_000


def test_what_was_copied_in_full_is_what_a_killed_run_leaves(place: Place) -> None:
    """Nobody got in since: what is at the path now is in the copy, and may have been changed."""
    place.rotate()
    append(place.log, b"one\n")
    subprocess.run(["chattr", "-a", place.log], check=True)
    place.log.with_name(".next").write_bytes(b"one\n")
    place.log.write_bytes(b"changed")
    name = place.rotate()
    assert place.log.with_name(name).read_bytes() == b"one\n"
    assert place.log.read_bytes() == b""
    assert is_append_only(place.log)


def test_a_copy_that_was_not_complete_is_made_again(place: Place) -> None:
    place.rotate()
    append(place.log, b"one\ntwo\n")
    place.log.with_name(".copy").write_bytes(b"on")
    assert place.log.with_name(place.rotate()).read_bytes() == b"one\ntwo\n"


def test_nothing_is_lost_where_root_cannot_replace_the_file(place: Place) -> None:
    place.rotate()
    append(place.log, b"one\n")
    subprocess.run(["chattr", "+i", place.log], check=True)
    try:
        assert place.run().returncode == 74
        assert place.log.read_bytes() == b"one\n"
        assert sorted(p.name for p in place.log.parent.iterdir()) == [
            ".audit.jsonl.lock",
            ".rotate.lock",
            "audit.jsonl",
        ]
        assert is_append_only(place.log)
        assert is_open(place)
    finally:
        subprocess.run(["chattr", "-i", place.log], check=True)
    assert FINISHED.fullmatch(place.rotate())
