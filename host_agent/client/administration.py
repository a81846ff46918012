"""The exchanges about people, grants and identities, for `Client.administer`.

Each function returns what `administer` takes: `client.administer(grants())`. What changes something
is sent once.
"""

import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar
from urllib.parse import quote

from host_agent.api.wire.people import (
    ApproverList,
    ApproverView,
    Enrolment,
    GrantList,
    GrantView,
    Released,
)
from host_agent.client.exchange import Protocol, Steps

T = TypeVar("T")
Exchange: TypeAlias = Callable[[Protocol], Steps[T]]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}")


def approvers() -> Exchange[tuple[ApproverView, ...]]:
    """Ask who approves over channels, and how each of them is reached."""

    def steps(protocol: Protocol) -> Steps[tuple[ApproverView, ...]]:
        return ApproverList.parse((yield from protocol.read("/approvers"))).approvers

    return steps


def enrol(owner: str, channel: str) -> Exchange[Enrolment]:
    """Ask for a one-time code by which `owner` enrols over `channel`."""

    def steps(protocol: Protocol) -> Steps[Enrolment]:
        target = f"/approvers/{_in_path(owner)}/enrol"
        return Enrolment.parse((yield from protocol.act(target, {"channel": channel})))

    return steps


def grants() -> Exchange[tuple[GrantView, ...]]:
    """Ask for the grants of the last 30 days, newest first."""

    def steps(protocol: Protocol) -> Steps[tuple[GrantView, ...]]:
        return GrantList.parse((yield from protocol.read("/grants"))).grants

    return steps


def revoke(grant_id: str) -> Exchange[GrantView]:
    """End a grant, by its id or a unique prefix."""

    def steps(protocol: Protocol) -> Steps[GrantView]:
        return GrantView.parse(
            (yield from protocol.act(f"/grants/{_in_path(grant_id)}/revoke", {}))
        )

    return steps


def release(cn: str) -> Exchange[Released]:
    """End the hold-off of the identity `cn`."""

    def steps(protocol: Protocol) -> Steps[Released]:
        target = f"/identities/{_in_path(cn)}/release"
        return Released.parse((yield from protocol.act(target, {})))

    return steps


def is_name(text: str) -> bool:
    """Return whether `text` could name an owner, an identity or a grant."""
    return _NAME.fullmatch(text) is not None


def _in_path(name: str) -> str:
    if not is_name(name):
        message = "a name is 1 to 64 letters, digits and `._@+-`, a letter, digit or `_` first"
        raise ValueError(message)
    return quote(name, safe="")
