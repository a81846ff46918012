"""Words of a command line become JSON values of the type that the schema names, or stay text."""

import pytest
from pydantic import JsonValue

from host_agent.cli import arguments
from host_agent.errors import UsageError

SCHEMA: dict[str, JsonValue] = {
    "$defs": {"Kind": {"type": "string", "enum": ["snapshot"]}},
    "required": ["dataset"],
    "properties": {
        "dataset": {"type": "string"},
        "recursive": {"type": "boolean"},
        "limit": {"type": "integer"},
        "vmid": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "types": {
            "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Kind"}}, {"type": "null"}]
        },
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "arguments": {"type": "object"},
        "looped": {"$ref": "#/$defs/Missing"},
    },
}


def typed(*words: str) -> dict[str, JsonValue]:
    return arguments.typed(arguments.parse_words(words), SCHEMA)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("dataset=12", "12"),
        ("dataset=true", "true"),
        ("dataset=a=b", "a=b"),
        ("dataset=", ""),
        ("recursive=true", True),
        ("recursive=false", False),
        ("limit=20", 20),
        ("limit=-1", -1),
        ("vmid=100", "100"),
        ("types=snapshot", ["snapshot"]),
        ("types=snapshot,volume", ["snapshot", "volume"]),
        ("types=", []),
        ("sizes=1,2", [1, 2]),
        ("sizes=[3]", [3]),
        ('arguments={"a": 1}', {"a": 1}),
        ("limit:=7", 7),
        ('dataset:="x"', "x"),
    ],
)
def test_a_word_gets_the_type_of_the_schema(word: str, value: JsonValue) -> None:
    assert list(typed(word).values()) == [value]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("recursive=yes", "yes"),
        ("recursive=1", "1"),
        ("limit=0x10", "0x10"),
        ("limit=1e3", "1e3"),
        ("limit=\u0661", "\u0661"),
        ("limit=" + "9" * 5000, "9" * 5000),
        ("sizes=[1", "[1"),
        ("sizes=[NaN]", "[NaN]"),
        ("arguments=text", "text"),
        ("unknown=1", "1"),
        ("looped=1", "1"),
    ],
)
def test_what_does_not_fit_stays_text_for_the_agent_to_refuse(word: str, value: str) -> None:
    assert list(typed(word).values()) == [value]


@pytest.mark.parametrize(
    "words",
    [
        ("dataset",),
        ("=x",),
        ("--x=1",),
        ("a b=1",),
        ("dataset=1", "dataset=2"),
        ("dataset:=",),
        ("dataset:=NaN",),
        ("dataset:=" + "[" * 100_000,),
        ("dataset=\udc80",),
    ],
)
def test_a_word_that_is_none_is_a_usage_error(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        arguments.parse_words(words)


def test_only_plain_words_need_the_schema() -> None:
    assert not arguments.needs_schema(arguments.parse_words(()))
    assert not arguments.needs_schema(arguments.parse_words(["a:=1"]))
    assert arguments.needs_schema(arguments.parse_words(["a:=1", "b=1"]))


def test_parameters_are_described_in_one_line() -> None:
    assert arguments.describe(SCHEMA) == (
        "dataset recursive?=boolean limit?=integer vmid? types?=array sizes?=array"
        " arguments?=object looped?"
    )
