"""How a stored request changes: by compare-and-set, with everything that goes with the step.

These functions run inside the writer's transaction: the new state, the codes that die with it, the
prompts that are no longer worth sending, the outcomes that are owed, all of it or nothing.
"""

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or

from host_agent.requests.grant import Grant
from host_agent.requests.model import TRANSITIONS, Request, State
from host_agent.store import code_rows, grant_rows, outbox_rows, queries, rows
from host_agent.store.schema import outputs, requests
from host_agent.store.writer import Tally

PURGE_AT_ONCE = 500

_c = requests.c
_MOVE = update(requests).where(_c.id == bindparam("key_id"), _c.version == bindparam("key_version"))
_ADD_OUTPUT = insert_or(outputs).prefix_with("OR REPLACE")
_OLD = (
    select(_c.sequence)
    .where(_c.finished_at.is_not(None), _c.finished_at < bindparam("before"))
    .limit(bindparam("at_once"))
)
_PURGE = delete(requests).where(_c.sequence.in_(_OLD))


def move(
    connection: Connection, tally: Tally, request: Request, *, before: State, expected_version: int
) -> bool:
    """Store a request's new state by compare-and-set; say whether it was at `expected_version`.

    `before` is the state that it has at that version.
    """
    keys = {"key_id": request.id, "key_version": expected_version}
    moved = connection.execute(_MOVE, {**rows.moved_row(request), **keys})
    if moved.rowcount != 1:
        return False
    tally.forget()
    has_left_pending = before is State.PENDING and request.state is not State.PENDING
    if has_left_pending:
        code_rows.spend(connection, request.id)
    if before is State.APPROVED and request.finished_at is not None:
        grant_rows.void(connection, request.id, request.finished_at)
    if has_left_pending or request.finished_at is not None:
        outbox_rows.withdraw_and_tell(
            connection, request.id, has_left_pending=has_left_pending, ended=request.finished_at
        )
    return True


def transition(
    connection: Connection,
    tally: Tally,
    request: Request,
    *,
    expected_version: int,
    output: bytes | None,
    grant: Grant | None,
) -> bool:
    """Do what `RequestStore.transition` says; `output` is what `rows.output_of` made.

    Raises:
        RuntimeError: the state machine does not have this step.
    """
    stored = queries.stored_state(connection, request.id)
    if stored is None or stored[1] != expected_version:
        return False
    before = stored[0]
    is_voice = before is request.state is State.PENDING
    if not is_voice and request.state not in TRANSITIONS.get(before, frozenset()):
        message = f"request {request.id} cannot go from {before} to {request.state}"
        raise RuntimeError(message)
    moved = move(connection, tally, request, before=before, expected_version=expected_version)
    if moved and output is not None:
        connection.execute(_ADD_OUTPUT, {"request_id": request.id, "body": output})
    if moved and grant is not None:
        grant_rows.add(connection, grant)
    return moved


def purge(connection: Connection, older_than: datetime) -> int:
    """Delete up to `PURGE_AT_ONCE` requests that ended before `older_than`, with what is theirs.

    Grants stay; those that ended so long before that nothing lists them any more go as well.
    """
    keys = {"before": rows.microseconds(older_than), "at_once": PURGE_AT_ONCE}
    deleted = connection.execute(_PURGE, keys).rowcount
    grant_rows.forget(connection, older_than)
    return deleted
