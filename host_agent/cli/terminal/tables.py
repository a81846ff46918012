"""What an operation found, as a table for a person: rows where it is a list, else its members."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from host_agent.cli.terminal import render

if TYPE_CHECKING:
    from rich.table import Table

CELL_LIMIT = 200
NAME_LIMIT = 64
MOST_ROWS = 1_000
MOST_COLUMNS = 12


def of(data: JsonValue) -> "Table | None":
    """Return a table of `data`: of its list, if it is an object with one list of objects alone.

    None where a table would show less than what was printed: `data` is none, is not of that form,
    or has too many rows or columns.
    """
    if not isinstance(data, Mapping) or not data:
        return None
    lists = [value for value in data.values() if isinstance(value, list)]
    if len(data) == 1 and lists and _is_flat(lists[0]):
        rows = [row for row in lists[0] if isinstance(row, Mapping)]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if len(rows) > MOST_ROWS or len(columns) > MOST_COLUMNS:
            return None
        cells = ([_text(row.get(name)) for name in columns] for row in rows)
        return render.table([render.visible(name, limit=NAME_LIMIT) for name in columns], cells)
    if any(isinstance(value, Mapping | list) and value for value in data.values()):
        return None
    return render.fields((render.visible(k, limit=NAME_LIMIT), _text(v)) for k, v in data.items())


def _is_flat(rows: Sequence[JsonValue]) -> bool:
    """Return whether every row is an object of plain values."""
    return bool(rows) and all(
        isinstance(row, Mapping) and not any(isinstance(v, Mapping) for v in row.values())
        for row in rows
    )


def _text(value: JsonValue) -> str:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return render.value_text(value, limit=CELL_LIMIT)
