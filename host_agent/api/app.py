"""The door of the API: who asks is asked first, then the route's row, then its handler.

Every request is identified anew before its route is looked at, and every problem leaves through
one edge.
"""

import asyncio
import functools
import logging
from typing import Any

from quart import Quart, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from host_agent.api import body as bodies
from host_agent.api.problems import JSON, render, to_bytes
from host_agent.api.request import current, rendered, serve
from host_agent.api.route import Route, Services
from host_agent.api.routes import ROUTES
from host_agent.errors import (
    ForeignOriginError,
    HostAgentError,
    InternalError,
    InvalidIdentityError,
    MalformedRequestError,
    MethodNotAllowedError,
    RouteNotFoundError,
)
from host_agent.http.exchange import Application
from host_agent.identity.certificate import PeerCertificate
from host_agent.pipeline.core import Pipeline

_log = logging.getLogger("host_agent.api")

NO_ROUTE = "There is no such route; GET /openapi.json lists those there are."


def create_app(services: Services) -> Application:
    """Return the ASGI application that serves `services`."""
    return functools.partial(serve, create_router(services))


def create_router(services: Services) -> Quart:
    """Return the routes: each with its handler, and one edge for every error."""
    app = Quart("host_agent.api", static_folder=None, template_folder=None)
    app.url_map.merge_slashes = False  # no redirects: their bodies are HTML
    app.config["PROPAGATE_EXCEPTIONS"] = False
    places = asyncio.Semaphore(bodies.LARGE_BODIES)
    app.before_request(functools.partial(_identify, services.pipeline, places))
    app.register_error_handler(Exception, functools.partial(_refuse, services.pipeline))
    for route in ROUTES:
        app.add_url_rule(
            route.rule,
            route.name,
            functools.partial(_answer, services, route),
            methods=[route.method],
            provide_automatic_options=False,
        )
    return app


async def _identify(pipeline: Pipeline, places: asyncio.Semaphore) -> None:
    """Set the principal of this request, or refuse it."""
    request = current()
    peer = request.peer
    if peer is None:
        message = "A client certificate is required."
        raise InvalidIdentityError(message)
    if isinstance(peer, InvalidIdentityError):
        raise InvalidIdentityError(peer.detail)
    request.principal = pipeline.identify(peer)
    request.large_bodies = places
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"https://{request.headers.get('Host', '')}":
        message = "Pages of other origins may not use this service."
        raise ForeignOriginError(message)
    if request.scope["path"].startswith("//"):  # the router would look at what comes after
        raise RouteNotFoundError(NO_ROUTE)
    method, rule = request.scope.get("method"), request.url_rule
    if rule is not None and method not in (rule.methods or ()):  # the router takes `post` for POST
        raise MethodNotAllowed(valid_methods=rule.methods)


async def _answer(services: Services, route: Route[Any], **path: str) -> Response:
    """Let in who may use a route, and answer as its handler does."""
    request = current()
    services.pipeline.admit(request.principal, *route.roles, rate=route.rate)
    request.parameters = request.query(route.query)
    answer = await route.handler(services, request, **path)
    if isinstance(answer, Response):
        return answer
    return Response(to_bytes(answer.as_json()), 200, content_type=JSON)


async def _refuse(pipeline: Pipeline, error: Exception) -> Response:
    """Render any error as a problem; the only way to one."""
    request = current()
    problem, extra = _as_problem(error, request.exchange_id)
    certificate = request.peer if isinstance(request.peer, PeerCertificate) else None
    await pipeline.record_refusal(
        problem,
        exchange_id=request.exchange_id,
        principal=getattr(request, "principal", None),
        certificate=certificate,
        operation=request.operation,
    )
    return rendered(render(problem, request.exchange_id, extra=extra))


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
