"""What the rules say, and that nothing else says yes."""

import pytest

from host_agent.config import IdentityEntry, Rule
from host_agent.errors import BY_CODE
from host_agent.identity.registry import Autonomy
from host_agent.operations.catalogue import Effect
from host_agent.operations.git.section import GitSection, Repository
from host_agent.policy.rules import (
    Allow,
    Ask,
    Deny,
    Rules,
    Verdict,
    policy_fingerprint,
    read_only_refusal,
)
from tests.support.policies import operation, principal, rule, spec

FREE = principal(autonomy=Autonomy.FULL, skip_ask=True)


def judged(*rules: Rule, resource: str | None = "/srv/app", grave: bool = False) -> Verdict:
    return Rules(rules).judge(principal(), operation("git.pull", resource, grave=grave))


# -- default -------------------------------------------------------------------------------------


def test_no_rule_denies() -> None:
    verdict = judged()
    assert isinstance(verdict, Deny)
    assert (verdict.code, verdict.rule) == ("policy:no-rule", None)
    assert verdict.code in BY_CODE


def test_rules_for_other_operations_deny() -> None:
    assert isinstance(judged(rule("allow", ["git.fetch", "zfs.*"])), Deny)


def test_no_refusal_says_how_to_lift_it() -> None:
    refusals = [
        judged(),
        judged(rule("allow", ["git.pull"], resources=["/srv/secret"])),
        judged(rule("deny", ["git.pull"])),
        read_only_refusal(principal(autonomy=Autonomy.READ_ONLY), spec("git.pull")),
    ]
    for refusal in refusals:
        assert isinstance(refusal, Deny)
        assert not {"secret", "autonomy", "config", "add"} & set(refusal.reason.lower().split())


# -- order and matching --------------------------------------------------------------------------


def test_the_first_match_decides() -> None:
    first, second = rule("deny", ["git.pull"], "first"), rule("allow", ["git.pull"], "second")
    verdict = judged(first, second)
    assert isinstance(verdict, Deny)
    assert verdict.rule == first
    assert verdict.code == "policy:denied"
    assert isinstance(judged(second, first), Allow)


def test_two_rules_of_one_operation_differ_by_resource() -> None:
    rules = Rules(
        [
            rule("deny", ["git.pull"], "vault", resources=["/srv/vault"]),
            rule("allow", ["git.pull"], "app", resources=["/srv/app"]),
        ]
    )
    assert isinstance(rules.judge(principal(), operation("git.pull", "/srv/vault")), Deny)
    assert isinstance(rules.judge(principal(), operation("git.pull", "/srv/app")), Allow)
    other = rules.judge(principal(), operation("git.pull", "/srv/other"))
    assert isinstance(other, Deny)
    assert other.code == "policy:no-rule"


@pytest.mark.parametrize(
    ("pattern", "resource", "matches"),
    [
        ("/srv/app", "/srv/app", True),
        ("/srv/app", "/srv/app-evil", False),
        ("/srv/app", "/srv/app\n", False),
        ("/srv/app$", "/srv/app\n", False),
        ("/srv/app", "x/srv/app", False),
        ("/srv/app|/srv/b", "/srv/b", True),
        ("start|/srv/stop", "start-evil", False),
        ("/srv/.*", "/srv/a/b", True),
        ("/srv/.*", "/srv", False),
        ("/srv/a.p", "/srv/axp", True),
        ("/srv/a\\.p", "/srv/axp", False),
        ("/srv/\\w+", "/srv/\u0430pp", False),
        ("/[Ss][Rr][Vv]/app", "/srv/app", True),
    ],
)
def test_resources_match_as_a_whole(pattern: str, resource: str, matches: bool) -> None:
    verdict = judged(rule("allow", ["git.pull"], resources=[pattern]), resource=resource)
    assert isinstance(verdict, Allow) is matches


@pytest.mark.promise("c50")
@pytest.mark.parametrize("resource", ["tank/x/../y", "tank@a/b", "tank/data\n", "t\u0430nk/x"])
def test_a_resource_that_escapes_a_pattern_is_denied(resource: str) -> None:
    allowed = rule("allow", ["git.pull"], resources=["tank/[a-z]+", "tank/[a-z]+@[a-z]+"])
    assert isinstance(judged(allowed, resource=resource), Deny)


def test_an_operation_without_resource_matches_only_rules_without_resources() -> None:
    assert isinstance(judged(rule("allow", ["git.pull"], resources=[".*"]), resource=None), Deny)
    assert isinstance(judged(rule("allow", ["git.pull"]), resource=None), Allow)


@pytest.mark.parametrize(
    ("names", "matches"),
    [
        (["git.pull"], True),
        (["git.*"], True),
        (["git.fetch", "git.pull"], True),
        (["git.fetch"], False),
        (["zfs.*"], False),
    ],
)
def test_operations_match_exactly_or_by_adapter(names: list[str], matches: bool) -> None:
    assert isinstance(judged(rule("allow", names)), Allow) is matches


def test_identities_match_exactly() -> None:
    rules = Rules([rule("allow", ["git.pull"], identities=["librarian"])])
    pull = operation("git.pull", "/srv/app")
    assert isinstance(rules.judge(principal("librarian"), pull), Allow)
    for cn in ("librarian-evil", "libraria", "Librarian", "librarian.x"):
        assert isinstance(rules.judge(principal(cn), pull), Deny)


# -- autonomy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [Effect.CHANGE, Effect.DESTROY])
def test_read_only_refuses_every_other_effect(effect: Effect) -> None:
    reader = principal(autonomy=Autonomy.READ_ONLY, skip_ask=True)
    verdict = Rules([rule("allow", ["git.*"])]).judge(reader, operation("git.pull", None, effect))
    assert isinstance(verdict, Deny)
    assert verdict.code == "policy:read-only"


def test_read_only_reads_where_a_rule_allows() -> None:
    reader = principal(autonomy=Autonomy.READ_ONLY)
    read = operation("git.log", "/srv/app", Effect.READ)
    assert isinstance(Rules([rule("allow", ["git.log"])]).judge(reader, read), Allow)
    assert isinstance(Rules([]).judge(reader, read), Deny)


@pytest.mark.parametrize(
    ("autonomy", "skip_ask", "always_ask", "skips"),
    [
        (Autonomy.FULL, True, False, True),
        (Autonomy.FULL, True, True, False),
        (Autonomy.FULL, False, False, False),
        (Autonomy.SUPERVISED, True, False, False),
        (Autonomy.SUPERVISED, False, False, False),
    ],
)
def test_only_full_autonomy_with_skip_ask_skips_a_plain_ask(
    autonomy: Autonomy, skip_ask: bool, always_ask: bool, skips: bool
) -> None:
    caller = principal(autonomy=autonomy, skip_ask=skip_ask)
    asking = rule("ask", ["git.pull"], always_ask=always_ask)
    verdict = Rules([asking]).judge(caller, operation("git.pull"))
    assert isinstance(verdict, Allow if skips else Ask)


def test_full_autonomy_passes_no_denial() -> None:
    assert isinstance(Rules([rule("deny", ["git.*"])]).judge(FREE, operation("git.pull")), Deny)
    assert isinstance(Rules([]).judge(FREE, operation("git.pull")), Deny)


def test_a_skipped_ask_still_wants_its_reason() -> None:
    asking = rule("ask", ["git.pull"], require_reason=True)
    verdict = Rules([asking]).judge(FREE, operation("git.pull"))
    assert isinstance(verdict, Allow)
    assert verdict.require_reason


# -- ask -----------------------------------------------------------------------------------------


def test_an_ask_carries_its_terms() -> None:
    asking = rule(
        "ask",
        ["git.pull"],
        approvals=2,
        approvers=["Alice", "bob"],
        approver_role="admin",
        require_reason=True,
        ttl_seconds=600,
    )
    verdict = judged(asking)
    assert isinstance(verdict, Ask)
    assert verdict.rule == asking
    assert verdict.terms.approvals == 2
    assert verdict.terms.approvers == frozenset({"alice", "bob"})
    assert verdict.terms.approver_role == "admin"
    assert (verdict.require_reason, verdict.ttl_seconds) == (True, 600)


def test_a_bare_ask_needs_one_approver() -> None:
    verdict = judged(rule("ask", ["git.pull"]))
    assert isinstance(verdict, Ask)
    assert (verdict.terms.approvals, verdict.terms.approvers) == (1, None)
    assert (verdict.terms.approver_role, verdict.ttl_seconds) == ("approver", None)


# -- what always asks ----------------------------------------------------------------------------


def test_what_always_asks_needs_one_approval_under_allow() -> None:
    verdict = judged(rule("allow", ["git.pull"]), grave=True)
    assert isinstance(verdict, Ask)
    assert (verdict.terms.approvals, verdict.terms.approvers) == (1, None)
    assert (verdict.terms.approver_role, verdict.ttl_seconds) == ("approver", None)


def test_what_always_asks_is_denied_under_deny_and_under_no_rule() -> None:
    assert isinstance(judged(rule("deny", ["git.pull"]), grave=True), Deny)
    assert isinstance(judged(grave=True), Deny)


def test_what_always_asks_is_not_skipped() -> None:
    asking = rule("ask", ["git.pull"], approvals=2, ttl_seconds=60)
    verdict = Rules([asking]).judge(FREE, operation("git.pull", grave=True))
    assert isinstance(verdict, Ask)
    assert (verdict.terms.approvals, verdict.ttl_seconds) == (2, 60)


# -- summary -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], "deny"),
        ([rule("allow", ["git.*"])], "allow"),
        ([rule("ask", ["git.*"])], "ask"),
        ([rule("deny", ["git.*"]), rule("allow", ["git.*"], "s")], "deny"),
        ([rule("allow", ["git.*"], resources=["/a"])], "depends"),
        ([rule("deny", ["git.*"], resources=["/a"])], "deny"),
        ([rule("ask", ["git.*"], resources=["/a"]), rule("ask", ["git.*"], "s")], "ask"),
        ([rule("ask", ["git.*"], resources=["/a"]), rule("allow", ["git.*"], "s")], "depends"),
        ([rule("allow", ["git.*"], identities=["other"])], "deny"),
        ([rule("allow", ["zfs.*"])], "deny"),
    ],
)
def test_summary_says_what_holds_for_every_parameter(rules: list[Rule], expected: str) -> None:
    assert Rules(rules).summary(principal(), spec("git.pull")) == expected


def test_summary_knows_autonomy_and_what_may_always_ask() -> None:
    rules = Rules([rule("ask", ["git.*"])])
    assert rules.summary(FREE, spec("git.pull")) == "allow"
    assert rules.summary(FREE, spec("git.pull", always_asks=True)) == "depends"
    assert rules.summary(principal(autonomy=Autonomy.READ_ONLY), spec("git.pull")) == "deny"
    read = spec("git.log", Effect.READ)
    assert rules.summary(principal(autonomy=Autonomy.READ_ONLY), read) == "ask"


def test_deciding_ends_with_the_rule_that_covers_everything() -> None:
    named = rule("ask", ["git.pull"], "named", resources=["/a"])
    rest, never = rule("deny", ["git.*"], "rest"), rule("allow", ["git.pull"], "never")
    rules = Rules([rule("allow", ["zfs.*"], "z"), named, rest, never])
    assert rules.deciding("librarian", spec("git.pull")) == (named, rest)


# -- fingerprint ---------------------------------------------------------------------------------

IDENTITY = IdentityEntry(cn="librarian", owner="alice")
SECTION = GitSection(repositories=(Repository(path="/srv/app"),))


@pytest.mark.promise("c27")
def test_the_fingerprint_depends_on_identity_rule_and_section() -> None:
    asking = rule("ask", ["git.pull"])
    one = policy_fingerprint(IDENTITY, asking, SECTION)
    assert one.startswith("sha256:")
    assert len(one) == 71
    others = {
        policy_fingerprint(IdentityEntry(cn="librarian", owner="bob"), asking, SECTION),
        policy_fingerprint(IDENTITY, rule("ask", ["git.pull"], approvals=2), SECTION),
        policy_fingerprint(IDENTITY, asking, GitSection()),
        policy_fingerprint(IDENTITY, asking, None),
    }
    assert len(others) == 4
    assert one not in others


@pytest.mark.promise("c27")
def test_the_fingerprint_is_the_contents_and_no_counter() -> None:
    again = IdentityEntry.model_validate_json(IDENTITY.model_dump_json())
    section = GitSection.model_validate_json(SECTION.model_dump_json())
    first = policy_fingerprint(IDENTITY, rule("ask", ["git.pull"]), SECTION)
    policy_fingerprint.cache_clear()
    assert policy_fingerprint(again, rule("ask", ["git.pull"]), section) == first


@pytest.mark.promise("c27")
def test_a_key_that_a_newer_agent_has_changes_nothing_until_it_is_set() -> None:
    class Newer(IdentityEntry):
        budget: int | None = None

    old, asking = IDENTITY.model_dump(), rule("ask", ["git.pull"])
    before = policy_fingerprint(IDENTITY, asking, SECTION)
    assert policy_fingerprint(Newer(**old), asking, SECTION) == before
    assert policy_fingerprint(Newer(**old, budget=1), asking, SECTION) != before
    freer = {**old, "autonomy": Autonomy.FULL}
    assert policy_fingerprint(Newer(**freer), asking, SECTION) != before
