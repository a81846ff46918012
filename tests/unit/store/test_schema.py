"""How a database comes to have its tables: at once, by migration, or not at all."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    StaticPool,
    Table,
    create_engine,
    inspect,
    select,
    update,
)

from host_agent.store import schema


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite+pysqlite://", poolclass=StaticPool)
    with engine.begin() as open_connection:
        yield open_connection
    engine.dispose()


def a_second_database() -> Engine:
    return create_engine("sqlite+pysqlite://", poolclass=StaticPool)


def shape(connection: Connection) -> dict[str, Any]:
    """Return what SQLite itself says of tables, columns, indexes and checks."""
    seen = inspect(connection)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"])
                for column in seen.get_columns(table)
            ],
            "key": seen.get_pk_constraint(table)["constrained_columns"],
            "indexes": sorted(
                (
                    str(index["name"]),
                    tuple(index["column_names"]),
                    bool(index["unique"]),
                    str(index.get("dialect_options", {}).get("sqlite_where")),
                )
                for index in seen.get_indexes(table)
            ),
            "unique": sorted(tuple(u["column_names"]) for u in seen.get_unique_constraints(table)),
            "checks": [check["sqltext"] for check in seen.get_check_constraints(table)],
            "foreign": [
                (tuple(key["constrained_columns"]), key["referred_table"], key["options"])
                for key in seen.get_foreign_keys(table)
            ],
        }
        for table in sorted(seen.get_table_names())
    }


def test_new_database_is_stamped_with_head(connection: Connection) -> None:
    schema.prepare(connection)
    assert connection.execute(select(schema._stamp.c.version_num)).scalar_one() == schema.HEAD
    assert connection.execute(select(schema.commits.c.count)).scalar_one() == 0


def test_prepare_is_idempotent(connection: Connection) -> None:
    schema.prepare(connection)
    before = shape(connection)
    schema.prepare(connection)
    assert shape(connection) == before


def test_migrations_lead_to_the_same_tables(connection: Connection) -> None:
    schema.create(connection)
    engine = a_second_database()
    with engine.begin() as migrated:
        schema.migrate(migrated)
        assert migrated.execute(select(schema.commits.c.count)).scalar_one() == 0
        found, expected = shape(migrated), shape(connection)
    engine.dispose()
    # Alembic writes its own table's type; what is in it is compared.
    found.pop("alembic_version")
    expected.pop("alembic_version")
    assert found == expected


def test_revisions_are_those_of_the_migrations() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "host_agent:store/migrations")
    scripts = ScriptDirectory.from_config(config)
    walked = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(walked)) == schema.REVISIONS
    assert scripts.get_current_head() == schema.HEAD


def test_c46_newer_schema_is_refused_untouched(connection: Connection) -> None:
    schema.prepare(connection)
    connection.execute(update(schema._stamp).values(version_num="r9999"))
    before = shape(connection)
    with pytest.raises(schema.SchemaError, match="newer"):
        schema.prepare(connection)
    assert shape(connection) == before


def test_database_of_another_program_is_refused_untouched(connection: Connection) -> None:
    foreign = MetaData()
    Table("bookmarks", foreign, Column("id", Integer, primary_key=True))
    foreign.create_all(connection)
    with pytest.raises(schema.SchemaError, match="another program"):
        schema.prepare(connection)
    assert inspect(connection).get_table_names() == ["bookmarks"]


def test_older_schema_is_migrated(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    schema.prepare(connection)
    asked: list[Connection] = []
    monkeypatch.setattr(schema, "HEAD", "r9999")
    monkeypatch.setattr(schema, "migrate", asked.append)
    schema.prepare(connection)
    assert asked == [connection]


def test_migrations_refuse_to_run_by_themselves() -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "host_agent:store/migrations")
    with pytest.raises(TypeError, match="only"):
        command.upgrade(config, "head")
