"""Whose word counts over which way in, and what takes a consent back before the run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import (
    AlreadyDecidedError,
    DigestMismatchError,
    ExpiredError,
    HostAgentError,
    RoleRequiredError,
    SelfApprovalError,
)
from host_agent.pipeline.approver_identity import (
    ApproverIdentity,
    counts,
    identity_of,
    identity_over,
)
from host_agent.pipeline.context import Snapshot
from host_agent.requests.model import Decision, Request, State, Terms, Verb
from host_agent.requests.notification import Purpose
from tests.support.people import (
    ALICE,
    ALICE_ENTRY,
    BRIDGE,
    CHANNELS,
    ERIN_ENTRY,
    IDENTITIES_AND_BRIDGE,
    PEOPLE,
    STRANGER,
    Chat,
)
from tests.support.pipeline import ASIDE, RESET, Workbench, opened, serial_of

PEOPLE_AND_BRIDGE = PEOPLE + BRIDGE


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(
        tmp_path, people=PEOPLE_AND_BRIDGE, identities=IDENTITIES_AND_BRIDGE
    ) as bench:
        yield bench


def over_signal(bench: Workbench, owner: str = "alice", address: str = ALICE) -> ApproverIdentity:
    voice = identity_over(bench.context, owner, "signal", address)
    assert voice is not None
    return voice


def through_bridge(bench: Workbench, owner: str = "erin") -> ApproverIdentity:
    voice = identity_over(bench.context, owner, "webhook", None)
    assert voice is not None
    bridge = identity_of(bench.who("chat-bridge"))
    return replace(voice, through="chat-bridge", credential=bridge.credential)


async def speak(
    bench: Workbench,
    voice: ApproverIdentity,
    request: Request,
    verb: Verb = Verb.APPROVE,
    digest: str | None = None,
) -> Request:
    return await bench.pipeline.decisions.decide_as(
        voice, request.id, decision=verb, digest=digest or request.digest, reason=None
    )


# -- a voice over a channel decides ----------------------------------------------------------------


async def test_a_voice_over_signal_runs_it_and_no_address_is_written_down(
    bench: Workbench,
) -> None:
    request = await bench.held()
    await speak(bench, over_signal(bench), request)
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED
    record = bench.last(Event.REQUEST_DECIDED)
    assert (record["approver_owner"], record["channel"]) == ("alice", "signal")
    assert "through" not in record
    assert ALICE not in str(bench.records())
    assert (await bench.request(request.id)).decisions[0].address == ALICE


async def test_a_voice_through_a_bridge_names_the_bridge(bench: Workbench) -> None:
    request = await bench.held()
    await speak(bench, through_bridge(bench), request)
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED
    record = bench.last(Event.REQUEST_DECIDED)
    assert (record["approver_owner"], record["through"]) == ("erin", "chat-bridge")


@pytest.mark.promise("c33")
@pytest.mark.parametrize("verb", list(Verb))
async def test_the_requesters_own_owner_has_no_voice(bench: Workbench, verb: Verb) -> None:
    request = await bench.held()
    before = await bench.request(request.id)
    with pytest.raises(SelfApprovalError) as caught:
        await speak(bench, over_signal(bench, "bob", "x"), request, verb)
    assert await bench.request(request.id) == before
    assert bench.host.changes == []
    assert caught.value.about["channel"] == "signal"


async def test_a_voice_needs_the_digest_the_time_and_a_pending_request(bench: Workbench) -> None:
    request = await bench.held()
    with pytest.raises(DigestMismatchError):
        await speak(bench, over_signal(bench), request, digest="sha256:0")
    bench.clock.advance(days=1)
    with pytest.raises(ExpiredError):
        await speak(bench, over_signal(bench), request)
    assert await bench.state(request) is State.EXPIRED
    with pytest.raises(ExpiredError):
        await speak(bench, over_signal(bench), request, Verb.DENY)
    assert bench.host.changes == []


async def test_one_owner_has_one_voice_over_all_ways(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="because")
    await bench.decide(request, by="alice")
    with pytest.raises(AlreadyDecidedError):
        await speak(bench, over_signal(bench), request)
    assert len((await bench.request(request.id)).consents) == 1
    assert bench.host.changes == []
    await speak(bench, through_bridge(bench), request)
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


async def test_an_entry_lends_its_roles_to_no_certificate_and_takes_none(
    bench: Workbench,
) -> None:
    """Frank's certificate is an admin's; over Signal he would be what his entry says."""
    admins = PEOPLE + '[[approvers]]\nowner = "frank"\nchannels = ["webhook"]\n'
    await bench.reload(people=admins, identities=IDENTITIES_AND_BRIDGE)
    voice = identity_over(bench.context, "frank", "webhook", None)
    assert voice is not None
    assert voice.roles == {"approver"}
    assert identity_over(bench.context, "frank", "signal", STRANGER) is None
    assert identity_over(bench.context, "nobody", "signal", STRANGER) is None


# -- a consent is asked again before the run -------------------------------------------------------


def without_alice(bench: Workbench) -> dict[str, str]:
    return {"people": CHANNELS + ERIN_ENTRY + BRIDGE}


def another_aci(bench: Workbench) -> dict[str, str]:
    return {"people": PEOPLE_AND_BRIDGE.replace(ALICE, STRANGER)}


def signal_taken_away(bench: Workbench) -> dict[str, str]:
    entry = ALICE_ENTRY.replace('"signal", "ntfy"', '"ntfy"').replace(f'signal = "{ALICE}"', "")
    return {"people": CHANNELS + entry + ERIN_ENTRY + BRIDGE}


async def held_up(bench: Workbench, voice: ApproverIdentity) -> tuple[Request, asyncio.Event]:
    """Approve by `voice`, and stop right before the last look."""
    request = await bench.held()
    gate = bench.host.hold("inspect-pull")
    speaking = asyncio.ensure_future(speak(bench, voice, request))
    await bench.host.reached["inspect-pull"].wait()
    await speaking
    assert await bench.state(request) is State.APPROVED
    return request, gate


async def taken_back(bench: Workbench, request: Request, gate: asyncio.Event) -> None:
    gate.set()
    await bench.settle()
    ended = await bench.request(request.id)
    assert ended.state is State.CANCELLED
    assert ended.problem is not None
    assert ended.problem.code == RoleRequiredError.code
    assert bench.host.changes == []


@pytest.mark.promise("c44")
@pytest.mark.parametrize("change", [without_alice, another_aci, signal_taken_away])
async def test_an_approver_changed_before_the_run_takes_the_consent_back(
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Workbench], dict[str, str]],
) -> None:
    monkeypatch.setattr("host_agent.pipeline.decide.CHECK_SECONDS", 0.01)
    request, gate = await held_up(bench, over_signal(bench))
    await bench.reload(identities=IDENTITIES_AND_BRIDGE, **change(bench))
    await taken_back(bench, request, gate)


@pytest.mark.promise("c44")
async def test_an_approver_whose_key_changed_before_the_run_does_not_count(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_agent.pipeline.decide.CHECK_SECONDS", 0.01)
    request, gate = await held_up(bench, over_signal(bench))
    await bench.pipeline.enrolment.identity_changed("alice", "signal", ALICE)
    await taken_back(bench, request, gate)
    disabled = bench.last(Event.APPROVER_DISABLED)
    assert (disabled["approver_owner"], disabled["cause"]) == ("alice", "identity-changed")
    assert ALICE not in str(bench.records())


def bridge_revoked(bench: Workbench) -> dict[str, str]:
    bench.revocations.revoked.add(serial_of("chat-bridge"))
    return {"people": PEOPLE_AND_BRIDGE, "identities": IDENTITIES_AND_BRIDGE}


def bridge_without_role(bench: Workbench) -> dict[str, str]:
    as_caller = IDENTITIES_AND_BRIDGE.replace('roles = ["bridge"]', 'roles = ["caller"]')
    return {"people": PEOPLE, "identities": as_caller}


def bridge_maps_to_another(bench: Workbench) -> dict[str, str]:
    reached = PEOPLE.replace('"signal", "ntfy"', '"signal", "webhook"')
    other = BRIDGE.replace('"Erin"', '"alice"')
    return {"people": reached + other, "identities": IDENTITIES_AND_BRIDGE}


def bridge_removed(bench: Workbench) -> dict[str, str]:
    return {"people": PEOPLE, "identities": IDENTITIES_AND_BRIDGE}


def webhook_taken_away(bench: Workbench) -> dict[str, str]:
    entry = ERIN_ENTRY.replace(', "webhook"', "")
    return {"people": CHANNELS + ALICE_ENTRY + entry, "identities": IDENTITIES_AND_BRIDGE}


@pytest.mark.promise("c44")
@pytest.mark.parametrize(
    "change",
    [
        bridge_revoked,
        bridge_without_role,
        bridge_maps_to_another,
        bridge_removed,
        webhook_taken_away,
    ],
)
async def test_a_bridge_changed_before_the_run_takes_the_consent_back(
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Workbench], dict[str, str]],
) -> None:
    monkeypatch.setattr("host_agent.pipeline.decide.CHECK_SECONDS", 0.01)
    request, gate = await held_up(bench, through_bridge(bench))
    await bench.reload(**change(bench))
    await taken_back(bench, request, gate)


async def test_a_bridge_without_its_role_relays_nothing(bench: Workbench) -> None:
    """No configuration file can say so; what is asked before a run does not rely on that."""
    said = replace(
        consent(bench, channel="webhook", address=None, through="chat-bridge"),
        approver="erin",
        owner="erin",
        credential=bench.who("chat-bridge").credential,
    )
    assert counts(bench.context, said, Terms(), "bob")
    config = bench.context.snapshot.config
    for changed in ({"roles": ("caller",)}, {"owner": "erin"}):
        identities = tuple(
            identity.model_copy(update=changed) if identity.cn == "chat-bridge" else identity
            for identity in config.identities
        )
        bench.context.snapshot = Snapshot.of(config.model_copy(update={"identities": identities}))
        assert not counts(bench.context, said, Terms(), "bob")


async def test_nothing_changed_before_the_run_lets_it_run(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_agent.pipeline.decide.CHECK_SECONDS", 0.01)
    request, gate = await held_up(bench, through_bridge(bench))
    await bench.reload(people=PEOPLE_AND_BRIDGE, identities=IDENTITIES_AND_BRIDGE)
    gate.set()
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED


# -- what no way in could have said ----------------------------------------------------------------


def consent(bench: Workbench, **said: str | None) -> Decision:
    fields: dict[str, str | None] = {"channel": "signal", "address": ALICE, **said}
    return Decision(
        approver="alice",
        owner="alice",
        decision=Verb.APPROVE,
        at=bench.clock.now(),
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "said",
    [
        {"address": None},
        {"address": STRANGER},
        {"channel": "webhook"},
        {"channel": "ntfy"},
        {"channel": "http", "address": None},
        {"address": None, "through": "chat-bridge"},
        {"channel": "webhook", "address": None, "through": "nobody"},
    ],
)
async def test_a_consent_that_nobody_proved_counts_for_nothing(
    bench: Workbench, said: dict[str, str | None]
) -> None:
    assert counts(bench.context, consent(bench), Terms(), "bob")
    assert not counts(bench.context, consent(bench, **said), Terms(), "bob")
    assert not counts(bench.context, consent(bench), Terms(approver_role="admin"), "bob")
    assert not counts(bench.context, consent(bench), Terms(approvers=frozenset({"erin"})), "bob")


# -- the older route -------------------------------------------------------------------------------


async def by_token(bench: Workbench, request: Request, token: str, by: str = "alice") -> None:
    await bench.pipeline.decisions.decide_by_token(bench.who(by), request.id, token)
    await bench.settle()


async def test_a_code_from_signal_is_good_for_its_owner_on_the_older_route(
    bench: Workbench,
) -> None:
    request = await bench.held()
    code = await Chat(bench).code(request)
    with pytest.raises(DigestMismatchError):
        await by_token(bench, request, code, by="erin")
    assert await bench.state(request) is State.PENDING
    await by_token(bench, request, code.lower())
    assert await bench.state(request) is State.SUCCEEDED


async def test_a_token_to_deny_with_never_approves(bench: Workbench) -> None:
    request = await bench.held()
    chat = Chat(bench)
    token = await chat.code(request, channel="ntfy", purpose=Purpose.DENY)
    other = await bench.held(operation="git.switch", params=ASIDE)
    attempts: list[tuple[Request, str]] = [(request, token), (other, await chat.code(request))]
    for about, said in attempts:
        with pytest.raises(HostAgentError) as caught:
            await by_token(bench, about, said)
        assert isinstance(caught.value, DigestMismatchError)
    assert await bench.state(request) is State.PENDING
    assert await bench.state(other) is State.PENDING
    assert bench.host.changes == []
