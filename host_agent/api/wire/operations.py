"""What can be asked for, and what became of an ask."""

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
