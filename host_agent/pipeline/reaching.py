"""Whom a request can be put before: who could say yes, and how each of them is told."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from host_agent.approvals.notification import Notification, prompt
from host_agent.approvals.request import Terms, is_eligible, is_same_owner
from host_agent.errors import UnreachableError
from host_agent.identity.registry import Role
from host_agent.pipeline.book import Book
from host_agent.pipeline.rooms import Rooms, Snapshot


def require_reachable(rooms: Rooms, terms: Terms, caller_owner: str) -> None:
    """Refuse what nobody could approve, at once.

    Raises:
        UnreachableError: fewer owners than are needed can be reached and could say yes.
    """
    able = eligible(rooms, terms, caller_owner)
    if len(able) < terms.approvals:
        message = (
            f"This needs {terms.approvals} approval(s) by other owners and only {len(able)} "
            "could give one; ask the administrator of this host."
        )
        raise UnreachableError(message)


def eligible(rooms: Rooms, terms: Terms, caller_owner: str) -> frozenset[str]:
    """Return the owners, not the caller's, who can be reached and could say yes under `terms`.

    Somebody is reached by looking into the queue with a certificate, where that counts, or over a
    channel that delivers; and says yes with a certificate, over Signal, or through a bridge.
    """
    config, book = rooms.snapshot.config, rooms.book
    relayed = _relayed(rooms.snapshot, caller_owner)
    certified = rooms.snapshot.registry.owners_with_role(Role(terms.approver_role))
    named = certified if terms.approvers is None else certified & terms.approvers
    able = set(named) if config.counts_command_line else set()
    for owner in _told(book, terms):
        channels = book.channels_of(owner)
        is_met = "signal" in channels and not is_same_owner(
            book.voucher(owner, "signal") or "", caller_owner
        )
        if owner in named or is_met or ("webhook" in channels and owner in relayed):
            able.add(owner)
    return frozenset(able - {caller_owner.casefold()})


def prompts(
    rooms: Rooms, terms: Terms, caller_owner: str, request_id: str, now: datetime
) -> tuple[Notification, ...]:
    """Return what is to be sent for a request: to each approver, one channel after the other.

    Owners equal to the caller's get none.
    """
    pause = timedelta(seconds=rooms.snapshot.config.approvals.escalate_seconds)
    return tuple(
        prompt(request_id, owner, channel, now=now, at=now + position * pause)
        for owner in _told(rooms.book, terms)
        if owner != caller_owner.casefold()
        for position, channel in enumerate(rooms.book.channels_of(owner))
    )


def _told(book: Book, terms: Terms) -> Iterator[str]:
    """Yield the owners whose answers over channels count under `terms`, and who can be reached."""
    for owner, entry in book.entries.items():
        if is_eligible(terms, owner, entry.roles) and book.channels_of(owner):
            yield owner


def _relayed(snapshot: Snapshot, caller_owner: str) -> frozenset[str]:
    """Return the owners for whom a bridge may answer what `caller_owner` asks for."""
    return frozenset(
        said.casefold()
        for bridge in snapshot.config.bridges
        if (own := snapshot.identity(bridge.cn)) is not None
        and not is_same_owner(own.acts_for, caller_owner)
        for said in bridge.approvers.values()
        if not is_same_owner(said, own.acts_for)
    )
