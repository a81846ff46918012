"""The people who approve over channels: how each is reached, and one-time codes to enrol by.

An admin offers a code; whoever sends it over the channel is taken for its owner from then on, so
the channel proves the address and the admin the person. Only the code's hash is stored.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

from host_agent.api.wire.people import ApproverList, ApproverView, ContactView, Enrolment
from host_agent.audit.record import Event
from host_agent.clock import rfc3339
from host_agent.config import CHANNELS, Approver
from host_agent.errors import FaultPlace, InvalidParameterError, RequestNotFoundError, correct
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.authorize import as_now
from host_agent.pipeline.context import Context, record, refresh_contacts
from host_agent.requests import codes
from host_agent.requests.notification import Contact, Failure

_log = logging.getLogger("host_agent.pipeline")

CODE_LIFETIME = timedelta(minutes=15)
SHOWN_OF_ADDRESS = 4
"""How much of the end of an address is shown: enough to tell two apart."""


class Enrolments:
    """Shows approvers and offers enrolments. One instance lives as long as the agent."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def approvers(self, principal: Principal) -> ApproverList:
        """Return every configured approver with the state of each channel.

        Raises:
            RoleRequiredError: for admins only.
        """
        as_now(self._context, principal, Role.ADMIN)
        contacts = await self._context.store.contacts()
        entries = self._context.snapshot.config.approvers
        return ApproverList(approvers=tuple(approver_view(entry, contacts) for entry in entries))

    async def offer_enrolment(self, principal: Principal, owner: str, channel: str) -> Enrolment:
        """Make a one-time code by which `owner` enrols over `channel`, in place of an older one.

        Raises:
            RoleRequiredError: for admins only.
            RequestNotFoundError: `owner` is not an approver of the configuration.
            InvalidParameterError: nobody enrols over this channel, or not this owner.
            AuditUnavailableError: it cannot be written down, so there is no code.
        """
        context = self._context
        principal = as_now(context, principal, Role.ADMIN)
        entry = context.snapshot.config.approver(owner.casefold())
        if entry is None:
            message = "No approver of that owner is configured; GET /approvers lists all."
            fix = correct(message, "owner", place=FaultPlace.PATH)
            raise RequestNotFoundError(message, recovery=fix)
        _require_enrollable(entry, channel)
        return await context.tasks.shielded(
            self._offer(principal, entry.acts_for, channel), name=f"enrol {entry.acts_for}"
        )

    async def _offer(self, principal: Principal, owner: str, channel: str) -> Enrolment:
        context, code = self._context, codes.make()
        expires_at = context.clock.now() + CODE_LIFETIME
        await context.audit.append(
            Event.ENROLMENT_OFFERED,
            approver_owner=owner,
            channel=channel,
            expires_at=rfc3339(expires_at),
            by=principal.cn,
        )
        await context.store.offer_enrolment(
            owner,
            channel,
            code_hash=codes.hash_code(code),
            expires_at=expires_at,
            by=principal.owner,
        )
        return Enrolment(owner=owner, channel=channel, code=code, expires_at=expires_at)

    async def identity_changed(self, owner: str, channel: str, address: str) -> None:
        """Disable an approver whose address another key speaks for now, until enrolled anew.

        Raises:
            StoreUnavailableError: it could not be stored; ask again.
        """
        context = self._context
        is_new = await context.store.disable_contact(
            owner, channel, address, failure=Failure.IDENTITY_CHANGED, now=context.clock.now()
        )
        await refresh_contacts(context)
        if not is_new:
            return
        _log.error("the approver %s is disabled on %s: another key speaks there", owner, channel)
        await record(
            context,
            Event.APPROVER_DISABLED,
            f"that approver {owner} is disabled",
            approver_owner=owner,
            channel=channel,
            cause=Failure.IDENTITY_CHANGED.value,
        )


def _require_enrollable(entry: Approver, channel: str) -> None:
    declared = CHANNELS.get(channel)
    if declared is None or not declared.needs_enrolment:
        able = ", ".join(f"`{name}`" for name, one in CHANNELS.items() if one.needs_enrolment)
        message = f"channel: nobody enrols over this one; an address is proven by {able}."
        raise InvalidParameterError(message, recovery=correct(message, "channel"))
    if channel not in entry.channels:
        message = "channel: this approver is not reached over it."
        raise InvalidParameterError(message, recovery=correct(message, "channel"))
    if entry.address(channel) is not None:
        message = "owner: this approver's address is in the configuration, which counts."
        fix = correct(message, "owner", place=FaultPlace.PATH)
        raise InvalidParameterError(message, recovery=fix)


def approver_view(entry: Approver, contacts: Sequence[Contact]) -> ApproverView:
    """Return an approver as GET /approvers shows it."""
    own = [contact for contact in contacts if contact.owner == entry.acts_for]
    return ApproverView(
        owner=entry.acts_for,
        roles=tuple(entry.roles),
        channels=tuple(_channel_view(entry, channel, own) for channel in entry.channels),
    )


def _channel_view(entry: Approver, channel: str, contacts: Sequence[Contact]) -> ContactView:
    enrols = CHANNELS[channel].needs_enrolment
    address = entry.address(channel) if enrols else None
    met = [contact for contact in contacts if contact.channel == channel]
    state = "configured"
    if enrols and address is None:
        used = [contact.address for contact in met if contact.disabled is None]
        address = next(iter([*used, *(contact.address for contact in met)]), None)
        state = "enrolled" if met else "not enrolled"
    disabled = [c.disabled for c in met if c.disabled is not None and c.address == address]
    if disabled:
        state = f"disabled: {disabled[0].value}"
    shown = None if address is None else address[-SHOWN_OF_ADDRESS:]
    return ContactView(channel=channel, state=state, address=shown)
