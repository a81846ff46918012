"""Each operation of the contract on the booted host: done for real, refused for each reason."""

from collections.abc import Iterator
from typing import Any

import pytest

from host_agent.operations import CATALOGUE
from tests.support.installed import Host
from tests.support.operation_cases import CASES, Case, Params

EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation)


def test_the_table_has_every_operation_of_the_contract() -> None:
    assert {case.operation for case in CASES} == CATALOGUE.names
    assert len(CASES) == len(CATALOGUE.names)


@EVERY
def test_an_operation_is_refused_for_each_reason_and_nothing_moves(host: Host, case: Case) -> None:
    before, sequence = host.state(), host.sequence
    count = 0
    for by, params, status, code in refusals(case):
        answer = host.ask(case.operation, params, by=by)
        said = (answer.status_code, answer.json().get("code"))
        assert said == (status, code), (by, params, answer.text)
        count += 1
    assert host.state() == before
    host.machine.until(lambda: refused(host, sequence) == count, "a refusal is not written down")


def refusals(case: Case) -> Iterator[tuple[str, Params, int, str]]:
    """Yield who asks with what, and the answer to it."""
    for params in case.grammar:
        yield "operator", params, 400, "request:invalid-parameter"
    for params in case.unlisted:
        yield "operator", params, 403, "policy:denied"
    for params in case.protected:
        yield "operator", params, 403, "policy:protected"
    if case.denied is not None:
        yield "operator", case.denied, 403, "policy:denied"
    yield "stranger", case.params, 403, "policy:no-rule"
    yield "alice", case.params, 403, "identity:role-required"
    if not case.is_read:
        yield "watcher", case.params, 403, "policy:read-only"


def refused(host: Host, sequence: int) -> int:
    """Return how many refusals were written down since, those that were only counted too."""
    found = 0
    for record in host.since(sequence):
        found += int(record.get("suppressed", 0))
        found += "code" in record and "caller" in record
    return found


@EVERY
def test_an_operation_is_done_once_for_real(host: Host, case: Case) -> None:
    host.machine.must("bash", "-c", case.prepare)
    sequence = host.sequence
    done = host.done(case.operation, case.params)
    assert done["state"] == "succeeded", done
    outcome: dict[str, Any] = done["outcome"]
    assert (outcome["exit_code"], outcome["verified"]) == (0, case.is_verified), done
    assert case.shows(outcome["data"]), outcome["data"]
    host.machine.must("bash", "-c", f"{{ {case.proof}; }} >/dev/null")
    events = [record["event"] for record in host.since(sequence)]
    assert events.count("operation.started") == 1
    assert events.count("operation.finished") == 1
