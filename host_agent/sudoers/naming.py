"""When two names of users or groups are one to sudo, and what a comparison can say.

sudo compares them without case unless its settings say otherwise (sudoers(5),
`case_insensitive_user` and `case_insensitive_group`), by strcasecmp(3) in the C locale: only ASCII
letters have a case.
"""

import string
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from host_agent.sudoers.parse import Setting

_FOLDING = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Match(Enum):
    """Whether a member or a list matches."""

    NO = 0
    MAYBE = 1
    YES = 2


def folded(name: str) -> str:
    """Return `name` without the case of its ASCII letters."""
    return name.translate(_FOLDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What two names are that differ in their case only: of users, and of groups."""

    users: Match = Match.YES
    groups: Match = Match.YES

    def user(self, one: str, other: str) -> Match:
        """Return whether two names of users are one."""
        return _compared(one, other, self.users)

    def group(self, one: str, other: str) -> Match:
        """Return whether two names of groups are one."""
        return _compared(one, other, self.groups)

    def may_be_group(self, name: str, others: Iterable[str]) -> bool:
        """Return whether a group's name may be one of others."""
        return any(self.group(name, other) is not Match.NO for other in others)


def _compared(one: str, other: str, but_for_case: Match) -> Match:
    if one == other:
        return Match.YES
    return but_for_case if folded(one) == folded(other) else Match.NO


def naming(settings: Iterable[Setting]) -> Naming:
    """Return how sudo compares names under `settings`."""
    settings = tuple(settings)
    return Naming(
        users=_but_for_case(settings, "case_insensitive_user"),
        groups=_but_for_case(settings, "case_insensitive_group"),
    )


def _but_for_case(settings: Iterable[Setting], option: str) -> Match:
    found = [setting for setting in settings if setting.name == option]
    if all(setting.value is True for setting in found):
        return Match.YES
    if any(setting.scope for setting in found):
        return Match.MAYBE  # for some users, hosts or commands only
    return Match.YES if found[-1].value is True else Match.NO
