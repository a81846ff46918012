"""The pipeline's face: who comes in, what there is to ask for, and refusals in log and metrics."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import (
    HostAgentError,
    InvalidIdentityError,
    MalformedRequestError,
    NoRuleError,
    RateLimitedError,
    RevocationUnavailableError,
    RevokedIdentityError,
    RoleRequiredError,
    UnknownIdentityError,
)
from host_agent.identity.registry import Role
from host_agent.policy.limits import Limits
from tests.support.pipeline import Workbench, opened, serial_of
from tests.support.site import IDENTITIES


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


# -- who ------------------------------------------------------------------------------------------


async def test_an_identity_is_who_its_certificate_names(bench: Workbench) -> None:
    principal = bench.pipeline.identify(bench.certificate("deployer"))
    assert (principal.cn, principal.owner) == ("deployer", "bob")
    assert principal.roles == {Role.CALLER}


async def test_revocation_and_removal_bite_at_once(bench: Workbench) -> None:
    bench.revocations.revoked.add(serial_of("deployer"))
    with pytest.raises(RevokedIdentityError):
        bench.who("deployer")
    bench.reconfigure(identities="")
    with pytest.raises(UnknownIdentityError):
        bench.who("robot")


@pytest.mark.promise("c11")
async def test_without_a_revocation_list_nobody_gets_in(bench: Workbench) -> None:
    bench.revocations.is_late = True
    with pytest.raises(RevocationUnavailableError):
        bench.who("deployer")


async def test_a_certificate_that_expires_on_an_open_connection_is_let_in_no_more(
    bench: Workbench,
) -> None:
    certificate = bench.certificate("deployer")
    bench.pipeline.identify(certificate)
    bench.clock.instant = certificate.not_valid_after
    with pytest.raises(InvalidIdentityError):
        bench.pipeline.identify(certificate)


async def test_who_has_one_of_the_roles_is_admitted(bench: Workbench) -> None:
    admit = bench.pipeline.admit
    admit(bench.who("deployer"), Role.CALLER)
    admit(bench.who("alice"), Role.APPROVER, Role.ADMIN)
    admit(bench.who("root-admin"), Role.APPROVER, Role.ADMIN)
    for cn in ("deployer", "alice", "root-admin"):
        admit(bench.who(cn))
    for cn in ("alice", "root-admin"):
        with pytest.raises(RoleRequiredError):
            admit(bench.who(cn), Role.CALLER)
    with pytest.raises(RoleRequiredError, match="approver or admin"):
        admit(bench.who("deployer"), Role.APPROVER, Role.ADMIN)


async def test_who_lacks_the_role_uses_nothing_up(tmp_path: Path) -> None:
    limits = "decision_burst = 1\ndecisions_per_second = 1"
    async with opened(tmp_path, limits=limits) as bench:
        alice = bench.who("alice")
        with pytest.raises(RoleRequiredError):
            bench.pipeline.admit(alice, Role.ADMIN, rate=Limits.decision)
        bench.pipeline.admit(alice, Role.APPROVER, rate=Limits.decision)


async def test_rates_of_asking_and_deciding_are_apart(tmp_path: Path) -> None:
    both = IDENTITIES.replace('roles = ["approver"]', 'roles = ["caller", "approver"]', 1)
    limits = "ask_burst = 2\nasks_per_second = 1\ndecision_burst = 1\ndecisions_per_second = 1"
    async with opened(tmp_path, identities=both, limits=limits) as bench:
        alice = bench.who("alice")
        bench.pipeline.admit(alice, rate=Limits.ask)
        bench.pipeline.admit(alice, rate=Limits.ask)
        with pytest.raises(RateLimitedError) as caught:
            bench.pipeline.admit(alice, rate=Limits.ask)
        assert caught.value.retry_after_seconds == pytest.approx(1)
        bench.pipeline.admit(alice, rate=Limits.decision)
        with pytest.raises(RateLimitedError):
            bench.pipeline.admit(alice, rate=Limits.decision)
        bench.pipeline.admit(bench.who("deployer"), rate=Limits.ask)
        bench.clock.advance(seconds=1)
        bench.pipeline.admit(alice, rate=Limits.ask)


# -- operations -----------------------------------------------------------------------------------


async def test_operations_are_listed_with_what_policy_would_say(bench: Workbench) -> None:
    def verdicts(cn: str) -> dict[str, str]:
        listed = bench.pipeline.operations(bench.who(cn)).operations
        return {entry.name: entry.verdict for entry in listed}

    assert verdicts("deployer") == {
        "git.status": "allow",
        "git.log": "allow",
        "git.diff": "allow",
        "git.fetch": "allow",
        "git.pull": "ask",
        "git.switch": "ask",
        "git.reset": "ask",
    }
    assert verdicts("watcher") == {"git.status": "allow", "git.log": "allow", "git.diff": "allow"}
    assert verdicts("robot")["git.pull"] == "allow"
    bench.reconfigure(git="")
    assert verdicts("deployer") == {}


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (MalformedRequestError("It is not JSON."), Event.REQUEST_REFUSED),
        (NoRuleError("No rule."), Event.POLICY_DENIED),
        (RoleRequiredError("This needs a role."), Event.IDENTITY_REFUSED),
    ],
    ids=["request", "policy", "identity"],
)
async def test_a_refusal_is_written_under_its_kind_and_counted(
    bench: Workbench, error: HostAgentError, event: Event
) -> None:
    await bench.pipeline.record_refusal(
        error, exchange_id="ab" * 16, principal=bench.who("deployer"), operation="git.pull"
    )
    record = bench.last(event)
    assert (record["caller"], record["owner"]) == ("deployer", "bob")
    assert (record["operation"], record["code"]) == ("git.pull", error.code)
    assert (record["exchange_id"], record.get("request_id")) == ("ab" * 16, None)
    text = bench.context.metrics.render().decode()
    assert f'host_agent_refusals_total{{code="{error.code}"}} 1.0' in text


async def test_a_refusal_says_of_what_it_was(bench: Workbench) -> None:
    about = {"operation": "git.pull", "resource": "/srv/app", "reason": "words"}
    error = NoRuleError("No rule.", about=about)
    await bench.pipeline.record_refusal(error, exchange_id="ab" * 16)
    record = bench.last(Event.POLICY_DENIED)
    assert (record["resource"], record["reason"]) == ("/srv/app", "words")
    assert "caller" not in record


async def test_a_certificate_that_names_nobody_is_written_with_its_fingerprint(
    bench: Workbench,
) -> None:
    certificate = bench.certificate("stranger")
    error = UnknownIdentityError("Nobody.")
    await bench.pipeline.record_refusal(error, exchange_id="ab" * 16, certificate=certificate)
    record = bench.last(Event.IDENTITY_REFUSED)
    assert (record["caller"], record["fingerprint"]) == ("stranger", certificate.fingerprint)
    assert "owner" not in record


async def test_a_flood_of_refusals_becomes_ten_records_and_a_count(bench: Workbench) -> None:
    async def refuse(cn: str, times: int) -> None:
        for _ in range(times):
            await bench.pipeline.record_refusal(
                NoRuleError("No rule."), exchange_id="ab" * 16, principal=bench.who(cn)
            )

    await refuse("deployer", 25)
    assert len(bench.events()) == 10
    await bench.pipeline.record_suppressed()
    assert len(bench.events()) == 10  # its second is not over
    await refuse("robot", 1)
    assert len(bench.events()) == 11
    bench.clock.advance(seconds=1)
    await refuse("deployer", 1)
    assert bench.records()[-1]["suppressed"] == 15
    await refuse("deployer", 12)
    await bench.pipeline.record_suppressed(everything=True)
    last = bench.records()[-1]
    assert (last["event"], last["suppressed"]) == ("request.refused", 3)
    assert last["fingerprint"] == bench.certificate("deployer").fingerprint


async def test_refusals_of_nobody_in_particular_are_bounded_too(bench: Workbench) -> None:
    for _ in range(12):
        await bench.pipeline.record_refusal(
            MalformedRequestError("It is not JSON."), exchange_id="ab" * 16
        )
    bench.clock.advance(seconds=1)
    await bench.pipeline.record_suppressed()
    last = bench.records()[-1]
    assert last["suppressed"] == 2
    assert "fingerprint" not in last


@pytest.mark.promise("c4")
async def test_a_refusal_stands_where_it_cannot_be_written(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.audit.refused = frozenset({Event.POLICY_DENIED})
    await bench.pipeline.record_refusal(NoRuleError("No rule."), exchange_id="ab" * 16)
    assert "policy:no-rule" in caplog.text


# -- gauges ---------------------------------------------------------------------------------------


async def test_gauges_follow_the_queue(bench: Workbench) -> None:
    async def gauges() -> list[str]:
        await bench.pipeline.refresh_gauges()
        text = bench.context.metrics.render().decode()
        names = ("host_agent_requests_pending", "host_agent_requests_oldest_pending_seconds")
        return [line.split()[1] for line in text.splitlines() if line.startswith(names)]

    assert await gauges() == ["0.0", "0.0"]
    await bench.held()
    bench.clock.advance(seconds=90)
    assert await gauges() == ["1.0", "90.0"]
