"""Approvers, grants and identities: what administrators look at and change."""

from typing import Any

from host_agent.api import body as bodies
from host_agent.api.request import AgentRequest
from host_agent.api.route import Route, Services
from host_agent.api.wire.people import ApproverList, Enrolment, GrantList, GrantView, Released
from host_agent.identity.registry import Role
from host_agent.policy.limits import Limits


async def approvers(services: Services, request: AgentRequest) -> ApproverList:
    """Show who approves over channels."""
    return await services.pipeline.enrolment.approvers(request.principal)


async def enrol(services: Services, request: AgentRequest, owner: str) -> Enrolment:
    """Offer a code to enrol by."""
    body = bodies.fit(bodies.EnrolBody, bodies.parse_object(await request.read_json()))
    return await services.pipeline.enrolment.offer_enrolment(request.principal, owner, body.channel)


async def grants(services: Services, request: AgentRequest) -> GrantList:
    return await services.pipeline.grants.list_grants(request.principal)


async def revoke_grant(services: Services, request: AgentRequest, grant_id: str) -> GrantView:
    await request.read_nothing()
    return await services.pipeline.grants.revoke_grant(request.principal, grant_id)


async def release(services: Services, request: AgentRequest, cn: str) -> Released:
    """End a hold-off."""
    await request.read_nothing()
    return await services.pipeline.fatigue.release(request.principal, cn)


ROUTES: tuple[Route[Any], ...] = (
    Route(
        method="GET",
        rule="/approvers",
        handler=approvers,
        answer=ApproverList,
        roles=(Role.ADMIN,),
        summary="Who approves, and over which channels each of them is reached.",
    ),
    Route(
        method="POST",
        rule="/approvers/<owner>/enrol",
        handler=enrol,
        answer=Enrolment,
        roles=(Role.ADMIN,),
        rate=Limits.decision,
        body=bodies.EnrolBody,
        summary="Make a one-time code by which an approver enrols over a channel.",
        also=frozenset({404, 409}),
    ),
    Route(
        method="GET",
        rule="/grants",
        handler=grants,
        answer=GrantList,
        roles=(Role.APPROVER, Role.ADMIN),
        summary="Bounded grants of the last 30 days, newest first.",
    ),
    Route(
        method="POST",
        rule="/grants/<grant_id>/revoke",
        handler=revoke_grant,
        answer=GrantView,
        roles=(Role.APPROVER, Role.ADMIN),
        rate=Limits.decision,
        summary="End a grant; no further run by it begins.",
        also=frozenset({404}),
    ),
    Route(
        method="POST",
        rule="/identities/<cn>/release",
        handler=release,
        answer=Released,
        roles=(Role.ADMIN,),
        rate=Limits.decision,
        summary="Forget what came to nothing of an identity so far, which ends its hold-off.",
        also=frozenset({404}),
    ),
)
