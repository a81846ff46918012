"""The canonical bytes are RFC 8785's, judged by another implementation of it."""

import json
from collections import UserDict, UserList
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import cast

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from host_agent.canonical import (
    MAX_SAFE_INTEGER,
    JsonValue,
    NoCanonicalFormError,
    canonical_json,
    decode_exact,
    is_canonical,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER), TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=20,
)


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


@given(VALUES)
def test_bytes_are_those_of_the_other_implementation(value: JsonValue) -> None:
    assert canonical_json(value) == rfc8785.dumps(cast("dict[str, None]", value))


@given(st.dictionaries(TEXT, SCALARS))
def test_bytes_do_not_depend_on_the_order_of_keys(value: dict[str, None]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_keys_are_sorted_by_utf_16_units_beyond_the_first_plane() -> None:
    value = {"\ufb33": 1, "\U0001f600": 2, "a": 3}
    assert list(value) != sorted(value)
    assert canonical_json(value) == rfc8785.dumps(value)
    assert canonical_json(value).index("\U0001f600".encode()) < canonical_json(value).index(
        "\ufb33".encode()
    )


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (MappingProxyType({"b": 1, "a": (1, 2)}), {"b": 1, "a": [1, 2]}),
        (UserDict({"b": UserList([1])}), {"b": [1]}),
        ({"colour": Colour.RED, "number": Number.ONE}, {"colour": "red", "number": 1}),
        ({Colour.RED: True}, {"red": True}),
        ([MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER], [MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER]),
        ('\x00\x1f\x7f\u2028"\\/', '\x00\x1f\x7f\u2028"\\/'),
    ],
)
def test_kindred_types_have_the_bytes_of_the_plain_ones(value: object, plain: str) -> None:
    assert canonical_json(cast("JsonValue", value)) == rfc8785.dumps(plain)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        float("inf"),
        MAX_SAFE_INTEGER + 1,
        -MAX_SAFE_INTEGER - 1,
        10**5000,
        {1: "one"},
        {None: 1},
        {"a": {"b": 0.5}},
        [{"a": [2**53]}],
        "\ud800",
        {"\udfff": 1},
        b"bytes",
        {"a": {1, 2}},
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json(cast("JsonValue", value))


# -- reading back ---------------------------------------------------------------------------------


@given(VALUES)
def test_what_is_canonical_is_read_as_it_was(value: JsonValue) -> None:
    text = canonical_json(value).decode()
    assert decode_exact(text) == (value, len(text))
    assert is_canonical(value, text)


@given(VALUES, st.booleans(), st.booleans())
def test_another_form_is_never_taken_for_canonical(
    value: JsonValue, ensure_ascii: bool, sort_keys: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, sort_keys=sort_keys, separators=(",", ":"))
    read, _ = decode_exact(text)
    assert is_canonical(read, text) is (text.encode() == canonical_json(value))


@pytest.mark.parametrize("number", ["0.5", "1e2", "NaN", "-Infinity", str(2**53), str(-(2**53))])
def test_a_number_without_canonical_form_is_not_read(number: str) -> None:
    with pytest.raises(NoCanonicalFormError):
        decode_exact(f'{{"a":[{number}]}}')


@pytest.mark.parametrize("number", [MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER, 0])
def test_the_largest_exact_integers_are_read(number: int) -> None:
    assert decode_exact(f"[{number}]") == ([number], len(f"[{number}]"))


def test_what_is_too_deep_to_be_written_is_not_canonical() -> None:
    value: list[JsonValue] = []
    for _ in range(200_000):
        value = [value]
    assert not is_canonical(value, "[]")
    assert not is_canonical(value, "\u00e9")
