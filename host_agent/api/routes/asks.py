"""Asking for an operation, in each of its forms, and what can be asked for."""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from pydantic import BaseModel
from quart import Response

from host_agent.api import body as bodies
from host_agent.api import older_forms
from host_agent.api.problems import JSON, render, to_bytes
from host_agent.api.request import AgentRequest, rendered
from host_agent.api.route import Route, Services
from host_agent.api.wire.dry_run import DryRun
from host_agent.api.wire.operations import OperationList, Ran
from host_agent.api.wire.tools import TOOL_FORMS, ToolList
from host_agent.canonical import JsonValue
from host_agent.errors import FaultPlace, MalformedRequestError, correct, invalid_in_query
from host_agent.identity.registry import Role
from host_agent.operations.catalogue import Catalogue
from host_agent.pipeline.responses import Failed
from host_agent.pipeline.submit import Submission
from host_agent.policy.limits import Limits

_KEY = re.compile(r"[!-~]{1,64}")


class Meant(NamedTuple):
    """What a body asks for."""

    operation: str
    params: Mapping[str, JsonValue]
    reason: str | None = None
    dry_run: bool = False


async def submit(services: Services, request: AgentRequest) -> Response:
    """Ask in the typed form, or in the older one for all adapters."""
    catalogue = services.pipeline.context.catalogue
    return await _ask(services, request, partial(_read, catalogue))


async def zfs_list(services: Services, request: AgentRequest) -> Response:
    """Ask for `zfs.list` in its older form."""
    return await _ask(services, request, partial(read_zfs, "list", bodies.OlderZfsList))


async def zfs_snapshot(services: Services, request: AgentRequest) -> Response:
    """Ask for `zfs.snapshot` in its older form."""
    return await _ask(services, request, partial(read_zfs, "snapshot", bodies.OlderZfsSnapshot))


async def zfs_destroy(services: Services, request: AgentRequest) -> Response:
    """Ask for `zfs.destroy` in its older form."""
    return await _ask(services, request, partial(read_zfs, "destroy", bodies.OlderZfsDestroy))


async def operations(services: Services, request: AgentRequest) -> OperationList | ToolList:
    """Tell what can be asked for, as operations or as tools."""
    found = services.pipeline.operations(request.principal)
    asked = request.parameters.get("format")
    if asked is None:
        return found
    for form, render_tool in TOOL_FORMS.items():
        if form == asked:
            return ToolList(tools=tuple(map(render_tool, found.operations)))
    raise invalid_in_query("format", f"one of {', '.join(TOOL_FORMS)}.")


async def _ask(
    services: Services,
    request: AgentRequest,
    read: Callable[[AgentRequest, Mapping[str, JsonValue]], Meant],
) -> Response:
    key = _idempotency_key(request)
    data = await request.read_json()
    meant = read(request, bodies.parse_object(data))
    body_sha256 = hashlib.sha256(data).hexdigest()
    del data  # up to 1 MiB, and the run may take its time
    answer = await services.pipeline.asks.submit(
        request.principal,
        Submission(
            operation=meant.operation,
            params=meant.params,
            reason=meant.reason,
            dry_run=meant.dry_run,
            exchange_id=request.exchange_id,
            idempotency_key=key,
            body_sha256=body_sha256,
        ),
    )
    if isinstance(answer, Failed):
        return rendered(render(answer.error, request.exchange_id))
    response = Response(to_bytes(answer.body), answer.status, content_type=JSON)
    if answer.status == HTTPStatus.ACCEPTED:
        response.headers["Location"] = f"/requests/{answer.body['request_id']}"
        response.headers["Retry-After"] = str(answer.body["poll_after_seconds"])
    return response


def _read(catalogue: Catalogue, request: AgentRequest, value: Mapping[str, JsonValue]) -> Meant:
    if "kind" in value and "operation" not in value:
        older = bodies.fit(bodies.OlderAsk, value)
        named = older_forms.operation_name(older.kind, older.args)
        request.operation = catalogue.spec(named).name
        name, params = older_forms.parameters(catalogue, older.kind, older.resource, older.args)
        return Meant(name, params, older.metadata.reason)
    typed = bodies.fit(bodies.TypedAsk, value)
    request.operation = catalogue.spec(typed.operation).name
    return Meant(typed.operation, typed.params, typed.reason, typed.dry_run)


def read_zfs(
    verb: str, shape: type[BaseModel], request: AgentRequest, value: Mapping[str, JsonValue]
) -> Meant:
    """Return what the body of an older route of zfs means; a token in it carries no authority."""
    request.operation = f"zfs.{verb}"
    older = bodies.fit(shape, value)
    params = older.model_dump(exclude={"approval_token"}, exclude_none=True)
    return Meant(request.operation, params)


def _idempotency_key(request: AgentRequest) -> str | None:
    keys = request.headers.getlist("Idempotency-Key")
    if not keys:
        return None
    if len(keys) > 1 or _KEY.fullmatch(keys[0]) is None:
        message = "Idempotency-Key: one, of 1 to 64 visible ASCII characters."
        fix = correct(message, "Idempotency-Key", place=FaultPlace.HEADER)
        raise MalformedRequestError(message, recovery=fix)
    return keys[0]


_ASK: Mapping[str, Any] = {
    "method": "POST",
    "answer": Ran,
    "roles": (Role.CALLER,),
    "rate": Limits.ask,
    "headers": {"Idempotency-Key": {"type": "string", "pattern": f"^{_KEY.pattern}$"}},
    "also": frozenset({202, 404, 409, 502, 504}),
}

ROUTES: tuple[Route[Any], ...] = (
    Route(
        rule="/host/op",
        handler=submit,
        body="Ask",
        or_else=DryRun,
        summary="Ask for an operation: it runs, is held for approval, or is refused.",
        **_ASK,
    ),
    Route(
        method="GET",
        rule="/host/operations",
        handler=operations,
        answer=OperationList,
        or_else=ToolList,
        query={"format": {"type": "string", "enum": list(TOOL_FORMS)}},
        summary="What this identity can ask for, with its own values and what policy says; with"
        " `format`, as tools.",
    ),
    Route(
        rule="/zfs/list",
        handler=zfs_list,
        body=bodies.OlderZfsList,
        summary="As `zfs.list` by POST /host/op, which it becomes.",
        is_older=True,
        **_ASK,
    ),
    Route(
        rule="/zfs/snapshot",
        handler=zfs_snapshot,
        body=bodies.OlderZfsSnapshot,
        summary="As `zfs.snapshot` by POST /host/op, which it becomes.",
        is_older=True,
        **_ASK,
    ),
    Route(
        rule="/zfs/destroy",
        handler=zfs_destroy,
        body=bodies.OlderZfsDestroy,
        summary="As `zfs.destroy` by POST /host/op, which it becomes.",
        is_older=True,
        **_ASK,
    ),
)
