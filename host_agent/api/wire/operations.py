"""What can be asked for, and what became of an ask."""

from typing import Annotated

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
)
from pydantic.json_schema import SkipJsonSchema

from host_agent.api.wire.model import (
    Digest,
    Effect,
    Instant,
    Json,
    RequestState,
    Verdict,
    WireAnswer,
    WireModel,
    one_of,
)


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


class PreviewView(WireModel):
    """What would happen.

    `left_out` counts what `details` does not list, `undo` says how it is taken back, and `about` is
    what the host says of the resource.
    """

    model_config = ConfigDict(title="Preview")

    accuracy: Annotated[str, one_of("Accuracy")] = "none"
    summary: str = ""
    details: tuple[str, ...] = ()
    left_out: int = 0
    undo: str | SkipJsonSchema[None] = None
    about: str | None = None


class Ran(WireAnswer):
    """It is done: the operation ran and succeeded, or there was nothing to do.

    `state` is `succeeded` or `unchanged`. Where nothing was to be done nothing ran and nobody was
    asked; then `preview` says why.
    """

    request_id: str
    operation: str
    resource: str | None
    effect: Effect
    state: Annotated[str, one_of("Done")]
    digest: Digest
    outcome: Outcome = Field(description="Its exit code is null where nothing ran.")
    grant: str | SkipJsonSchema[None] = Field(default=None, description="The grant that it ran by.")
    preview: PreviewView | SkipJsonSchema[None] = None


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


class ApprovalsNeeded(WireModel):
    """How many different owners must say yes, and the role that they need; never who they are."""

    needed: int
    role: Annotated[str, one_of("Role")]


class OperationCase(WireModel):
    """What one rule says: of `values`, of what matches `patterns`, or of all that is offered."""

    verdict: Verdict
    rule: str
    values: tuple[str, ...] | SkipJsonSchema[None] = None
    patterns: tuple[str, ...] | SkipJsonSchema[None] = None
    reason_needed: bool = Field(description="Whether an ask without a reason is refused.")
    approvals: ApprovalsNeeded | SkipJsonSchema[None] = None
    words: str = Field(description="The same as a sentence.")


class OperationInfo(WireAnswer):
    """Something that can be asked for, with what this identity may say in it.

    `parameters` is a JSON Schema object. Where parameters hang together, its `oneOf` has each set
    of values, and its `properties` all of them.
    """

    model_config = ConfigDict(title="Operation")

    name: str = Field(description="The operation; each registered command is listed by itself.")
    tool: str = Field(description="Its name among tools: letters, digits, `_` and `-`; unique.")
    effect: Effect
    summary: str
    parameters: Json
    verdict: Verdict = Field(description="What policy says; `depends`: see `cases`.")
    cases: tuple[OperationCase, ...] = Field(description="Which rules decide, in their order.")
    reason_needed: bool = Field(description="Whether a case refuses an ask without a reason.")
    undo: str | SkipJsonSchema[None] = Field(default=None, description="How it is taken back.")


class OperationList(WireAnswer):
    """What this identity can ask for; what is denied altogether is not in it."""

    operations: tuple[OperationInfo, ...]
