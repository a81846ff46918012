"""Answers held to the OpenAPI document, as if it listed every member that an answer may have."""

import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from host_agent.api.openapi import document
from host_agent.api.routes import ROUTES
from host_agent.api.wire.model import WireModel, models_below, name_of
from host_agent.operations import CATALOGUE

JSON_TYPES = ("application/json", "application/problem+json")
PROBLEM = {"$ref": "#/components/schemas/Problem"}


@cache
def described() -> dict[str, Any]:
    """Return the document with every schema of an answer closed."""
    whole = document(CATALOGUE)
    for model in models_below(WireModel):
        whole["components"]["schemas"][name_of(model)]["additionalProperties"] = False
    return whole


@cache
def _validator(path: str, method: str, status: int, kind: str) -> jsonschema_rs.Validator:
    whole = described()
    schema: Any = PROBLEM
    if path:
        schema = whole["paths"][path][method.lower()]["responses"][str(status)]["content"][kind]
        schema = schema["schema"]
    found = {**schema, "components": whole["components"]}
    return jsonschema_rs.Draft202012Validator(found, validate_formats=True)


def faults(method: str, target: str, status: int, kind: str, body: object) -> list[str]:
    """Return what the document does not say of an answer; a path that is none has problems only."""
    path = target.partition("?")[0]
    mine = [one for one in ROUTES if re.fullmatch(re.sub("<[a-z_]+>", "[^/]+", one.rule), path)]
    route = next((one.path for one in mine if one.method == method), "")
    try:
        validator = _validator(route, method, status, kind)
    except KeyError:
        return [f"{method} {path} is not said to answer {status} with {kind}"]
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(body)]


def require_described(response: httpx.Response) -> None:
    """Fail where the document does not describe an answer, whose body has been read."""
    request = response.request
    kind = response.headers.get("content-type", "")
    if kind not in JSON_TYPES or request.method == "HEAD":
        return
    wrong = faults(
        request.method,
        request.url.raw_path.decode("ascii"),
        response.status_code,
        kind,
        response.json(),
    )
    assert not wrong, (request.method, request.url.path, response.status_code, wrong)


def _read(response: httpx.Response) -> None:
    if response.headers.get("content-type") in JSON_TYPES:
        response.read()
        require_described(response)


async def _read_async(response: httpx.Response) -> None:
    if response.headers.get("content-type") in JSON_TYPES:
        await response.aread()
        require_described(response)


HOOKS: dict[str, list[Any]] = {"response": [_read]}
"""For an `httpx.Client`: every answer is held to the document."""
ASYNC_HOOKS: dict[str, list[Any]] = {"response": [_read_async]}
