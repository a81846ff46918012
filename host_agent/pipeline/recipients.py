"""Whom a request can be put before: who could say yes, and how each of them is told."""

from collections.abc import Collection
from datetime import datetime, timedelta

from host_agent.errors import UnreachableError
from host_agent.pipeline.context import Context
from host_agent.policy import approvers
from host_agent.requests.model import Terms
from host_agent.requests.notification import Notification, prompt


def require_reachable(context: Context, terms: Terms, caller_owner: str) -> None:
    """Refuse what nobody could approve, at once.

    Raises:
        UnreachableError: fewer owners than are needed can be reached and could say yes.
    """
    able = eligible(context, terms, caller_owner)
    count = approvers.agreeing_of(able, terms.approvals)
    if count < terms.approvals:
        message = (
            f"This needs {terms.approvals} approval(s) by other owners and only {count} "
            f"could give one{_not_counted(context, terms, able, caller_owner)}; ask the"
            " administrator of this host."
        )
        raise UnreachableError(message)


def _not_counted(context: Context, terms: Terms, able: Collection[str], caller_owner: str) -> str:
    """Return how many more would count, were it not for a key of the configuration."""
    snapshot = context.snapshot
    left = approvers.certified(snapshot.registry, terms).difference(able, {caller_owner.casefold()})
    if snapshot.config.approvals.command_line or not left:
        return ""
    return (
        f" ({len(left)} more with a certificate would, but `approvals.command_line` of its"
        " configuration is false)"
    )


def eligible(context: Context, terms: Terms, caller_owner: str) -> approvers.Ways:
    """Return the owners, not the caller's, who can be reached and could say yes under `terms`."""
    return approvers.eligible(
        context.snapshot.config,
        context.snapshot.registry,
        terms,
        caller_owner,
        channels_of=context.contacts.channels_of,
        voucher=context.contacts.voucher,
    )


def prompts(
    context: Context, terms: Terms, caller_owner: str, request_id: str, now: datetime
) -> tuple[Notification, ...]:
    """Return what is to be sent for a request: to each approver, one channel after the other.

    Owners equal to the caller's get none.
    """
    pause = timedelta(seconds=context.snapshot.config.approvals.escalate_seconds)
    return tuple(
        prompt(request_id, owner, channel, now=now, at=now + position * pause)
        for owner in approvers.told(context.snapshot.config, terms, context.contacts.channels_of)
        if owner != caller_owner.casefold()
        for position, channel in enumerate(context.contacts.channels_of(owner))
    )
