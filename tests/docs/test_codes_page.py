"""The pages of problems and routes agree with the code, row by row."""

import re
from pathlib import Path
from typing import Any

import pytest

from host_agent.api import body
from host_agent.api.route import Route
from host_agent.api.routes import ROUTES
from host_agent.errors import BY_CODE, RecoveryKind, exit_status
from host_agent.http.stream import ConnectionLimits

REFERENCE = Path(__file__).parents[2] / "docs/reference"
PROBLEMS = (REFERENCE / "problems.md").read_text()
HTTP = (REFERENCE / "http.md").read_text()
_ROW = re.compile(r"^\| `([a-z:-]+)` \| (\d{3}) \| (.+) \| `([a-z_]+)` \| (\d+) \|$", re.MULTILINE)
_ROUTE = re.compile(
    r"^### `(\w+) (\S+)`\nWho: (.+)\. Statuses: ([\d, ]+)\.\n(?:Query: (.+)\.\n)?", re.MULTILINE
)


def test_every_code_has_its_row_and_no_other() -> None:
    described = {
        code: (int(status), kind, int(ends))
        for code, status, _, kind, ends in _ROW.findall(PROBLEMS)
    }
    assert described == {
        code: (int(error.status), error.usual_recovery.kind, exit_status(code))
        for code, error in BY_CODE.items()
    }


def test_every_kind_of_recovery_is_described_and_no_other() -> None:
    described = re.findall(r"^\| `([a-z_]+)` \| (?:`.+`)? ?\| ", PROBLEMS, re.MULTILINE)
    assert described == list(RecoveryKind)


def test_rows_are_in_the_order_of_their_statuses() -> None:
    statuses = [int(row[1]) for row in _ROW.findall(PROBLEMS)]
    assert statuses == sorted(statuses)


def test_no_row_says_how_to_lift_a_restriction() -> None:
    for code, _, meaning, *_ in _ROW.findall(PROBLEMS):
        if code.startswith("policy:"):
            assert "configur" not in meaning
            assert "add a rule" not in meaning


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_described_as_it_is(route: Route[Any]) -> None:
    described = {(row[0], row[1]): row[2:] for row in _ROUTE.findall(HTTP)}
    who, statuses, query = described[(route.method, route.path)]
    assert who == route.who
    assert [int(status) for status in statuses.split(", ")] == sorted(route.statuses)
    assert re.findall(r"`(\w+)`", query) == list(route.query)


def test_no_other_route_is_described() -> None:
    described = {(row[0], row[1]) for row in _ROUTE.findall(HTTP)}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert HTTP.count("\n### ") == len(ROUTES)


def test_the_limits_are_the_ones_in_force() -> None:
    limits = ConnectionLimits()
    for row in (
        f"| TLS handshake | {limits.handshake_seconds} s in all |",
        f"| header section | {limits.head_seconds} s in all |",
        f"| header section | {limits.max_head_bytes // 1024} KiB, {limits.max_fields} fields |",
        f"| body | {limits.body_seconds} s in all |",
        f"| body | {limits.max_body_bytes // 2**20} MiB,",
        f"| taking a response | {limits.write_seconds} s |",
        f"| between requests, and before the first | {limits.idle_seconds} s |",
    ):
        assert row in HTTP
    assert limits.max_body_bytes == body.MAX_BODY_BYTES
    drained = f"up to {limits.linger_bytes // 2**20} MiB or {limits.linger_seconds} s"
    assert drained in HTTP
    for text in (
        f"at most {body.MAX_DEPTH} deep",
        f"at most {body.MAX_CONTAINERS} objects and arrays",
        f"at most {body.MAX_DIGITS} digits",
        f"at most {body.MAX_REASON} characters",
    ):
        assert text in HTTP
