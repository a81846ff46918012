"""Exact names become principals; everything else is refused."""

from dataclasses import dataclass, replace

import pytest

from host_agent.errors import InvalidIdentityError, UnknownIdentityError
from host_agent.identity.authorities import Authorities
from host_agent.identity.certificate import parse_peer_certificate
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Autonomy, Registry, Role, is_common_name
from tests.support.certificates import Leaf, make_pki

PKI = make_pki()
AUTHORITIES = Authorities([PKI.ca_certificate])


@dataclass(frozen=True, kw_only=True)
class Entry:
    cn: str
    unix_user: str | None = None
    owner: str | None = None
    roles: tuple[Role, ...] = (Role.CALLER,)
    autonomy: Autonomy = Autonomy.SUPERVISED
    skip_ask: bool = False
    fingerprint: str | None = None


def credential(leaf: Leaf) -> Credential:
    return AUTHORITIES.credential(parse_peer_certificate(leaf.der))


LIBRARIAN = Entry(cn="librarian", unix_user="books", owner="Alice")


def test_a_registered_name_becomes_its_principal() -> None:
    leaf = PKI.client("librarian")

    principal = Registry([LIBRARIAN]).recall(credential(leaf))

    assert principal.cn == "librarian"
    assert principal.unix_user == "books"
    assert principal.owner == "alice"
    assert principal.roles == {Role.CALLER}
    assert principal.autonomy is Autonomy.SUPERVISED
    assert not principal.skip_ask
    assert principal.fingerprint == leaf.fingerprint
    assert principal.credential == credential(leaf)


@pytest.mark.parametrize(
    "cn", ["librarian-evil", "libraria", "librarian.", "xlibrarian", "nobody", "daemon"]
)
def test_a_name_that_only_resembles_is_unknown(cn: str) -> None:
    """A prefix, an extension, or a local account's name says nothing."""
    registry = Registry([LIBRARIAN])

    with pytest.raises(UnknownIdentityError) as caught:
        registry.recall(credential(PKI.client(cn)))

    assert cn not in caught.value.detail


def test_the_owner_is_the_own_name_by_default() -> None:
    registry = Registry([Entry(cn="solo")])

    assert registry.recall(credential(PKI.client("solo"))).owner == "solo"


def test_a_pinned_certificate_is_accepted_and_another_of_that_name_is_not() -> None:
    pinned, other = PKI.client("librarian"), PKI.client("librarian")
    registry = Registry([replace(LIBRARIAN, fingerprint=pinned.fingerprint.upper())])
    registry = Registry(
        [replace(LIBRARIAN, fingerprint="sha256:" + pinned.fingerprint[7:].upper())]
    )

    assert registry.recall(credential(pinned)).cn == "librarian"
    with pytest.raises(InvalidIdentityError):
        registry.recall(credential(other))


def test_recall_asks_the_registry_as_it_is_now() -> None:
    leaf = PKI.client("librarian")
    registry = Registry([LIBRARIAN])

    assert registry.recall(credential(leaf)).credential == credential(leaf)
    with pytest.raises(UnknownIdentityError):
        Registry([]).recall(credential(leaf))
    repinned = Registry([replace(LIBRARIAN, fingerprint=PKI.client("librarian").fingerprint)])
    with pytest.raises(InvalidIdentityError):
        repinned.recall(credential(leaf))


def test_two_identities_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="librarian"):
        Registry([LIBRARIAN, replace(LIBRARIAN, owner="bob")])


def test_an_admin_counts_as_approver_and_not_the_other_way() -> None:
    registry = Registry(
        [
            Entry(cn="a", owner="Alice", roles=(Role.APPROVER,)),
            Entry(cn="b", owner="BOB", roles=(Role.ADMIN, Role.CALLER)),
            Entry(cn="c", owner="carol"),
        ]
    )

    assert registry.owners_with_role(Role.APPROVER) == {"alice", "bob"}
    assert registry.owners_with_role(Role.ADMIN) == {"bob"}
    assert registry.owners_with_role(Role.CALLER) == {"bob", "carol"}
    assert registry.owners_with_role(Role.BRIDGE) == frozenset()


def test_identities_are_found_exactly_and_listed() -> None:
    registry = Registry([LIBRARIAN, Entry(cn="b")])

    assert registry.identity("librarian") is LIBRARIAN
    assert registry.identity("Librarian") is None
    assert [identity.cn for identity in registry] == ["librarian", "b"]
    assert len(registry) == 2


@pytest.mark.parametrize("name", ["", "0", "1000", "root", "a\n", "A", "-a", ".a", "a/b", "\u0430"])
def test_what_tools_read_as_something_else_is_no_common_name(name: str) -> None:
    assert not is_common_name(name)
