"""A store from before the steps were numbered, opened by this program: everything is kept."""

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.errors import StoreUnavailableError
from host_agent.requests import model as machine
from host_agent.requests.model import Problem, Request, RequestId, State, Verb
from host_agent.requests.notification import CodeHash, Purpose
from host_agent.store import admission, codec, schema
from tests.support import older_stores
from tests.support.request_stores import a_prompt, approved, step
from tests.support.store_ground import file, opened, put
from tests.support.stored_requests import NOW, a_decision, a_request

DENIED = machine.deny(a_request(1), a_decision("carol", Verb.DENY), roles=["approver"], now=NOW)
DONE = replace(
    approved(a_request(2)),
    state=State.FAILED,
    outcome={"exit_code": 1, "stdout": "o" * 9000, "stderr": "", "verified": False},
    problem=Problem(code="host:failed", detail="It ended with 1."),
    finished_at=NOW,
    version=4,
)
STORED = (a_request(0), DENIED, DONE, approved(a_request(3)))


def as_named_before(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row under the names that the columns had in the first step."""
    named = dict(row)
    named["wish"] = named.pop("request_key")
    return named


def put_rows(connection: sqlite3.Connection) -> None:
    for request in STORED:
        row = as_named_before(codec.request_row(request))
        del row["issued"]
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(f"INSERT INTO requests ({names}) VALUES ({marks})", row)
    connection.execute("INSERT INTO outputs VALUES (?, ?)", (DONE.id, codec.output_of(DONE)))
    connection.execute(
        "INSERT INTO codes VALUES (:id, 'bob', 'sha256:1'), (:id, 'carol', 'sha256:2')",
        {"id": STORED[0].id},
    )
    connection.execute(
        "INSERT INTO answers VALUES (1, 'librarian', 'key', 'body', 200, ?, 9, ?, ?)",
        (codec.pack({"a": 1}), DONE.id, 2**62),
    )
    connection.execute("UPDATE commits SET count = 41")


def as_before(request: Request) -> Request:
    """Return a request as the first tables know it: without what issued its certificate."""
    credential = replace(request.credential, issuer=None, ends=None)
    return replace(request, credential=credential)


@pytest.fixture
def older(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A look at a database of the first tables, with rows in them."""
    file(tmp_path).parent.mkdir(mode=0o700)
    looker = older_stores.make(file(tmp_path), "r0001")
    put_rows(looker)
    yield looker
    looker.close()


def revision(looker: sqlite3.Connection) -> str:
    return str(looker.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def number(looker: sqlite3.Connection) -> int:
    return int(looker.execute("PRAGMA user_version").fetchone()[0])


def tables(looker: sqlite3.Connection) -> set[str]:
    found = looker.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in found if not name.startswith("sqlite_")}


async def test_store_of_the_first_tables_keeps_everything(
    tmp_path: Path, older: sqlite3.Connection
) -> None:
    assert revision(older) == "r0001"
    async with opened(tmp_path) as store:
        for request in STORED:
            assert await store.get(request.id) == as_before(request)
        assert [one.id for one in await store.live()] == [STORED[0].id, STORED[3].id]
        answer = await store.recall("librarian", "key", NOW)
        assert answer is not None
        assert (answer.body, answer.request_id) == ({"a": 1}, DONE.id)
        kept = [
            CodeHash(
                request_id=STORED[0].id,
                owner=owner,
                channel="http",
                purpose=Purpose.CONFIRM,
                code_hash=code_hash,
            )
            for owner, code_hash in (("bob", "sha256:1"), ("carol", "sha256:2"))
        ]
        assert await store.codes(STORED[0].id) == kept
        assert await store.code("sha256:2") == kept[1]
    assert number(older) == len(schema.STEPS)
    assert "alembic_version" not in tables(older)
    assert older.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert older.execute("PRAGMA foreign_key_check").fetchall() == []
    assert older.execute("SELECT count > 40 FROM commits").fetchone() == (1,)


async def test_migrated_store_does_what_a_new_one_does(
    tmp_path: Path, older: sqlite3.Connection
) -> None:
    async with opened(tmp_path) as store:
        request = STORED[0]
        await store.add_notifications([a_prompt(request)])
        await step(store, request, machine.cancel(request, problem=None, now=NOW))
        assert await store.codes(request.id) == []
        assert await store.waiting_notifications() == {}
        new = a_request(9)
        await store.insert(
            new, max_pending=9, max_pending_per_caller=9, notifications=[a_prompt(new)]
        )
        assert await store.waiting_notifications() == {"signal": 1}
        assert await store.purge(NOW + timedelta(seconds=1)) == 3
    assert older.execute("SELECT count(*) FROM codes").fetchone() == (0,)
    assert older.execute("SELECT count(*) FROM outputs").fetchone() == (0,)
    assert older.execute("SELECT count(*) FROM notifications").fetchone() == (1,)


async def test_migration_that_fails_leaves_the_first_tables(
    tmp_path: Path, older: sqlite3.Connection
) -> None:
    before = tables(older)
    # Something that the migration trips over, after it has begun.
    older.execute("CREATE TABLE releases (anything INTEGER)")
    with pytest.raises(StoreUnavailableError):
        async with opened(tmp_path):
            pass
    assert revision(older) == "r0001"
    assert tables(older) == {*before, "releases"}
    assert older.execute("SELECT count(*) FROM codes").fetchone() == (2,)
    older.execute("DROP TABLE releases")
    async with opened(tmp_path) as store:
        assert await store.get(DONE.id) == as_before(DONE)


async def test_two_agents_that_start_at_once_migrate_once(
    tmp_path: Path, older: sqlite3.Connection
) -> None:
    async def start(number: int) -> Request:
        async with opened(tmp_path) as store:
            return (await put(store, a_request(number))).request

    made = await asyncio.gather(start(10), start(11))
    assert [request.id for request in made] == [a_request(10).id, a_request(11).id]
    assert number(older) == len(schema.STEPS)
    assert older.execute("SELECT count(*) FROM requests").fetchone() == (len(STORED) + 2,)


# -- the last of the tables from before ------------------------------------------------------------

EVERYTHING = """
INSERT INTO outputs VALUES (:done, :body);
INSERT INTO codes VALUES (:live, 'bob', 'signal', 'confirm', 'sha256:1', 0);
INSERT INTO notifications VALUES
    (7, 'n1', :live, 'prompt', 'bob', 'signal', 'delivered', 1, 2, 1, 3, 'r1', NULL, 'r2');
INSERT INTO contacts VALUES ('bob', 'signal', 'aci', 4, NULL, 1, 'root');
INSERT INTO enrolments VALUES ('eve', 'signal', 'sha256:2', 5, 'root');
INSERT INTO nonces VALUES ('bridge', 'n', 6);
INSERT INTO grants VALUES (
    9, 'g1', :done, 'librarian', 'git.pull', '/srv/.*', '{}', :terms, '[]', :now, :now, 2, 1, NULL,
    NULL);
INSERT INTO releases VALUES ('librarian', 9, 'erin');
INSERT INTO answers VALUES (11, 'librarian', 'key', 'body', 200, :answer, 9, :done, 10);
UPDATE commits SET count = 41
"""
"""Every table but that of the requests, a row each."""


def contents(looker: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    names = tables(looker) - {"alembic_version"}
    return {name: looker.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def put_everything(looker: sqlite3.Connection) -> None:
    # What inserts knows the column by its name of the second step.
    looker.execute("ALTER TABLE requests RENAME COLUMN wish TO request_key")
    for request in STORED:
        admission.insert(looker, request)
    looker.execute("ALTER TABLE requests RENAME COLUMN request_key TO wish")
    values = {
        "live": STORED[0].id,
        "done": DONE.id,
        "body": codec.output_of(DONE),
        "terms": codec.dump(codec.terms_json(DONE.terms)),
        "answer": codec.pack({"a": 1}),
        "now": codec.microseconds(NOW),
    }
    for statement in EVERYTHING.split(";\n"):
        looker.execute(statement, values)


@pytest.mark.parametrize("how", ["new", "migrated"])
async def test_store_of_the_last_revision_keeps_every_row(tmp_path: Path, how: str) -> None:
    file(tmp_path).parent.mkdir(mode=0o700)
    if how == "new":
        looker = older_stores.make_new(file(tmp_path))
    else:
        looker = older_stores.make(file(tmp_path), "r0004")
    put_everything(looker)
    before = contents(looker)
    assert all(before.values())
    async with opened(tmp_path) as store:
        assert contents(looker) == before
        assert [await store.get(request.id) for request in STORED] == list(STORED)
        assert await store.prompt_by_reference("bob", "signal", "r2") is not None
        assert [grant.id for grant in await store.grants()] == ["g1"]
        assert not (await put(store, replace(STORED[0], id=RequestId("again")))).created
    assert contents(looker) == before
    assert number(looker) == len(schema.STEPS)
    assert looker.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    looker.close()
