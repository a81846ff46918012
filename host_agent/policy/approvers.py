"""Who could say yes to what a rule asks for: one answer for an ask, and for `config check`.

Pure. How people are reached comes as an argument: a running agent knows who is enrolled and whose
word that rests on; a check of the configuration goes by what is written there.
"""

from collections.abc import Callable, Iterator

from host_agent.approvals.request import Terms, is_eligible, is_same_owner
from host_agent.config import Approver, Config
from host_agent.identity.registry import Registry, Role


def eligible(
    config: Config,
    registry: Registry,
    terms: Terms,
    caller_owner: str | None,
    *,
    channels_of: Callable[[str], tuple[str, ...]],
    voucher: Callable[[str, str], str | None],
) -> frozenset[str]:
    """Return the owners, not the caller's, who can be reached and could say yes under `terms`.

    Somebody is reached by looking into the queue with a certificate, where that counts, or over a
    channel that delivers; and says yes with a certificate, over Signal, or through a bridge.
    `channels_of` are an owner's channels, `voucher` the owner on whose word an address of theirs
    is theirs. Without `caller_owner`: for a caller who is none of them.
    """
    asker = caller_owner or ""
    relayed = _relayed(config, asker)
    named = certified(registry, terms)
    able = set(named) if config.approvals.command_line else set()
    for owner in told(config, terms, channels_of):
        channels = channels_of(owner)
        by = voucher(owner, "signal")
        is_met = "signal" in channels and (by is None or not is_same_owner(by, asker))
        if owner in named or is_met or ("webhook" in channels and owner in relayed):
            able.add(owner)
    return frozenset(able - {asker.casefold()})


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
    return () if entry is None else tuple(channel.value for channel in entry.channels)


def _relayed(config: Config, asker: str) -> frozenset[str]:
    """Return the owners for whom a bridge may answer what `asker` asks for."""
    bridges = {identity.cn: identity.acts_for for identity in config.identities}
    return frozenset(
        said.casefold()
        for bridge in config.bridges
        if (own := bridges.get(bridge.cn)) is not None and not is_same_owner(own, asker)
        for said in bridge.approvers.values()
        if not is_same_owner(said, own)
    )
