"""What the agent answers, as models: the views build them, OpenAPI prints them, clients read them.

Members are answered in the order in which they stand here, and those that were not given are left
out. A reader passes over members that it does not know. Text in here is the host's or somebody's:
escape it before a person's terminal sees it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from host_agent.clock import rfc3339
from host_agent.errors import InvalidAnswerError, Recovery
from host_agent.text import DIGEST

VOCABULARY = "x-vocabulary"
"""The key by which a text's schema names the closed set that it is from; OpenAPI has the sets."""


def _from(vocabulary: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", VOCABULARY: vocabulary})


Instant = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str)]
"""RFC 3339 in UTC."""
Digest = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{DIGEST}$"})]
RequestState = Annotated[str, _from("State")]
Effect = Annotated[str, _from("Effect")]
Verdict = Annotated[str, _from("Verdict")]
Json = dict[str, JsonValue]
"""A JSON object whose members an operation defines."""
_KEPT = object()


class WireModel(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    def as_json(self) -> dict[str, Any]:
        """Return it as it is answered."""
        return self.model_dump(mode="json", exclude_unset=True)


def name_of(model: type[WireModel]) -> str:
    """Return the name of a model in the OpenAPI document."""
    return str(model.model_config.get("title", model.__name__))


class WireAnswer(WireModel):
    """A whole answer, or a row of one, which keeps the object that it was read from."""

    _body: dict[str, JsonValue] = PrivateAttr(default_factory=dict)

    @property
    def body(self) -> dict[str, JsonValue]:
        """Return the object as it came, unknown members included; empty where none was read."""
        return self._body

    @classmethod
    def parse(cls, body: Mapping[str, JsonValue]) -> Self:
        """Return `body` as this value.

        Raises:
            InvalidAnswerError: a member is missing or has another type than it should.
        """
        try:
            return cls.model_validate(body, context=_KEPT)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            message = f"The agent's answer has no usable `{where}`: is it a newer version?"
            raise InvalidAnswerError(message) from None

    @model_validator(mode="wrap")
    @classmethod
    def _keep(
        cls, value: object, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        made = validate(value)
        if info.context is _KEPT and isinstance(value, Mapping):
            made._body.update(value)  # noqa: SLF001 - it is this very class
        return made


# -- an operation ---------------------------------------------------------------------------------


class Outcome(WireModel):
    """What the host did.

    `verified` is what the probe saw: None where there was none. Output and what is about it are
    left out where this principal may not see them.
    """

    exit_code: int | None
    stdout: str | SkipJsonSchema[None] = None
    stderr: str | SkipJsonSchema[None] = None
    truncated: bool = Field(default=False, description="Whether the output was cut.")
    stdout_bytes: int | SkipJsonSchema[None] = Field(
        default=None, description="The true size of standard output, as of standard error."
    )
    stderr_bytes: int | SkipJsonSchema[None] = None
    stdout_sha256: str | SkipJsonSchema[None] = Field(
        default=None, description="Of all of standard output, in hex."
    )
    duration_ms: int | SkipJsonSchema[None] = None
    data: JsonValue = Field(default=None, description="The output as the operation reads it.")
    verified: bool | None
    audited: bool | SkipJsonSchema[None] = Field(
        default=None, description="False where the end could not be written to the audit log."
    )


class Ran(WireAnswer):
    """The operation ran and succeeded; by the grant `grant`, where there was one."""

    request_id: str
    operation: str
    resource: str | None
    effect: Effect
    state: RequestState
    digest: Digest
    outcome: Outcome
    grant: str | SkipJsonSchema[None] = Field(default=None, description="The grant that it ran by.")


class Held(WireAnswer):
    """Nothing has run: the request waits for people, or runs for an earlier identical ask."""

    request_id: str
    operation: str
    state: RequestState
    digest: Digest
    expires_at: Instant
    rule: str
    poll_after_seconds: int
    message: str


class OperationInfo(WireAnswer):
    """One operation of the catalogue.

    `parameters` is a JSON Schema object; `verdict` is what policy says to this principal.
    """

    model_config = ConfigDict(title="Operation")

    name: str
    effect: Effect
    summary: str
    parameters: Json
    verdict: Verdict


class OperationList(WireAnswer):
    """What can be asked for."""

    operations: tuple[OperationInfo, ...]


# -- what to do next ------------------------------------------------------------------------------


class FaultView(WireModel):
    """One thing to correct.

    `pointer` (RFC 6901) leads into the body in the typed form, or into the query, the header
    section or the path as an object of their names; empty is all of it.
    """

    model_config = ConfigDict(title="Fault")

    pointer: str
    message: str
    place: Annotated[str, _from("FaultPlace")] = Field(description="Where `pointer` begins.")


class RecoveryView(WireModel):
    """What to do about a problem, for programs; by `kind` it has further members.

    `change_parameters`: `faults`, at least one. `wait_for`: `request_id`, the same request, or
    `equivalent_to`, one that would have the same effect. `ask_again_after`: whole `seconds`, 0 for
    at once. `never` and `ask_a_person` have none.
    """

    model_config = ConfigDict(title="Recovery")

    kind: Annotated[str, _from("RecoveryKind")]
    faults: tuple[FaultView, ...] = ()
    request_id: str | SkipJsonSchema[None] = None
    equivalent_to: str | SkipJsonSchema[None] = None
    seconds: int | SkipJsonSchema[None] = Field(default=None, ge=0)

    @classmethod
    def of(cls, recovery: Recovery) -> Self:
        """Return `recovery` as it is answered."""
        given = {name: value for name, value in asdict(recovery).items() if value not in (None, ())}
        return cls.model_validate(given)


# -- a request ------------------------------------------------------------------------------------


class RequestProblem(WireModel):
    """Why a request was refused late, or failed; `decision_reason` is what who denied it wrote."""

    code: Annotated[str, _from("Code")]
    detail: str
    recovery: RecoveryView | SkipJsonSchema[None] = None
    decision_reason: str | SkipJsonSchema[None] = None


class PreviewView(WireModel):
    """What would happen.

    `left_out` counts what `details` does not list, `undo` says how it is taken back, and `about` is
    what the host says of the resource.
    """

    model_config = ConfigDict(title="Preview")

    accuracy: Annotated[str, _from("Accuracy")] = "none"
    summary: str = ""
    details: tuple[str, ...] = ()
    left_out: int = 0
    undo: str | SkipJsonSchema[None] = None
    about: str | None = None


class DecisionView(WireModel):
    """One person's answer; `approver` is the certificate's name, over a channel the owner."""

    approver: str
    owner: str
    decision: Annotated[str, _from("Verb")]
    channel: str
    at: Instant
    reason: str | None


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
    kind: Annotated[str, _from("DeliveryKind")]
    state: Annotated[str, _from("DeliveryState")]
    tries: int
    failure: Annotated[str, _from("DeliveryFailure")] | None
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


# -- people, grants, identities -------------------------------------------------------------------


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


class OwnIdentity(WireAnswer):
    """Who this client is to the agent: `owner` is whom it acts for, `host` the host's own name."""

    model_config = ConfigDict(title="Identity")

    cn: str
    owner: str
    roles: tuple[Annotated[str, _from("Role")], ...]
    autonomy: Annotated[str, _from("Autonomy")]
    host: str


class SignalAnswer(WireAnswer):
    """What to tell the sender of a message that was relayed; null: nothing."""

    answer: str | None


# -- the host and the agent -----------------------------------------------------------------------


class SudoersEntry(WireModel):
    """Something that sudo grants and that is not known to be safe."""

    file: str
    line: int
    rule: str
    severity: Annotated[str, _from("Severity")]
    reason: str
    remedy: str


class SudoersReport(WireAnswer):
    """What sudo grants that is not known to be safe; `scan_ok`: everything could be read."""

    model_config = ConfigDict(title="Sudoers")

    scan_ok: bool
    entries: tuple[SudoersEntry, ...]
    scanned_at: Instant


class Health(WireAnswer):
    """That the agent lives: whoever reads it knows that it answers."""

    status: Literal["ok"]
    version: str


class Serving(WireModel):
    """What tells the files that serve from those that lie there now."""

    configuration_sha256: str
    certificate_sha256: str
    client_ca_sha256: str
    crl_sha256: str | None
    crl_numbers: tuple[int | None, ...]


class Readiness(WireAnswer):
    """The state of each part of the agent: `ok`, or why not.

    `restart_needed` and `crl_file` are there only where something is to be said.
    """

    store: str
    audit: str
    crl: str
    certificate: str
    configuration: str
    restart_needed: bool | SkipJsonSchema[None] = None
    crl_file: str | SkipJsonSchema[None] = None
    serving: Serving
    sudoers: str
    root_list: str
    audit_sequence: int
    audit_head: str

    @property
    def is_ready(self) -> bool:
        """Return whether nothing keeps the agent from its work."""
        return {self.store, self.audit, self.crl, self.certificate} == {"ok"}


# -- problems -------------------------------------------------------------------------------------


class ProblemBody(WireModel):
    """Why not (RFC 9457).

    `outcome` is what the host did before it failed, `request` the request as it is by now.
    """

    model_config = ConfigDict(title="Problem")

    outcome: Outcome | SkipJsonSchema[None] = None
    request: RequestView | SkipJsonSchema[None] = None
    type: Annotated[str, _from("ProblemType")]
    title: str
    status: int
    detail: str
    code: Annotated[str, _from("Code")]
    recovery: RecoveryView
    exchange_id: str = Field(description="This exchange.")
    request_id: str = Field(description="`exchange_id` under its older name.", deprecated=True)
    retry_after_seconds: int | SkipJsonSchema[None] = Field(default=None, ge=1)


class Unready(ProblemBody, Readiness):
    """The problem of an agent that cannot serve, with the state of each part."""

    model_config = ConfigDict(title="Unready")


# -- a grant --------------------------------------------------------------------------------------


class GrantBody(BaseModel):
    """What an approval grants beyond this one run: exactly one of a time and a count."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

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
