"""The HTTP surface: thin Quart routes that parse, call the pipeline, and render.

Every request is identified anew before its route is looked at, and every problem leaves through
one edge. Routes are declared in `ROUTES`; the OpenAPI document and the reference page name the
same ones, held to it by tests.
"""

import asyncio
import functools
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from pydantic import BaseModel
from quart import Quart, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from host_agent.api import body as bodies
from host_agent.api import older_forms, openapi
from host_agent.api.bridges import BridgeRoutes
from host_agent.api.ports import AgentPort
from host_agent.api.problems import (
    HEALTH,
    JSON,
    render,
    render_unready,
    to_bytes,
)
from host_agent.api.request import AgentRequest, StreamedResponse, current, serve, until_gone
from host_agent.api.routes import ROUTES
from host_agent.api.wire import RequestView, WireModel
from host_agent.canonical import JsonValue
from host_agent.errors import (
    ForeignOriginError,
    HostAgentError,
    InternalError,
    InvalidIdentityError,
    InvalidParameterError,
    MalformedRequestError,
    MethodNotAllowedError,
    RequestNotFoundError,
    RouteNotFoundError,
)
from host_agent.http.exchange import Application, Rendered
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Role
from host_agent.pipeline.responses import Answer, Failed
from host_agent.pipeline.submit import Ask
from host_agent.requests.model import Verb

_log = logging.getLogger("host_agent.api")

MAX_WAIT_SECONDS = 60
DEFAULT_LIMIT = 50
NO_ROUTE = "There is no such route; GET /openapi.json lists those there are."
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,64}")
_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_SEQUENCE = re.compile(r"[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


def create_app(agent: AgentPort) -> Application:
    """Return the ASGI application for `agent`."""
    return functools.partial(serve, create_router(agent))


def create_router(agent: AgentPort) -> Quart:
    """Return the routes: each with its handler, and one edge for every error."""
    app = Quart("host_agent.api", static_folder=None, template_folder=None)
    app.url_map.merge_slashes = False  # no redirects: their bodies are HTML
    app.config["PROPAGATE_EXCEPTIONS"] = False
    routes = Routes(agent)
    app.before_request(routes.identify)
    app.register_error_handler(Exception, routes.refuse)
    for route in ROUTES:
        app.add_url_rule(
            route.rule,
            route.name,
            getattr(routes, route.name),
            methods=[route.method],
            provide_automatic_options=False,
        )
    for rule in app.url_map.iter_rules():
        if rule.methods is not None:
            rule.methods.discard("HEAD")
    return app


_ParseAsk = Callable[
    [AgentRequest, Mapping[str, JsonValue]], tuple[str, Mapping[str, JsonValue], str | None]
]
"""Reads a body into operation, parameters and reason."""


@dataclass(frozen=True, slots=True)
class Routes(BridgeRoutes):
    """The handlers; each is named in `ROUTES`."""

    large_bodies: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(bodies.LARGE_BODIES)
    )

    # -- the edges -----------------------------------------------------------------------------

    async def identify(self) -> None:
        """Set the principal of this request, or refuse it."""
        request = current()
        peer = request.peer
        if peer is None:
            message = "A client certificate is required."
            raise InvalidIdentityError(message)
        if isinstance(peer, InvalidIdentityError):
            raise InvalidIdentityError(peer.detail)
        request.principal = self.agent.pipeline.identify(peer)
        request.large_bodies = self.large_bodies
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"https://{request.headers.get('Host', '')}":
            message = "Pages of other origins may not use this service."
            raise ForeignOriginError(message)
        if request.scope["path"].startswith("//"):  # the router would look at what comes after
            raise RouteNotFoundError(NO_ROUTE)

    async def refuse(self, error: Exception) -> Response:
        """Render any error as a problem; the only way to one."""
        request = current()
        problem, extra = _as_problem(error, request.exchange_id)
        certificate = request.peer if isinstance(request.peer, PeerCertificate) else None
        await self.agent.pipeline.record_refusal(
            problem,
            exchange_id=request.exchange_id,
            principal=getattr(request, "principal", None),
            certificate=certificate,
            operation=request.operation,
        )
        return _rendered(render(problem, request.exchange_id, extra=extra))

    # -- asking --------------------------------------------------------------------------------

    async def submit(self) -> Response:
        """POST /host/op."""
        return await self._ask(self._parse_ask)

    async def _ask(self, parse: _ParseAsk) -> Response:
        """Take one ask, in whichever form `parse` reads."""
        request = current()
        pipeline = self.agent.pipeline
        pipeline.admit_ask(request.principal)
        key = _idempotency_key(request)
        data = await request.read_json()
        name, params, reason = parse(request, bodies.parse_object(data))
        body_sha256 = hashlib.sha256(data).hexdigest()
        del data  # up to 1 MiB, and the run may take its time
        answer = await pipeline.submit(
            request.principal,
            Ask(
                operation=name,
                params=params,
                reason=reason,
                exchange_id=request.exchange_id,
                idempotency_key=key,
                body_sha256=body_sha256,
            ),
        )
        if isinstance(answer, Failed):
            return _rendered(render(answer.error, request.exchange_id))
        return _answered(answer)

    def _parse_ask(
        self, request: AgentRequest, value: Mapping[str, JsonValue]
    ) -> tuple[str, Mapping[str, JsonValue], str | None]:
        """Return operation, parameters and reason of either form of an ask."""
        catalogue = self.agent.rooms.catalogue
        if "kind" in value and "operation" not in value:
            older = bodies.fit(bodies.OlderAsk, value)
            request.operation = catalogue.spec(
                older_forms.operation_name(older.kind, older.args)
            ).name
            name, params = older_forms.parameters(catalogue, older.kind, older.resource, older.args)
            return name, params, older.metadata.reason
        typed = bodies.fit(bodies.TypedAsk, value)
        request.operation = catalogue.spec(typed.operation).name
        return typed.operation, typed.params, typed.reason

    async def zfs_list(self) -> Response:
        """POST /zfs/list, the older form of `zfs.list`."""
        return await self._ask(_older_zfs("list", bodies.OlderZfsList))

    async def zfs_snapshot(self) -> Response:
        """POST /zfs/snapshot, the older form of `zfs.snapshot`."""
        return await self._ask(_older_zfs("snapshot", bodies.OlderZfsSnapshot))

    async def zfs_destroy(self) -> Response:
        """POST /zfs/destroy, the older form of `zfs.destroy`."""
        return await self._ask(_older_zfs("destroy", bodies.OlderZfsDestroy))

    async def operations(self) -> Response:
        """GET /host/operations."""
        request = current()
        request.query()
        return _json(self.agent.pipeline.operations(request.principal))

    # -- requests ------------------------------------------------------------------------------

    async def list_requests(self) -> Response:
        """GET /requests."""
        request = current()
        query = request.query("state", "limit", "cursor")
        return await self._page(request, query, state=query.get("state"), own=False)

    async def pending(self) -> Response:
        """GET /pending, the older name of one's own pending requests."""
        request = current()
        query = request.query("limit", "cursor")
        return await self._page(request, query, state="pending", own=True)

    async def admin_pending(self) -> Response:
        """GET /admin/pending, the older name of all pending requests."""
        request = current()
        self.agent.pipeline.require_role(request.principal, Role.ADMIN)
        query = request.query("limit", "cursor")
        return await self._page(request, query, state="pending", own=False)

    async def _page(
        self, request: AgentRequest, query: Mapping[str, str], *, state: str | None, own: bool
    ) -> Response:
        limit = query.get("limit", str(DEFAULT_LIMIT))
        if _NUMBER.fullmatch(limit) is None:
            message = "limit: a number."
            raise InvalidParameterError(message)
        return _json(
            await self.agent.pipeline.list_requests(
                request.principal,
                state=state,
                limit=int(limit),
                cursor=query.get("cursor"),
                own=own,
            )
        )

    async def show(self, request_id: str) -> Response:
        """GET /requests/{id}."""
        request = current()
        wait = request.query("wait").get("wait", "0")
        if _NUMBER.fullmatch(wait) is None or int(wait) > MAX_WAIT_SECONDS:
            message = f"wait: whole seconds, 0 to {MAX_WAIT_SECONDS}."
            raise InvalidParameterError(message)
        _check_id(request_id)
        if int(wait) == 0:
            return _json(await self.agent.pipeline.show(request.principal, request_id))
        return _json(await self._wait(request, request_id, int(wait)))

    async def _wait(self, request: AgentRequest, request_id: str, seconds: int) -> RequestView:
        """Return a request once it changes; give up when the peer leaves or is unwelcome."""
        pipeline = self.agent.pipeline

        def still_welcome() -> None:
            pipeline.identify(cast("PeerCertificate", request.peer))

        poll = asyncio.ensure_future(
            pipeline.show(
                request.principal, request_id, wait_seconds=seconds, still_welcome=still_welcome
            )
        )
        gone = asyncio.ensure_future(until_gone(request.receive))
        try:
            await asyncio.wait((poll, gone), return_when=asyncio.FIRST_COMPLETED)
            if poll.done():
                return poll.result()
        finally:
            poll.cancel()
            gone.cancel()
            await asyncio.gather(poll, gone, return_exceptions=True)
        still_welcome()  # it may have ended its own half only, and read what comes
        return await pipeline.show(request.principal, request_id)

    async def events(self) -> Response:
        """GET /events: a stream that ends when its reader leaves or is not welcome any more."""
        request = current()
        request.query()
        after = request.headers.get("Last-Event-ID")
        if after is not None and _SEQUENCE.fullmatch(after) is None:
            message = "Last-Event-ID: the id of an event, a number."
            raise InvalidParameterError(message)
        stream = self.agent.pipeline.stream(
            request.principal, None if after is None else int(after)
        )
        return StreamedResponse(stream, content_type="text/event-stream")

    async def decide(self, request_id: str) -> Response:
        """POST /requests/{id}/decision."""
        request = current()
        self.agent.pipeline.admit_decision(request.principal)
        decision = bodies.parse_decision(await request.read_json())
        _check_id(request_id)
        return _json(
            await self.agent.pipeline.decide(
                request.principal,
                request_id,
                decision=Verb(decision.decision),
                digest=decision.digest,
                reason=decision.reason,
                channel="http",
                grant=bodies.terms_of(decision.grant),
            )
        )

    async def approve(self) -> Response:
        """POST /approve, the older form of an approval."""
        request = current()
        self.agent.pipeline.admit_decision(request.principal)
        value = bodies.parse_object(await request.read_json())
        older = bodies.fit(bodies.OlderApproval, value)
        _check_id(older.approval_id)
        return _json(
            await self.agent.pipeline.decide_by_token(
                request.principal, older.approval_id, older.token
            )
        )

    async def cancel(self, request_id: str) -> Response:
        """POST /requests/{id}/cancel; a body, and so its type, is optional."""
        request = current()
        request.query()
        data = await request.read_body()
        reason = None
        if data:
            bodies.require_json(
                request.headers.get("Content-Type"), request.headers.get("Content-Encoding")
            )
            reason = bodies.fit(bodies.CancelBody, bodies.parse_object(data)).reason
        _check_id(request_id)
        return _json(await self.agent.pipeline.cancel(request.principal, request_id, reason=reason))

    # -- the host ------------------------------------------------------------------------------

    async def sudoers(self) -> Response:
        """GET /admin/sudoers."""
        request = current()
        self.agent.pipeline.require_role(request.principal, Role.ADMIN)
        request.query()
        return _json(await self.agent.sudoers())

    async def warn_permissions(self) -> Response:
        """GET /admin/warn-permissions, the older name of the same."""
        return await self.sudoers()

    # -- the agent itself ----------------------------------------------------------------------

    async def whoami(self) -> Response:
        """GET /whoami."""
        request = current()
        request.query()
        return _json(self.agent.pipeline.whoami(request.principal))

    async def health(self) -> Response:
        """GET /health."""
        current().query()
        return _json(HEALTH)

    async def ready(self) -> Response:
        """GET /ready."""
        request = current()
        request.query()
        parts = await self.agent.ready()
        if parts.is_ready:
            return _json(parts)
        return _rendered(render_unready(parts, request.exchange_id))

    async def openapi(self) -> Response:
        """GET /openapi.json."""
        current().query()
        return Response(openapi.document_bytes(self.agent.rooms.catalogue), 200, content_type=JSON)


def _older_zfs(verb: str, shape: type[BaseModel]) -> _ParseAsk:
    """Return what reads the body of an older route of zfs; a token in it carries no authority."""

    def parse(
        request: AgentRequest, value: Mapping[str, JsonValue]
    ) -> tuple[str, Mapping[str, JsonValue], str | None]:
        request.operation = f"zfs.{verb}"
        older = bodies.fit(shape, value)
        params = older.model_dump(exclude={"approval_token"}, exclude_none=True)
        return request.operation, params, None

    return parse


# -- small pieces ---------------------------------------------------------------------------------


def _json(body: WireModel) -> Response:
    return Response(to_bytes(body.as_json()), 200, content_type=JSON)


def _rendered(rendered: Rendered) -> Response:
    headers = {name.decode(): value.decode() for name, value in rendered.headers}
    return Response(rendered.body, rendered.status, headers)


def _answered(answer: Answer) -> Response:
    response = Response(to_bytes(answer.body), answer.status, content_type=JSON)
    if answer.status == HTTPStatus.ACCEPTED:
        response.headers["Location"] = f"/requests/{answer.body['request_id']}"
        response.headers["Retry-After"] = str(answer.body["poll_after_seconds"])
    return response


def _idempotency_key(request: AgentRequest) -> str | None:
    keys = request.headers.getlist("Idempotency-Key")
    if not keys:
        return None
    if len(keys) > 1 or _IDEMPOTENCY_KEY.fullmatch(keys[0]) is None:
        message = "Idempotency-Key: one, of 1 to 64 visible ASCII characters."
        raise MalformedRequestError(message)
    return keys[0]


def _check_id(request_id: str) -> None:
    """Refuse what cannot be an id, or the beginning of one, before anybody looks it up."""
    if _REQUEST_ID.fullmatch(request_id) is None:
        message = (
            "There is no such request that you may see; `host-agent requests list` shows yours."
        )
        raise RequestNotFoundError(message)


def _as_problem(
    error: Exception, exchange_id: str
) -> tuple[HostAgentError, tuple[tuple[bytes, bytes], ...]]:
    """Return the error that the peer is told of, and further header fields."""
    if isinstance(error, HostAgentError):
        return error, ()
    if isinstance(error, NotFound):
        return RouteNotFoundError(NO_ROUTE), ()
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return MethodNotAllowedError(f"Use {allowed} here."), ((b"allow", allowed.encode()),)
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        message = "This is not a request that is understood here."
        return MalformedRequestError(message), ()
    _log.error("exchange %s failed", exchange_id, exc_info=error)
    message = "The agent failed to answer. Tell the administrator of this host the request id."
    return InternalError(message), ()
