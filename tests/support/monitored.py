"""The application of monitoring over an agent whose parts are as a test says."""

from host_agent.api.monitoring import create_metrics_app
from host_agent.api.wire.host import Readiness
from host_agent.http.exchange import Application
from tests.support.answers import parts

BODY = b"host_agent_up 1\n"


async def scrape() -> bytes:
    return BODY


def metrics_app(**members: str) -> Application:
    """Return the application over an agent whose parts are `ok`, but for `members`."""

    async def ready() -> Readiness:
        return Readiness.model_validate(parts(**members))

    return create_metrics_app(ready=ready, scrape=scrape)
