"""What happens, as `GET /events` tells it."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from host_agent.api.wire.model import Digest, Instant, Json, WireAnswer, WireModel, one_of

EVENT_STREAM = "text/event-stream"
EVENTS_GAP, EVENTS_DROPPED = "events.gap", "events.dropped"
"""The events of the stream itself: records that are not kept any more; a reader was too slow."""


class CutView(WireModel):
    """In place of a member that was too long for a record."""

    model_config = ConfigDict(title="Cut")

    length: int
    sha256: Digest


RecordedText = str | CutView | SkipJsonSchema[None]


class EventView(WireAnswer):
    """One audit record without its links in the chain; `sequence` is the event's id too.

    Which further members there are depends on the event: the page of the audit log has them.
    """

    model_config = ConfigDict(title="AgentEvent", extra="allow")

    sequence: int = Field(ge=1)
    time: Instant
    event: Annotated[str, one_of("EventName")]
    caller: RecordedText = None
    fingerprint: Digest | SkipJsonSchema[None] = None
    owner: RecordedText = None
    operation: RecordedText = None
    resource: RecordedText = None
    params: Json | SkipJsonSchema[None] = None
    digest: Digest | SkipJsonSchema[None] = None
    request_id: RecordedText = None
    outcome: Json | SkipJsonSchema[None] = None
    code: RecordedText = None
    reason: RecordedText = None


class MissedEvents(WireAnswer):
    """How many events are missing before the next one."""

    count: int = Field(ge=1)
