"""Figures as rows of one table, and the page that shows them."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "performance.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: what was measured, what it is held against, the goal, and whether it is met.

    `met` is None where there is no goal: a peer's figure, or one that could not be taken.
    """

    name: str
    measured: str
    against: str = ""
    goal: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return what the row shows."""
        shown = {True: "yes", False: "**no**", None: ""}[self.met]
        return self.name, self.measured, self.against, self.goal, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What one way to run the wrapper does, for comparison: eight in flight, and one alone."""

    name: str
    rate: str
    alone: str


HEAD = ("figure", "measured", "held against", "goal", "met")


def skipped(name: str, why: str) -> Row:
    """Return the row of a figure that cannot be taken here."""
    return Row(name=name, measured="skipped", against=why)


def at_least(name: str, value: float, goal: float, *, measured: str, against: str = "") -> Row:
    """Return the row of a figure that must not be lower than `goal`."""
    return Row(
        name=name,
        measured=measured,
        against=against,
        goal=f"at least {goal:,g}",
        met=value >= goal,
    )


def at_most(
    name: str, value: float, goal: float, *, measured: str, against: str = "", unit: str = ""
) -> Row:
    """Return the row of a figure that must not be higher than `goal`."""
    return Row(
        name=name,
        measured=measured,
        against=against,
        goal=f"at most {goal:,g}{unit}",
        met=value <= goal,
    )


def render(rows: Sequence[Row]) -> str:
    """Return the table of figures in Markdown."""
    return _table([HEAD, *(row.cells() for row in rows)])


def render_beside(rows: Sequence[Beside]) -> str:
    """Return the table of comparison in Markdown."""
    head = ("the same wrapper, run by", "eight in flight", "one alone")
    return _table([head, *((row.name, row.rate, row.alone) for row in rows)])


def _table(lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns are aligned for a terminal; the first line is its head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    shown.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(shown) + "\n"


def machine() -> str:
    """Return the machine in neutral words."""
    release = platform.freedesktop_os_release()
    system = " ".join(filter(None, (release.get("NAME"), release.get("VERSION_ID"))))
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def write_page(rows: Sequence[Row], peers: Sequence[Beside]) -> None:
    """Write the tables into the page, between its marks."""
    text = PAGE.read_text()
    for mark, table in (
        ("machine", f"Measured on {machine()}.\n"),
        ("figures", render(rows)),
        ("peers", render_beside(peers)),
    ):
        begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->\n"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + table + end + after
    PAGE.write_text(text)
