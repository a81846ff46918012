"""The floor under the branch coverage of the rooms that decide.

`python -m tests.support.coverage_floor` reads the combined coverage data (`.coverage`, or what
`COVERAGE_FILE` names), prints one line a room that `pyproject.toml` has measured, and ends with 1
where one is below the floor. Only branches count here: lines that run are easier to have than
decisions that went both ways.
"""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
from coverage.exceptions import CoverageException

import host_agent

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
FLOOR = 95.0
"""Percent of the branches of each room."""
PACKAGE = Path(host_agent.__file__).parent.name
ROOMS = tuple(
    place.removeprefix(f"{PACKAGE}/")
    for place in coverage.Coverage(config_file=str(PYPROJECT)).config.source or ()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many branches of one room there are, and how many were taken."""

    room: str
    branches: int
    taken: int

    @property
    def percent(self) -> float:
        """Return the share of branches that were taken; nothing measured is nothing."""
        return 100.0 * self.taken / self.branches if self.branches else 0.0

    @property
    def is_enough(self) -> bool:
        """Return whether the room is at the floor or above it."""
        return self.percent >= FLOOR

    def __str__(self) -> str:
        verdict = "" if self.is_enough else f"  below {FLOOR:g} %"
        return f"{self.room:<10}{self.taken:>5} of {self.branches:<5}{self.percent:6.1f} %{verdict}"


def measure(report: Mapping[str, Any], package: str) -> list[Coverage]:
    """Return the coverage of each room from coverage.py's JSON report; `package` is its folder."""
    return [_room(report["files"], room, f"{package}/{room}/") for room in ROOMS]


def _room(files: Mapping[str, Any], room: str, prefix: str) -> Coverage:
    found = [entry["summary"] for name, entry in files.items() if name.startswith(prefix)]
    return Coverage(
        room=room,
        branches=sum(summary["num_branches"] for summary in found),
        taken=sum(summary["covered_branches"] for summary in found),
    )


def read() -> dict[str, Any]:
    """Return coverage.py's JSON report of the combined data, file names relative to here.

    Raises:
        CoverageException: there is no data.
    """
    data = coverage.Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        with contextlib.redirect_stdout(io.StringIO()):
            data.json_report(outfile=str(path))
        report: dict[str, Any] = json.loads(path.read_text())
    return report


def main() -> int:
    """Print one line a room; return 1 where one is below the floor or nothing was measured."""
    try:
        report = read()
    except CoverageException as error:
        sys.stderr.write(f"coverage floor: {error}\n")
        return 1
    rooms = measure(report, PACKAGE)
    for room in rooms:
        sys.stdout.write(f"{room}\n")
    return 0 if all(room.is_enough for room in rooms) else 1


if __name__ == "__main__":
    sys.exit(main())
