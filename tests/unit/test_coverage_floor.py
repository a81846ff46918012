"""The floor counts branches only, room by room, and nothing measured is nothing."""

from typing import Any

import pytest

from tests.support.coverage_floor import FLOOR, ROOMS, measure


def report(**rooms: tuple[int, int]) -> dict[str, Any]:
    """Return a report in which each room has one file, with its branches and those taken."""
    return {
        "files": {
            f"host_agent/{room}/some.py": {
                "summary": {"num_branches": branches, "covered_branches": taken}
            }
            for room, (branches, taken) in rooms.items()
        }
    }


def test_each_room_is_measured_by_itself() -> None:
    found = measure(report(policy=(100, 95), audit=(1000, 949), api=(10, 0)), "host_agent")
    by_name = {room.room: room for room in found}
    assert list(by_name) == list(ROOMS)
    assert by_name["policy"].is_enough
    assert not by_name["audit"].is_enough
    assert f"below {FLOOR:g} %" in str(by_name["audit"])
    assert "below" not in str(by_name["policy"])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_that_was_not_measured_is_below_the_floor(room: str) -> None:
    (found,) = [entry for entry in measure({"files": {}}, "host_agent") if entry.room == room]
    assert (found.percent, found.is_enough) == (0.0, False)


def test_files_of_one_room_are_added_up() -> None:
    files = report(policy=(10, 10))["files"]
    files["host_agent/policy/other.py"] = {"summary": {"num_branches": 10, "covered_branches": 0}}
    files["host_agent/policyx/other.py"] = {"summary": {"num_branches": 10, "covered_branches": 0}}
    (policy,) = [r for r in measure({"files": files}, "host_agent") if r.room == "policy"]
    assert policy.percent == 50.0
