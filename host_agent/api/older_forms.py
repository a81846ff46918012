"""The older body form becomes the typed one: same operation, same parameters, same digest. Pure.

`kind` and the first of `args` name the operation; `resource` and the other `args`, all of them
strings, fill its parameters by position.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from host_agent.canonical import JsonValue
from host_agent.errors import InvalidParameterError
from host_agent.operations.catalogue import Catalogue, OperationSpec, Parameters

_DECIMAL = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_BOOLEANS: Mapping[str, bool] = {"true": True, "false": False}


def operation_name(kind: str, args: Sequence[str]) -> str:
    """Return the catalogue name that the older form means; it may be none."""
    return f"{kind}.{args[0]}"


def parameters(
    catalogue: Catalogue, kind: str, resource: str | None, args: Sequence[str]
) -> tuple[str, dict[str, JsonValue]]:
    """Return the operation's name and the parameters that the older form means.

    The parameters have the right types where the strings allow it, and stay strings otherwise:
    their grammar is checked where the typed form's is.

    Raises:
        UnknownOperationError: there is no such operation.
        InvalidParameterError: more args than the operation has parameters.
    """
    spec = catalogue.spec(operation_name(kind, args))
    names = spec.parameters.positional
    rest = names if resource is None else names[1:]
    if resource is not None and not names:
        message = f"{spec.name} takes no resource."
        raise InvalidParameterError(message)
    if len(args) - 1 > len(rest):
        message = f"{spec.name} takes at most {len(rest)} args after the verb."
        raise InvalidParameterError(message)
    given = dict(zip(rest, args[1:], strict=False))
    if resource is not None:
        given[names[0]] = resource
    return spec.name, _convert(spec, given)


def _convert(spec: OperationSpec, given: Mapping[str, str]) -> dict[str, JsonValue]:
    parameters: type[Parameters] = spec.parameters
    types = _types(parameters)
    return {name: convert(text, types.get(name, frozenset())) for name, text in given.items()}


def convert(text: str, types: frozenset[str]) -> JsonValue:
    """Return `text` as the first of JSON's `types` that it can be; itself where it is none."""
    if "string" in types:
        return text
    if "boolean" in types and text in _BOOLEANS:
        return _BOOLEANS[text]
    if "integer" in types and _DECIMAL.fullmatch(text):
        return int(text)
    if "array" in types:
        return text.split(",")
    return text


@cache
def _types(model: type[Parameters]) -> Mapping[str, frozenset[str]]:
    """Return the JSON types that each parameter may have, from the model's own schema."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    return {
        name: frozenset(_alternatives(part, definitions))
        for name, part in schema.get("properties", {}).items()
    }


def _alternatives(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    if "$ref" in part:
        part = definitions[part["$ref"].rpartition("/")[2]]
    found = {str(part["type"])} if "type" in part else set()
    for key in ("anyOf", "oneOf", "allOf"):
        for alternative in part.get(key, ()):
            found |= _alternatives(alternative, definitions)
    return found
