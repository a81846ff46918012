"""Why not: everything that is answered and is no success."""

from typing import Annotated

from pydantic import (
    ConfigDict,
    Field,
)
from pydantic.json_schema import SkipJsonSchema

from host_agent.api.wire.host import Readiness
from host_agent.api.wire.model import WireModel, one_of
from host_agent.api.wire.operations import Outcome
from host_agent.api.wire.recovery import RecoveryView
from host_agent.api.wire.requests import RequestView


class ProblemBody(WireModel):
    """Why not (RFC 9457).

    `outcome` is what the host did before it failed, `request` the request as it is by now.
    """

    model_config = ConfigDict(title="Problem")

    outcome: Outcome | SkipJsonSchema[None] = None
    request: RequestView | SkipJsonSchema[None] = None
    decision_reason: str | SkipJsonSchema[None] = Field(
        default=None, description="What the person who denied the same wrote."
    )
    type: Annotated[str, one_of("ProblemType")]
    title: str
    status: int
    detail: str
    code: Annotated[str, one_of("Code")]
    recovery: RecoveryView
    exchange_id: str = Field(description="This exchange.")
    request_id: str = Field(description="`exchange_id` under its older name.", deprecated=True)
    retry_after_seconds: int | SkipJsonSchema[None] = Field(default=None, ge=1)


class Unready(ProblemBody, Readiness):
    """The problem of an agent that cannot serve, with the state of each part."""

    model_config = ConfigDict(title="Unready")
