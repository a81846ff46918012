"""What people are told of two requests is never alike unless they are."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from host_agent.canonical import JsonValue
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Operation
from tests.property.test_equivalence import operations
from tests.support.stored_requests import a_request, facts_of

NEAR: dict[str, tuple[JsonValue, ...]] = {
    "branch": ("main", "x/main", "main.from"),
    "remote": ("origin", "of"),
    "name": ("daily", "daily.and"),
    "tag": ("keep", "tag"),
    "lines": (1, 100),
    "limit": (1, 20),
    "ref": ("main", "origin/main"),
    "memory": (512, None),
    "swap": (512, None),
    "cores": (512, None),
    "hostname": ("app", None),
    "rootfs": ("local:8", None),
    "recursive": (False, True),
    "release": (None, "keep"),
    "arguments": ({}, {"a": "b"}, {"a": "b=c"}, {"a=b": "c"}, {"a": "b,c=d"}, {"a": '"'}),
}


def said(params: dict[str, JsonValue], asked: Operation) -> tuple[Any, ...]:
    request = a_request(operation=asked.name, params=params, resource=asked.resource)
    facts = facts_of(request)
    return facts.verb, facts.subject, facts.left


@given(operations(), st.data())
def test_no_two_sets_of_parameters_are_said_alike(asked: Operation, data: st.DataObject) -> None:
    params = asked.params.canonical()
    other = {
        key: data.draw(st.sampled_from((item, *NEAR.get(key, ())))) for key, item in params.items()
    }
    assert (said(params, asked) == said(other, asked)) is (params == other)


@given(operations())
def test_every_parameter_that_is_given_is_said(asked: Operation) -> None:
    params = asked.params.canonical()
    _, subject, left = said(params, asked)
    shown = f"{subject} {left}"
    for key, item in params.items():
        if isinstance(item, str):
            assert item in shown
        elif key == "recursive":
            assert item is False or "and all below it" in subject or key in dict(left)


def test_what_is_done_is_one_word_of_the_operation_itself() -> None:
    for spec in CATALOGUE:
        assert spec.verb == spec.name.split(".")[1].upper()
