"""The OpenAPI 3.1 document, made from the routes, the body models and the catalogue."""

from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import host_agent
from host_agent.api import wire
from host_agent.api.body import (
    BridgedDecisionBody,
    CancelBody,
    DecisionBody,
    EnrolBody,
    OlderApproval,
    OlderAsk,
    OlderZfsDestroy,
    OlderZfsList,
    OlderZfsSnapshot,
    SignalBody,
)
from host_agent.api.problems import JSON, PROBLEM_JSON, problem_type, to_bytes
from host_agent.api.routes import ROUTES, Route
from host_agent.errors import BY_CODE
from host_agent.identity.registry import Autonomy, Role
from host_agent.operations.catalogue import Catalogue, Effect, OperationSpec, PreviewAccuracy
from host_agent.policy.rules import Summary
from host_agent.requests.model import State, Verb
from host_agent.requests.notification import DeliveryState, Failure, Kind
from host_agent.sudoers.values import Severity

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_REQUEST_ID: Schema = {"type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$"}


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


def _operation(route: Route) -> Schema:
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
        operation["requestBody"] = {
            "required": route.name != "cancel",
            "content": {JSON: {"schema": _ref(route.body)}},
        }
    return operation


def _parameters(route: Route) -> list[Schema]:
    found: list[Schema] = []
    found += [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in _IN_PATH.items()
        if f"{{{name}}}" in route.path
    ]
    found += [
        {"name": name, "in": "query", "required": False, "schema": dict(schema)}
        for name, schema in route.query.items()
    ]
    if _RESULTS.get(route.name) == "Ran":
        key = {"type": "string", "pattern": "^[!-~]{1,64}$"}
        found.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key})
    if route.name == "events":
        last = {"type": "string", "pattern": "^[0-9]{1,15}$"}
        found.append({"name": "Last-Event-ID", "in": "header", "required": False, "schema": last})
    return found


_IN_PATH: Mapping[str, Schema] = {
    "request_id": _REQUEST_ID,
    "grant_id": _REQUEST_ID,
    "owner": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"},
    "cn": {"type": "string", "pattern": "^[a-z_][a-z0-9_.-]{0,63}$"},
}
_RESULTS: Mapping[str, str] = {
    "submit": "Ran",
    "zfs_list": "Ran",
    "zfs_snapshot": "Ran",
    "zfs_destroy": "Ran",
    "operations": "Operations",
    "whoami": "Identity",
    "list_requests": "Requests",
    "show": "Request",
    "decide": "Request",
    "cancel": "Request",
    "approve": "Request",
    "pending": "Requests",
    "admin_pending": "Requests",
    "approvers": "Approvers",
    "enrol": "Enrolment",
    "grants": "Grants",
    "revoke_grant": "Grant",
    "release": "Released",
    "bridged_decision": "Request",
    "sudoers": "Sudoers",
    "warn_permissions": "Sudoers",
    "bridged_signal": "SignalAnswer",
    "health": "Health",
    "ready": "Readiness",
}


def _response(route: Route, status: int) -> Schema:
    headers: Schema = {"X-Request-Id": {"schema": _TEXT, "description": "This exchange."}}
    if status >= HTTPStatus.BAD_REQUEST:
        problem = _ref("Problem")
        if (route.name, status) == ("ready", HTTPStatus.SERVICE_UNAVAILABLE):
            problem = {"anyOf": [problem, _ref("Unready")]}
        return {
            "description": _codes(status),
            "headers": headers,
            "content": {PROBLEM_JSON: {"schema": problem}},
        }
    if status == HTTPStatus.ACCEPTED:
        headers["Location"] = {"schema": _TEXT}
        headers["Retry-After"] = {"schema": {"type": "integer"}}
        schema = _ref("Held")
        description = "Nothing has run: a person has to approve it first."
    else:
        name = _RESULTS.get(route.name)
        schema = _ref(name) if name else {"type": "object"}
        description = "Done."
    if route.name == "events":
        return {
            "description": "A stream without end.",
            "headers": headers,
            "content": {"text/event-stream": {"schema": _TEXT}},
        }
    return {"description": description, "headers": headers, "content": {JSON: {"schema": schema}}}


def _codes(status: int) -> str:
    codes = sorted(code for code, error in BY_CODE.items() if error.status == status)
    return "A problem: " + ", ".join(f"`{code}`" for code in codes) + "."


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


# -- schemas --------------------------------------------------------------------------------------

VOCABULARIES: Mapping[str, Iterable[str]] = {
    "State": State,
    "Effect": Effect,
    "Verdict": get_args(Summary),
    "Verb": Verb,
    "Role": Role,
    "Autonomy": Autonomy,
    "Accuracy": PreviewAccuracy,
    "DeliveryKind": Kind,
    "DeliveryState": DeliveryState,
    "DeliveryFailure": Failure,
    "Severity": Severity,
    "Code": BY_CODE,
    "ProblemType": [problem_type(code) for code in BY_CODE],
}
"""The closed sets that texts of the wire are from, each as it is declared."""


def _answers() -> Schema:
    """Return the schema of every model of the wire, and of every closed set of texts."""
    models = [
        model
        for model in vars(wire).values()
        if isinstance(model, type) and issubclass(model, wire.WireModel) and model.model_fields
    ]
    names = {model.__name__: wire.name_of(model) for model in models}
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="{model}"
    )
    schemas: Schema = {
        name: {"type": "string", "enum": [str(one) for one in members]}
        for name, members in VOCABULARIES.items()
    }
    for name, schema in found["$defs"].items():
        if name in names:
            schemas[names[name]] = _described(schema, names)
    return schemas


def _described(schema: Schema, names: Mapping[str, str]) -> Schema:
    """Return a schema of pydantic's without what says nothing: titles, and defaults of answers."""
    if "$ref" in schema:
        name = names.get(schema["$ref"])
        return {} if name is None else _ref(name)  # all that is no model is any JSON
    if wire.VOCABULARY in schema:
        return _ref(schema[wire.VOCABULARY])
    plain = {key: value for key, value in schema.items() if key not in {"title", "default"}}
    for key in ("items", "additionalProperties"):
        if isinstance(plain.get(key), dict):
            plain[key] = _described(plain[key], names)
    if "anyOf" in plain:
        plain["anyOf"] = [_described(one, names) for one in plain["anyOf"]]
    if "properties" in plain:
        members = plain["properties"].items()
        plain["properties"] = {name: _described(member, names) for name, member in members}
    return plain


def _bodies(catalogue: Catalogue) -> Schema:
    schemas: Schema = {}
    for name, model in (
        ("OlderAsk", OlderAsk),
        ("Decision", DecisionBody),
        ("Cancel", CancelBody),
        ("BridgedDecision", BridgedDecisionBody),
        ("BridgedSignal", SignalBody),
        ("Enrol", EnrolBody),
        ("OlderApproval", OlderApproval),
        ("OlderZfsList", OlderZfsList),
        ("OlderZfsSnapshot", OlderZfsSnapshot),
        ("OlderZfsDestroy", OlderZfsDestroy),
    ):
        schemas |= _hoisted(name, model)
    asks = []
    for spec in catalogue:
        schemas |= _hoisted(f"{spec.name}.params", spec.parameters)
        schemas[spec.name] = _typed_ask(spec)
        asks.append(_ref(spec.name))
    schemas["Ask"] = {"oneOf": [*asks, _ref("OlderAsk")]}
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
        },
        "required": ["operation", *(["params"] if has_required else [])],
        "additionalProperties": False,
    }


def _hoisted(name: str, model: type[BaseModel]) -> Schema:
    """Return the schema of `model` under `name`, and what it refers to beside it."""
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{name}.{{model}}")
    parts = schema.pop("$defs", {})
    return {name: schema, **{f"{name}.{part}": value for part, value in parts.items()}}
