"""What a bridge relays: its signature, its table, its own owner; and what moves nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.api.wire.requests import RequestView
from host_agent.audit.record import Event
from host_agent.errors import (
    AlreadyDecidedError,
    BadSignatureError,
    DigestMismatchError,
    ExpiredError,
    HostAgentError,
    InvalidParameterError,
    RoleRequiredError,
    SelfApprovalError,
    StoreUnavailableError,
)
from host_agent.notify.signal.envelope import read_envelope
from host_agent.notify.signing import sign
from host_agent.pipeline import bridges
from host_agent.pipeline.bridges import SignedMessage
from host_agent.requests.model import Request, State, Verb
from tests.support.people import (
    BRIDGE,
    IDENTITIES_AND_BRIDGE,
    PEOPLE,
    Chat,
    envelope,
)
from tests.support.pipeline import RESET, Workbench, opened
from tests.support.site import IDENTITIES

SECRET, OLD, FOREIGN = b"s" * 32, b"o" * 32, b"f" * 32
BODY = b'{"decision":"approve"}'
TABLE = (
    (PEOPLE + BRIDGE.replace('U1 = "Erin"', 'U1 = "Erin"\nU2 = "alice"'))
    .replace('channels = ["signal", "webhook"]', 'channels = ["webhook", "signal"]')
    .replace('channels = ["signal", "ntfy"]', 'channels = ["signal", "ntfy", "webhook"]')
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, people=TABLE, identities=IDENTITIES_AND_BRIDGE) as bench:
        bench.context.bridge_secrets = {"chat-bridge": (SECRET, OLD)}
        yield bench


def signed(
    bench: Workbench,
    *,
    message_id: str = "m1",
    secret: bytes = SECRET,
    late: float = 0,
    body: bytes = BODY,
) -> SignedMessage:
    timestamp = int((bench.clock.wall() + timedelta(seconds=late)).timestamp())
    return SignedMessage(
        message_id=message_id,
        timestamp=str(timestamp),
        signature=sign([secret], message_id, timestamp, body),
        body=body,
    )


async def relay(
    bench: Workbench,
    request: Request,
    *,
    user: str = "U1",
    verb: Verb = Verb.APPROVE,
    digest: str | None = None,
    by: str = "chat-bridge",
) -> RequestView:
    shown = await bench.pipeline.bridges.decide_by_bridge(
        bench.who(by),
        request.id,
        user=user,
        decision=verb,
        digest=request.digest if digest is None else digest,
        reason="so",
    )
    await bench.settle()
    return shown


async def nothing_moved(bench: Workbench, request: Request) -> None:
    stored = await bench.request(request.id)
    assert (stored.state, stored.decisions) == (State.PENDING, ())
    assert bench.host.changes == []


# -- the signature --------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SECRET, OLD])
@pytest.mark.parametrize("late", [-300, 0, 300])
async def test_either_live_secret_and_a_clock_within_five_minutes_are_taken(
    bench: Workbench, secret: bytes, late: float
) -> None:
    await bench.pipeline.bridges.accept(
        bench.who("chat-bridge"), signed(bench, secret=secret, late=late)
    )


@pytest.mark.parametrize("late", [-301, 301, -86_400, 86_400])
async def test_a_shifted_clock_is_refused(bench: Workbench, late: float) -> None:
    with pytest.raises(BadSignatureError):
        await bench.pipeline.bridges.accept(bench.who("chat-bridge"), signed(bench, late=late))


async def test_a_forged_signature_is_refused_and_spends_no_id(bench: Workbench) -> None:
    bridge = bench.who("chat-bridge")
    good = signed(bench)
    for bad in (
        signed(bench, secret=FOREIGN),
        replace(good, body=BODY + b" "),
        replace(good, message_id="m2"),
        replace(good, timestamp=str(int(good.timestamp or 0) + 1)),
        replace(good, signature=None),
        replace(good, message_id=None),
        replace(good, timestamp=None),
        replace(good, signature="v1,"),
    ):
        with pytest.raises(BadSignatureError) as refused:
            await bench.pipeline.bridges.accept(bridge, bad)
        assert "s" * 8 not in refused.value.detail
    await bench.pipeline.bridges.accept(bridge, good)


async def test_a_replay_is_refused_also_at_once_and_after_a_restart(
    bench: Workbench, tmp_path: Path
) -> None:
    bridge = bench.who("chat-bridge")
    message = signed(bench)
    taken = await asyncio.gather(
        *(bench.pipeline.bridges.accept(bridge, message) for _ in range(5)), return_exceptions=True
    )
    assert [isinstance(one, BadSignatureError) for one in taken].count(True) == 4
    assert taken.count(None) == 1
    bench.clock.advance(seconds=250)
    with pytest.raises(BadSignatureError):
        await bench.pipeline.bridges.accept(bridge, message)


async def test_a_bridge_without_secrets_signs_nothing(bench: Workbench) -> None:
    bench.context.bridge_secrets = {}
    with pytest.raises(BadSignatureError):
        await bench.pipeline.bridges.accept(bench.who("chat-bridge"), signed(bench))


async def test_no_id_is_forgotten_for_want_of_room(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges, "MAX_NONCES", 2)
    bridge = bench.who("chat-bridge")
    for number in range(2):
        await bench.pipeline.bridges.accept(bridge, signed(bench, message_id=f"n{number}"))
    with pytest.raises(StoreUnavailableError):
        await bench.pipeline.bridges.accept(bridge, signed(bench, message_id="n2"))
    with pytest.raises(BadSignatureError):
        await bench.pipeline.bridges.accept(bridge, signed(bench, message_id="n0"))


# -- the answer -----------------------------------------------------------------------------------


async def test_a_relayed_yes_runs_it(bench: Workbench) -> None:
    request = await bench.held()
    shown = await relay(bench, request)
    assert shown.request_id == request.id
    stored = await bench.request(request.id)
    assert stored.state is State.SUCCEEDED
    (decision,) = stored.decisions
    assert (decision.owner, decision.channel, decision.through) == (
        "erin",
        "webhook",
        "chat-bridge",
    )
    record = bench.last(Event.REQUEST_DECIDED)
    assert (record["approver_owner"], record["through"]) == ("erin", "chat-bridge")


async def test_a_relayed_no_ends_it(bench: Workbench) -> None:
    request = await bench.held()
    await relay(bench, request, verb=Verb.DENY)
    assert (await bench.request(request.id)).state is State.DENIED
    assert bench.host.changes == []
    with pytest.raises(AlreadyDecidedError):
        await relay(bench, request, user="U2")


@pytest.mark.parametrize("verb", list(Verb))
async def test_an_answer_for_another_digest_moves_nothing(bench: Workbench, verb: Verb) -> None:
    request = await bench.held()
    with pytest.raises(DigestMismatchError):
        await relay(bench, request, verb=verb, digest="sha256:" + "0" * 64)
    await nothing_moved(bench, request)


@pytest.mark.parametrize("user", ["U3", "erin", "Erin", "", "u1"])
async def test_nobody_beyond_the_bridges_own_table_speaks(bench: Workbench, user: str) -> None:
    request = await bench.held()
    with pytest.raises(RoleRequiredError):
        await relay(bench, request, user=user)
    await nothing_moved(bench, request)


@pytest.mark.parametrize("by", ["alice", "deployer", "root-admin"])
async def test_only_a_bridge_relays(bench: Workbench, by: str) -> None:
    request = await bench.held()
    with pytest.raises(RoleRequiredError):
        await relay(bench, request, by=by)
    with pytest.raises(RoleRequiredError):
        await bench.pipeline.bridges.relay_signal(bench.who(by), {})
    await nothing_moved(bench, request)


SAID = {Verb.APPROVE: "CONFIRM", Verb.DENY: "DENY"}


@pytest.mark.parametrize("owner", ["bob", "chat"])
async def test_neither_the_callers_owner_nor_the_bridges_own_counts(
    bench: Workbench, owner: str
) -> None:
    request = await bench.held()
    config = bench.context.snapshot.config
    bridge = config.bridges[0].model_copy(update={"approvers": {"U1": owner}})
    entry = config.approvers[1].model_copy(update={"owner": owner})
    changed = config.model_copy(update={"bridges": (bridge,), "approvers": (entry,)})
    bench.context.snapshot = type(bench.context.snapshot).of(changed)
    bench.context.contacts = type(bench.context.contacts).of(changed)
    with pytest.raises(SelfApprovalError):
        await relay(bench, request)
    await nothing_moved(bench, request)


@pytest.mark.parametrize("verb", Verb)
async def test_a_bridge_of_the_callers_owner_relays_nothing_about_it(
    bench: Workbench, verb: Verb
) -> None:
    request = await bench.held()
    code = await Chat(bench).code(request)
    identities = IDENTITIES_AND_BRIDGE.replace('"chat"', f'"{request.owner.upper()}"')
    await bench.reload(people=TABLE, identities=identities)
    bridge = bench.who("chat-bridge")
    with pytest.raises(SelfApprovalError):
        await bench.pipeline.bridges.decide_by_bridge(
            bridge, request.id, user="U1", decision=verb, digest=request.digest, reason="no"
        )
    answer = await bench.pipeline.bridges.relay_signal(bridge, envelope(f"{SAID[verb]} {code}"))
    assert "vouches for this answer" in str(answer.answer)
    await nothing_moved(bench, request)
    refused = [r for r in bench.records() if r["event"] == Event.DECISION_REFUSED]
    assert [record["code"] for record in refused] == ["approval:self-approval"]


async def test_an_expired_request_is_not_answered(bench: Workbench) -> None:
    request = await bench.held()
    bench.clock.advance(hours=1)
    with pytest.raises(ExpiredError):
        await relay(bench, request)
    assert (await bench.request(request.id)).state is State.EXPIRED
    assert bench.host.changes == []


async def test_one_answer_delivered_twice_at_once_decides_once(bench: Workbench) -> None:
    request = await bench.held()
    taken = await asyncio.gather(*(relay(bench, request) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(one, HostAgentError) for one in taken) == 3
    assert len((await bench.request(request.id)).decisions) == 1
    assert len(bench.host.changes) == 1


# -- the older way in for Signal ------------------------------------------------------------------


async def test_a_code_that_is_relayed_from_signal_counts_as_over_signal(bench: Workbench) -> None:
    request = await bench.held()
    code = await Chat(bench).code(request)
    bridge = bench.who("chat-bridge")
    other = await bench.pipeline.bridges.relay_signal(
        bridge, envelope(f"CONFIRM {code}", account="+1555")
    )
    assert other.answer is None
    await nothing_moved(bench, request)
    answer = await bench.pipeline.bridges.relay_signal(bridge, envelope(f"CONFIRM {code}"))
    assert str(answer.answer).startswith("Approved")
    await bench.settle()
    assert (await bench.request(request.id)).state is State.SUCCEEDED


async def test_a_wrong_code_that_is_relayed_moves_nothing(bench: Workbench) -> None:
    request = await bench.held()
    await Chat(bench).code(request)
    answer = await bench.pipeline.bridges.relay_signal(
        bench.who("chat-bridge"), envelope("CONFIRM AAAAAAAAAAAAAAAA")
    )
    assert "not known" in str(answer.answer)
    await nothing_moved(bench, request)


async def test_what_a_bridge_relays_of_signal_names_it_and_is_lost_with_it(
    bench: Workbench,
) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="because")
    code = await Chat(bench).code(request)
    await bench.pipeline.bridges.relay_signal(bench.who("chat-bridge"), envelope(f"CONFIRM {code}"))
    (said,) = (await bench.request(request.id)).decisions
    assert (said.channel, said.through) == ("signal", "chat-bridge")
    assert bench.last(Event.REQUEST_DECIDED)["through"] == "chat-bridge"
    await bench.reload(people=PEOPLE, identities=IDENTITIES)
    await bench.decide(request, by="erin")
    await bench.settle()
    assert (await bench.request(request.id)).state is not State.SUCCEEDED
    assert bench.host.changes == []


OURS = {"authorNumber": "+431234567", "targetAuthorNumber": "+431234567"}
BY_QUOTE: dict[str, dict[str, object]] = {
    "an answer": {"message": "DENY", "quote": {"id": 100, **OURS}},
    "a reaction": {
        "reaction": {
            "emoji": "\U0001f44e",
            "isRemove": False,
            "targetSentTimestamp": 100,
            **OURS,
        }
    },
}


@pytest.mark.parametrize("said", BY_QUOTE.values(), ids=BY_QUOTE)
async def test_a_bridge_denies_nothing_by_a_quote(
    bench: Workbench, said: dict[str, object]
) -> None:
    request = await bench.held()
    await Chat(bench).deliver(request)
    body = envelope("", said=said)
    await bench.pipeline.bridges.relay_signal(bench.who("chat-bridge"), body)
    await nothing_moved(bench, request)
    heard = read_envelope(body, account="+431234567")
    assert heard is not None
    await bench.pipeline.replies.hear(replace(heard, reference="not relayed"))
    assert (await bench.request(request.id)).state is State.DENIED


async def test_a_bridge_enrols_nobody(bench: Workbench) -> None:
    carol = '[[approvers]]\nowner = "carol"\nchannels = ["signal"]\n'
    await bench.reload(people=TABLE + carol, identities=IDENTITIES_AND_BRIDGE)
    offered = await bench.pipeline.enrolment.offer_enrolment(
        bench.who("root-admin"), "carol", "signal"
    )
    said = envelope(f"ENROL {offered.code}", aci="3f0a1b2c-0000-4000-8000-0000000057a9")
    enrol = await bench.pipeline.bridges.relay_signal(bench.who("chat-bridge"), said)
    assert "cannot vouch" in str(enrol.answer)
    assert await bench.store.contacts() == []


async def test_without_an_entry_a_bridge_relays_nothing_from_signal(bench: Workbench) -> None:
    await bench.reload(people=PEOPLE, identities=IDENTITIES_AND_BRIDGE)
    with pytest.raises(RoleRequiredError):
        await bench.pipeline.bridges.relay_signal(bench.who("chat-bridge"), envelope("CONFIRM x"))


async def test_without_an_account_of_signal_nothing_is_relayed(tmp_path: Path) -> None:
    people = """
[channels.webhook]
url = "https://chat.example/hook"
secret_file = "pki/hook"
[[approvers]]
owner = "erin"
channels = ["webhook"]
"""
    configured = people + BRIDGE
    async with opened(tmp_path, people=configured, identities=IDENTITIES_AND_BRIDGE) as bench:
        request = await bench.held()
        with pytest.raises(InvalidParameterError, match="No account of Signal"):
            await bench.pipeline.bridges.relay_signal(
                bench.who("chat-bridge"), envelope("CONFIRM A")
            )
        assert await bench.state(request) is State.PENDING
