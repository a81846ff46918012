"""Answers are held to the document: a member that it lacks is seen, and one that is wrong."""

from typing import Any

import pytest

from tests.support.answers import (
    decision,
    dry_run,
    held,
    operations,
    parts,
    problem,
    ran,
    view,
)
from tests.support.described import faults

JSON, PROBLEM = "application/json", "application/problem+json"
SHOWN = ("GET", "/requests/abc?wait=3", 200, JSON)


def test_what_the_document_has_is_no_fault() -> None:
    assert faults(*SHOWN, view(decisions=[decision()])) == []
    assert faults("POST", "/host/op", 200, JSON, ran()) == []
    nothing = {"exit_code": None, "verified": None}
    done = {**ran(), "state": "unchanged", "outcome": nothing, "preview": view()["preview"]}
    assert faults("POST", "/host/op", 200, JSON, done) == []
    assert faults("POST", "/host/op", 200, JSON, dry_run()) == []
    assert faults("POST", "/host/op", 202, JSON, held()) == []
    assert faults("GET", "/host/operations", 200, JSON, operations("git.status", "git.pull")) == []
    assert faults("GET", "/ready", 200, JSON, parts()) == []
    refused = problem("store:unavailable", **parts(store="gone"))
    assert faults("GET", "/ready", 503, PROBLEM, refused) == []
    assert faults("GET", "/nowhere", 404, PROBLEM, problem("route:not-found")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"state": "half-done"},
        {"decisions": [decision(colour="red")]},
        {"approvals": {"needed": 1}},
        {"created_at": "yesterday"},
        {"digest": "md5:1"},
        {"effect": "improve"},
    ],
)
def test_what_the_document_lacks_is_a_fault(change: dict[str, Any]) -> None:
    assert faults(*SHOWN, view(**change))


def test_a_member_that_is_missing_is_a_fault() -> None:
    body = view()
    del body["subject"]
    assert faults(*SHOWN, body)


def test_a_status_and_a_type_that_are_not_described_are_faults() -> None:
    assert faults("GET", "/requests/abc", 201, JSON, view())
    assert faults("GET", "/requests/abc", 200, PROBLEM, view())
    assert faults("POST", "/host/op", 200, JSON, view())
    assert faults("POST", "/host/op", 200, JSON, {**dry_run(), "would": "perhaps"})
    assert faults("GET", "/nowhere", 404, PROBLEM, view())
