"""What the agent answers, as frozen values.

Members that an answer may lack are optional, and members that a newer agent adds are ignored;
`body` keeps the object as it came. Text in here is the host's or somebody's: escape it before a
person's terminal sees it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from host_agent.errors import InvalidAnswerError

LIVE: frozenset[str] = frozenset({"pending", "approved", "running"})
"""States that a request can still leave; every other one is final."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Answer(_Result):
    """A result that is a whole answer; `body` is the object that it was read from."""

    body: dict[str, JsonValue] = Field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, body: Mapping[str, JsonValue]) -> Self:
        """Return `body` as this value.

        Raises:
            InvalidAnswerError: a member is missing or has another type than it should.
        """
        try:
            return cls.model_validate({**body, "body": dict(body)})
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            message = f"The agent's answer has no usable `{where}`: is it a newer version?"
            raise InvalidAnswerError(message) from None


class Outcome(_Result):
    """What the host did.

    `verified` is what the probe saw: None where there was none. `stdout`, `stderr` and `data` are
    None where this principal may not see them.
    """

    exit_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    truncated: bool = False
    duration_ms: int | None = None
    data: JsonValue = None
    verified: bool | None = None


class Problem(_Result):
    """Why a request was refused late, or failed; `decision_reason` is what who denied it wrote."""

    code: str
    detail: str = ""
    decision_reason: str | None = None


class Preview(_Result):
    """What would happen: `accuracy` is exact, estimate or none.

    `left_out` counts what `details` does not list, `undo` says how it is taken back, and `about` is
    what the host says of the resource.
    """

    accuracy: str = "none"
    summary: str = ""
    details: tuple[str, ...] = ()
    left_out: int = 0
    undo: str | None = None
    about: str | None = None


class Decision(_Result):
    """One person's answer."""

    approver: str | None = None
    owner: str | None = None
    decision: str
    channel: str | None = None
    at: AwareDatetime | None = None
    reason: str | None = None


class AskedBefore(_Result):
    """How often the same was asked of people within a day, and how often denied; `last` denial."""

    times: int = 0
    denied: int = 0
    last: Decision | None = None


class Approvals(_Result):
    """Whose yes it takes: `needed` different owners, of `approvers` or of all with the role."""

    needed: int = 1
    given: int = 0
    approvers: tuple[str, ...] | None = None
    approver_role: str = "approver"


class GrantTerms(_Result):
    """What an approval grants beyond this one run: exactly one of a time and a count.

    `resource` is a regular expression over whole resources; None is exactly the request's own.
    """

    for_seconds: int | None = None
    count: int | None = None
    resource: str | None = None


class GrantView(_Answer):
    """A bounded grant. `uses_left` of None is bounded by time alone."""

    grant_id: str
    caller: str
    operation: str
    resource: str
    params: dict[str, JsonValue] = Field(default_factory=dict)
    request_id: str | None = None
    given_by: tuple[str, ...] = ()
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    uses_left: int | None = None
    used: int = 0
    is_live: bool = False
    revoked_at: AwareDatetime | None = None
    revoked_by: str | None = None


class ContactView(_Result):
    """One way to an approver, and how it stands."""

    channel: str
    state: str = ""
    address: str | None = None


class ApproverView(_Answer):
    """A person who approves over channels."""

    owner: str
    roles: tuple[str, ...] = ()
    channels: tuple[ContactView, ...] = ()


class Enrolment(_Answer):
    """A one-time code by which `owner` enrols over `channel`."""

    owner: str
    channel: str
    code: str
    expires_at: AwareDatetime | None = None


class Ran(_Answer):
    """The operation ran and succeeded; by the grant `grant`, where there was one."""

    request_id: str
    operation: str
    resource: str | None = None
    effect: str | None = None
    state: str = "succeeded"
    digest: str | None = None
    outcome: Outcome = Outcome()
    grant: str | None = None


class Held(_Answer):
    """Nothing has run: the request waits for people, or runs for an earlier identical ask."""

    request_id: str
    operation: str
    state: str = "pending"
    digest: str | None = None
    expires_at: AwareDatetime | None = None
    rule: str | None = None
    poll_after_seconds: float | None = None
    message: str = ""


class RequestView(_Answer):
    """One request, as this principal may see it."""

    request_id: str
    operation: str
    state: str
    resource: str | None = None
    caller: str | None = None
    owner: str | None = None
    unix_user: str | None = None
    host: str | None = None
    effect: str | None = None
    verb: str | None = None
    subject: str | None = None
    runs_as: str | None = None
    asked_before: AskedBefore | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict)
    reason: str | None = None
    digest: str | None = None
    rule: str | None = None
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    preview: Preview | None = None
    precondition: dict[str, JsonValue] | None = None
    approvals: Approvals | None = None
    decisions: tuple[Decision, ...] = ()
    outcome: Outcome | None = None
    problem: Problem | None = None

    @property
    def is_finished(self) -> bool:
        """Return whether the state is final."""
        return self.state not in LIVE

    def seconds_left(self, now: datetime) -> float | None:
        """Return the seconds until it expires, never below 0; None for one without an expiry."""
        if self.expires_at is None:
            return None
        return max(0.0, (self.expires_at - now).total_seconds())


class Page(_Answer):
    """Some requests, newest first; `next_cursor` asks for the ones after them."""

    requests: tuple[RequestView, ...] = ()
    next_cursor: str | None = None

    @classmethod
    def parse(cls, body: Mapping[str, JsonValue]) -> Self:
        """Return `body` as a page, each request with its own body.

        Raises:
            InvalidAnswerError: a member is missing or has another type than it should.
        """
        rows = body.get("requests")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            message = "The agent's answer has no usable `requests`: is it a newer version?"
            raise InvalidAnswerError(message)
        views = tuple(RequestView.parse(row) for row in rows if isinstance(row, dict))
        cursor = body.get("next_cursor")
        return cls(
            body=dict(body),
            requests=views,
            next_cursor=cursor if isinstance(cursor, str) else None,
        )


class OperationInfo(_Answer):
    """One operation of the catalogue.

    `parameters` is a JSON Schema object; `verdict` is what policy says to this principal: allow,
    ask, deny, or depends (on the resource).
    """

    name: str
    effect: str
    verdict: str = "depends"
    summary: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class OwnIdentity(_Answer):
    """Who this client is to the agent: `owner` is whom it acts for, `host` the host's own name."""

    cn: str
    owner: str
    roles: tuple[str, ...] = ()
    autonomy: str = ""
    host: str = ""


class Readiness(_Answer):
    """Whether the agent would run something now, and why not."""

    ready: bool
