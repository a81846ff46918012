"""The routes of bridges: thin, as those of `app` are."""

from dataclasses import dataclass

from quart import Response

from host_agent.api import body as bodies
from host_agent.api.administration import AdministrationRoutes
from host_agent.api.problems import JSON, to_bytes
from host_agent.api.request import current
from host_agent.pipeline.bridges import Signed
from host_agent.requests.model import Verb


@dataclass(frozen=True, slots=True)
class BridgeRoutes(AdministrationRoutes):
    """The handlers; each is named in `ROUTES`."""

    async def bridged_decision(self) -> Response:
        """POST /webhook/decision. The signature is over the body's bytes, and asked first."""
        request = current()
        pipeline = self.agent.pipeline
        pipeline.admit_bridge(request.principal)
        data = await request.read_json()
        await pipeline.accept(
            request.principal,
            Signed(
                message_id=request.headers.get("webhook-id"),
                timestamp=request.headers.get("webhook-timestamp"),
                signature=request.headers.get("webhook-signature"),
                body=data,
            ),
        )
        said = bodies.parse_bridged(data)
        shown = await pipeline.decide_by_bridge(
            request.principal,
            said.request_id,
            user=said.user,
            decision=Verb(said.decision),
            digest=said.digest,
            reason=said.reason,
            grant=bodies.terms_of(said.grant),
        )
        return Response(to_bytes(shown.as_json()), 200, content_type=JSON)

    async def bridged_signal(self) -> Response:
        """POST /webhook/signal, the older way in for what arrives over Signal."""
        request = current()
        pipeline = self.agent.pipeline
        pipeline.admit_bridge(request.principal)
        said = bodies.fit(bodies.SignalBody, bodies.parse_object(await request.read_json()))
        answer = await pipeline.relay_signal(request.principal, said.received())
        return Response(to_bytes(answer.as_json()), 200, content_type=JSON)
