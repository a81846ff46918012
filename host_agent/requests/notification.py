"""Notifications, contacts and codes as the store keeps them. Pure values.

A notification names a request, an owner and a channel, never a text or a code: both are made when
it is sent. What must be told is durable before anybody is told.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import uuid4


class Kind(StrEnum):
    """What a notification tells."""

    PROMPT = "prompt"
    """A request waits for this owner's answer."""
    OUTCOME = "outcome"
    """What became of a request that this owner was asked about."""


class DeliveryState(StrEnum):
    """Where a notification is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    """The dead letters: given up after its last try, or refused for good."""
    WITHDRAWN = "withdrawn"
    """No longer worth telling: the request was decided first."""


class Failure(StrEnum):
    """Why a try failed. A closed set: nothing that a peer said is stored."""

    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed-out"
    REFUSED = "refused"
    RATE_LIMITED = "rate-limited"
    IDENTITY_CHANGED = "identity-changed"
    NOT_ENROLLED = "not-enrolled"
    NOT_CONFIGURED = "not-configured"
    BAD_ANSWER = "bad-answer"
    DEFECT = "defect"
    UNRECORDED = "unrecorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One thing to tell one owner over one channel.

    `id` stays the same over every try: a receiver knows a repeat by it. `tries` counts the
    sendings; `next_at` is when it is due. `reference` is the channel's own name for the message
    (a Signal timestamp), by which answers are bound to it, and `answer_reference` the name of the
    second message, which holds the code alone. Owners are case-folded.
    """

    id: str
    request_id: str
    kind: Kind
    owner: str
    channel: str
    state: DeliveryState
    created_at: datetime
    next_at: datetime
    tries: int = 0
    delivered_at: datetime | None = None
    reference: str | None = None
    failure: Failure | None = None
    answer_reference: str | None = None


def prompt(
    request_id: str, owner: str, channel: str, *, now: datetime, at: datetime
) -> Notification:
    """Return a prompt that is due `at`, not sent yet."""
    return Notification(
        id=uuid4().hex,
        request_id=request_id,
        kind=Kind.PROMPT,
        owner=owner.casefold(),
        channel=channel,
        state=DeliveryState.WAITING,
        created_at=now,
        next_at=at,
    )


class Purpose(StrEnum):
    """What a code may say."""

    CONFIRM = "confirm"
    """Approve or deny."""
    DENY = "deny"
    """Deny only: it travels where more than its approver can see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeHash:
    """The hash of a code that was sent for a request to an owner over a channel.

    `is_spent`: the request has left `pending`; kept only to tell its holder so.
    """

    request_id: str
    owner: str
    channel: str
    purpose: Purpose
    code_hash: str
    is_spent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Where an owner is reached over a channel, as enrolled or as met.

    `address` is what the channel proves of a sender (Signal: the ACI). `disabled` says why nothing
    is sent there and nothing is taken from there until it is enrolled anew. `offered_by` is the
    owner of the admin whose code it was enrolled with.
    """

    owner: str
    channel: str
    address: str
    since: datetime
    disabled: Failure | None = None
    offered_by: str | None = None
