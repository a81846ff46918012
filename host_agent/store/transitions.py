"""How a stored request changes: by compare-and-set, with everything that goes with the step.

These functions run inside the writer's transaction: the new state, the codes that die with it, the
prompts that are no longer worth sending, the outcomes that are owed, all of it or nothing.
"""

from datetime import datetime
from sqlite3 import Connection

from host_agent.requests.grant import Grant
from host_agent.requests.model import TRANSITIONS, Request, State
from host_agent.store import codec, codes, grants, notifications, requests
from host_agent.store.writer import Tally

PURGE_AT_ONCE = 500

_MOVE = """
UPDATE requests SET
    state = :state, decisions = :decisions, outcome = :outcome, problem = :problem,
    finished_at = :finished_at, version = :version
WHERE id = :id AND version = :expected_version
"""


def move(
    connection: Connection, tally: Tally, request: Request, *, before: State, expected_version: int
) -> bool:
    """Store a request's new state by compare-and-set; say whether it was at `expected_version`.

    `before` is the state that it has at that version.
    """
    keys = {"id": request.id, "expected_version": expected_version}
    moved = connection.execute(_MOVE, {**codec.transition_row(request), **keys})
    if moved.rowcount != 1:
        return False
    tally.forget()
    has_left_pending = before is State.PENDING and request.state is not State.PENDING
    if has_left_pending:
        codes.spend(connection, request.id)
    if before is State.APPROVED and request.finished_at is not None:
        grants.void(connection, request.id, request.finished_at)
    if has_left_pending or request.finished_at is not None:
        notifications.withdraw_and_tell(
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
    """Do what `RequestStore.transition` says; `output` is what `codec.output_of` made.

    Raises:
        RuntimeError: the state machine does not have this step.
    """
    stored = requests.stored_state(connection, request.id)
    if stored is None or stored[1] != expected_version:
        return False
    before = stored[0]
    is_voice = before is request.state is State.PENDING
    if not is_voice and request.state not in TRANSITIONS.get(before, frozenset()):
        message = f"request {request.id} cannot go from {before} to {request.state}"
        raise RuntimeError(message)
    moved = move(connection, tally, request, before=before, expected_version=expected_version)
    if moved and output is not None:
        store_output(connection, request.id, output)
    if moved and grant is not None:
        grants.add(connection, grant)
    return moved


_STORE_OUTPUT = "INSERT OR REPLACE INTO outputs (request_id, body) VALUES (:request_id, :body)"


def store_output(connection: Connection, request_id: str, body: bytes) -> None:
    """Store the large members of an outcome, as `codec.output_of` made them."""
    connection.execute(_STORE_OUTPUT, {"request_id": request_id, "body": body})


_PURGE = """
DELETE FROM requests WHERE sequence IN (
    SELECT sequence FROM requests
    WHERE finished_at IS NOT NULL AND finished_at < :before LIMIT :limit)
"""


def purge(connection: Connection, older_than: datetime) -> int:
    """Delete up to `PURGE_AT_ONCE` requests that ended before `older_than`, with what is theirs.

    Grants stay; those that ended so long before that nothing lists them any more go as well.
    """
    keys = {"before": codec.microseconds(older_than), "limit": PURGE_AT_ONCE}
    deleted = connection.execute(_PURGE, keys).rowcount
    grants.forget(connection, older_than)
    return deleted
