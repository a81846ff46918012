"""The digest: equal for the same request, another for any other; the form is pinned."""

import hashlib
import json
from typing import Any

import pytest

from host_agent.requests.digest import VERSION, compute

PARTS: dict[str, Any] = {
    "host": "host",
    "caller": "librarian",
    "unix_user": "librarian",
    "operation": "git.pull",
    "params": {"repository": "/srv/app", "remote": "origin", "branch": "main"},
    "policy": "sha256:" + "1" * 64,
    "wrapper": "sha256:" + "2" * 64,
    "precondition": {"head": "a" * 40, "dirty": False},
}


def test_form_is_sorted_json_without_spaces() -> None:
    form = json.dumps({"version": VERSION, **PARTS}, sort_keys=True, separators=(",", ":"))
    assert compute(**PARTS) == f"sha256:{hashlib.sha256(form.encode()).hexdigest()}"


def test_order_of_keys_does_not_matter() -> None:
    turned = {
        **PARTS,
        "params": dict(reversed(PARTS["params"].items())),
        "precondition": dict(reversed(PARTS["precondition"].items())),
    }
    assert compute(**turned) == compute(**PARTS)


@pytest.mark.promise("c27")
@pytest.mark.parametrize(
    "change",
    [
        {"host": "other"},
        {"caller": "librarian-evil"},
        {"unix_user": None},
        {"unix_user": "root"},
        {"operation": "git.reset"},
        {"params": {**PARTS["params"], "branch": "mainx"}},
        {"params": {**PARTS["params"], "force": True}},
        {"policy": "sha256:" + "3" * 64},
        {"wrapper": "sha256:" + "3" * 64},
        {"precondition": None},
        {"precondition": {}},
        {"precondition": {"head": "b" * 40, "dirty": False}},
        {"precondition": {"head": "a" * 40, "dirty": 0}},
    ],
)
def test_any_change_is_another_digest(change: dict[str, Any]) -> None:
    assert compute(**{**PARTS, **change}) != compute(**PARTS)


def test_values_without_a_canonical_form_are_refused() -> None:
    with pytest.raises(ValueError, match="canonical"):
        compute(**{**PARTS, "params": {"ratio": 0.5}})
