"""The routes about people, grants and identities: thin, as those of `app` are."""

from dataclasses import dataclass

from quart import Response

from host_agent.api import body as bodies
from host_agent.api.ports import AgentPort
from host_agent.api.problems import JSON, to_bytes
from host_agent.api.request import AgentRequest, current
from host_agent.api.wire import WireModel
from host_agent.errors import MalformedRequestError
from host_agent.identity.registry import Role


@dataclass(frozen=True, slots=True)
class AdministrationRoutes:
    """The handlers; each is named in `ROUTES`."""

    agent: AgentPort

    async def approvers(self) -> Response:
        """GET /approvers."""
        request = current()
        self.agent.pipeline.require_role(request.principal, Role.ADMIN)
        request.query()
        return _json(await self.agent.pipeline.approvers(request.principal))

    async def enrol(self, owner: str) -> Response:
        """POST /approvers/{owner}/enrol."""
        request = current()
        self._admit_admin(request)
        body = bodies.fit(bodies.EnrolBody, bodies.parse_object(await request.read_json()))
        return _json(
            await self.agent.pipeline.offer_enrolment(request.principal, owner, body.channel)
        )

    async def grants(self) -> Response:
        """GET /grants."""
        request = current()
        self.agent.pipeline.require_role(request.principal, Role.APPROVER, Role.ADMIN)
        request.query()
        return _json(await self.agent.pipeline.list_grants(request.principal))

    async def revoke_grant(self, grant_id: str) -> Response:
        """POST /grants/{id}/revoke."""
        request = current()
        self.agent.pipeline.admit_decision(request.principal)
        await _read_nothing(request)
        return _json(await self.agent.pipeline.revoke_grant(request.principal, grant_id))

    async def release(self, cn: str) -> Response:
        """POST /identities/{cn}/release."""
        request = current()
        self._admit_admin(request)
        await _read_nothing(request)
        return _json(await self.agent.pipeline.release(request.principal, cn))

    def _admit_admin(self, request: AgentRequest) -> None:
        self.agent.pipeline.require_role(request.principal, Role.ADMIN)
        self.agent.pipeline.admit_decision(request.principal)


async def _read_nothing(request: AgentRequest) -> None:
    """Refuse a body where the path says it all."""
    request.query()
    if await request.read_body():
        message = "This takes no body; the path says it all."
        raise MalformedRequestError(message)


def _json(body: WireModel) -> Response:
    return Response(to_bytes(body.as_json()), 200, content_type=JSON)
