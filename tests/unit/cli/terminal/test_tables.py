"""What an operation found is a table for a person where that shows all of it, and escaped."""

import io

import pytest
from pydantic import JsonValue
from rich.console import Console

from host_agent.cli.terminal import tables


def drawn(data: JsonValue) -> str | None:
    found = tables.of(data)
    if found is None:
        return None
    out = io.StringIO()
    Console(file=out, width=80, color_system=None, markup=False, highlight=False).print(found)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_a_list_of_objects_is_a_row_each() -> None:
    data: JsonValue = {
        "datasets": [{"name": "tank/media", "used": 114688}, {"name": "tank/a", "type": None}]
    }
    assert drawn(data) == ("NAME        USED    TYPE\ntank/media  114688  -\ntank/a      -       -")


def test_an_object_is_a_line_a_member() -> None:
    shown = drawn({"unit": "nginx.service", "names": ["a", "b"], "active": True})
    assert shown is None or "nginx.service" in shown
    plain = drawn({"unit": "nginx.service", "active": True, "since": None})
    assert plain == "unit    nginx.service\nactive  true\nsince   -"


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        [],
        {},
        {"branch": {"name": "main"}, "files": []},
        {"rows": [{"a": {"b": 1}}]},
        {"rows": ["a"]},
        {"rows": [{str(number): 1 for number in range(13)}]},
        {"rows": [{"a": 1}] * 1001},
    ],
    ids=lambda data: str(data)[:20],
)
def test_what_a_table_would_not_show_whole_is_printed_as_it_came(data: JsonValue) -> None:
    assert drawn(data) is None


@pytest.mark.promise("c31")
def test_hostile_data_stays_text() -> None:
    shown = drawn({"rows": [{"a\x1b[2J": "b\x1b[1A\n[red]c"}]})
    assert shown is not None
    assert "\x1b" not in shown
    assert "[red]c" in shown
