"""What changes while somebody waits: between headers and body, ask and run, consent and quorum."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import (
    DigestMismatchError,
    HostAgentError,
    IdempotencyConflictError,
    InternalError,
    InvalidIdentityError,
    RateLimitedError,
    ReadOnlyError,
    RevokedIdentityError,
    RoleRequiredError,
    UnknownIdentityError,
)
from host_agent.pipeline import Submission
from host_agent.requests.model import State
from tests.support.pipeline import (
    FETCH,
    PULL,
    RESET,
    STATUS,
    Workbench,
    opened,
    serial_of,
)
from tests.support.site import IDENTITIES

FREE = 'autonomy = "full"\nskip_ask = true'


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


def revoke(bench: Workbench, cn: str) -> None:
    bench.revocations.revoked.add(serial_of(cn))


def rename(bench: Workbench, cn: str) -> None:
    bench.reconfigure(identities=IDENTITIES.replace(f'cn = "{cn}"', f'cn = "not-{cn}"'))


# -- between the headers and the end of the body --------------------------------------------------


async def pull(bench: Workbench, who: object) -> None:
    ask = Submission(operation="git.pull", params=PULL, exchange_id="e" * 32, body_sha256="")
    await bench.pipeline.asks.submit(who, ask)  # type: ignore[arg-type]


async def test_who_is_revoked_while_the_body_comes_runs_nothing(bench: Workbench) -> None:
    who = bench.who("robot")
    revoke(bench, "robot")
    with pytest.raises(RevokedIdentityError):
        await pull(bench, who)
    assert bench.host.ran == []


async def test_who_is_removed_while_the_body_comes_runs_nothing(bench: Workbench) -> None:
    who = bench.who("robot")
    rename(bench, "robot")
    with pytest.raises(UnknownIdentityError):
        await pull(bench, who)
    assert bench.host.ran == []


async def test_autonomy_is_that_of_the_configuration_that_judges(bench: Workbench) -> None:
    who = bench.who("robot")
    bench.reconfigure(identities=IDENTITIES.replace(FREE, 'autonomy = "read_only"'))
    with pytest.raises(ReadOnlyError):
        await pull(bench, who)
    assert bench.host.ran == []


async def test_who_loses_the_role_while_the_decision_comes_decides_nothing(
    bench: Workbench,
) -> None:
    request, alice = await bench.held(), bench.who("alice")
    bench.reconfigure(
        identities=IDENTITIES.replace('cn = "alice"\nroles = ["approver"]', 'cn = "alice"')
    )
    with pytest.raises(RoleRequiredError):
        await bench.pipeline.decisions.decide_by_token(alice, request.id, request.digest)
    assert await bench.state(request) is State.PENDING


async def test_an_expired_certificate_ends_on_an_open_connection(bench: Workbench) -> None:
    certificate = bench.certificate("deployer")
    bench.pipeline.identify(certificate)
    bench.clock.instant = certificate.not_valid_after
    with pytest.raises(InvalidIdentityError, match="expired"):
        bench.pipeline.identify(certificate)


# -- between the approval and the run -------------------------------------------------------------


@pytest.mark.parametrize("how", [revoke, rename])
async def test_who_is_gone_while_the_target_is_inspected_again_runs_nothing(
    bench: Workbench, how: object
) -> None:
    request = await bench.held()
    gate = bench.host.hold("inspect-pull")
    deciding = asyncio.create_task(bench.decide(request))
    await bench.host.reached["inspect-pull"].wait()
    how(bench, "deployer")  # type: ignore[operator]
    gate.set()
    await deciding
    await bench.settle()
    assert await bench.state(request) is State.CANCELLED
    assert bench.host.changes == []


@pytest.mark.parametrize("pin", ["revoked", "pinned to another"])
async def test_the_consent_of_a_certificate_that_is_out_counts_no_more(
    bench: Workbench, pin: str
) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="all is lost")
    await bench.decide(request)
    if pin == "revoked":
        revoke(bench, "alice")
    else:
        entry = f'cn = "alice"\nfingerprint = "sha256:{"0" * 64}"'
        bench.reconfigure(identities=IDENTITIES.replace('cn = "alice"', entry))
    await bench.decide(await bench.request(request.id), by="erin")
    await bench.settle()
    ended = await bench.request(request.id)
    assert (ended.state, bench.host.changes) == (State.CANCELLED, [])
    assert ended.problem is not None
    assert ended.problem.code == "identity:role-required"


# -- defects and a store that is away -------------------------------------------------------------


def fail(verb: str) -> None:
    if verb == "pull":
        raise ValueError(verb)


async def test_a_defect_during_a_run_leaves_nothing_running_for_ever(bench: Workbench) -> None:
    bench.host.before = fail
    with pytest.raises(InternalError):
        await bench.ask(by="robot")
    assert await bench.store.live() == []
    finished = bench.last(Event.OPERATION_FINISHED)
    assert (finished["outcome"]["state"], finished["code"]) == ("unknown", "internal")
    bench.host.before = None
    assert (await bench.ask(by="robot")).status == 200


async def test_an_end_that_the_store_did_not_take_is_given_to_it_again(bench: Workbench) -> None:
    bench.store.refused = frozenset({"transition:succeeded"})
    first = await bench.ask("git.fetch", FETCH, by="robot")
    assert (await bench.ask("git.fetch", FETCH, by="robot")).status == 202
    bench.store.refused = frozenset()
    looking = asyncio.create_task(bench.pipeline.lifecycle.expire_forever())
    while (stored := await bench.request(str(first.body["request_id"]))).state is State.RUNNING:
        await asyncio.sleep(0.01)
    looking.cancel()
    assert stored.state is State.SUCCEEDED
    assert (await bench.ask("git.fetch", FETCH, by="robot")).status == 200


# -- keys and codes -------------------------------------------------------------------------------


async def test_a_key_stands_for_an_operation_and_not_only_for_bytes(bench: Workbench) -> None:
    await bench.ask("git.status", STATUS, key="k", body="the same")
    with pytest.raises(IdempotencyConflictError):
        await bench.ask("git.diff", STATUS, key="k", body="the same")


async def test_who_is_revoked_while_the_first_of_a_key_runs_gets_no_answer(
    bench: Workbench,
) -> None:
    gate = bench.host.hold("status")
    first = asyncio.create_task(bench.ask("git.status", STATUS, key="k"))
    await bench.host.reached["status"].wait()
    second = asyncio.create_task(bench.ask("git.status", STATUS, key="k"))
    await asyncio.sleep(0)
    revoke(bench, "deployer")
    gate.set()
    await first
    with pytest.raises(RevokedIdentityError):
        await second


async def test_wrong_codes_at_once_are_no_more_than_five(bench: Workbench) -> None:
    request = await bench.held()
    alice = bench.who("alice")
    tries = (
        bench.pipeline.decisions.decide_by_token(alice, request.id, "A" * 16) for _ in range(30)
    )
    refused = await asyncio.gather(*tries, return_exceptions=True)
    kinds = [type(error) for error in refused if isinstance(error, HostAgentError)]
    assert (kinds.count(DigestMismatchError), kinds.count(RateLimitedError)) == (5, 25)
