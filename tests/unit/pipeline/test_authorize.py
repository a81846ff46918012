"""May it: the order of the checks, asked for an ask and again before an approved one runs."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    NoRuleError,
    PolicyDeniedError,
    ReadOnlyError,
    UnknownIdentityError,
)
from host_agent.pipeline.authorize import bind, judge, require_adapter
from host_agent.pipeline.context import Snapshot
from host_agent.pipeline.run import Run
from host_agent.policy.rules import Allow, Ask
from tests.support.pipeline import PULL, RESET, STATUS, Workbench, configuration, opened


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


def verdict(
    bench: Workbench, cn: str, operation: str, params: Mapping[str, JsonValue]
) -> Allow | Ask:
    return judge(
        bench.context.snapshot, bench.who(cn), bench.context.catalogue.parse(operation, params)
    )


async def test_verdicts_are_values_with_their_rule(bench: Workbench) -> None:
    allowed = verdict(bench, "deployer", "git.status", STATUS)
    assert isinstance(allowed, Allow)
    assert allowed.rule.name == "looking is free"
    asked = verdict(bench, "deployer", "git.reset", RESET)
    assert isinstance(asked, Ask)
    assert (asked.terms.approvals, asked.require_reason) == (2, True)


@pytest.mark.parametrize(
    ("cn", "params", "rules", "error"),
    [
        ("watcher", {**PULL, "repository": "/srv/other"}, "", ReadOnlyError),
        ("deployer", {**PULL, "repository": "/srv/other"}, "", PolicyDeniedError),
        ("deployer", PULL, "", NoRuleError),
    ],
    ids=["autonomy before the allow-list", "the allow-list before the rules", "the rules"],
)
async def test_the_earlier_check_refuses(
    bench: Workbench,
    cn: str,
    params: dict[str, JsonValue],
    rules: str,
    error: type[HostAgentError],
) -> None:
    bench.reconfigure(rules=rules)
    with pytest.raises(error):
        verdict(bench, cn, "git.pull", params)


async def test_an_adapter_without_a_section_is_judged_and_then_unavailable(
    bench: Workbench,
) -> None:
    bench.reconfigure(git="")
    operation = bench.context.catalogue.parse("git.status", STATUS)
    assert isinstance(verdict(bench, "deployer", "git.status", STATUS), Allow)
    with pytest.raises(AdapterUnavailableError):
        require_adapter(bench.context.snapshot, operation)
    bench.reconfigure()
    require_adapter(bench.context.snapshot, operation)


def digest(bench: Workbench, snapshot: Snapshot, precondition: Mapping[str, JsonValue]) -> str:
    """Return the digest of a pull by the deployer under `snapshot`."""
    run = Run(
        request_id="ab" * 16,
        principal=bench.who("deployer"),
        operation=bench.context.catalogue.parse("git.pull", PULL),
        snapshot=snapshot,
        verdict=verdict(bench, "deployer", "git.pull", PULL),
    )
    assert run.digest == ""
    bound = bind(bench.context, run, precondition)
    assert bound.precondition == precondition
    return bound.digest


async def test_there_is_no_digest_for_who_is_not_registered(bench: Workbench) -> None:
    snapshot = bench.context.snapshot
    first = digest(bench, snapshot, {"head": "a"})
    assert first == digest(bench, snapshot, {"head": "a"})
    assert first != digest(bench, snapshot, {"head": "b"})
    with pytest.raises(UnknownIdentityError):
        digest(bench, Snapshot.of(configuration(bench.directory, identities="")), {"head": "a"})


async def test_the_digest_follows_the_wrapper_and_the_policy_and_nothing_else(
    bench: Workbench,
) -> None:
    first = digest(bench, bench.context.snapshot, {})
    bench.reconfigure(limits="ask_burst = 7")  # an unrelated reload
    assert digest(bench, bench.context.snapshot, {}) == first
    bench.change_wrapper()
    assert digest(bench, bench.context.snapshot, {}) != first
