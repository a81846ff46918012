"""The request store as the pipeline sees it: a port, and the values that cross it.

What any implementation promises is in `tests/contract/test_request_store.py`. Only errors of
`host_agent.errors` leave it: `StoreUnavailableError` for whatever the database or the host does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from host_agent.approvals.request import Digest, Request, RequestId, State
from host_agent.canonical import JsonValue

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
CodeHashes: TypeAlias = list[tuple[str, str]]
"""Approver's owner and the hash of the code made for them."""


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
    ) -> Inserted:
        """Store `request`, or attach to the live one of the same caller and digest.

        Older pending requests of the same caller, operation and parameters with another digest are
        cancelled. The caps hold for pending requests only.

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

    async def transition(self, request: Request, *, expected_version: int) -> bool:
        """Store a request's new state if it is still at `expected_version`; False if it is not.

        Only what may change is written (state, decisions, outcome, problem, end, version): what was
        asked for stays as it was asked. The codes of a request that leaves `pending` are deleted.
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

    async def refusals_of(self, caller: str, since: datetime) -> int:
        """Return how many of the caller's requests were denied or expired since then."""
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

    async def add_code(self, request_id: str, approver_owner: str, code_hash: str) -> bool:
        """Keep the hash of an approver's code, in place of an older one; False if not pending."""
        ...

    async def codes(self, request_id: str) -> CodeHashes:
        """Return the hashes of the codes that are out for a request."""
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
