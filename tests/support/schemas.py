"""The JSON Schemas of the reference, with what holds a value to them."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs

FOLDER = Path(__file__).parents[2] / "docs/reference/schemas"
SCHEMAS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.iterdir())
}
_REGISTRY = jsonschema_rs.Registry([(schema["$id"], schema) for schema in SCHEMAS.values()])


def faults(name: str, value: object) -> list[str]:
    """Return what is wrong with `value` by the schema in `name`.json; formats count."""
    validator = jsonschema_rs.Draft202012Validator(
        SCHEMAS[name], registry=_REGISTRY, validate_formats=True
    )
    return [error.message for error in validator.iter_errors(value)]


def undescribed(name: str, value: dict[str, Any]) -> set[str]:
    """Return the members of `value` that the schema in `name`.json has no word about."""
    return set(value) - set(SCHEMAS[name]["properties"])
