"""The steps that tests of the request store take."""

from collections.abc import Sequence
from datetime import datetime

from host_agent.requests import model as machine
from host_agent.requests.model import Request
from host_agent.requests.notification import CodeHash, Notification, Purpose, prompt
from host_agent.store.admission import Inserted
from host_agent.store.store import RequestStore
from tests.support.stored_requests import NOW, a_decision


async def put(
    store: RequestStore,
    request: Request,
    *,
    notifications: Sequence[Notification] = (),
    total: int = 100,
    each: int = 100,
) -> Inserted:
    """Insert with caps that a test may lower."""
    return await store.insert(
        request, max_pending=total, max_pending_per_caller=each, notifications=notifications
    )


async def step(store: RequestStore, before: Request, after: Request) -> Request:
    """Store a step that must win, and return the request after it."""
    assert await store.transition(after, expected_version=before.version)
    return after


def approved(request: Request) -> Request:
    return machine.approve(
        request, a_decision(), roles=["approver"], digest=request.digest, now=NOW
    )


def a_code(
    request: Request,
    code_hash: str = "sha256:1",
    *,
    owner: str = "bob",
    channel: str = "signal",
    purpose: Purpose = Purpose.CONFIRM,
) -> CodeHash:
    return CodeHash(
        request_id=request.id, owner=owner, channel=channel, purpose=purpose, code_hash=code_hash
    )


def a_prompt(
    request: Request, owner: str = "bob", channel: str = "signal", *, at: datetime = NOW
) -> Notification:
    return prompt(request.id, owner, channel, now=NOW, at=at)


async def refusals(store: RequestStore, caller: str, since: datetime) -> int:
    """Return how many of the caller's requests came to nothing since then."""
    context = await store.ask_context(
        caller, "git.log", refused_since=since, denied_since=since, held_since=since, now=since
    )
    return context.refusals


async def others(store: RequestStore, denied_since: datetime, *, but: str) -> list[Request]:
    """Return what waits of librarian's operations, or was denied since, but for one of them."""
    context = await store.ask_context(
        "librarian",
        but,
        refused_since=denied_since,
        denied_since=denied_since,
        held_since=denied_since,
        now=denied_since,
    )
    return context.others
