"""The OpenAPI 3.1 document, made from the routes, the body models and the catalogue."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import host_agent
from host_agent.api.body import OlderAsk
from host_agent.api.problems import JSON, PROBLEM_JSON, problem_type, to_bytes
from host_agent.api.route import IN_PATH, Route
from host_agent.api.routes import ROUTES
from host_agent.api.wire.dry_run import Would
from host_agent.api.wire.events import EVENT_STREAM
from host_agent.api.wire.model import VOCABULARY, WireModel, models_below, name_of
from host_agent.api.wire.operations import Held
from host_agent.api.wire.problems import ProblemBody
from host_agent.audit.record import Event
from host_agent.config.models import Server
from host_agent.config.values import split_bind
from host_agent.errors import BY_CODE, FaultPlace, RecoveryKind
from host_agent.identity.registry import Autonomy, Role
from host_agent.operations.catalogue import Catalogue, Effect, OperationSpec, PreviewAccuracy
from host_agent.pipeline.responses import UNCHANGED
from host_agent.policy.rules import Summary
from host_agent.requests.model import State, Verb
from host_agent.requests.notification import DeliveryState, Failure, Kind
from host_agent.sudoers.values import Severity

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}


def document(catalogue: Catalogue) -> Schema:
    """Return the whole document for what `catalogue` has."""
    schemas: Schema = {**_answers(), **_bodies(catalogue)}
    paths: Schema = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "host-agent",
            "version": host_agent.__version__,
            "description": "Typed, approved and audited operations on one host, over mutual TLS.",
        },
        "servers": [
            {
                "url": "https://{host}:{port}",
                "description": "An agent; the port is that of `server.bind`.",
                "variables": {
                    "host": {"default": "localhost"},
                    "port": {"default": str(split_bind(Server.model_fields["bind"].default)[1])},
                },
            }
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"mutualTLS": {"type": "mutualTLS"}},
        },
        "security": [{"mutualTLS": []}],
    }


@cache
def document_bytes(catalogue: Catalogue) -> bytes:
    """Return the document as JSON; made once for a catalogue."""
    return to_bytes(document(catalogue))


# -- operations -----------------------------------------------------------------------------------


def _operation(route: Route[Any]) -> Schema:
    operation: Schema = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Who: {route.who}.",
        "parameters": _parameters(route),
        "responses": {str(status): _response(route, status) for status in sorted(route.statuses)},
    }
    if route.is_older:
        operation["deprecated"] = True
    if route.body is not None:
        name = route.body if isinstance(route.body, str) else route.body.__name__
        operation["requestBody"] = {
            "required": route.needs_body,
            "content": {JSON: {"schema": _ref(name)}},
        }
    return operation


def _parameters(route: Route[Any]) -> list[Schema]:
    in_path = {name: schema for name, schema in IN_PATH.items() if f"{{{name}}}" in route.path}
    places = (("path", in_path), ("query", route.query), ("header", route.headers))
    return [
        {"name": name, "in": place, "required": place == "path", "schema": dict(schema)}
        for place, found in places
        for name, schema in found.items()
    ]


def _response(route: Route[Any], status: int) -> Schema:
    headers: Schema = {"X-Request-Id": {"schema": _TEXT, "description": "This exchange."}}
    if status >= HTTPStatus.BAD_REQUEST:
        problem = _ref(name_of(ProblemBody))
        if status == HTTPStatus.SERVICE_UNAVAILABLE and route.unready is not None:
            problem = {"anyOf": [problem, _ref(name_of(route.unready))]}
        return _content(_codes(status), headers, PROBLEM_JSON, problem)
    if status == HTTPStatus.ACCEPTED:
        headers["Location"] = {"schema": _TEXT}
        headers["Retry-After"] = {"schema": {"type": "integer"}}
        description = "Nothing has run: a person has to approve it first."
        return _content(description, headers, JSON, _ref(name_of(Held)))
    if route.streams:
        kinds = " or ".join(f"`{name_of(model)}`" for model in route.streams)
        description = f"A stream of server-sent events without end. The data of each is {kinds}."
        return _content(description, headers, EVENT_STREAM, _TEXT)
    answers = [_ref(name_of(one)) for one in route.answers]
    schema = answers[0] if len(answers) == 1 else {"anyOf": answers} if answers else _OBJECT
    return _content("Done.", headers, JSON, schema)


def _content(description: str, headers: Schema, media_type: str, schema: Schema) -> Schema:
    return {
        "description": description,
        "headers": headers,
        "content": {media_type: {"schema": schema}},
    }


def _codes(status: int) -> str:
    codes = sorted(code for code, error in BY_CODE.items() if error.status == status)
    return "A problem: " + ", ".join(f"`{code}`" for code in codes) + "."


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


# -- schemas --------------------------------------------------------------------------------------

VOCABULARIES: Mapping[str, Iterable[str]] = {
    "State": State,
    "Effect": Effect,
    "Done": [State.SUCCEEDED, UNCHANGED],
    "Would": get_args(Would),
    "Verdict": get_args(Summary),
    "Verb": Verb,
    "Role": Role,
    "Autonomy": Autonomy,
    "Accuracy": PreviewAccuracy,
    "DeliveryKind": Kind,
    "EventName": Event,
    "DeliveryState": DeliveryState,
    "DeliveryFailure": Failure,
    "Severity": Severity,
    "Code": BY_CODE,
    "RecoveryKind": RecoveryKind,
    "FaultPlace": FaultPlace,
    "ProblemType": [problem_type(code) for code in BY_CODE],
}
"""The closed sets that texts of the wire are from, each as it is declared."""


def _answers() -> Schema:
    """Return the schema of every model of the wire, and of every closed set of texts."""
    schemas: Schema = {
        name: {"type": "string", "enum": [str(one) for one in members]}
        for name, members in VOCABULARIES.items()
    }
    found = _shared({model: name_of(model) for model in models_below(WireModel)})
    for schema in found.values():
        for member in schema["properties"].values():
            member.pop("default", None)  # what a reader takes an absent member for
    return schemas | found


def _bodies(catalogue: Catalogue) -> Schema:
    models = {route.body for route in ROUTES if isinstance(route.body, type)} | {OlderAsk}
    schemas = _shared({model: model.__name__ for model in sorted(models, key=str)})
    asks: dict[str, Schema] = {}
    for spec in catalogue:
        schemas |= _hoisted(f"{spec.name}.params", spec.parameters)
        schemas[spec.name] = _typed_ask(spec)
        asks[spec.name] = _ref(spec.name)
    mapping = {name: found["$ref"] for name, found in asks.items()}
    schemas["TypedAsk"] = {
        "oneOf": list(asks.values()),
        "discriminator": {"propertyName": "operation", "mapping": mapping},
    }
    schemas["Ask"] = {"anyOf": [_ref("TypedAsk"), _ref("OlderAsk")]}
    return schemas


def _typed_ask(spec: OperationSpec) -> Schema:
    params = _ref(f"{spec.name}.params")
    has_required = bool(spec.parameters.model_json_schema().get("required"))
    return {
        "type": "object",
        "description": spec.summary,
        "properties": {
            "operation": {"const": spec.name},
            "params": params,
            "reason": {"type": ["string", "null"], "maxLength": 2000},
            "dry_run": {"type": "boolean"},
        },
        "required": ["operation", *(["params"] if has_required else [])],
        "additionalProperties": False,
    }


def _shared(models: Mapping[type[BaseModel], str]) -> Schema:
    """Return the schemas of `models` by their names, and of what they consist of, each once."""
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="{model}"
    )
    named = {model.__name__: name for model, name in models.items()}
    return {
        named.get(key, key): _plain(schema, lambda key: named.get(key, key))
        for key, schema in found.get("$defs", {}).items()
        if "properties" in schema
    }


def _hoisted(name: str, model: type[BaseModel]) -> Schema:
    """Return the schema of `model` under `name`, and what it refers to beside it."""
    schema = model.model_json_schema(ref_template="{model}")
    parts = schema.pop("$defs", {})
    found = {name: schema, **{f"{name}.{part}": value for part, value in parts.items()}}
    return {key: _plain(value, lambda part: f"{name}.{part}") for key, value in found.items()}


def _plain(schema: Schema, name_of: Callable[[str], str]) -> Schema:
    """Return a schema of pydantic's with our names in it, and without titles, which say nothing."""
    if schema.get("$ref") == "JsonValue":
        return {}
    if VOCABULARY in schema:
        return _ref(schema[VOCABULARY])
    plain: Schema = {}
    for key, value in schema.items():
        if key == "title":
            continue
        if key == "$ref":
            plain |= _ref(name_of(value))
        elif key == "properties":
            plain[key] = {member: _plain(one, name_of) for member, one in value.items()}
        elif isinstance(value, dict) and key in {"items", "additionalProperties"}:
            plain[key] = _plain(value, name_of)
        elif key in {"anyOf", "oneOf", "allOf"}:
            plain[key] = [_plain(one, name_of) for one in value]
        else:
            plain[key] = value
    return plain
