"""Who speaks in a decision, and whether what was said by them still counts.

An approver is proven by a way in: a certificate, a channel that proves its senders, or a bridge
that signs for its users. Each has the roles of that way only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from host_agent.errors import IdentityError
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.context import Context, welcome
from host_agent.requests.model import Decision, Terms, agreeing, is_eligible, is_same_owner


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproverIdentity:
    """One approver as a way in has proven them.

    `name` is the CN of the certificate; over a channel it is the owner.

    `roles` are those that count over this way. `vouchers` are the owners on whose word it is who
    speaks: of the bridge that relays, of the admin who enrolled the address. What one of them asked
    for is not answered by it.
    """

    name: str
    owner: str
    roles: frozenset[str]
    channel: str
    credential: Credential | None = None
    address: str | None = None
    through: str | None = None
    vouchers: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """Return what wrong codes are counted by: who could be guessing."""
        return f"{self.channel}:{self.address}" if self.address else self.name


def identity_of(principal: Principal, channel: str = "http") -> ApproverIdentity:
    """Return who speaks by a certificate."""
    return ApproverIdentity(
        name=principal.cn,
        owner=principal.owner,
        roles=frozenset(role.value for role in principal.roles),
        channel=channel,
        credential=principal.credential,
    )


def identity_over(
    context: Context, owner: str, channel: str, address: str | None
) -> ApproverIdentity | None:
    """Return an approver as a channel proves them; None where they are not reached over it."""
    entry = context.contacts.entry(owner)
    if entry is None or channel not in context.contacts.channels_of(owner):
        return None
    return ApproverIdentity(
        name=entry.acts_for,
        owner=entry.acts_for,
        roles=frozenset(entry.roles),
        channel=channel,
        address=address,
        vouchers=frozenset(filter(None, (context.contacts.voucher(owner, channel),))),
    )


def through(approver: ApproverIdentity, bridge: Principal) -> ApproverIdentity:
    """Return the same approver as `bridge` relays them."""
    return replace(
        approver,
        through=bridge.cn,
        credential=bridge.credential,
        vouchers=approver.vouchers | {bridge.owner},
    )


def still_counts(context: Context, owner: str, consents: Sequence[Decision], terms: Terms) -> bool:
    """Return whether enough of `consents`, by others than `owner`, count under `terms` now."""
    counted = [
        (makers(context, consent),)
        for consent in consents
        if not is_same_owner(consent.owner, owner) and counts(context, consent, terms, owner)
    ]
    return agreeing(counted, terms.approvals) >= terms.approvals


def counts(context: Context, consent: Decision, terms: Terms, asker: str) -> bool:
    """Return whether a consent to what the owner `asker` asks for still counts under `terms`.

    As configuration, enrolments and lists are now.

    Raises:
        RevocationUnavailableError: that cannot be asked.
    """
    if consent.through is not None and not _relays(context, consent, consent.through, asker):
        return False
    voucher = context.contacts.voucher(consent.owner, consent.channel)
    if consent.address is not None and voucher is not None and is_same_owner(voucher, asker):
        return False
    is_of_channel = consent.through is not None or consent.address is not None
    roles = _roles_over(context, consent) if is_of_channel else _roles_of(context, consent)
    return roles is not None and is_eligible(terms, consent.owner, roles)


def makers(context: Context, consent: Decision) -> frozenset[str]:
    """Return everybody who could have made `consent` up: then, and as things are now."""
    found = set(consent.makers)
    if consent.address is not None:
        found.add(context.contacts.voucher(consent.owner, consent.channel) or consent.owner)
    if consent.through is not None and (bridge := context.snapshot.identity(consent.through)):
        found.add(bridge.acts_for)
    return frozenset(owner.casefold() for owner in found)


def _roles_over(context: Context, consent: Decision) -> frozenset[str] | None:
    """Return the roles of who spoke over a channel, if they are still reached there."""
    address = context.contacts.address(consent.owner, consent.channel)
    entry = context.contacts.entry(consent.owner)
    if entry is None or address is None:
        return None
    if consent.address is not None and consent.address != address:
        return None
    return frozenset(entry.roles)


def _roles_of(context: Context, consent: Decision) -> frozenset[str] | None:
    """Return the roles of the certificate that spoke, if it would still be let in."""
    principal = _principal(context, consent, consent.approver)
    if principal is None or not is_same_owner(principal.owner, consent.owner):
        return None
    return frozenset(role.value for role in principal.roles)


def _relays(context: Context, consent: Decision, through: str, asker: str) -> bool:
    """Return whether the bridge that relayed, `through`, would still be believed."""
    bridge = context.snapshot.config.bridge(through)
    principal = _principal(context, consent, through)
    if bridge is None or principal is None or Role.BRIDGE not in principal.roles:
        return False
    if is_same_owner(principal.owner, consent.owner) or is_same_owner(principal.owner, asker):
        return False
    speaks_for = {owner.casefold() for owner in bridge.approvers.values()}
    # What it relays of another channel names the sender by an address, and is held to that.
    return consent.address is not None or consent.owner in speaks_for


def _principal(context: Context, consent: Decision, cn: str) -> Principal | None:
    """Return whose certificate it was, as of now.

    Raises:
        RevocationUnavailableError: that cannot be asked.
    """
    if consent.credential is None or consent.credential.cn != cn:
        return None
    try:
        return welcome(context, consent.credential)
    except IdentityError as error:
        if error.status >= 500:
            raise
        return None
