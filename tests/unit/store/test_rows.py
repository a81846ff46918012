"""Requests as rows: what goes in comes out equal; what does not fit is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Row, StaticPool, create_engine, insert, select, update

from host_agent.requests.model import GrantTerms, Problem, Request, State, Terms, Verb
from host_agent.store import rows, schema
from tests.support.stored_requests import NOW, a_credential, a_decision, a_request

INSTANTS = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def there_and_back(request: Request) -> Request:
    engine = create_engine("sqlite+pysqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            schema.create(connection)
            connection.execute(insert(schema.requests), rows.new_row(request))
            row = connection.execute(select(schema.requests)).one()
        return rows.read_row(row, rows.output_of(request))
    finally:
        engine.dispose()


def test_bare_request_comes_back_equal() -> None:
    bare = replace(
        a_request(), unix_user=None, reason=None, precondition=None, preview=None, resource=None
    )
    assert there_and_back(bare) == bare


def test_full_request_comes_back_equal() -> None:
    request = a_request(
        state=State.FAILED,
        terms=Terms(approvals=2, approvers=frozenset({"bob", "carol"}), approver_role="admin"),
        decisions=(a_decision(reason="looks right"), a_decision("carol", Verb.DENY)),
        outcome={
            "exit_code": 1,
            "stdout": "o" * 9000,
            "stderr": "\u202e\ud800",
            "data": [{"a": 1}],
        },
        problem=Problem(code="host:failed", detail="It ended with 1."),
        finished_at=NOW,
        version=7,
    )
    assert there_and_back(request) == request


def test_large_output_stays_out_of_the_row() -> None:
    request = a_request(outcome={"exit_code": 0, "stdout": "secret output", "verified": True})
    assert "secret output" not in str(rows.moved_row(request)["outcome"])
    assert rows.output_of(request) is not None


@pytest.mark.parametrize("outcome", [None, {}, {"exit_code": 0, "verified": None}])
def test_outcome_without_output_makes_none(outcome: Mapping[str, Any] | None) -> None:
    assert rows.output_of(a_request(outcome=outcome)) is None


def test_read_only_mappings_are_stored() -> None:
    request = replace(
        a_request(), precondition=MappingProxyType({"head": MappingProxyType({"a": 1})})
    )
    assert there_and_back(request).precondition == {"head": {"a": 1}}


@pytest.mark.parametrize("bad", [{1, 2}, object(), b"bytes"])
def test_values_that_are_not_json_are_refused(bad: object) -> None:
    with pytest.raises(TypeError):
        rows.new_row(replace(a_request(), preview={"details": cast("str", bad)}))


def test_nan_is_refused() -> None:
    bad: Any = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        rows.new_row(replace(a_request(), preview={"ratio": bad}))


@given(INSTANTS)
def test_instants_are_exact(instant: datetime) -> None:
    assert rows.instant(rows.microseconds(instant)) == instant


def test_instants_of_other_zones_are_the_same_instant() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert rows.instant(rows.microseconds(NOW.astimezone(zone))) == NOW


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.booleans(), st.text(max_size=9))))
def test_wish_depends_on_values_not_on_order(params: dict[str, Any]) -> None:
    encodable = not any(
        "\ud800" <= character <= "\udfff" for character in json.dumps(params, ensure_ascii=False)
    )
    if encodable:
        turned = dict(reversed(params.items()))
        assert rows.wish("git.pull", params) == rows.wish("git.pull", turned)
        assert rows.wish("git.pull", params) != rows.wish("git.fetch", params)


def stored_with(connection: Connection, **bad: str) -> Row[Any]:
    schema.create(connection)
    connection.execute(insert(schema.requests), rows.new_row(a_request()))
    connection.execute(update(schema.requests).values(**bad))
    return connection.execute(select(schema.requests)).one()


@pytest.mark.parametrize(
    "bad",
    [
        {"params": "{"},
        {"terms": "{}"},
        {"decisions": '[{"decision": "maybe", "at": 1}]'},
        {"decisions": '[{"decision": "approve", "at": 1}]'},
        {"decisions": '[{"decision": "approve", "at": 1, "grant": {"ever": true}}]'},
        {"problem": '{"codes": "x"}'},
        {"terms": "null"},
    ],
)
def test_c46_row_that_does_not_fit_is_refused(bad: dict[str, str]) -> None:
    engine = create_engine("sqlite+pysqlite://", poolclass=StaticPool)
    with engine.begin() as connection, pytest.raises(rows.RowError):
        rows.read_row(stored_with(connection, **bad))
    engine.dispose()


def test_c46_damaged_output_is_refused() -> None:
    engine = create_engine("sqlite+pysqlite://", poolclass=StaticPool)
    with engine.begin() as connection, pytest.raises(rows.RowError):
        rows.read_row(stored_with(connection, outcome="{}"), b"not zlib")
    engine.dispose()


def test_decision_over_a_channel_comes_back_equal() -> None:
    relayed = replace(
        a_decision(),
        channel="webhook",
        address="U123",
        through="chat-bridge",
        credential=a_credential("chat-bridge", "4"),
        grant=GrantTerms(for_seconds=1800, resource="/srv/.*"),
    )
    counted = replace(a_decision("carol"), grant=GrantTerms(count=3))
    request = a_request(decisions=(relayed, counted), version=3)
    assert there_and_back(request) == request


def test_decision_takes_no_room_for_what_it_has_not() -> None:
    assert not {"address", "through", "grant"} & rows.decision_json(a_decision()).keys()
    counted = rows.decision_json(replace(a_decision(), grant=GrantTerms(count=3)))
    assert counted["grant"] == {"count": 3}


def test_decision_from_before_channels_is_read() -> None:
    old = {
        "approver": "bob-laptop",
        "owner": "bob",
        "decision": "approve",
        "channel": "http",
        "at": rows.microseconds(NOW),
        "reason": None,
        "fingerprint": None,
        "serial": None,
    }
    assert rows.decision_of(old) == a_decision()
