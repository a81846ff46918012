"""The host and the agent itself: what sudo grants, who asks, whether it can serve."""

from typing import Any

from quart import Response

from host_agent.api import body as bodies
from host_agent.api.problems import HEALTH, JSON, render_unready
from host_agent.api.request import AgentRequest, rendered
from host_agent.api.route import Route, Services
from host_agent.api.wire.host import Health, Readiness, SudoersReport
from host_agent.api.wire.people import OwnIdentity, RenewalAnswer
from host_agent.api.wire.problems import Unready
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.registry import Role
from host_agent.policy.limits import Limits


async def sudoers(services: Services, _request: AgentRequest) -> SudoersReport:
    return await services.sudoers()


async def warn_permissions(services: Services, _request: AgentRequest) -> SudoersReport:
    return await services.sudoers()


async def whoami(services: Services, request: AgentRequest) -> OwnIdentity:
    return services.pipeline.whoami(request.principal)


async def renew(services: Services, request: AgentRequest) -> RenewalAnswer:
    """Take a renewal of the certificate that asks."""
    body = bodies.fit(bodies.RenewalBody, bodies.parse_object(await request.read_json()))
    peer = request.peer
    assert isinstance(peer, PeerCertificate)
    return await services.renew(request.principal, peer, body.request, body.proof)


async def health(_services: Services, _request: AgentRequest) -> Health:
    return HEALTH


async def ready(services: Services, request: AgentRequest) -> Readiness | Response:
    parts = await services.ready()
    return parts if parts.is_ready else rendered(render_unready(parts, request.exchange_id))


async def openapi(services: Services, _request: AgentRequest) -> Response:
    return Response(services.document(), 200, content_type=JSON)


ROUTES: tuple[Route[Any], ...] = (
    Route(
        method="GET",
        rule="/admin/sudoers",
        handler=sudoers,
        answer=SudoersReport,
        roles=(Role.ADMIN,),
        summary="What sudo grants that is not known to be safe.",
    ),
    Route(
        method="GET",
        rule="/admin/warn-permissions",
        handler=warn_permissions,
        answer=SudoersReport,
        roles=(Role.ADMIN,),
        summary="What sudo grants that is not known to be safe.",
        is_older=True,
    ),
    Route(
        method="GET",
        rule="/whoami",
        handler=whoami,
        answer=OwnIdentity,
        summary="Which identity this certificate is here, and of which host.",
    ),
    Route(
        method="POST",
        rule="/renewal",
        handler=renew,
        answer=RenewalAnswer,
        rate=Limits.decision,
        body=bodies.RenewalBody,
        summary="Have the certificate that asks renewed for a new key; ask again until it is.",
        also=frozenset({404, 409}),
    ),
    Route(
        method="GET",
        rule="/health",
        handler=health,
        answer=Health,
        summary="That the agent lives.",
    ),
    Route(
        method="GET",
        rule="/ready",
        handler=ready,
        answer=Readiness,
        unready=Unready,
        summary="Whether the agent can serve; 503 says why not.",
    ),
    Route(
        method="GET",
        rule="/openapi.json",
        handler=openapi,
        answer=None,
        summary="This interface as an OpenAPI document.",
    ),
)
