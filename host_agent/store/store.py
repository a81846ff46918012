"""The durable queue on SQLite: a journal that is synced, one writer.

Every write is a compare-and-set or an insert under a unique index, inside `BEGIN IMMEDIATE`: one
winner, whatever races, in this process or another one on the same file. Reads have a connection of
their own and never wait for a write.

What it promises is in `tests/contract/test_request_store.py`. Only errors of `host_agent.errors`
leave it: `StoreUnavailableError` for whatever the database or the host does.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import wraps
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from host_agent.canonical import JsonValue
from host_agent.requests.grant import Grant
from host_agent.requests.model import LIVE, Request
from host_agent.requests.notification import Notification
from host_agent.store import (
    admission,
    answers,
    codec,
    codes,
    contacts,
    grants,
    nonces,
    notifications,
    refusals,
    requests,
    schema,
    transitions,
)
from host_agent.store.admission import Caps, Inserted
from host_agent.store.answers import IdempotencyKey
from host_agent.store.database import Database, transaction, unavailable
from host_agent.store.files import StoreFiles
from host_agent.store.integrity import Integrity
from host_agent.store.writer import Tally, Writer, read_commits

TRIM_EVERY = 100
"""After so many remembered answers the caller's bounds are looked at."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method: TypeAlias = Callable[Concatenate["RequestStore", _P], Coroutine[Any, Any, _T]]


def _reading(look: Callable[Concatenate[Connection, _P], _T]) -> _Method[_P, _T]:
    """Return a method that looks at one state of the database, as `look` says."""

    @wraps(look)
    async def read(self: "RequestStore", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self._read_from.read(lambda connection: look(connection, *args, **kwargs))

    return read


def _writing(work: Callable[Concatenate[Connection, _P], _T]) -> _Method[_P, _T]:
    """Return a method that does `work`, and returns once it is on disk."""

    @wraps(work)
    async def write(self: "RequestStore", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        self._integrity.require_whole()
        return await self._writer.write(
            lambda connection, _tally: work(connection, *args, **kwargs)
        )

    return write


class RequestStore:
    """The durable queue in one SQLite file. A write is on disk when its call returns.

    A caller that is cancelled meanwhile may find its write done or not, never half.
    """

    def __init__(self, path: Path) -> None:
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
        with transaction(connection):
            schema.prepare(connection)
            count = read_commits(connection)
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
        self._integrity.require_whole()
        await self._writer.write(lambda _connection, _tally: None)

    # -- requests ---------------------------------------------------------------------------------

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
        if request.state not in LIVE:
            message = f"a request is stored first while it is live, not {request.state}"
            raise RuntimeError(message)
        if any(one.request_id != request.id for one in notifications):
            message = f"a notification that comes with request {request.id} is about another one"
            raise RuntimeError(message)
        self._integrity.require_whole()
        caps = Caps(pending=max_pending, pending_of_caller=max_pending_per_caller)
        return await self._writer.write(
            lambda connection, tally: admission.admit(
                connection, tally, request, caps, idempotency, notifications
            )
        )

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

        A step that the state machine does not have is a defect, not a race: `RuntimeError`.
        """
        if request.version != expected_version + 1:
            message = f"version {request.version} does not follow {expected_version}"
            raise RuntimeError(message)
        self._integrity.require_whole()
        output = codec.output_of(request)
        return await self._writer.write(
            lambda connection, tally: transitions.transition(
                connection,
                tally,
                request,
                expected_version=expected_version,
                output=output,
                grant=grant,
            )
        )

    async def purge(self, older_than: datetime) -> int:
        """Delete requests that ended before `older_than`, a bounded number a transaction.

        Returns how many.
        """
        purged = 0
        while True:
            deleted = await self._writer.write(
                lambda connection, _tally: transitions.purge(connection, older_than)
            )
            purged += deleted
            if deleted < transitions.PURGE_AT_ONCE:
                return purged

    # Each is one function of a module, in the transaction of its own. A method that is called as
    # its module is comes last there: from then on the name is the method's.
    get = _reading(requests.get)
    find = _reading(requests.find)
    live_by_digest = _reading(requests.live_of_digest)
    list = _reading(requests.page)
    live = _reading(requests.live)
    due = _reading(requests.due)
    ended_since = _reading(requests.ended_since)
    next_expiry = _reading(requests.next_expiry)
    pending_stats = _reading(requests.pending_stats)
    asked_before = _reading(requests.asked_before)
    newest_time = _reading(requests.newest_time)
    ask_context = _reading(refusals.ask_context)
    denials = _reading(refusals.denials)
    release = _writing(refusals.release)

    # -- answers ----------------------------------------------------------------------------------

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
        packed = codec.pack(body)
        self._remembered += 1
        is_trim_due = self._remembered % TRIM_EVERY == 0

        def work(connection: Connection, _tally: Tally) -> None:
            answers.remember(
                connection, caller, named, status=status, body=packed, request_id=request_id
            )
            if is_trim_due:
                answers.trim(connection, caller, now)

        await self._writer.write(work)

    recall = _reading(answers.recall)

    # -- codes ------------------------------------------------------------------------------------

    add_code = _writing(codes.add)
    code = _reading(codes.by_hash)
    codes = _reading(codes.of_request)

    # -- notifications ----------------------------------------------------------------------------

    add_notifications = _writing(notifications.add)
    settle_notification = _writing(notifications.settle)
    hasten_notifications = _writing(notifications.hasten)
    due_notifications = _reading(notifications.due)
    next_notification = _reading(notifications.next_due)
    notifications_of = _reading(notifications.of_request)
    prompt_by_reference = _reading(notifications.by_reference)
    waiting_notifications = _reading(notifications.waiting)

    # -- contacts ---------------------------------------------------------------------------------

    put_contact = _writing(contacts.put)
    disable_contact = _writing(contacts.disable)
    offer_enrolment = _writing(contacts.offer)
    enrol = _writing(contacts.enrol)
    contacts = _reading(contacts.all_of)

    # -- one-time ids -----------------------------------------------------------------------------

    spend_nonce = _writing(nonces.spend)

    # -- grants -----------------------------------------------------------------------------------

    use_grant = _writing(grants.use)
    revoke_grant = _writing(grants.revoke)
    live_grants = _reading(grants.live_of)
    grants = _reading(grants.recent)
