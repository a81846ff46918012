"""The durable queue on SQLite: SQLAlchemy Core, a journal that is synced, one writer.

Every write is a compare-and-set or an insert under a unique index, inside `BEGIN IMMEDIATE`: one
winner, whatever races, in this process or another one on the same file. Reads have a connection of
their own and never wait for a write.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from host_agent.canonical import JsonValue
from host_agent.errors import ConfigurationError
from host_agent.requests.facts import AskedBefore
from host_agent.requests.grant import Grant
from host_agent.requests.model import LIVE, Digest, Request, State
from host_agent.requests.notification import CodeHash, Contact, Failure, Notification
from host_agent.store import (
    admission,
    answers,
    code_rows,
    contact_rows,
    grant_rows,
    moving,
    nonce_rows,
    outbox_rows,
    queries,
    refusal_rows,
    rows,
    schema,
)
from host_agent.store.database import Database, unavailable
from host_agent.store.files import StoreFiles
from host_agent.store.integrity import Integrity
from host_agent.store.port import (
    CodeHashes,
    Contacts,
    Grants,
    IdempotencyKey,
    Inserted,
    Notifications,
    Page,
    Requests,
    Spent,
    Standing,
    StoredAnswer,
)
from host_agent.store.writer import Tally, Writer

TRIM_EVERY = 100
"""After so many remembered answers the caller's bounds are looked at."""

_T = TypeVar("_T")


class SqlRequestStore:
    """The `RequestStore` on one SQLite file, `sqlite:///PATH`.

    Raises:
        ConfigurationError: `url` is not that of a SQLite file.
    """

    def __init__(self, url: str) -> None:
        path = _path(url)
        self._files = StoreFiles(path)
        self._write_to = Database(path, is_writer=True)
        self._read_from = Database(path, is_writer=False)
        self._writer = Writer(self._write_to, self._files)
        self._integrity = Integrity(path)
        self._remembered = 0

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Create, check and migrate the file, and begin to serve.

        Raises:
            StoreUnavailableError: it is damaged, locked, read-only, of a newer program, or an older
                copy of what was here before.
        """
        try:
            self._files.prepare()
        except OSError as error:
            raise unavailable(error) from error
        try:
            await self._write_to.open()
            await self._integrity.check()
            await self._write_to.run(self._prepare)
            await self._read_from.open()
        except BaseException:
            await self.close()
            raise
        self._writer.start()

    def _prepare(self, connection: Connection) -> None:
        with connection.begin():
            schema.prepare(connection)
            count = connection.execute(select(schema.commits.c.count)).scalar_one()
        self._files.watch(count)

    async def close(self) -> None:
        """Write what is queued and let go of the file; safe to call twice."""
        await self._integrity.close()
        await self._writer.close()
        await self._read_from.close()
        await self._write_to.close()
        self._files.close()

    async def ping(self) -> None:
        """Take the write lock and let it go: proves that a write would be taken, and costs no sync.

        Raises:
            StoreUnavailableError: it would not.
        """
        await self._write(lambda _connection: None)

    # -- write ------------------------------------------------------------------------------------

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

        Raises:
            QueueFullError: too many are pending; nothing was stored or cancelled.
            IdempotencyConflictError: the key came with another body; nothing was stored.
        """
        if request.state not in LIVE:
            message = f"a request is stored first while it is live, not {request.state}"
            raise RuntimeError(message)
        if any(one.request_id != request.id for one in notifications):
            message = f"a notification that comes with request {request.id} is about another one"
            raise RuntimeError(message)
        self._integrity.require_whole()
        caps = admission.Caps(pending=max_pending, pending_of_caller=max_pending_per_caller)
        return await self._writer.write(
            lambda connection, tally: admission.admit(
                connection, tally, request, caps, idempotency, notifications
            )
        )

    async def transition(
        self, request: Request, *, expected_version: int, grant: Grant | None = None
    ) -> bool:
        """Store a request's new state if it is still at `expected_version`; False if it is not.

        A step that the state machine does not have is a defect, not a race: `RuntimeError`.
        """
        if request.version != expected_version + 1:
            message = f"version {request.version} does not follow {expected_version}"
            raise RuntimeError(message)
        self._integrity.require_whole()
        output = rows.output_of(request)
        return await self._writer.write(
            lambda connection, tally: moving.transition(
                connection,
                tally,
                request,
                expected_version=expected_version,
                output=output,
                grant=grant,
            )
        )

    async def purge(self, older_than: datetime) -> int:
        """Delete requests that ended before `older_than`, a bounded number a transaction."""
        purged = 0
        while True:
            deleted = await self._writer.write(
                lambda connection, _tally: moving.purge(connection, older_than)
            )
            purged += deleted
            if deleted < moving.PURGE_AT_ONCE:
                return purged

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
        named = IdempotencyKey(
            key=key, body_sha256=body_sha256, request_id=request_id or "", now=now
        )
        packed = answers.pack(body)
        self._remembered += 1
        is_trim_due = self._remembered % TRIM_EVERY == 0

        def work(connection: Connection, _tally: Tally) -> None:
            answers.remember(
                connection, caller, named, status=status, body=packed, request_id=request_id
            )
            if is_trim_due:
                answers.trim(connection, caller, now)

        await self._writer.write(work)

    async def add_code(self, code: CodeHash) -> bool:
        """Keep the hash of a code in place of an older one; False if the request is not pending."""
        return await self._write(lambda connection: code_rows.add(connection, code))

    async def add_notifications(self, notifications: Sequence[Notification]) -> None:
        """Store notifications; one of the same request, kind, owner and channel stays as it is."""
        await self._write(lambda connection: outbox_rows.add(connection, notifications))

    async def settle_notification(self, notification: Notification, *, expected_tries: int) -> bool:
        """Store what a try came to, if nobody has settled that try before; False if so."""
        return await self._write(
            lambda connection: outbox_rows.settle(connection, notification, expected_tries)
        )

    async def hasten_notifications(self, request_id: str, owner: str, now: datetime) -> None:
        """Make an owner's waiting prompt that is next due, due now: another way to them failed."""
        await self._write(lambda connection: outbox_rows.hasten(connection, request_id, owner, now))

    async def put_contact(self, contact: Contact) -> bool:
        """Store a contact in place of the owner's older one; False if the address is another's."""
        return await self._write(lambda connection: contact_rows.put(connection, contact))

    async def disable_contact(
        self, owner: str, channel: str, address: str, *, failure: Failure, now: datetime
    ) -> bool:
        """Disable an owner's contact at `address`; False if it was disabled already."""
        contact = Contact(
            owner=owner, channel=channel, address=address, since=now, disabled=failure
        )
        return await self._write(lambda connection: contact_rows.disable(connection, contact))

    async def offer_enrolment(
        self, owner: str, channel: str, *, code_hash: str, expires_at: datetime, by: str
    ) -> None:
        """Keep the hash of a one-time enrolment code, in place of the owner's older one."""
        await self._write(
            lambda connection: contact_rows.offer(
                connection, owner, channel, code_hash=code_hash, expires_at=expires_at, by=by
            )
        )

    async def enrol(
        self, channel: str, address: str, *, code_hash: str, now: datetime
    ) -> Contact | None:
        """Use up an enrolment code and store its owner's contact; None leaves all as it is."""
        return await self._write(
            lambda connection: contact_rows.enrol(connection, channel, address, code_hash, now)
        )

    async def spend_nonce(
        self, scope: str, nonce: str, *, expires_at: datetime, now: datetime, capacity: int
    ) -> Spent:
        """Use up a one-time id of `scope`, atomically and durably."""
        return await self._write(
            lambda connection: nonce_rows.spend(
                connection, scope, nonce, expires_at=expires_at, now=now, capacity=capacity
            )
        )

    async def use_grant(self, grant_id: str, now: datetime) -> bool:
        """Use a grant once, if it can be used at `now`: counted before anything runs."""
        return await self._write(lambda connection: grant_rows.use(connection, grant_id, now))

    async def revoke_grant(self, grant_id: str, *, by: str, now: datetime) -> Grant | None:
        """Revoke the grant of this id, or unique prefix of one; None if there is no live one."""
        return await self._write(
            lambda connection: grant_rows.revoke(connection, grant_id, by, now)
        )

    async def release(self, caller: str, *, by: str, now: datetime) -> None:
        """Forget a caller's refusals up to `now`: `standing` counts later ones only."""
        await self._write(lambda connection: refusal_rows.release(connection, caller, by, now))

    # -- read -------------------------------------------------------------------------------------

    async def get(self, request_id: str) -> Request | None:
        """Return the request of exactly this id, with its output."""
        return await self._read(lambda connection: queries.get(connection, request_id))

    async def find(self, prefix: str, *, caller: str | None = None) -> Request:
        """Return the request of this id, or of this unique prefix of one.

        With `caller`, only that caller's requests are looked at.

        Raises:
            RequestNotFoundError: there is none, or more than one.
        """
        return await self._read(lambda connection: queries.find(connection, prefix, caller))

    async def live_by_digest(self, caller: str, digest: Digest) -> Request | None:
        """Return the caller's pending, approved or running request of this digest."""
        keys = {"caller": caller, "digest": digest}
        found = await self._requests(queries.LIVE_BY_DIGEST, keys)
        return found[0] if found else None

    async def list(
        self, *, state: State | None, caller: str | None, limit: int, cursor: str | None
    ) -> Page:
        """Return up to `limit` requests, newest first, without standard output, error and data.

        Raises:
            InvalidParameterError: the cursor is not one of ours.
        """
        query = queries.listing(state, caller, limit, cursor)
        return await self._read(lambda connection: queries.page(connection, query, limit))

    async def due(self, now: datetime) -> Requests:
        """Return the first 500 pending or approved requests that are expired at `now`."""
        return await self._requests(queries.DUE, {"now": rows.microseconds(now)})

    async def live(self) -> Requests:
        """Return everything pending, approved or running, oldest first."""
        return await self._requests(queries.ALL_LIVE, {})

    async def ended_since(self, since: datetime) -> Requests:
        """Return what has ended since then, newest first, at most 5,000, without output."""
        return await self._requests(queries.ENDED_SINCE, {"since": rows.microseconds(since)})

    async def next_expiry(self) -> datetime | None:
        """Return when the next pending or approved request expires."""
        return rows.optional_instant(
            await self._read(
                lambda connection: connection.execute(queries.NEXT_EXPIRY).scalar_one()
            )
        )

    async def pending_stats(self) -> tuple[int, datetime | None]:
        """Return how many are pending, and when the oldest of them was made."""
        count, oldest = await self._read(
            lambda connection: connection.execute(queries.PENDING_STATS).one()
        )
        return count, rows.optional_instant(oldest)

    async def standing(
        self,
        caller: str,
        operation: str,
        *,
        refused_since: datetime,
        denied_since: datetime,
        now: datetime,
    ) -> Standing:
        """Return what decides about one more ask of `caller` for `operation`, in one look."""

        def look(connection: Connection) -> Standing:
            return Standing(
                refusals=refusal_rows.refusals_of(connection, caller, refused_since),
                others=refusal_rows.refused_or_waiting(connection, caller, denied_since, operation),
                grants=grant_rows.live_of(connection, caller, operation, now),
            )

        return await self._read(look)

    async def asked_before(
        self, requests: Sequence[Request], since: datetime
    ) -> Sequence[AskedBefore]:
        """Return for each request how often the same was asked of people since then."""
        return await self._read(
            lambda connection: [
                queries.asked_before(connection, request, since) for request in requests
            ]
        )

    async def newest_time(self) -> datetime | None:
        """Return the newest instant that the store knows: a floor for the clock."""
        return await self._read(queries.newest_time)

    async def recall(self, caller: str, key: str, now: datetime) -> StoredAnswer | None:
        """Return what the caller's key stands for, unless it is forgotten."""
        return await self._read(lambda connection: answers.recall(connection, caller, key, now))

    async def codes(self, request_id: str) -> CodeHashes:
        """Return the hashes of the codes that are out for a request, spent ones left out."""
        return await self._read(lambda connection: code_rows.of_request(connection, request_id))

    async def code(self, code_hash: str) -> CodeHash | None:
        """Return what a hash belongs to, also where it is spent."""
        return await self._read(lambda connection: code_rows.by_hash(connection, code_hash))

    async def due_notifications(self, now: datetime, *, limit: int) -> Notifications:
        """Return waiting notifications that are due, the longest due first."""
        return await self._read(lambda connection: outbox_rows.due(connection, now, limit))

    async def next_notification(self) -> datetime | None:
        """Return when the next waiting notification is due."""
        return await self._read(outbox_rows.next_due)

    async def notifications_of(self, request_id: str) -> Notifications:
        """Return all notifications of a request, in the order in which they were made."""
        return await self._read(lambda connection: outbox_rows.of_request(connection, request_id))

    async def prompt_by_reference(
        self, owner: str, channel: str, reference: str
    ) -> Notification | None:
        """Return the delivered prompt that the channel calls `reference`."""
        return await self._read(
            lambda connection: outbox_rows.by_reference(connection, owner, channel, reference)
        )

    async def waiting_notifications(self) -> Mapping[str, int]:
        """Return how many notifications wait, by channel."""
        return await self._read(outbox_rows.waiting)

    async def contacts(self) -> Contacts:
        """Return every enrolled contact, and every disabled one."""
        return await self._read(contact_rows.all_of)

    async def grants(self) -> Grants:
        """Return the grants of the last 30 days, newest first, at most 1,000; all live ones."""
        return await self._read(grant_rows.recent)

    async def live_grants(self, caller: str, operation: str, now: datetime) -> Grants:
        """Return the grants of a caller and operation that can be used at `now`."""
        return await self._read(
            lambda connection: grant_rows.live_of(connection, caller, operation, now)
        )

    # -- how --------------------------------------------------------------------------------------

    async def _write(self, work: Callable[[Connection], _T]) -> _T:
        """Return what `work` returned, once it is on disk; a damaged store takes nothing."""
        self._integrity.require_whole()
        return await self._writer.write(lambda connection, _tally: work(connection))

    async def _read(self, work: Callable[[Connection], _T]) -> _T:
        return await self._read_from.read(work)

    async def _requests(self, query: Select[Any], keys: rows.Values) -> Requests:
        return await self._read(
            lambda connection: [rows.read_row(row) for row in connection.execute(query, keys)]
        )


def _path(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if (
        parsed is None
        or parsed.drivername != "sqlite"
        or parsed.host
        or parsed.query
        or not parsed.database
        or parsed.database.startswith(":")
    ):
        fault = "store.url: give `sqlite:///PATH` with the path of a file"
        raise ConfigurationError([fault])
    return Path(parsed.database)


__all__ = ["IdempotencyKey", "Inserted", "SqlRequestStore", "StoredAnswer"]
