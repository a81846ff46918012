"""An admin offers a one-time code; nobody else does, and the code is nowhere but in the answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import (
    AuditUnavailableError,
    HostAgentError,
    InvalidParameterError,
    RequestNotFoundError,
    RoleRequiredError,
)
from host_agent.pipeline.context import refresh_contacts
from host_agent.requests import codes
from host_agent.requests.notification import Contact, Failure
from tests.support.pipeline import Workbench, opened

ACI = "3f0a1b2c-0000-4000-8000-0123456789ab"
OTHER_ACI = "3f0a1b2c-0000-4000-8000-0123456789ac"
PEOPLE = f"""
[channels.signal]
socket = "/run/signal-cli/socket"
account = "+431234567"
[channels.ntfy]
url = "https://ntfy.example"
[[approvers]]
owner = "Alice"
channels = ["signal", "ntfy"]
ntfy_topic = "a-long-random-name"
[[approvers]]
owner = "erin"
signal = "{ACI}"
roles = ["approver", "admin"]
channels = ["signal"]
[[approvers]]
owner = "frank"
ntfy_topic = "another-long-random-name"
channels = ["ntfy"]
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, git=PEOPLE) as bench:
        yield bench


async def offer(bench: Workbench, owner: str = "alice", channel: str = "signal") -> str:
    answer = await bench.pipeline.enrolment.offer_enrolment(bench.who("root-admin"), owner, channel)
    assert (answer.owner, answer.channel) == (owner.casefold(), channel)
    return str(answer.code)


async def enrolled(bench: Workbench, code: str, address: str = OTHER_ACI) -> Contact | None:
    """Use a code, as who hears it over the channel does."""
    contact = await bench.store.enrol(
        "signal", address, code_hash=codes.hash_code(code), now=bench.clock.now()
    )
    if contact is not None:
        assert contact.disabled is Failure.UNRECORDED
        assert await bench.store.put_contact(replace(contact, disabled=None))
    return contact


async def shown(bench: Workbench) -> dict[str, list[tuple[str, str, str | None]]]:
    listed = await bench.pipeline.enrolment.approvers(bench.who("root-admin"))
    return {
        row.owner: [(one.channel, one.state, one.address) for one in row.channels]
        for row in listed.approvers
    }


async def test_an_offered_code_enrols_its_owner_once(bench: Workbench) -> None:
    code = await offer(bench, "ALICE")
    contact = await enrolled(bench, code)
    assert contact is not None
    assert (contact.owner, contact.address) == ("alice", OTHER_ACI)
    assert await enrolled(bench, code) is None


async def test_a_code_ends_after_fifteen_minutes_and_with_the_next_one(bench: Workbench) -> None:
    first = await offer(bench)
    second = await offer(bench)
    assert await enrolled(bench, first) is None
    bench.clock.advance(minutes=15)
    assert await enrolled(bench, second) is None
    assert (await shown(bench))["alice"][0][1] == "not enrolled"


async def test_an_offer_is_written_down_and_its_code_is_not(bench: Workbench) -> None:
    code = await offer(bench)
    record = bench.last(Event.ENROLMENT_OFFERED)
    assert (record["approver_owner"], record["channel"]) == ("alice", "signal")
    assert record["by"] == "root-admin"
    for path in bench.directory.rglob("*"):
        if path.is_file():
            assert code.encode() not in path.read_bytes()


async def test_an_offer_that_cannot_be_written_down_is_not_made(bench: Workbench) -> None:
    code = await offer(bench)
    bench.audit.refused = frozenset({Event.ENROLMENT_OFFERED})
    with pytest.raises(AuditUnavailableError):
        await offer(bench)
    assert await enrolled(bench, code) is not None  # the older one is still good


@pytest.mark.parametrize(
    ("owner", "channel", "error"),
    [
        ("bob", "signal", RequestNotFoundError),
        ("alice ", "signal", RequestNotFoundError),
        ("alice", "ntfy", InvalidParameterError),
        ("alice", "pigeon", InvalidParameterError),
        ("erin", "signal", InvalidParameterError),
        ("frank", "signal", InvalidParameterError),
    ],
)
async def test_who_could_not_enrol_gets_no_code(
    bench: Workbench, owner: str, channel: str, error: type[HostAgentError]
) -> None:
    with pytest.raises(error):
        await offer(bench, owner, channel)
    assert bench.events() == []


@pytest.mark.parametrize("cn", ["alice", "deployer"])
async def test_only_an_admin_sees_and_enrols_approvers(bench: Workbench, cn: str) -> None:
    with pytest.raises(RoleRequiredError):
        await bench.pipeline.enrolment.approvers(bench.who(cn))
    with pytest.raises(RoleRequiredError):
        await bench.pipeline.enrolment.offer_enrolment(bench.who(cn), "alice", "signal")
    assert bench.events() == []


async def test_approvers_are_shown_with_the_state_of_each_channel(bench: Workbench) -> None:
    assert await shown(bench) == {
        "alice": [("signal", "not enrolled", None), ("ntfy", "configured", None)],
        "erin": [("signal", "configured", ACI[-4:])],
        "frank": [("ntfy", "configured", None)],
    }
    await enrolled(bench, await offer(bench))
    assert (await shown(bench))["alice"][0] == ("signal", "enrolled", OTHER_ACI[-4:])
    for owner, address in (("alice", OTHER_ACI), ("erin", ACI)):
        assert await bench.store.disable_contact(
            owner, "signal", address, failure=Failure.IDENTITY_CHANGED, now=bench.clock.now()
        )
        state = (await shown(bench))[owner][0]
        assert state == ("signal", "disabled: identity-changed", address[-4:])


async def test_an_older_look_does_not_bring_back_who_was_disabled(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await enrolled(bench, await offer(bench)) is not None
    await refresh_contacts(bench.context)
    assert bench.context.contacts.address("alice", "signal") == OTHER_ACI
    contacts, looked, go = bench.store.contacts, asyncio.Event(), asyncio.Event()

    async def slow() -> list[Contact]:
        found = await contacts()
        looked.set()
        await go.wait()
        return found

    monkeypatch.setattr(bench.store, "contacts", slow)
    older = asyncio.create_task(refresh_contacts(bench.context))
    await looked.wait()
    monkeypatch.setattr(bench.store, "contacts", contacts)
    disabling = asyncio.create_task(
        bench.pipeline.enrolment.identity_changed("alice", "signal", OTHER_ACI)
    )
    while not any(contact.disabled for contact in await contacts()):
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(older, disabling)
    assert bench.context.contacts.address("alice", "signal") is None
