"""Policy under any rules: who asks decides, denials only grow, and silence denies."""

from hypothesis import given
from hypothesis import strategies as st

from host_agent.config import LimitsSection as Section
from host_agent.config import Rule
from host_agent.errors import RateLimitedError
from host_agent.identity.registry import Autonomy, Principal
from host_agent.operations.catalogue import Effect, Operation
from host_agent.policy.limits import Limits
from host_agent.policy.rules import Allow, Ask, Deny, Rules, Verdict
from tests.support.policies import operation, principal, rule

NAMES = ("git.pull", "git.log", "zfs.destroy", "zfs.list")
RESOURCES = ("/srv/app", "/srv/app-evil", "/srv/vault", "tank/a")
CALLERS = ("anna", "berta", "caesar")

patterns = st.sampled_from(["/srv/.*", "/srv/app", "tank/.*", ".*", "[^/]*", "x|/srv/vault"])


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    verdict = draw(st.sampled_from(["allow", "ask", "deny"]))
    keys: dict[str, object] = {}
    if resources := draw(st.none() | st.lists(patterns, min_size=1, max_size=2)):
        keys["resources"] = resources
    if who := draw(st.none() | st.lists(st.sampled_from(CALLERS), min_size=1, unique=True)):
        keys["identities"] = who
    if verdict == "ask":
        keys["always_ask"] = draw(st.booleans())
        keys["approvals"] = draw(st.integers(1, 3))
    names = st.sampled_from([*NAMES, "git.*", "zfs.*"])
    operations = draw(st.lists(names, min_size=1, max_size=3))
    return rule(verdict, operations, f"rule {draw(st.integers())}", **keys)


rule_lists = st.lists(rules(), max_size=6)
principals = st.builds(
    principal,
    st.sampled_from(CALLERS),
    autonomy=st.sampled_from(Autonomy),
    skip_ask=st.booleans(),
)
operations = st.builds(
    operation,
    st.sampled_from(NAMES),
    st.none() | st.sampled_from(RESOURCES),
    st.sampled_from(Effect),
    grave=st.booleans(),
)


@given(rule_lists, principals, operations, st.permutations(CALLERS))
def test_renaming_everybody_else_never_changes_a_verdict(
    given_rules: list[Rule], caller: Principal, asked: Operation, order: list[str]
) -> None:
    """Permuting the other identities, in rules and in their order, leaves this caller's verdict."""
    others = [cn for cn in CALLERS if cn != caller.cn]
    swap = {caller.cn: caller.cn, others[0]: others[1], others[1]: others[0]}

    def permuted(one: Rule) -> Rule:
        if one.identities is None:
            return one
        renamed = sorted((swap[cn] for cn in one.identities), key=order.index)
        return one.model_copy(update={"identities": tuple(renamed)})

    before = Rules(given_rules).judge(caller, asked)
    after = Rules([permuted(one) for one in given_rules]).judge(caller, asked)
    assert shape(before) == shape(after)


@given(rule_lists, principals, operations)
def test_rules_for_other_identities_never_change_a_verdict(
    given_rules: list[Rule], caller: Principal, asked: Operation
) -> None:
    concerned = [
        one for one in given_rules if one.identities is None or caller.cn in one.identities
    ]
    assert Rules(given_rules).judge(caller, asked) == Rules(concerned).judge(caller, asked)


@given(rule_lists, rules(), principals, operations)
def test_a_deny_rule_on_top_never_lets_more_through(
    given_rules: list[Rule], extra: Rule, caller: Principal, asked: Operation
) -> None:
    denying = rule(
        "deny",
        list(extra.operations),
        resources=extra.resources and list(extra.resources),
        identities=extra.identities and list(extra.identities),
    )
    before = Rules(given_rules).judge(caller, asked)
    after = Rules([denying, *given_rules]).judge(caller, asked)
    assert isinstance(after, Deny) or after == before


@given(principals, operations)
def test_no_rule_denies_everybody_everything(caller: Principal, asked: Operation) -> None:
    assert isinstance(Rules([]).judge(caller, asked), Deny)


@given(rule_lists, principals, operations)
def test_nothing_but_a_matching_rule_lets_through(
    given_rules: list[Rule], caller: Principal, asked: Operation
) -> None:
    verdict = Rules(given_rules).judge(caller, asked)
    if isinstance(verdict, Deny):
        assert verdict.reason
        return
    deciding = verdict.rule
    assert deciding in given_rules
    assert deciding.verdict != "deny"
    assert deciding.identities is None or caller.cn in deciding.identities
    assert asked.name in deciding.operations or f"{asked.spec.adapter}.*" in deciding.operations
    assert deciding.resources is None or asked.resource is not None


@given(rule_lists, principals, operations)
def test_a_read_only_identity_never_changes_anything(
    given_rules: list[Rule], caller: Principal, asked: Operation
) -> None:
    reader = principal(caller.cn, autonomy=Autonomy.READ_ONLY, skip_ask=caller.skip_ask)
    if asked.effect is not Effect.READ:
        assert isinstance(Rules(given_rules).judge(reader, asked), Deny)


@given(rule_lists, principals, operations)
def test_what_always_asks_never_runs_unasked(
    given_rules: list[Rule], caller: Principal, asked: Operation
) -> None:
    verdict = Rules(given_rules).judge(caller, operation(asked.name, asked.resource, grave=True))
    assert isinstance(verdict, Ask | Deny)


@given(rule_lists, principals, operations)
def test_the_summary_is_right_about_every_resource(
    given_rules: list[Rule], caller: Principal, asked: Operation
) -> None:
    said = Rules(given_rules).summary(caller, asked.spec)
    verdict = Rules(given_rules).judge(caller, asked)
    kinds = {Allow: "allow", Ask: "ask", Deny: "deny"}
    assert said in ("depends", kinds[type(verdict)])


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.floats(0, 0.5, allow_nan=False), min_size=1, max_size=100),
)
def test_no_stretch_of_time_lets_more_than_burst_and_rate_through(
    rate: int, burst: int, steps: list[float]
) -> None:
    limits = Limits(Section(asks_per_second=rate, ask_burst=burst))
    now, passed, waits = 0.0, list[float](), list[float | None]()
    for step in steps:
        now += step
        try:
            limits.ask("anna", now)
            passed.append(now)
        except RateLimitedError as refused:
            waits.append(refused.retry_after_seconds)
    assert all(wait is not None and 0 < wait <= 1 / rate for wait in waits)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - start) + 1e-6


def shape(verdict: Verdict) -> tuple[object, ...]:
    """Return all of a verdict but the rule's list of identities, which a permutation renames."""
    name = verdict.rule.name if verdict.rule else None
    return type(verdict), name, getattr(verdict, "terms", None), getattr(verdict, "code", None)
