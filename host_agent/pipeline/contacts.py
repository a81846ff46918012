"""Where people are reached, and whom an address belongs to. Pure values."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from host_agent.config import CHANNELS, Approver, Config
from host_agent.requests.notification import Contact


@dataclass(frozen=True, slots=True, kw_only=True)
class Contacts:
    """The addresses of all approvers. A key in the configuration wins over an enrolled one."""

    entries: Mapping[str, Approver] = field(default_factory=dict)
    addresses: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By owner and channel; only what may be used now."""
    owners: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By channel and address; only of channels that prove their senders."""
    vouchers: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By owner and channel: whose admin enrolled what is at `addresses`."""

    @classmethod
    def of(cls, config: Config, contacts: Iterable[Contact] = ()) -> "Contacts":
        """Return the contacts of a configuration and what is enrolled."""
        met = list(contacts)
        entries = {entry.acts_for: entry for entry in config.approvers}
        given = {
            (channel, address)
            for entry in config.approvers
            for channel in CHANNELS
            if (address := entry.address(channel)) is not None
        }
        addresses = {
            (owner, channel): address
            for owner, entry in entries.items()
            for channel in entry.channels
            if channel in config.channels.names
            and (address := _address(entry, channel, met, given)) is not None
        }
        owners = {
            (channel, address): owner
            for (owner, channel), address in addresses.items()
            if CHANNELS[channel].proves_sender
        }
        vouchers = {
            (contact.owner, contact.channel): contact.offered_by
            for contact in met
            if contact.offered_by is not None
            and contact.address == addresses.get((contact.owner, contact.channel))
            and (contact.channel, contact.address) not in given
        }
        return cls(entries=entries, addresses=addresses, owners=owners, vouchers=vouchers)

    def entry(self, owner: str) -> Approver | None:
        """Return how `owner` is reached, where that is configured."""
        return self.entries.get(owner.casefold())

    def address(self, owner: str, channel: str) -> str | None:
        """Return where `owner` is reached over `channel`; None: nowhere, or not any more."""
        return self.addresses.get((owner.casefold(), channel))

    def voucher(self, owner: str, channel: str) -> str | None:
        """Return the owner of the admin by whose code `owner` enrolled; None: nobody's."""
        return self.vouchers.get((owner.casefold(), channel))

    def owner_at(self, channel: str, address: str) -> str | None:
        """Return whose address this is on a channel that proves its senders."""
        return self.owners.get((channel, address))

    def channels_of(self, owner: str) -> tuple[str, ...]:
        """Return the channels over which `owner` can be reached, in the order of escalation."""
        entry = self.entry(owner)
        listed = () if entry is None else entry.channels
        return tuple(name for name in listed if self.address(owner, name) is not None)


def _address(
    entry: Approver,
    channel: str,
    contacts: Iterable[Contact],
    elsewhere: Container[tuple[str, str]],
) -> str | None:
    declared = CHANNELS[channel]
    if declared.address is None:
        return channel
    given = entry.address(channel)
    if not declared.needs_enrolment:
        return given
    # An address that the configuration gives to somebody is theirs, whoever enrolled from it.
    own = [c for c in contacts if (c.owner, c.channel) == (entry.acts_for, channel)]
    disabled = {contact.address for contact in own if contact.disabled is not None}
    enrolled = [
        contact.address
        for contact in own
        if contact.disabled is None and (channel, contact.address) not in elsewhere
    ]
    address = given or next(iter(enrolled), None)
    return None if address in disabled else address
