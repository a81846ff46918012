"""`name=value` words of a command line -> typed parameters, by the operation's JSON Schema.

The schema only says which JSON type a word becomes; whether the value is good is the agent's to
judge, so a word that fits no type is sent as the string that it is and refused there.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from host_agent.errors import UsageError

_WORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,63})(:?=)(.*)", re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MAX_REFERENCES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One parameter as typed: `name=text`, or `name:=json` with the value parsed already."""

    name: str
    text: str
    is_json: bool
    value: JsonValue = None


def parse_words(words: Iterable[str]) -> tuple[Word, ...]:
    """Return the parameters that `words` spell.

    Raises:
        UsageError: a word is not `name=value` or `name:=JSON`, a name comes twice, or a word is
            not text.
    """
    parsed: dict[str, Word] = {}
    for given in words:
        word = _parse(given)
        if word.name in parsed:
            message = f"The parameter `{word.name}` is given twice."
            raise UsageError(message)
        parsed[word.name] = word
    return tuple(parsed.values())


def _parse(given: str) -> Word:
    found = _WORD.fullmatch(given)
    if found is None or not is_text(given):
        message = f"`{given}` is not name=value (or name:=JSON), in UTF-8."
        raise UsageError(message)
    name, sign, text = found.groups()
    if sign == "=":
        return Word(name=name, text=text, is_json=False)
    try:
        return Word(name=name, text=text, is_json=True, value=_json(text))
    except (ValueError, RecursionError):
        message = f"The value of `{name}:=` is not JSON; `{name}=` takes plain text."
        raise UsageError(message) from None


def is_text(given: str) -> bool:
    """Return whether the shell's bytes were UTF-8 (others arrive as lone surrogates)."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in given)


def needs_schema(words: Sequence[Word]) -> bool:
    """Return whether any value's type is still to be found."""
    return not all(word.is_json for word in words)


def typed(words: Sequence[Word], schema: Mapping[str, JsonValue] | None) -> dict[str, JsonValue]:
    """Return the parameters as JSON values; plain strings where `schema` does not know better."""
    definitions = _members(schema, "$defs")
    properties = _members(schema, "properties")
    return {
        word.name: word.value
        if word.is_json
        else _typed(word.text, _alternatives(properties.get(word.name), definitions), definitions)
        for word in words
    }


def _members(schema: JsonValue | Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    found = schema.get(name) if isinstance(schema, Mapping) else None
    return found if isinstance(found, dict) else {}


def _alternatives(
    schema: JsonValue, definitions: Mapping[str, JsonValue], depth: int = 0
) -> dict[str, dict[str, JsonValue]]:
    """Return the JSON types that `schema` admits, each with the schema that admits it."""
    if not isinstance(schema, dict) or depth > _MAX_REFERENCES:
        return {}
    found: dict[str, dict[str, JsonValue]] = {}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        found |= _alternatives(
            definitions.get(reference.rpartition("/")[2]), definitions, depth + 1
        )
    for keyword in ("anyOf", "oneOf", "allOf"):
        options = schema.get(keyword)
        for option in options if isinstance(options, list) else []:
            found |= _alternatives(option, definitions, depth + 1)
    kinds = schema.get("type")
    for kind in [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []:
        if isinstance(kind, str):
            found[kind] = schema
    return found


def _typed(
    text: str,
    kinds: Mapping[str, Mapping[str, JsonValue]],
    definitions: Mapping[str, JsonValue],
) -> JsonValue:
    if "string" in kinds or not kinds:
        return text
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    if "integer" in kinds and _INTEGER.fullmatch(text):
        return int(text)
    if "array" in kinds:
        items = _alternatives(kinds["array"].get("items"), definitions)
        return _array(text, items, definitions)
    if "object" in kinds and text.startswith("{"):
        return _parsed(text)
    return text


def _array(
    text: str,
    items: Mapping[str, Mapping[str, JsonValue]],
    definitions: Mapping[str, JsonValue],
) -> JsonValue:
    if text.startswith("["):
        return _parsed(text)
    return [_typed(item, items, definitions) for item in text.split(",")] if text else []


def _parsed(text: str) -> JsonValue:
    try:
        return _json(text)
    except (ValueError, RecursionError):
        return text


def _json(text: str) -> JsonValue:
    value: JsonValue = json.loads(text, parse_constant=_refuse)
    return value


def _refuse(constant: str) -> None:
    message = f"{constant} is not JSON"
    raise ValueError(message)


def describe(schema: Mapping[str, JsonValue]) -> str:
    """Return the parameters of `schema` as one line: `dataset types?=list recursive?=boolean`."""
    definitions = _members(schema, "$defs")
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    words = []
    for name, member in _members(schema, "properties").items():
        kinds = [kind for kind in _alternatives(member, definitions) if kind != "null"]
        mark = "" if name in names else "?"
        kind = "" if not kinds or "string" in kinds else f"={'|'.join(kinds)}"
        words.append(f"{name}{mark}{kind}")
    return " ".join(words)
