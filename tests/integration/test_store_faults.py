"""The store under kill -9, several processes, and damaged, locked or missing files."""

import asyncio
import importlib
import os
import pkgutil
import random
import re
import shutil
import signal
import sqlite3
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent import store
from host_agent.errors import StoreUnavailableError
from host_agent.requests import model as machine
from host_agent.requests.model import RequestId, State
from host_agent.store import database, integrity, schema
from host_agent.store.store import RequestStore
from tests.support.patience import PATIENCE
from tests.support.request_stores import approved
from tests.support.store_ground import file, limit_pages, opened, process, put
from tests.support.stored_requests import NOW, a_request

NOBODY = 65534
KEYS = re.compile(r":([a-z_0-9]+)")


async def fill(directory: Path, count: int) -> None:
    async with opened(directory) as store:
        await asyncio.gather(*(put(store, a_request(number)) for number in range(count)))


@pytest.fixture
def short_busy_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the same file."""
    file(tmp_path).parent.mkdir(mode=0o700, exist_ok=True)
    connection = sqlite3.connect(file(tmp_path), isolation_level=None)
    yield connection
    connection.close()


# -- C1: killed ---------------------------------------------------------------------------------


@pytest.mark.promise("c1")
async def test_approved_and_killed_is_approved_and_runs_once(tmp_path: Path) -> None:
    side = tmp_path / "ran"
    said: list[str] = []
    rng = random.Random(1)
    for round_ in range(8):
        child = process("work", str(file(tmp_path)), str(side), str(round_ * 1_000_000))
        assert child.stdout is not None
        for _ in range(rng.randint(1, 120)):
            said.append(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        said.extend(child.communicate()[0].splitlines(keepends=True))
        assert child.returncode == -signal.SIGKILL
    # A last line that was cut in the middle says nothing.
    words = [line.split() for line in said if line.endswith("\n")]
    asked = {word[1] for word in words if word[0] == "asked"}
    consented = {word[1] for word in words if word[0] == "approved"}
    ran = Counter(side.read_text().splitlines())
    assert max(ran.values()) == 1
    assert len(consented) > 20
    async with opened(tmp_path) as store:
        for request_id in asked:
            stored = await store.get(request_id)
            assert stored is not None
            assert stored.state in {State.PENDING, State.APPROVED, State.RUNNING}
            if request_id in consented:
                assert stored.state in {State.APPROVED, State.RUNNING}
            if request_id in ran:
                assert stored.state is State.RUNNING
        waiting = [one for one in await store.live() if one.state is State.APPROVED]
        for request in waiting:
            running = machine.start(request, now=NOW)
            assert await store.transition(running, expected_version=request.version)
            assert not await store.transition(running, expected_version=request.version)


# -- C29: races of processes ----------------------------------------------------------------------


@pytest.mark.promise("c29")
async def test_processes_on_one_file_have_one_winner(tmp_path: Path) -> None:
    count, side = 300, tmp_path / "ran"
    await fill(tmp_path, count)
    racers = [process("race", str(file(tmp_path)), str(side), str(number)) for number in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    lines = [
        line for racer in racers for line in racer.communicate(timeout=PATIENCE)[0].splitlines()
    ]
    assert [racer.returncode for racer in racers] == [0] * 4
    won = {line.split()[1]: line.split()[2] for line in lines}
    assert len(lines) == len(won) == count
    ran = side.read_text().split() if side.exists() else []
    assert sorted(ran) == sorted(key for key, state in won.items() if state == "approved")
    async with opened(tmp_path) as store:
        for number in range(count):
            request = await store.find(a_request(number).id)
            expected = {"approved": "running"}.get(won[request.id], won[request.id])
            assert request.state.value == expected
            assert len(request.decisions) <= 1


@pytest.mark.promise("c29")
async def test_two_stores_attach_to_one_request(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        for number in range(50):
            request = a_request(number)
            twin = a_request(number, id=RequestId(f"twin-{number}"))
            results = await asyncio.gather(put(one, request), put(other, twin))
            assert sorted(result.created for result in results) == [False, True]
            assert results[0].request.id == results[1].request.id
        assert len(await one.live()) == len(await other.live()) == 50


# -- C46: the file --------------------------------------------------------------------------------


@pytest.mark.promise("c46")
@pytest.mark.usefixtures("short_busy_timeout")
async def test_locked_store_refuses_and_recovers(
    tmp_path: Path, holder: sqlite3.Connection
) -> None:
    async with opened(tmp_path) as store:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked") as refused:
            await put(store, a_request())
        assert refused.value.retry_after_seconds is not None
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.ping()
        assert await store.live() == []
        holder.execute("ROLLBACK")
        await store.ping()
        assert (await put(store, a_request())).created


@pytest.mark.promise("c46")
@pytest.mark.usefixtures("short_busy_timeout")
async def test_locked_store_does_not_open(tmp_path: Path, holder: sqlite3.Connection) -> None:
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        await RequestStore(file(tmp_path)).open()
    holder.execute("ROLLBACK")
    async with opened(tmp_path) as store:
        await store.ping()


@pytest.mark.promise("c46")
async def test_every_waiting_caller_gets_an_error_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: sqlite3.Connection
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)
    async with opened(tmp_path) as store:
        holder.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(put(store, a_request(number)) for number in range(5)), return_exceptions=True
        )
        assert all(isinstance(result, StoreUnavailableError) for result in results)
        assert len({id(result) for result in results}) == 5
        holder.execute("ROLLBACK")


@pytest.mark.promise("c46")
@pytest.mark.parametrize("content", [b"not a database at all, but long enough" * 30, b"\0" * 4096])
async def test_file_that_is_no_database_is_refused_untouched(
    tmp_path: Path, content: bytes
) -> None:
    file(tmp_path).parent.mkdir()
    file(tmp_path).write_bytes(content)
    with pytest.raises(StoreUnavailableError, match="damaged"):
        await RequestStore(file(tmp_path)).open()
    assert file(tmp_path).read_bytes() == content


def spoil(path: Path) -> None:
    """Overwrite the second half of a file, as a failing disk might."""
    size = path.stat().st_size
    with path.open("r+b") as stream:
        for offset in range(size // 8192 * 4096, size, 4096):
            stream.seek(offset)
            stream.write(b"\xa5" * 4096)


@pytest.mark.promise("c46")
async def test_damaged_page_is_found_at_start(tmp_path: Path) -> None:
    await fill(tmp_path, 200)
    spoil(file(tmp_path))
    with pytest.raises(StoreUnavailableError, match="damaged"):
        await RequestStore(file(tmp_path)).open()


@pytest.mark.promise("c46")
async def test_damage_of_a_large_file_is_found_beside_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path, 200)
    spoil(file(tmp_path))
    monkeypatch.setattr(integrity, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(database, "PROGRESS_STEPS", 1)
    async with opened(tmp_path) as store:
        assert store._integrity.beside is not None
        await store._integrity.beside
        for write in (
            store.ping(),
            put(store, a_request(999)),
            store.transition(approved(a_request(1)), expected_version=1),
        ):
            with pytest.raises(StoreUnavailableError, match="damaged"):
                await write


@pytest.mark.promise("c46")
async def test_sound_large_file_is_checked_beside_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path, 50)
    monkeypatch.setattr(integrity, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(database, "PROGRESS_STEPS", 1)
    async with opened(tmp_path) as store:
        await store.ping()
        assert store._integrity.beside is not None
        await store._integrity.beside
        await store.ping()
    # A check that is under way ends with the store.
    async with opened(tmp_path) as store:
        assert store._integrity.beside is not None
    assert store._integrity.beside.done()


@pytest.mark.promise("c46")
async def test_page_that_goes_bad_while_running_is_a_503(tmp_path: Path) -> None:
    await fill(tmp_path, 200)
    async with opened(tmp_path) as store:
        spoil(file(tmp_path))
        with pytest.raises(StoreUnavailableError):
            await store.live()


@pytest.mark.promise("c46")
async def test_row_that_does_not_fit_is_a_503(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, a_request())

        def break_it(connection: sqlite3.Connection, _tally: object) -> None:
            connection.execute("UPDATE requests SET terms = '{}'")

        await store._writer.write(break_it)
        with pytest.raises(StoreUnavailableError):
            await store.live()
        await store.ping()


@pytest.mark.promise("c46")
async def test_journal_deleted_while_running_refuses_and_loses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, a_request(0))
        file(tmp_path, "-wal").unlink()
        with pytest.raises(StoreUnavailableError, match="gone"):
            await put(store, a_request(1))
        with pytest.raises(StoreUnavailableError):
            await store.ping()
    async with opened(tmp_path) as store:
        assert await store.live() == [a_request(0)]


@pytest.mark.promise("c46")
async def test_journal_deleted_after_a_kill_is_noticed(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    async with opened(tmp_path) as store:
        await put(store, a_request(0))
        # What is on disk now is what a kill would leave.
        shutil.copytree(tmp_path / "state", crashed / "state")
    file(crashed, "-wal").unlink()
    with pytest.raises(StoreUnavailableError, match="Restore the files"):
        await RequestStore(file(crashed)).open()
    file(crashed, "-commits").unlink()
    async with opened(crashed) as store:
        await store.ping()


@pytest.mark.promise("c1")
async def test_kill_with_its_journal_loses_nothing(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    async with opened(tmp_path) as store:
        await put(store, a_request(0))
        shutil.copytree(tmp_path / "state", crashed / "state")
    # A look at it with a database tool folds the journal in; that is no loss either.
    looker = sqlite3.connect(file(crashed))
    assert looker.execute("SELECT count(*) FROM requests").fetchone() == (1,)
    looker.close()
    assert not file(crashed, "-wal").exists()
    async with opened(crashed) as store:
        assert await store.live() == [a_request(0)]


@pytest.mark.promise("c28")
async def test_older_copy_of_the_store_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path, 1)
    backup = file(tmp_path).read_bytes()
    async with opened(tmp_path) as store:
        request = a_request(0)
        assert await store.transition(approved(request), expected_version=1)
        running = machine.start(approved(request), now=NOW)
        assert await store.transition(running, expected_version=2)
    file(tmp_path).write_bytes(backup)
    with pytest.raises(StoreUnavailableError, match="older copy"):
        await RequestStore(file(tmp_path)).open()


@pytest.mark.promise("c46")
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_file_taken_away_while_running_is_noticed(tmp_path: Path, how: str) -> None:
    async with opened(tmp_path) as store:
        await put(store, a_request(0))
        if how == "removed":
            file(tmp_path).rename(tmp_path / "elsewhere")
        else:
            other = tmp_path / "other"
            shutil.copy(file(tmp_path), other)
            other.replace(file(tmp_path))
        with pytest.raises(StoreUnavailableError):
            await put(store, a_request(1))
        with pytest.raises(StoreUnavailableError):
            await store.ping()


@pytest.mark.promise("c46")
async def test_newer_schema_is_refused_untouched(
    tmp_path: Path, holder: sqlite3.Connection
) -> None:
    await fill(tmp_path, 1)
    holder.execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")
    with pytest.raises(StoreUnavailableError, match="newer version"):
        await RequestStore(file(tmp_path)).open()
    assert holder.execute("SELECT count(*) FROM requests").fetchone() == (1,)


@pytest.mark.promise("c46")
async def test_database_of_another_program_is_refused(
    tmp_path: Path, holder: sqlite3.Connection
) -> None:
    holder.execute("CREATE TABLE bookmarks (id INTEGER)")
    with pytest.raises(StoreUnavailableError, match="another program"):
        await RequestStore(file(tmp_path)).open()


async def fill_up(store: RequestStore) -> None:
    for number in range(200):
        await put(store, a_request(number, reason="x" * 5000))


@pytest.mark.promise("c46")
async def test_no_room_left_refuses_and_recovers(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await limit_pages(store, 1)
        with pytest.raises(StoreUnavailableError, match="no room"):
            await fill_up(store)
        kept = len(await store.live())
        await limit_pages(store, 100_000)
        assert (await put(store, a_request(500))).created
        assert len(await store.live()) == kept + 1


@pytest.mark.promise("c46")
async def test_read_only_store_is_refused() -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        await fill(directory, 1)
        everything = (directory, directory / "state", *(directory / "state").iterdir())
        for path in everything:
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
            path.chmod(0o500 if path.is_dir() else 0o400)
        said, _ = process("open", str(file(directory)), "/dev/null").communicate(timeout=PATIENCE)
        assert said.startswith("refused ")
        for path in everything:
            path.chmod(0o700 if path.is_dir() else 0o600)
        said, _ = process("open", str(file(directory)), "/dev/null").communicate(timeout=PATIENCE)
        assert said == "open\n"
    finally:
        shutil.rmtree(directory)


@pytest.mark.promise("c46")
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
async def test_path_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    file(tmp_path).parent.mkdir()
    target = tmp_path / "target"
    if kind == "symlink":
        target.touch()
        file(tmp_path).symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(file(tmp_path))
    else:
        file(tmp_path).mkdir()
    with pytest.raises(StoreUnavailableError):
        await RequestStore(file(tmp_path)).open()
    assert kind != "symlink" or target.read_bytes() == b""


@pytest.mark.promise("c13")
async def test_files_are_made_for_the_agent_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path) as store:
            await put(store, a_request())
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode)
                for path in (tmp_path / "state").iterdir()
            }
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        settings = await store._write_to.read(
            lambda connection: [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("synchronous", "journal_mode", "foreign_keys")
            ]
        )
    assert settings == [2, "wal", 1]


def queries() -> dict[str, str]:
    """Return every query of the store, by module and name."""
    modules = [
        importlib.import_module(f"{store.__name__}.{found.name}")
        for found in pkgutil.iter_modules(store.__path__)
    ]
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, str) and value.lstrip().startswith("SELECT")
    }


SCANNING = {
    "answers._NEWEST_SURPLUS": "the rows that an index gave it",
    "contacts._ALL": "one row an owner and channel",
    "notifications._WAITING": "an index of what waits",
    "requests._LIVE_DECISIONS": "an index of what is live",
    "requests._NEWEST_MADE": "the last row",
    "writer._READ_COMMITS": "the one row",
}
"""Queries that go through something whole, and what that is."""


async def test_queries_of_a_long_history_look_at_what_they_need(tmp_path: Path) -> None:
    """Every query has an index that holds what it looks at."""
    found = queries()

    def plans(connection: sqlite3.Connection) -> dict[str, str]:
        return {
            name: " / ".join(
                row["detail"]
                for row in connection.execute(
                    f"EXPLAIN QUERY PLAN {query}", dict.fromkeys(KEYS.findall(query), 0)
                )
            )
            for name, query in found.items()
        }

    await fill(tmp_path, 300)
    async with opened(tmp_path) as opened_store:
        plan_of = await opened_store._read_from.read(plans)
    assert len(plan_of) > 30
    assert "live_request_key" in plan_of["admission._LIVE_OF_KEY"]
    assert "live_operation (caller=? AND operation<?)" in plan_of["refusals._OTHERS"]
    assert "live_operation (caller=? AND operation>?)" in plan_of["refusals._OTHERS"]
    assert "ended_of_caller" in plan_of["refusals._OTHERS"]
    assert "ended_of_caller" in plan_of["refusals._REFUSALS"]
    assert "waiting_notifications" in plan_of["notifications._DUE"]
    assert "TEMP B-TREE" not in plan_of["notifications._DUE"]
    assert "waiting_notifications" in plan_of["notifications._NEXT"]
    assert "notification_by_reference" in plan_of["notifications._BY_REFERENCE"]
    assert "grants_of_caller" in plan_of["grants._LIVE_OF"]
    assert "live_expiry" in plan_of["requests._DUE"]
    assert "live_expiry" in plan_of["requests._NEXT_EXPIRY"]
    assert "autoindex" in plan_of["requests._FIND_OF_CALLER"]
    assert {name for name, plan in plan_of.items() if "SCAN" in plan} == set(SCANNING)


async def test_request_without_prompts_pays_one_lookup_for_them(tmp_path: Path) -> None:
    """Notifications cost the ways that have none next to nothing."""
    request = a_request()
    consented = approved(request)
    ran = machine.start(consented, now=NOW)
    ended = machine.finish(
        ran, state=State.SUCCEEDED, outcome={"exit_code": 0}, problem=None, now=NOW
    )
    async with opened(tmp_path) as store:
        sent: list[str] = []
        await store._write_to.run(lambda connection: connection.set_trace_callback(sent.append))
        touched: list[list[str]] = []
        await put(store, request)
        for before, after in ((request, consented), (consented, ran), (ran, ended)):
            sent.clear()
            assert await store.transition(after, expected_version=before.version)
            touched.append([words.strip() for words in sent if "notifications" in words])
    assert [len(statements) for statements in touched] == [1, 0, 1]
    assert all(words.startswith("SELECT") for statements in touched for words in statements)
