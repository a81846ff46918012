"""Requests as rows: what goes in comes out equal; what does not fit is refused."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.requests.model import GrantTerms, Problem, Request, State, Terms, Verb
from host_agent.store import admission, codec, schema
from tests.support.stored_requests import NOW, a_credential, a_decision, a_request

INSTANTS = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@contextlib.contextmanager
def stored(request: Request) -> Iterator[sqlite3.Connection]:
    """Give a database with one request."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        schema.prepare(connection)
        admission.insert(connection, request)
        yield connection


def the_row(connection: sqlite3.Connection) -> sqlite3.Row:
    row: sqlite3.Row = connection.execute("SELECT * FROM requests").fetchone()
    return row


def there_and_back(request: Request) -> Request:
    with stored(request) as connection:
        return codec.read_request(the_row(connection), codec.output_of(request))


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
    assert "secret output" not in str(codec.transition_row(request)["outcome"])
    assert codec.output_of(request) is not None


@pytest.mark.parametrize("outcome", [None, {}, {"exit_code": 0, "verified": None}])
def test_outcome_without_output_makes_none(outcome: Mapping[str, Any] | None) -> None:
    assert codec.output_of(a_request(outcome=outcome)) is None


def test_read_only_mappings_are_stored() -> None:
    request = replace(
        a_request(), precondition=MappingProxyType({"head": MappingProxyType({"a": 1})})
    )
    assert there_and_back(request).precondition == {"head": {"a": 1}}


@pytest.mark.parametrize("bad", [{1, 2}, object(), b"bytes"])
def test_values_that_are_not_json_are_refused(bad: object) -> None:
    with pytest.raises(TypeError):
        codec.request_row(replace(a_request(), preview={"details": cast("str", bad)}))


def test_nan_is_refused() -> None:
    bad: Any = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        codec.request_row(replace(a_request(), preview={"ratio": bad}))


@given(INSTANTS)
def test_instants_are_exact(instant: datetime) -> None:
    assert codec.instant(codec.microseconds(instant)) == instant


def test_instants_of_other_zones_are_the_same_instant() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert codec.instant(codec.microseconds(NOW.astimezone(zone))) == NOW


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.booleans(), st.text(max_size=9))))
def test_request_key_depends_on_values_not_on_order(params: dict[str, Any]) -> None:
    encodable = not any(
        "\ud800" <= character <= "\udfff" for character in json.dumps(params, ensure_ascii=False)
    )
    if encodable:
        turned = dict(reversed(params.items()))
        assert codec.request_key("git.pull", params) == codec.request_key("git.pull", turned)
        assert codec.request_key("git.pull", params) != codec.request_key("git.fetch", params)


@pytest.mark.promise("c46")
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
def test_row_that_does_not_fit_is_refused(bad: dict[str, str]) -> None:
    ((column, value),) = bad.items()
    with stored(a_request()) as connection:
        assert codec.read_request(the_row(connection)) == a_request()
        connection.execute(f"UPDATE requests SET {column} = ?", (value,))
        with pytest.raises(codec.RowError):
            codec.read_request(the_row(connection))


@pytest.mark.promise("c46")
def test_damaged_output_is_refused() -> None:
    with stored(a_request()) as connection:
        connection.execute("UPDATE requests SET outcome = '{}'")
        with pytest.raises(codec.RowError):
            codec.read_request(the_row(connection), b"not zlib")


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


def test_a_certificate_whose_issuer_is_not_known_comes_back_without_one() -> None:
    unknown = replace(a_credential("librarian"), issuer=None, ends=None)
    request = a_request(credential=unknown)
    assert there_and_back(request) == request
    assert there_and_back(a_request()).credential.issuer is not None


def test_decision_takes_no_room_for_what_it_has_not() -> None:
    assert not {"address", "through", "grant"} & codec.decision_json(a_decision()).keys()
    counted = codec.decision_json(replace(a_decision(), grant=GrantTerms(count=3)))
    assert counted["grant"] == {"count": 3}


def test_decision_from_before_channels_is_read() -> None:
    old = {
        "approver": "bob-laptop",
        "owner": "bob",
        "decision": "approve",
        "channel": "http",
        "at": codec.microseconds(NOW),
        "reason": None,
        "fingerprint": None,
        "serial": None,
    }
    assert codec.decision_of(old) == a_decision()
