"""The audit page names every event and field, and every use in the package is in the tables."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import host_agent
from host_agent.audit.record import (
    CHAIN_FIELDS,
    DETAIL_FIELDS,
    MAX_RECORD_BYTES,
    MAX_TEXT_CHARACTERS,
    SHOWN_CHARACTERS,
    SUBJECT_FIELDS,
    Event,
)

PACKAGE = Path(host_agent.__file__).parent
PAGE = (Path(__file__).parents[2] / "docs/reference/audit.md").read_text(encoding="utf-8")


def table(heading: str) -> list[str]:
    """Return the names in the first column of the first table under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def appends() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of the package that names an event, with where it is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and any(map(is_event, node.args)):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def is_event(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Event"
    )


def test_every_event_is_on_the_page_and_no_other() -> None:
    assert table("Events") == sorted(event.value for event in Event)


def test_every_field_is_on_the_page_and_no_other() -> None:
    named = table("A record")
    assert len(named) == len(set(named))
    assert set(named) == CHAIN_FIELDS | set(SUBJECT_FIELDS) | DETAIL_FIELDS


def test_no_detail_is_a_field_of_another_kind() -> None:
    assert not DETAIL_FIELDS & (CHAIN_FIELDS | set(SUBJECT_FIELDS))


def test_every_field_that_the_package_appends_is_in_the_tables() -> None:
    known = set(SUBJECT_FIELDS) | DETAIL_FIELDS
    unknown = {
        f"{place}: {keyword.arg}"
        for place, call in appends()
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in known
    }
    assert not unknown


def test_every_cause_of_a_new_file_is_on_the_page() -> None:
    causes = set(table("Files"))
    code = (PACKAGE / "audit/file.py").read_text(encoding="utf-8")
    assert all(f'"{cause}"' in code for cause in causes)
    assert causes == {
        "size", "day", "unsealed", "restarted", "moved", "unlinked", "replaced", "altered",
        "damaged", "sync-failed",
    }  # fmt: skip


def test_limits_on_the_page_are_those_of_the_code() -> None:
    assert f"at most {MAX_RECORD_BYTES // 1024} KiB" in PAGE
    assert f"over {MAX_TEXT_CHARACTERS:,}\ncharacters" in PAGE
    assert f"first {SHOWN_CHARACTERS:,} and" in PAGE
