"""The one byte form of a JSON value: RFC 8785 (JSON Canonicalization Scheme).

Digests and audit hashes are taken over these bytes, so two programs that agree on the value agree
on the hash. The domain is narrower than RFC 8785's: no floating-point numbers, and integers within
the range that I-JSON (RFC 7493) calls exact. Within it, Python's own encoder writes exactly what
the RFC asks for, but for the order of keys beyond the Basic Multilingual Plane, which are sorted
here by UTF-16 code units.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

MAX_SAFE_INTEGER = 2**53 - 1

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_encode_by_code_point = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,
    separators=(",", ":"),
    sort_keys=True,
).encode


def canonical_json(value: JsonValue) -> bytes:
    """Return the RFC 8785 bytes of `value`, UTF-8.

    Raises:
        ValueError: a float, an integer beyond 2**53-1, a key that is not a string, or a lone
            surrogate: values that have no canonical form here.
    """
    if _is_plain(value):
        text = _encode_by_code_point(value)
        # All keys are ASCII then, and their order by code point is their order by UTF-16 unit.
        if text.isascii():
            return text.encode("ascii")
    return _encode(_checked(value)).encode("utf-8")


class NoCanonicalFormError(Exception):
    """A JSON text holds a number that has no canonical form."""


def _refuse(text: str) -> float:
    raise NoCanonicalFormError(text)


def _whole(digits: str) -> int:
    number = int(digits)
    if not -MAX_SAFE_INTEGER <= number <= MAX_SAFE_INTEGER:
        raise NoCanonicalFormError(digits)
    return number


_decode = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse, parse_int=_whole).raw_decode


def decode_exact(text: str) -> tuple[JsonValue, int]:
    """Return the JSON value at the beginning of `text`, and where it ends.

    Raises:
        NoCanonicalFormError: there is a number that `canonical_json` would refuse.
        ValueError, RecursionError: `text` does not begin with JSON.
    """
    return _decode(text)


def is_canonical(value: JsonValue, text: str) -> bool:
    """Return whether `text` is the canonical form of `value`, which `decode_exact` made of it.

    What comes of that has nothing that `canonical_json` would refuse, so it is not looked for.
    """
    try:
        if text.isascii():  # all keys are, so their order by code point is the one asked for
            return _encode_by_code_point(value) == text
        return _encode(_checked(value)) == text
    except RecursionError:
        return False


def _is_plain(value: object) -> bool:
    """Return whether the C encoder alone says the truth about `value` (but for key order).

    False is no refusal: `_checked` looks again, and names what is wrong.
    """
    if value is None or isinstance(value, str | bool):
        return True
    if type(value) is int:
        return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str or not (type(item) is str or _is_plain(item)):
                return False  # a subclass of str might sort in its own way
        return True
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return False


def _checked(value: JsonValue) -> object:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            message = f"an integer beyond 2**53-1 has no canonical form: {value.bit_length()} bits"
            raise ValueError(message)
        return int(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            message = "a key that is not a string has no canonical form"
            raise ValueError(message)
        return {key: _checked(value[key]) for key in sorted(value, key=_utf16)}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_checked(item) for item in value]
    message = f"a {type(value).__name__} has no canonical form"
    raise ValueError(message)


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")
