"""The request store as the pipeline sees it: a port, and the values that cross it.

What any implementation promises is in `tests/contract/test_request_store.py`. Only errors of
`host_agent.errors` leave it: `StoreUnavailableError` for whatever the database or the host does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias

from host_agent.canonical import JsonValue
from host_agent.requests.facts import AskedBefore
from host_agent.requests.grant import Grant
from host_agent.requests.model import Digest, Request, RequestId, State
from host_agent.requests.notification import CodeHash, Contact, Failure, Notification

KEY_LIFETIME = timedelta(hours=24)
"""How long an idempotency key is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A caller's key for one ask: the hash of its body, and the request it would make.

    `now` is when it came in; the key is forgotten 24 hours later.
    """

    key: str
    body_sha256: str
    request_id: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What a key stands for. `body` is None while only the request that it made is known."""

    body_sha256: str
    status: int
    body: Mapping[str, JsonValue] | None
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inserted:
    """What became of an insert: the request as stored, new or attached to, and whom it cancelled.

    `superseded` are the older requests of the same wish that ended by it, as they are now: pending
    ones `cancelled` for another digest, and those found `expired`.
    """

    request: Request
    created: bool
    superseded: tuple[Request, ...] = ()


Requests: TypeAlias = list[Request]
"""A list of requests (inside the port, `list` is the name of a method)."""
Page: TypeAlias = tuple[Requests, str | None]
"""Requests, newest first, and the cursor of the next page, None at the end."""
CodeHashes: TypeAlias = list[CodeHash]
Notifications: TypeAlias = list[Notification]
Contacts: TypeAlias = list[Contact]
Grants: TypeAlias = list[Grant]


class Spent(StrEnum):
    """What became of a one-time id."""

    NEW = "new"
    REPLAYED = "replayed"
    FULL = "full"
    """No room: too many are within their time. It must be refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What stands between a caller and one more ask.

    `refusals` are the caller's requests that came to nothing: denied, expired, or withdrawn by the
    caller after somebody was asked. `others` are those of other operations that wait, or were
    denied, without output, oldest first. `grants` can be used for the operation.
    """

    refusals: int
    others: Requests
    grants: Grants


class RequestStore(Protocol):
    """The durable queue. A write is on disk when its call returns.

    A caller that is cancelled meanwhile may find its write done or not, never half.
    """

    async def open(self) -> None:
        """Make the store ready: create, check and migrate it."""
        ...

    async def close(self) -> None:
        """End after the writes under way; safe to call twice."""
        ...

    async def insert(
        self,
        request: Request,
        *,
        max_pending: int,
        max_pending_per_caller: int,
        idempotency: IdempotencyKey | None = None,
        notifications: Sequence[Notification] = (),
    ) -> Inserted:
        """Store `request`, or attach to the live one of the same caller and digest.

        Older pending requests of the same caller, operation and parameters with another digest are
        cancelled. The caps hold for pending requests only. `notifications` are stored in the same
        transaction, and only where the request is new.

        Raises:
            QueueFullError: too many are pending; nothing was stored or cancelled.
            IdempotencyConflictError: the key came with another body; nothing was stored.
        """
        ...

    async def get(self, request_id: str) -> Request | None:
        """Return the request of exactly this id."""
        ...

    async def find(self, prefix: str, *, caller: str | None = None) -> Request:
        """Return the request of this id, or of this unique prefix of one.

        With `caller`, only that caller's requests are looked at.

        Raises:
            RequestNotFoundError: there is none, or more than one.
        """
        ...

    async def live_by_digest(self, caller: str, digest: Digest) -> Request | None:
        """Return the caller's pending, approved or running request of this digest."""
        ...

    async def list(
        self, *, state: State | None, caller: str | None, limit: int, cursor: str | None
    ) -> Page:
        """Return up to `limit` requests, newest first, without standard output, error and data.

        Raises:
            InvalidParameterError: the cursor is not one of ours.
        """
        ...

    async def transition(
        self, request: Request, *, expected_version: int, grant: Grant | None = None
    ) -> bool:
        """Store a request's new state if it is still at `expected_version`; False if it is not.

        Only what may change is written (state, decisions, outcome, problem, end, version): what was
        asked for stays as it was asked. In the same transaction:

        - the codes of a request that leaves `pending` are spent;
        - its prompts that still wait are withdrawn once it has left `pending`;
        - once it has ended (`finished_at`), an outcome is stored for every owner and channel that
          its prompt was delivered to (also where a delivery comes in later: see
          `settle_notification`), with the prompt's owner and channel, due at once;
        - `grant` is stored.
        """
        ...

    async def due(self, now: datetime) -> Requests:
        """Return the first 500 pending or approved requests that are expired at `now`."""
        ...

    async def live(self) -> Requests:
        """Return everything pending, approved or running, oldest first."""
        ...

    async def ended_since(self, since: datetime) -> Requests:
        """Return what has ended since then, newest first, at most 5,000, without output."""
        ...

    async def next_expiry(self) -> datetime | None:
        """Return when the next pending or approved request expires."""
        ...

    async def pending_stats(self) -> tuple[int, datetime | None]:
        """Return how many are pending, and when the oldest of them was made."""
        ...

    async def asked_before(
        self, requests: Sequence[Request], since: datetime
    ) -> Sequence[AskedBefore]:
        """Return for each request how often the same operation on the same resource was asked.

        Counted is what has ended since then after a person was asked, whoever asked for it: at
        most 100. The request itself does not count.
        """
        ...

    async def newest_time(self) -> datetime | None:
        """Return the newest instant that the store knows: a floor for the clock."""
        ...

    async def purge(self, older_than: datetime) -> int:
        """Delete requests that ended before `older_than`; return how many."""
        ...

    async def ping(self) -> None:
        """Return if the store can be written now."""
        ...

    async def recall(self, caller: str, key: str, now: datetime) -> StoredAnswer | None:
        """Return what the caller's key stands for, unless it is forgotten."""
        ...

    async def remember(
        self,
        caller: str,
        key: str,
        *,
        body_sha256: str,
        status: int,
        body: Mapping[str, JsonValue],
        request_id: str | None,
        now: datetime,
    ) -> None:
        """Keep an answer under the caller's key for 24 hours, or until newer ones need the room.

        Raises:
            IdempotencyConflictError: the key stands for another body.
        """
        ...

    async def add_code(self, code: CodeHash) -> bool:
        """Keep the hash of a code, in place of an older one of this request, owner and channel.

        False if the request is not pending: such a code must not be sent.
        """
        ...

    async def codes(self, request_id: str) -> CodeHashes:
        """Return the hashes of the codes that are out for a request, spent ones left out."""
        ...

    async def code(self, code_hash: str) -> CodeHash | None:
        """Return what a hash belongs to, also where it is spent."""
        ...

    # -- notifications ------------------------------------------------------------------------

    async def add_notifications(self, notifications: Sequence[Notification]) -> None:
        """Store notifications; one of the same request, kind, owner and channel stays as it is."""
        ...

    async def due_notifications(self, now: datetime, *, limit: int) -> Notifications:
        """Return waiting notifications that are due, the longest due first."""
        ...

    async def next_notification(self) -> datetime | None:
        """Return when the next waiting notification is due."""
        ...

    async def settle_notification(self, notification: Notification, *, expected_tries: int) -> bool:
        """Store what a try came to, if nobody has settled that try before; False if so.

        Two processes that sent the same try leave one result. A notification that was withdrawn
        meanwhile stays withdrawn, but a delivery of it is stored as one; and a prompt delivered
        after its request has ended stores the outcome as `transition` would have.
        """
        ...

    async def notifications_of(self, request_id: str) -> Notifications:
        """Return all notifications of a request, in the order in which they were made."""
        ...

    async def hasten_notifications(self, request_id: str, owner: str, now: datetime) -> None:
        """Make an owner's waiting prompt that is next due, due now: another way to them failed."""
        ...

    async def prompt_by_reference(
        self, owner: str, channel: str, reference: str
    ) -> Notification | None:
        """Return the delivered prompt one of whose messages the channel calls `reference`."""
        ...

    async def waiting_notifications(self) -> Mapping[str, int]:
        """Return how many notifications wait, by channel."""
        ...

    # -- contacts -----------------------------------------------------------------------------

    async def contacts(self) -> Contacts:
        """Return every enrolled contact, and every disabled one."""
        ...

    async def put_contact(self, contact: Contact) -> bool:
        """Store a contact in place of the owner's older one on that channel.

        False if the address is another owner's on that channel; nothing was stored then.
        """
        ...

    async def disable_contact(
        self, owner: str, channel: str, address: str, *, failure: Failure, now: datetime
    ) -> bool:
        """Disable an owner's contact at `address`, also one that only the configuration names.

        False if it was disabled already.
        """
        ...

    async def offer_enrolment(
        self, owner: str, channel: str, *, code_hash: str, expires_at: datetime, by: str
    ) -> None:
        """Keep the hash of a one-time enrolment code, in place of the owner's older one.

        `by` is the owner of the admin who offers it; the contact keeps it.
        """
        ...

    async def enrol(
        self, channel: str, address: str, *, code_hash: str, now: datetime
    ) -> Contact | None:
        """Use up an enrolment code and store its owner's contact, in one transaction.

        It is disabled as `unrecorded` until `put_contact` says otherwise: it counts once it is
        written down that it does.

        None if there is no such code, it is expired, or the address is another owner's; a code is
        used up by success only.
        """
        ...

    # -- one-time ids -------------------------------------------------------------------------

    async def spend_nonce(
        self, scope: str, nonce: str, *, expires_at: datetime, now: datetime, capacity: int
    ) -> Spent:
        """Use up a one-time id of `scope`, atomically and durably.

        It lives through `expires_at`, that instant included. Expired ones make room first; when
        `capacity` are still alive, `FULL`.
        """
        ...

    # -- grants -------------------------------------------------------------------------------

    async def grants(self) -> Grants:
        """Return the grants of the last 30 days, newest first, at most 1,000; all live ones."""
        ...

    async def live_grants(self, caller: str, operation: str, now: datetime) -> Grants:
        """Return the grants of a caller and operation that can be used at `now`."""
        ...

    async def use_grant(self, grant_id: str, now: datetime) -> bool:
        """Use a grant once, if it can be used at `now`: counted before anything runs."""
        ...

    async def revoke_grant(self, grant_id: str, *, by: str, now: datetime) -> Grant | None:
        """Revoke the grant of this id, or unique prefix of one; None if there is no live one."""
        ...

    # -- the brake ----------------------------------------------------------------------------

    async def release(self, caller: str, *, by: str, now: datetime) -> None:
        """Forget a caller's refusals up to `now`: `standing` counts later ones only."""
        ...

    async def standing(
        self,
        caller: str,
        operation: str,
        *,
        refused_since: datetime,
        denied_since: datetime,
        now: datetime,
    ) -> Standing:
        """Return what decides about one more ask of `caller` for `operation`, in one look.

        A release forgets the refusals and denials before it.
        """
        ...


__all__ = [
    "KEY_LIFETIME",
    "CodeHashes",
    "IdempotencyKey",
    "Inserted",
    "Page",
    "RequestId",
    "RequestStore",
    "Requests",
    "StoredAnswer",
]
