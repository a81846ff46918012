"""Registered identities: an exact common name becomes a `Principal`, anything else is refused.

Names are compared whole and as they are: no prefixes, no patterns, no local accounts.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from host_agent.errors import InvalidIdentityError, UnknownIdentityError
from host_agent.identity.credential import Credential

_COMMON_NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,63}", re.ASCII)
_NEVER = frozenset({"root"})


def is_common_name(value: str) -> bool:
    """Return whether `value` can name an identity.

    That is 1 to 64 of `a-z 0-9 _ . -`, the first a letter or `_`, and not `root`. So neither a
    number (which tools read as a uid) nor a path is a name.
    """
    return _COMMON_NAME.fullmatch(value) is not None and value not in _NEVER


class Role(StrEnum):
    """What an identity may do at the door, apart from what policy says of its operations."""

    CALLER = "caller"
    APPROVER = "approver"
    ADMIN = "admin"
    BRIDGE = "bridge"


class Autonomy(StrEnum):
    """How far an identity acts without a person."""

    READ_ONLY = "read_only"
    SUPERVISED = "supervised"
    FULL = "full"


class Identity(Protocol):
    """What the registry reads of a configured identity (`config.Identity`)."""

    @property
    def cn(self) -> str:
        """The exact common name."""
        ...

    @property
    def unix_user(self) -> str | None:
        """The user that its operations run as, where they do not need root."""
        ...

    @property
    def owner(self) -> str | None:
        """The person or team it acts for; None is its own common name."""
        ...

    @property
    def roles(self) -> Iterable[Role]: ...

    @property
    def autonomy(self) -> Autonomy:
        """How far it acts alone."""
        ...

    @property
    def skip_ask(self) -> bool:
        """Whether full autonomy skips a plain `ask`."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """The pinned certificate, `sha256:` and hex, or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated identity, by the certificate that it presented. `owner` is case-folded."""

    cn: str
    unix_user: str | None
    owner: str
    roles: frozenset[Role]
    autonomy: Autonomy
    skip_ask: bool
    credential: Credential

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the certificate that was presented."""
        return self.credential.fingerprint


def owner_of(identity: Identity) -> str:
    """Return whom `identity` acts for, case-folded; its own common name where none is given."""
    return (identity.cn if identity.owner is None else identity.owner).casefold()


class Registry:
    """The configured identities by their exact common names.

    Raises:
        ValueError: two identities have the same common name.
    """

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._by_cn: dict[str, Identity] = {}
        for identity in identities:
            if identity.cn in self._by_cn:
                message = f"two identities are called {identity.cn}"
                raise ValueError(message)
            self._by_cn[identity.cn] = identity

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._by_cn.values())

    def __len__(self) -> int:
        return len(self._by_cn)

    def identity(self, cn: str) -> Identity | None:
        """Return the identity called exactly `cn`, or None."""
        return self._by_cn.get(cn)

    def recall(self, credential: Credential) -> Principal:
        """Return who holds the certificate `credential`, as of now.

        Says nothing of its authority, its end or revocation: `welcome` does.

        Raises:
            UnknownIdentityError: no identity is called exactly as it is.
            InvalidIdentityError: the identity is pinned to another certificate.
        """
        identity = self._by_cn.get(credential.cn)
        if identity is None:
            raise UnknownIdentityError(
                "No identity is registered under this certificate's name; "
                "ask the administrator of this host."
            )
        pin = identity.fingerprint
        if pin is not None and pin.lower() != credential.fingerprint:
            raise InvalidIdentityError(
                "This certificate is not the one that is on record for its name; "
                "use the certificate that was registered."
            )
        return Principal(
            cn=identity.cn,
            unix_user=identity.unix_user,
            owner=owner_of(identity),
            roles=frozenset(identity.roles),
            autonomy=identity.autonomy,
            skip_ask=identity.skip_ask,
            credential=credential,
        )

    def owners_with_role(self, role: Role) -> frozenset[str]:
        """Return the owners, case-folded, who hold `role`; an admin is an approver too."""
        enough = {role, Role.ADMIN} if role is Role.APPROVER else {role}
        return frozenset(
            owner_of(identity) for identity in self if not enough.isdisjoint(identity.roles)
        )
