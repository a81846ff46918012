"""Approvers and how they are reached, grants, and who a client is to the agent."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from host_agent.api.wire.model import Instant, Json, WireAnswer, WireModel, one_of


class ContactView(WireModel):
    """One way to an approver, how it stands, and the end of its address where it has one."""

    model_config = ConfigDict(title="Contact")

    channel: str
    state: str
    address: str | None


class ApproverView(WireAnswer):
    """A person who approves over channels."""

    model_config = ConfigDict(title="Approver")

    owner: str
    roles: tuple[str, ...]
    channels: tuple[ContactView, ...]


class ApproverList(WireAnswer):
    """Who approves over channels."""

    approvers: tuple[ApproverView, ...]


class Enrolment(WireAnswer):
    """A one-time code by which `owner` enrols over `channel`."""

    owner: str
    channel: str
    code: str
    expires_at: Instant


class GrantBody(BaseModel):
    """What an approval grants beyond this one run: exactly one of a time and a count."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    for_seconds: int | None = Field(
        default=None, ge=60, le=86_400, description="For so long, however often."
    )
    count: int | None = Field(
        default=None, ge=1, le=1000, description="For so many further runs, within 24 hours."
    )
    resource: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="A regular expression over whole resources; left out, exactly the request's.",
    )


class GrantView(WireAnswer):
    """A bounded grant. `uses_left` of None is bounded by time alone."""

    model_config = ConfigDict(title="Grant")

    grant_id: str
    request_id: str
    caller: str
    operation: str
    resource: str
    params: Json
    given_by: tuple[str, ...]
    created_at: Instant
    expires_at: Instant
    uses_left: int | None
    used: int
    is_live: bool
    revoked_at: Instant | None
    revoked_by: str | None


class GrantList(WireAnswer):
    """Grants, newest first."""

    grants: tuple[GrantView, ...]


class Released(WireAnswer):
    """An identity whose hold-off has ended."""

    cn: str
    released: Literal[True]


class RenewalAnswer(WireAnswer):
    """What became of a renewal: `waiting` for the authority, or `signed`, with the certificate."""

    model_config = ConfigDict(title="Renewal")

    state: Literal["waiting", "signed"]
    certificate: str | None = Field(description="The new certificate, PEM; null while it waits.")


class OwnIdentity(WireAnswer):
    """Who this client is to the agent: `owner` is whom it acts for, `host` the host's own name."""

    model_config = ConfigDict(title="Identity")

    cn: str
    owner: str
    roles: tuple[Annotated[str, one_of("Role")], ...]
    autonomy: Annotated[str, one_of("Autonomy")]
    host: str


class SignalAnswer(WireAnswer):
    """What to tell the sender of a message that was relayed; null: nothing."""

    answer: str | None
