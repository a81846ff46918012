"""What bridges relay: answers that they sign, and messages that arrived over Signal."""

from typing import Any

from host_agent.api import body as bodies
from host_agent.api.request import AgentRequest
from host_agent.api.route import Route, Services
from host_agent.api.wire.people import SignalAnswer
from host_agent.api.wire.requests import RequestView
from host_agent.identity.registry import Role
from host_agent.pipeline.bridges import SignedMessage
from host_agent.policy.limits import Limits
from host_agent.requests.model import Verb


async def bridged_decision(services: Services, request: AgentRequest) -> RequestView:
    """Take a relayed answer. The signature is over the body's bytes, and asked first."""
    data = await request.read_json()
    signed = SignedMessage(
        message_id=request.headers.get("webhook-id"),
        timestamp=request.headers.get("webhook-timestamp"),
        signature=request.headers.get("webhook-signature"),
        body=data,
    )
    await services.pipeline.bridges.accept(request.principal, signed)
    said = bodies.parse_bridged(data)
    return await services.pipeline.bridges.decide_by_bridge(
        request.principal,
        said.request_id,
        user=said.user,
        decision=Verb(said.decision),
        digest=said.digest,
        reason=said.reason,
        grant=bodies.terms_of(said.grant),
        not_before=said.not_before,
    )


async def bridged_signal(services: Services, request: AgentRequest) -> SignalAnswer:
    """Take a message that arrived over Signal."""
    said = bodies.fit(bodies.BridgedSignalBody, bodies.parse_object(await request.read_json()))
    return await services.pipeline.bridges.relay_signal(request.principal, said.received())


ROUTES: tuple[Route[Any], ...] = (
    Route(
        method="POST",
        rule="/webhook/decision",
        handler=bridged_decision,
        answer=RequestView,
        roles=(Role.BRIDGE,),
        rate=Limits.decision,
        body=bodies.BridgedDecisionBody,
        summary="A person's answer, relayed and signed by a bridge.",
        also=frozenset({401, 404, 409, 410}),
    ),
    Route(
        method="POST",
        rule="/webhook/signal",
        handler=bridged_signal,
        answer=SignalAnswer,
        roles=(Role.BRIDGE,),
        rate=Limits.decision,
        body=bodies.BridgedSignalBody,
        summary="A message that arrived over Signal, as signal-cli-rest-api posts it.",
        is_older=True,
    ),
)
