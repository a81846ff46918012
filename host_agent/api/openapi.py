"""The OpenAPI 3.1 document, made from the routes, the body models and the catalogue."""

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

import host_agent
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
from host_agent.api.routes import ROUTES, STATES, Route
from host_agent.errors import BY_CODE
from host_agent.identity.registry import Autonomy, Role
from host_agent.operations.catalogue import Catalogue, Effect, OperationSpec

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_OBJECT_OR_NULL: Schema = {"type": ["object", "null"]}
_REQUEST_ID: Schema = {"type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$"}
_DIGEST: Schema = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_STATE: Schema = {"type": "string", "enum": list(STATES)}


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
}


def _response(route: Route, status: int) -> Schema:
    headers: Schema = {"X-Request-Id": {"schema": _TEXT, "description": "This exchange."}}
    if status >= HTTPStatus.BAD_REQUEST:
        return {
            "description": _codes(status),
            "headers": headers,
            "content": {PROBLEM_JSON: {"schema": _ref("Problem")}},
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


def _object(properties: Schema, *optional: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _answers() -> Schema:
    outcome = _object(
        {
            "exit_code": {"type": ["integer", "null"]},
            "stdout": _TEXT,
            "stderr": _TEXT,
            "truncated": {"type": "boolean"},
            "duration_ms": {"type": "integer"},
            "data": {},
            "verified": {"type": ["boolean", "null"]},
        },
        *("stdout", "stderr", "truncated", "duration_ms", "data"),
    )
    request: Schema = {
        "request_id": _TEXT,
        "operation": _TEXT,
        "state": _STATE,
        "host": {"type": "string", "description": "The host that would change."},
        "effect": {"enum": [*(effect.value for effect in Effect), None]},
        "verb": {"type": "string", "description": "The operation in a word: DESTROY."},
        "subject": {"type": "string", "description": "What it is done to, in words, escaped."},
        "digest": _DIGEST,
        "resource": _TEXT_OR_NULL,
        "caller": _TEXT,
        "owner": _TEXT,
        "unix_user": _TEXT_OR_NULL,
        "runs_as": {
            "type": ["string", "null"],
            "description": "The user that the process changes to.",
        },
        "params": {"type": "object"},
        "reason": _TEXT_OR_NULL,
        "rule": _TEXT,
        "created_at": _TEXT,
        "expires_at": _TEXT,
        "finished_at": _TEXT_OR_NULL,
        "preview": _OBJECT_OR_NULL,
        "precondition": _OBJECT_OR_NULL,
        "decisions": {"type": "array", "items": {"type": "object"}},
        "asked_before": _OBJECT_OR_NULL,
        "outcome": {"anyOf": [_ref("Outcome"), {"type": "null"}]},
        "problem": _OBJECT_OR_NULL,
    }
    always = {"request_id", "host", "operation", "state", "digest", "caller"}
    return {
        "Outcome": outcome,
        "Ran": _object(
            {
                "request_id": _TEXT,
                "operation": _TEXT,
                "resource": _TEXT_OR_NULL,
                "effect": {"enum": [effect.value for effect in Effect]},
                "state": _STATE,
                "digest": _DIGEST,
                "outcome": {"anyOf": [_ref("Outcome"), {"type": "null"}]},
                "grant": {"type": "string", "description": "The grant that it ran by."},
            },
            *("grant", "resource", "effect"),
        ),
        "Held": _object(
            {
                "request_id": _TEXT,
                "operation": _TEXT,
                "state": _STATE,
                "digest": _DIGEST,
                "expires_at": _TEXT,
                "rule": _TEXT,
                "poll_after_seconds": {"type": "integer"},
                "message": _TEXT,
            }
        ),
        "Request": _object(request, *(name for name in request if name not in always)),
        "Requests": _object(
            {"requests": {"type": "array", "items": _ref("Request")}, "next_cursor": _TEXT_OR_NULL}
        ),
        "Operations": _object(
            {
                "operations": {
                    "type": "array",
                    "items": _object(
                        {
                            "name": _TEXT,
                            "effect": {"enum": [effect.value for effect in Effect]},
                            "parameters": {"type": "object"},
                            "verdict": {"enum": ["allow", "ask", "deny", "depends"]},
                        }
                    ),
                }
            }
        ),
        "Identity": _object(
            {
                "cn": _TEXT,
                "owner": _TEXT,
                "roles": {"type": "array", "items": {"enum": [role.value for role in Role]}},
                "autonomy": {"enum": [autonomy.value for autonomy in Autonomy]},
                "host": _TEXT,
            }
        ),
        **_administration(),
        "Sudoers": _object(
            {
                "scan_ok": {"type": "boolean"},
                "entries": {
                    "type": "array",
                    "items": _object(
                        {
                            "file": _TEXT,
                            "line": {"type": "integer"},
                            "rule": _TEXT,
                            "severity": {"enum": ["critical", "high", "medium", "low"]},
                            "reason": _TEXT,
                            "remedy": _TEXT,
                        }
                    ),
                },
                "scanned_at": _TEXT,
            }
        ),
        "Problem": _problem(),
    }


def _administration() -> Schema:
    """Return the answers about people, grants and identities."""
    contact = _object({"channel": _TEXT, "state": _TEXT, "address": _TEXT_OR_NULL}, "address")
    approver = _object(
        {
            "owner": _TEXT,
            "roles": {"type": "array", "items": _TEXT},
            "channels": {"type": "array", "items": contact},
        }
    )
    grant = {
        "grant_id": _TEXT,
        "request_id": _TEXT,
        "caller": _TEXT,
        "operation": _TEXT,
        "resource": _TEXT,
        "params": {"type": "object"},
        "given_by": {"type": "array", "items": _TEXT},
        "created_at": _TEXT,
        "expires_at": _TEXT,
        "uses_left": {"type": ["integer", "null"]},
        "used": {"type": "integer"},
        "is_live": {"type": "boolean"},
        "revoked_at": _TEXT_OR_NULL,
        "revoked_by": _TEXT_OR_NULL,
    }
    return {
        "Approvers": _object({"approvers": {"type": "array", "items": approver}}),
        "Enrolment": _object(
            {"owner": _TEXT, "channel": _TEXT, "code": _TEXT, "expires_at": _TEXT}
        ),
        "Grant": _object(grant),
        "Grants": _object({"grants": {"type": "array", "items": _ref("Grant")}}),
        "Released": _object({"cn": _TEXT, "released": {"const": True}}),
    }


def _problem() -> Schema:
    return _object(
        {
            "type": {"type": "string", "enum": [problem_type(code) for code in BY_CODE]},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "code": {"type": "string", "enum": list(BY_CODE)},
            "request_id": {"type": "string", "description": "This exchange."},
            "retry_after_seconds": {"type": "integer", "minimum": 1},
        },
        "retry_after_seconds",
    )
