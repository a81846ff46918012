"""Who could say yes to what a rule asks for: one answer for an ask, and for `config check`.

Pure. How people are reached comes as an argument: a running agent knows who is enrolled and whose
word that rests on; a check of the configuration goes by what is written there.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from host_agent.config import CHANNELS, Approver, Config
from host_agent.identity.registry import Registry, Role
from host_agent.requests.model import Terms, agreeing, is_eligible, is_same_owner

Ways: TypeAlias = Mapping[str, frozenset[frozenset[str]]]
"""By owner, the ways in to a yes of theirs: each by those who could make up what comes that way."""


def eligible(
    config: Config,
    registry: Registry,
    terms: Terms,
    caller_owner: str | None,
    *,
    channels_of: Callable[[str], tuple[str, ...]],
    voucher: Callable[[str, str], str | None],
) -> Ways:
    """Return the owners, not the caller's, who can be reached and could say yes under `terms`.

    Somebody is reached by looking into the queue with a certificate, where that counts, or over a
    channel that delivers; and says yes with a certificate, with a code over a channel, or through a
    bridge.
    `channels_of` are an owner's channels, `voucher` the owner on whose word an address of theirs
    is theirs. Without `caller_owner`: for a caller who is none of them.
    """
    asker = caller_owner or ""
    relayed = _relayed(config, asker)
    named = certified(registry, terms)
    able: defaultdict[str, set[frozenset[str]]] = defaultdict(set)
    if config.approvals.command_line:
        for owner in named:
            able[owner].add(frozenset({owner}))
    for owner in told(config, terms, channels_of):
        channels = channels_of(owner)
        if owner in named:
            able[owner].add(frozenset({owner}))
        for channel in channels:
            by = voucher(owner, channel) or owner
            if CHANNELS[channel].carries_codes and not is_same_owner(by, asker):
                able[owner].add(frozenset({owner, by.casefold()}))
            if CHANNELS[channel].is_relayed:
                able[owner] |= {frozenset({owner, said}) for said in relayed.get(owner, ())}
    own = asker.casefold()
    return {owner: frozenset(ways) for owner, ways in able.items() if ways and owner != own}


def agreeing_of(ways: Ways, needed: int) -> int:
    """Return how many of those in `ways` could be counted beside one another, at most `needed`."""
    return agreeing(list(ways.values()), needed)


def certified(registry: Registry, terms: Terms) -> frozenset[str]:
    """Return the owners who count under `terms` by a certificate."""
    holding = registry.owners_with_role(Role(terms.approver_role))
    return holding if terms.approvers is None else holding & terms.approvers


def told(
    config: Config, terms: Terms, channels_of: Callable[[str], tuple[str, ...]]
) -> Iterator[str]:
    """Yield the owners whose answers over channels count under `terms`, and who can be reached."""
    for entry in config.approvers:
        if is_eligible(terms, entry.acts_for, entry.roles) and channels_of(entry.acts_for):
            yield entry.acts_for


def channels_written(config: Config, owner: str) -> tuple[str, ...]:
    """Return the channels that the configuration reaches `owner` over, enrolled or not."""
    entry: Approver | None = config.approver(owner)
    return () if entry is None else entry.channels


def _relayed(config: Config, asker: str) -> Mapping[str, set[str]]:
    """Return for whom a bridge may answer what `asker` asks for, each with the bridges' owners."""
    bridges = {identity.cn: identity.acts_for for identity in config.identities}
    relayed: defaultdict[str, set[str]] = defaultdict(set)
    for bridge in config.bridges:
        own = bridges.get(bridge.cn)
        if own is None or is_same_owner(own, asker):
            continue
        for said in bridge.approvers.values():
            if not is_same_owner(said, own):
                relayed[said.casefold()].add(own.casefold())
    return relayed
