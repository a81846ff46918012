"""What an ask would come to."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from host_agent.api.wire.model import Digest, Effect, Json, Verdict, WireAnswer, one_of
from host_agent.api.wire.operations import PreviewView
from host_agent.api.wire.requests import ApprovalsView

Would = Literal["run", "ask", "attach", "unchanged"]


class DryRun(WireAnswer):
    """What an ask would come to now. Nothing was run, stored or asked of anybody.

    `would`: `run` at once, `ask` people, `attach` to the request `attaches_to`, or do nothing, as
    there is nothing to do (`unchanged`). `verdict` and `rule` are what policy says; `approvals` is
    whose yes it takes. An ask for the same has the same `digest` as long as nothing changes.
    """

    exchange_id: str
    operation: str
    resource: str | None
    effect: Effect
    state: Literal["dry_run"]
    would: Annotated[str, one_of("Would")]
    verdict: Verdict
    rule: str
    digest: Digest
    runs_as: str | None = Field(description="The user that the process would change to.")
    approvals: ApprovalsView | None
    preview: PreviewView | None
    precondition: Json | None
    attaches_to: str | SkipJsonSchema[None] = None
