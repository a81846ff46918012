"""How a database comes to have its tables: at once, from an older one, or not at all."""

import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host_agent import store
from host_agent.requests.model import LIVE, State
from host_agent.requests.notification import DeliveryState, Kind, Purpose
from host_agent.store import codec, schema
from tests.support import older_stores
from tests.support.stored_requests import a_request

LAST = len(schema.STEPS)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    yield opened
    opened.close()


def rows(connection: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    return [name for (name,) in rows(connection, query)]


def shape(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what SQLite itself says of tables, columns, indexes, references and checks."""
    return {table: shape_of(connection, table) for table in tables(connection)}


def shape_of(connection: sqlite3.Connection, table: str) -> dict[str, Any]:
    (sql,) = rows(connection, f"SELECT sql FROM sqlite_master WHERE name = '{table}'")[0]
    indexes = {}
    for _, name, is_unique, origin, is_partial in rows(connection, f"PRAGMA index_list({table})"):
        columns = tuple(column for _, _, column in rows(connection, f"PRAGMA index_info({name})"))
        (made,) = rows(connection, f"SELECT sql FROM sqlite_master WHERE name = '{name}'")[0]
        where = "" if not is_partial else " ".join(made.partition("WHERE")[2].split())
        indexes[name if origin == "c" else (origin, columns)] = (columns, is_unique, where)
    return {
        # `VARCHAR` is another word for `TEXT` to SQLite.
        "columns": [
            (name, kind.replace("VARCHAR", "TEXT"), is_required, key)
            for _, name, kind, is_required, _, key in rows(
                connection, f"PRAGMA table_info({table})"
            )
        ],
        "indexes": indexes,
        "references": rows(connection, f"PRAGMA foreign_key_list({table})"),
        "checks": re.findall(r"CONSTRAINT (\w+)\s+CHECK (\(.*\))", sql),
    }


def numbers(connection: sqlite3.Connection) -> tuple[int, int]:
    application, number = (
        rows(connection, f"PRAGMA {name}")[0][0] for name in ("application_id", "user_version")
    )
    return application, number


def test_new_database_bears_mark_and_number(connection: sqlite3.Connection) -> None:
    schema.prepare(connection)
    assert numbers(connection) == (schema.APPLICATION_ID, LAST)
    assert rows(connection, "SELECT id, count FROM commits") == [(1, 0)]


def test_prepare_again_writes_nothing(connection: sqlite3.Connection) -> None:
    schema.prepare(connection)
    before = shape(connection)
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    sent: list[str] = []
    connection.set_trace_callback(sent.append)
    schema.prepare(connection)
    connection.set_trace_callback(None)
    assert shape(connection) == before
    assert connection.execute("PRAGMA schema_version").fetchone() == (version,)
    assert sent == ["PRAGMA application_id", "PRAGMA user_version"]


@pytest.mark.parametrize("revision", schema.REVISIONS)
def test_older_database_comes_to_the_same_tables(
    connection: sqlite3.Connection, tmp_path: Path, revision: str
) -> None:
    schema.prepare(connection)
    older = older_stores.make(tmp_path / "older.db", revision)
    assert shape(older) != shape(connection)
    schema.prepare(older)
    assert shape(older) == shape(connection)
    assert numbers(older) == numbers(connection)
    assert rows(older, "SELECT id, count FROM commits") == [(1, 0)]
    older.close()


def test_database_that_was_new_before_comes_to_the_same_tables(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    schema.prepare(connection)
    older = older_stores.make_new(tmp_path / "older.db")
    schema.prepare(older)
    assert (shape(older), numbers(older)) == (shape(connection), numbers(connection))
    older.close()


def test_the_key_of_a_stored_request_is_kept_under_its_new_name(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(schema, "STEPS", schema.STEPS[:1])
        schema.prepare(connection)
    row = codec.request_row(a_request())
    old = {"wish" if name == "request_key" else name: value for name, value in row.items()}
    names, places = ", ".join(old), ", ".join(f":{name}" for name in old)
    connection.execute(f"INSERT INTO requests ({names}) VALUES ({places})", old)
    schema.prepare(connection)
    found = rows(connection, "SELECT id, request_key FROM requests")
    assert found == [(row["id"], row["request_key"])]
    assert numbers(connection) == (schema.APPLICATION_ID, LAST)
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(fresh)
    assert shape(connection) == shape(fresh)
    fresh.close()


def test_step_that_is_missing_is_taken_once(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.prepare(connection)
    connection.execute("UPDATE commits SET count = 7")
    more = (*schema.STEPS, ("CREATE TABLE later (id INTEGER)",), ("INSERT INTO later VALUES (3)",))
    monkeypatch.setattr(schema, "STEPS", more)
    for _ in range(2):
        schema.prepare(connection)
        assert numbers(connection) == (schema.APPLICATION_ID, LAST + 2)
        assert rows(connection, "SELECT * FROM later") == [(3,)]
        assert rows(connection, "SELECT count FROM commits") == [(7,)]


def test_older_database_takes_later_steps_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (*schema.STEPS, ("CREATE TABLE later (id INTEGER)",))
    monkeypatch.setattr(schema, "STEPS", more)
    older = older_stores.make_new(tmp_path / "older.db")
    schema.prepare(older)
    assert "later" in tables(older)
    assert "alembic_version" not in tables(older)
    older.close()


def a_newer_step(connection: sqlite3.Connection) -> None:
    schema.prepare(connection)
    connection.execute(f"PRAGMA user_version = {LAST + 1}")


def an_unknown_revision(connection: sqlite3.Connection) -> None:
    connection.executescript(older_stores.CREATED)
    connection.execute("UPDATE alembic_version SET version_num = 'r9999'")


def no_revision(connection: sqlite3.Connection) -> None:
    connection.executescript(older_stores.CREATED)
    connection.execute("DELETE FROM alembic_version")


def bookmarks(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE bookmarks (id INTEGER PRIMARY KEY)")


def numbered_bookmarks(connection: sqlite3.Connection) -> None:
    bookmarks(connection)
    connection.execute(f"PRAGMA user_version = {LAST}")


def marked_bookmarks(connection: sqlite3.Connection) -> None:
    bookmarks(connection)
    connection.execute("PRAGMA application_id = 252006674")


def our_mark_without_a_number(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")


@pytest.mark.promise("c46")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_newer_step, "newer version"),
        (an_unknown_revision, "newer version"),
        (no_revision, "newer version"),
        (bookmarks, "another program"),
        (numbered_bookmarks, "another program"),
        (marked_bookmarks, "another program"),
        (our_mark_without_a_number, "another program"),
    ],
)
def test_unknown_schema_is_refused_untouched(
    connection: sqlite3.Connection, make: Callable[[sqlite3.Connection], None], why: str
) -> None:
    make(connection)
    before = shape(connection), numbers(connection)
    with pytest.raises(schema.SchemaError, match=why):
        schema.prepare(connection)
    assert (shape(connection), numbers(connection)) == before


# -- the words in the SQL -------------------------------------------------------------------------


def sql() -> Iterator[str]:
    """Yield every statement of the store."""
    modules = [
        importlib.import_module(f"{store.__name__}.{found.name}")
        for found in pkgutil.iter_modules(store.__path__)
    ]
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE")
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, str) and value.lstrip().startswith(verbs):
                yield value
    yield from (statement for step in schema.STEPS for statement in step)


def test_states_in_the_sql_are_those_of_the_machine() -> None:
    words = {word for statement in sql() for word in re.findall(r"'([a-z_]+)'", statement)}
    known = {one.value for kind in (State, Kind, DeliveryState, Purpose) for one in kind}
    assert words - {"http"} <= known
    assert {"pending", "waiting", "prompt"} <= words


def test_requests_are_live_until_they_end(connection: sqlite3.Connection) -> None:
    """The check in the table and the machine agree on which states are live."""
    schema.prepare(connection)
    (check,) = shape_of(connection, "requests")["checks"]
    assert set(re.findall(r"'(\w+)'", check[1])) == {state.value for state in LIVE}


def test_every_column_of_a_request_is_stored(connection: sqlite3.Connection) -> None:
    schema.prepare(connection)
    columns = {name for name, *_ in shape_of(connection, "requests")["columns"]}
    assert columns - {"sequence"} == codec.request_row(replace(a_request())).keys()
