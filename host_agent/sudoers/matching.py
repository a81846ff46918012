"""Whether an entry of sudoers is for a user, on this host, now: as sudo matches (sudoers(5)).

Where sudo would have to ask what this program cannot see (netgroups, groups of a plugin), the
answer is `MAYBE`, and counts as a match. Lists are read from their end: the last member that
matches decides.
"""

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from host_agent.sudoers.host import Host, Subject
from host_agent.sudoers.naming import Match, Naming
from host_agent.sudoers.parse import ListMember, UserSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How an entry is for a user: `is_certain` is False where membership cannot be seen.

    `by_exclusion` is True where it is for everybody but some who are named.
    """

    is_certain: bool
    by_exclusion: bool


def fit(grant: UserSpec, subject: Subject, host: Host, now: datetime) -> Fit | None:
    """Return how `grant` is for `subject` on `host` at `now`; None where sudo passes it over."""
    if not _is_in_force(grant, now):
        return None
    user = decide(grant.users, lambda member: _user(member, subject))
    where = decide(grant.hosts, lambda member: _host(member, host))
    if Match.NO in (user, where):
        return None
    return Fit(
        is_certain=user is Match.YES and where is Match.YES,
        by_exclusion=any(member.negated for member in (*grant.users, *grant.hosts)),
    )


def decide(members: Sequence[ListMember], matches: Callable[[ListMember], Match]) -> Match:
    """Return what the last matching member says; a doubtful exclusion excludes nobody."""
    for member in reversed(members):
        found = matches(member)
        if found is Match.YES:
            return Match.NO if member.negated else Match.YES
        if found is Match.MAYBE and not member.negated:
            return Match.MAYBE
    return Match.NO


def is_for_subject(members: Sequence[ListMember], subject: Subject) -> bool:
    """Return whether a list of users may match `subject`."""
    return decide(members, lambda member: _user(member, subject)) is not Match.NO


def is_for_host(members: Sequence[ListMember], host: Host) -> bool:
    """Return whether a list of hosts may match `host`."""
    return decide(members, lambda member: _host(member, host)) is not Match.NO


def _yes(condition: bool) -> Match:  # noqa: FBT001 - a verdict of one word
    return Match.YES if condition else Match.NO


def _best(found: Iterable[Match]) -> Match:
    return max(found, key=lambda match: match.value, default=Match.NO)


def _user(member: ListMember, subject: Subject) -> Match:
    match member.kind:
        case "username":
            if member.value == "ALL":
                return Match.YES
            return subject.naming.user(member.value, subject.name)
        case "userid":
            if subject.uid is None:  # who does not exist has no number yet, but never root's
                return Match.NO if member.value == "0" else Match.MAYBE
            return _yes(member.value == str(subject.uid))
        case "usergroup":
            return _best(subject.naming.group(member.value, name) for name in subject.groups)
        case "usergid":
            if subject.uid is None:
                return Match.NO if member.value == "0" else Match.MAYBE
            return _yes(member.value in {str(gid) for gid in subject.gids})
        case _:  # netgroup, nonunixgroup
            return Match.MAYBE


def _host(member: ListMember, host: Host) -> Match:
    match member.kind:
        case "hostname":
            if member.value == "ALL":
                return Match.YES
            pattern = member.value.lower()
            return _yes(any(fnmatch.fnmatchcase(name, pattern) for name in host.names))
        case "networkaddr":
            return _network(member.value, host)
        case _:  # netgroup
            return Match.MAYBE


def _network(text: str, host: Host) -> Match:
    """Compare as sudo's match_addr.c: bit by bit under the mask that is written.

    Where none is written, an address is itself, or the network of an interface by that one's mask.
    """
    written, slash, mask_text = text.partition("/")
    try:
        address = ipaddress.ip_address(written)
        mask = _mask(mask_text, address) if slash else None
    except ValueError:
        return Match.MAYBE
    return _best(_on_interface(address, mask, interface) for interface in host.addresses)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _mask(text: str, address: _Address) -> int:
    if not text.isdigit():
        return int(type(address)(text))
    if int(text) > address.max_prefixlen:
        raise ValueError(text)
    return _prefix_mask(int(text), address)


def _prefix_mask(length: int, address: _Address) -> int:
    width = address.max_prefixlen
    return ((1 << length) - 1) << (width - length)


def _on_interface(address: _Address, mask: int | None, interface: str) -> Match:
    own_text, _, length = interface.partition("/")
    own = ipaddress.ip_address(own_text)
    if own.version != address.version:
        return Match.NO
    if mask is not None:
        return _yes(int(own) & mask == int(address) & mask)
    if own == address:
        return Match.YES
    if length:
        return _yes(int(own) & _prefix_mask(int(length), own) == int(address))
    lengths = range(own.max_prefixlen)
    is_network = any(int(own) & _prefix_mask(one, own) == int(address) for one in lengths)
    return Match.MAYBE if is_network else Match.NO


_INSTANT = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})?([0-9]{2})?Z", re.ASCII)


def _instant(value: object) -> datetime | None:
    found = _INSTANT.fullmatch(str(value))
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    try:
        return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None


def _is_in_force(grant: UserSpec, now: datetime) -> bool:
    """Return whether `now` is before `NOTAFTER`; what begins later is in force soon enough."""
    end = _instant(grant.options.get("notafter", ""))
    return end is None or now <= end


# -- as whom --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunasSpec:
    """As whom an entry lets its commands run."""

    names: tuple[str, ...]
    """The plain user names, root by default; empty where only a group is named."""
    is_only_self: bool
    may_be_root: bool
    is_anybody: bool
    has_exclusion: bool
    has_odd_id: bool
    groups: tuple[str, ...]


def run_as(grant: UserSpec, subject: Subject) -> RunasSpec:
    """Return as whom `subject` may run the commands of `grant`."""
    members = grant.run_as
    if members is None:
        members = (
            (ListMember(kind="username", value="root"),)
            if grant.run_as_groups is None
            else (ListMember(kind="username", value=subject.name),)
        )
    groups = tuple(member.value for member in grant.run_as_groups or () if not member.negated)
    given = [member for member in members if not member.negated]
    return RunasSpec(
        names=tuple(m.value for m in given if m.kind == "username" and m.value not in ("", "ALL")),
        is_only_self=all(_is_self(member, subject) for member in given)
        and set(groups) <= subject.groups,
        may_be_root=any(_may_be_root(member, subject.naming) for member in given),
        is_anybody=any(member.kind == "username" and member.value == "ALL" for member in given),
        has_exclusion=any(m.negated for m in (*members, *(grant.run_as_groups or ()))),
        has_odd_id=any(member.value.startswith("#") for member in given),
        groups=groups,
    )


def _is_self(member: ListMember, subject: Subject) -> bool:
    """Return whether a run-as user is surely the user itself: the case counts here.

    `Alice` may be an account beside `alice`, and sudo lets both be run as.
    """
    if member.kind == "username":
        return member.value in ("", subject.name)
    return member.kind == "userid" and subject.uid is not None and member.value == str(subject.uid)


def _may_be_root(member: ListMember, naming: Naming) -> bool:
    if member.kind == "username":
        if member.value == "ALL" or member.value.startswith("#"):
            return True
        return naming.user(member.value, "root") is not Match.NO
    return member.kind != "userid" or member.value == "0"


def covers(later: UserSpec, earlier: UserSpec, naming: Naming) -> bool:
    """Return whether `later`, which forbids everything, leaves nothing of `earlier`.

    sudo takes the last entry that matches, so only a denial of ALL for at least the same run-as
    users and groups does.
    """
    forbids = len(later.commands) > 0 and later.commands[-1].text == "ALL"
    if not forbids or not later.commands[-1].negated:
        return False
    return _covers_list(later.run_as, earlier.run_as, "root", naming.user) and (
        earlier.run_as_groups is None
        or _covers_list(later.run_as_groups, earlier.run_as_groups, "", naming.group)
    )


def _covers_list(
    later: tuple[ListMember, ...] | None,
    earlier: tuple[ListMember, ...] | None,
    default: str,
    compare: Callable[[str, str], Match],
) -> bool:
    whole = later if later is not None else (ListMember(kind="username", value=default),)
    part = earlier if earlier is not None else (ListMember(kind="username", value=default),)
    if any(member.negated for member in whole):
        return False
    if any(member.value == "ALL" for member in whole):
        return True
    return all(
        any(
            one.kind == other.kind and compare(one.value, other.value) is Match.YES
            for other in whole
        )
        for one in part
        if not one.negated
    )
