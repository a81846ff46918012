"""A request, as it may be seen."""

from datetime import datetime
from typing import Annotated

from pydantic import (
    ConfigDict,
    Field,
)
from pydantic.json_schema import SkipJsonSchema

from host_agent.api.wire.model import (
    Digest,
    Effect,
    Instant,
    Json,
    RequestState,
    WireAnswer,
    WireModel,
    one_of,
)
from host_agent.api.wire.operations import Outcome, PreviewView
from host_agent.api.wire.recovery import RecoveryView


class RequestProblem(WireModel):
    """Why a request was refused late, or failed; `decision_reason` is what who denied it wrote."""

    code: Annotated[str, one_of("Code")]
    detail: str
    recovery: RecoveryView | SkipJsonSchema[None] = None
    decision_reason: str | SkipJsonSchema[None] = None


class DecisionView(WireModel):
    """One person's answer; `approver` is the certificate's name, over a channel the owner."""

    approver: str
    owner: str
    decision: Annotated[str, one_of("Verb")]
    channel: str
    at: Instant
    reason: str | None
    not_before: Instant | SkipJsonSchema[None] = Field(
        default=None, description="Of a denial: people are not asked for the same before."
    )


class HistoryView(WireModel):
    """How often the same was asked of people within a day, and how often denied; `last` denial."""

    model_config = ConfigDict(title="AskedBefore")

    times: int
    denied: int
    last: DecisionView | None


class ApprovalsView(WireModel):
    """Whose yes it takes: `needed` different owners, of `approvers` or of all with the role."""

    model_config = ConfigDict(title="Approvals")

    needed: int
    given: int
    approvers: tuple[str, ...] | None
    approver_role: str


class DeliveryView(WireModel):
    """How far a notification has come: to whom and over what, never where."""

    model_config = ConfigDict(title="Delivery")

    approver: str
    channel: str
    kind: Annotated[str, one_of("DeliveryKind")]
    state: Annotated[str, one_of("DeliveryState")]
    tries: int
    failure: Annotated[str, one_of("DeliveryFailure")] | None
    at: Instant | None = Field(description="When it was delivered.")


class RequestView(WireAnswer):
    """One request, as this principal may see it."""

    model_config = ConfigDict(title="Request")

    request_id: str
    state: RequestState
    host: str = Field(description="The host that would change.")
    operation: str
    effect: Effect | None = Field(description="Null for what this version does not have.")
    verb: str = Field(description="The operation in a word: DESTROY.")
    subject: str = Field(description="What it is done to, in words, escaped.")
    resource: str | None
    caller: str
    owner: str
    unix_user: str | None
    runs_as: str | None = Field(description="The user that the process changes to.")
    params: Json
    reason: str | None
    digest: Digest
    rule: str
    created_at: Instant
    expires_at: Instant
    preview: PreviewView | None
    precondition: Json | None
    approvals: ApprovalsView
    decisions: tuple[DecisionView, ...]
    asked_before: HistoryView | None
    outcome: Outcome | None
    problem: RequestProblem | None
    finished_at: Instant | None
    preview_sha256: Digest | None = Field(
        default=None, description="Of the preview that people were shown, where one is shown alone."
    )
    deliveries: tuple[DeliveryView, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Return whether the state is final."""
        return self.finished_at is not None

    def seconds_left(self, now: datetime) -> float:
        """Return the seconds until it expires, never below 0."""
        return max(0.0, (self.expires_at - now).total_seconds())


class RequestPage(WireAnswer):
    """Some requests, newest first; `next_cursor` asks for the ones after them."""

    requests: tuple[RequestView, ...]
    next_cursor: str | None
