"""What is offered to whom: values where they are few, and never another identity's."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from host_agent.api.wire.operations import OperationInfo
from host_agent.config import Rule
from host_agent.identity.registry import Autonomy, Principal, Role
from host_agent.operations import CATALOGUE
from host_agent.pipeline.discovery import infos, tool_name
from host_agent.policy.rules import Rules
from tests.support.policies import principal, rule

APP = {"path": "/srv/app", "remotes": ["origin", "mirror"], "branches": ["main", "v[0-9]+"]}
VAULT = {"path": "/srv/vault", "remotes": ["up"], "branches": ["trunk"]}
REINDEX = {
    "name": "reindex",
    "path": "/usr/local/sbin/reindex",
    "sha256": "sha256:" + "0" * 64,
    "arguments": [{"name": "how", "pattern": "fast|full"}, {"name": "shard", "pattern": "[0-9]+"}],
}
SWEEP = {"name": "sweep", "path": "/usr/local/sbin/sweep", "sha256": "sha256:" + "0" * 64}


def offered(
    operation: str,
    rules: Sequence[Rule],
    who: Principal | None = None,
    **section: Any,
) -> list[OperationInfo]:
    spec = CATALOGUE.spec(operation)
    (adapter,) = (one for one in CATALOGUE.adapters if spec in one.specs)
    values = adapter.section.model_validate(section, strict=False)
    return list(infos(Rules(rules), who or principal(), spec, values))


def only(operation: str, rules: Sequence[Rule], **section: Any) -> OperationInfo:
    (info,) = offered(operation, rules, **section)
    return info


def member(info: OperationInfo, name: str) -> Mapping[str, Any]:
    schema: Any = info.parameters
    found: Mapping[str, Any] = schema["properties"][name]
    return found


FREE = [rule("allow", [f"{one.name}.*" for one in CATALOGUE.adapters])]


def test_repositories_branches_and_remotes_are_told() -> None:
    info = only("git.pull", FREE, repositories=[APP, VAULT])
    assert member(info, "repository")["enum"] == ["/srv/app", "/srv/vault"]
    assert member(info, "remote")["enum"] == ["origin", "mirror", "up"]
    assert member(info, "branch")["pattern"] == "^(?:trunk|main|v[0-9]+)$"
    sets: Any = info.parameters["oneOf"]
    assert [one["properties"]["repository"]["enum"] for one in sets] == [
        ["/srv/app"],
        ["/srv/vault"],
    ]
    assert sets[1]["properties"]["remote"]["enum"] == ["up"]
    assert "oneOf" not in only("git.status", FREE, repositories=[APP, VAULT]).parameters


def test_a_repository_without_what_it_takes_is_not_told() -> None:
    bare = {"path": "/srv/bare", "branches": ["main"]}
    assert offered("git.pull", FREE, repositories=[bare]) == []
    assert member(only("git.switch", FREE, repositories=[bare]), "branch")["enum"] == ["main"]


def test_each_registered_command_is_told_by_itself() -> None:
    reindex, sweep = offered("exec.run", FREE, commands=[REINDEX, SWEEP])
    assert (reindex.name, reindex.tool, sweep.tool) == (
        "exec.run",
        "exec_run_reindex",
        "exec_run_sweep",
    )
    assert member(reindex, "name") == {"type": "string", "const": "reindex"}
    arguments = member(reindex, "arguments")
    assert arguments["required"] == ["how", "shard"]
    assert arguments["properties"] == {
        "how": {"type": "string", "enum": ["fast", "full"]},
        "shard": {"type": "string", "pattern": "^(?:[0-9]+)$"},
    }
    assert arguments["additionalProperties"] is False
    assert member(sweep, "arguments")["properties"] == {}


@pytest.mark.parametrize(
    ("operation", "resource", "section", "mine", "theirs"),
    [
        ("git.reset", "repository", {"repositories": [APP, VAULT]}, "/srv/app", "/srv/vault"),
        ("systemd.stop", "unit", {"units": [r"(a|b)\.service"]}, "a.service", "b.service"),
        ("zfs.destroy", "dataset", {"datasets": ["t/a", "t/b"]}, "t/a", "t/b"),
        ("pct.stop", "vmid", {"vmids": "101-102"}, "101", "102"),
        ("apt.install", "package", {"packages": ["aa", "bb"]}, "aa", "bb"),
        ("exec.run", "name", {"commands": [REINDEX, SWEEP]}, "reindex", "sweep"),
    ],
)
@pytest.mark.parametrize("way", ["allowed", "denied", "patterns"])
def test_nobody_sees_what_only_another_may_name(
    operation: str, resource: str, section: dict[str, Any], mine: str, theirs: str, way: str
) -> None:
    def exactly(name: str) -> str:
        return f"{name.replace('.', '[.]')}(@.*)?"

    if way == "allowed":  # each has a rule of its own
        rules = [
            rule("allow", [operation], "anna's", identities=["anna"], resources=[exactly(mine)]),
            rule("ask", [operation], "berta's", identities=["berta"], resources=[exactly(theirs)]),
        ]
    elif way == "denied":  # a rule denies, a later one would allow
        rules = [
            rule("deny", [operation], "no", identities=["anna"], resources=[exactly(theirs)]),
            rule("allow", [operation], "yes"),
        ]
    else:  # the patterns of the section are too many to tell, and only the rules are
        key = next(iter(section))
        if key in {"units", "datasets", "packages"}:
            section = {key: [f"({mine}|{theirs}).*"]}
        rules = [
            rule("allow", [operation], "anna's", identities=["anna"], resources=[f"{mine}.*"]),
            rule("ask", [operation], "berta's", identities=["berta"], resources=[f"{theirs}.*"]),
        ]
    found = offered(operation, rules, principal("anna"), **section)
    told = json.dumps([info.as_json() for info in found])
    assert mine in told.replace("\\\\", "")
    assert theirs not in told.replace("\\\\", "")
    everything = json.dumps(
        [info.as_json() for info in offered(operation, rules, principal("berta"), **section)]
    )
    assert theirs in everything.replace("\\\\", "")


def test_what_is_denied_altogether_is_not_told() -> None:
    denied = [rule("deny", ["git.pull"], "no"), *FREE]
    assert offered("git.pull", denied, repositories=[APP]) == []
    assert offered("git.status", denied, repositories=[APP]) != []
    assert offered("git.pull", [], repositories=[APP]) == []
    reader = principal(autonomy=Autonomy.READ_ONLY)
    assert offered("git.pull", FREE, reader, repositories=[APP]) == []
    assert offered("git.status", FREE, reader, repositories=[APP]) != []


def test_who_may_ask_for_nothing_is_told_nothing() -> None:
    anna = principal("anna")
    approver = Principal(
        cn=anna.cn,
        unix_user=None,
        owner=anna.owner,
        roles=frozenset({Role.APPROVER}),
        autonomy=anna.autonomy,
        skip_ask=False,
        credential=anna.credential,
    )
    assert offered("git.status", FREE, approver, repositories=[APP]) == []
    assert offered("git.status", FREE, anna, repositories=[APP]) != []


def test_protected_names_are_not_told() -> None:
    units = ["ssh[.]service", "nginx[.]service"]
    assert member(only("systemd.stop", FREE, units=units), "unit")["enum"] == ["nginx.service"]
    assert len(member(only("systemd.status", FREE, units=units), "unit")["enum"]) == 2
    zfs = {"datasets": ["tank", "tank/a", "tank/kept"], "protected": ["tank/kept"]}
    pattern = member(only("zfs.destroy", FREE, **zfs), "dataset")["pattern"]
    assert "tank/a" in pattern
    assert "kept" not in pattern
    kept = member(only("zfs.snapshot", FREE, **zfs), "dataset")
    assert kept["enum"] == ["tank", "tank/a", "tank/kept"]


def test_an_empty_list_offers_nothing() -> None:
    assert offered("systemd.list", FREE) == []
    assert offered("apt.list", FREE) == []
    assert offered("zfs.list", FREE) == []
    assert offered("systemd.stop", FREE) == []
    assert len(offered("systemd.list", FREE, units=["a[.]service"])) == 1


def test_a_resource_that_may_be_left_out_is_needed_where_only_names_are_allowed() -> None:
    by_name = [rule("allow", ["zfs.list"], resources=["tank/a"])]
    assert only("zfs.list", by_name, datasets=["tank/.*"]).parameters["required"] == ["dataset"]
    assert "required" not in only("zfs.list", FREE, datasets=["tank/.*"]).parameters


def test_the_rules_are_told_in_their_order_and_in_words() -> None:
    rules = [
        rule("deny", ["systemd.*"], "never", resources=["c[.]service"]),
        rule(
            "ask",
            ["systemd.*"],
            "two of them",
            resources=["a[.]service"],
            approvals=2,
            approvers=["erin", "frank"],
            require_reason=True,
        ),
        rule("ask", ["systemd.*"], "admins", resources=["b.*"], approver_role="admin"),
        rule("allow", ["systemd.*"], "the rest"),
    ]
    info = only("systemd.stop", rules, units=[r"[a-d]\.service", "b.*", r"x.*\.service"])
    assert (info.verdict, info.reason_needed, info.undo) == ("depends", True, "start it")
    assert [case.as_json() for case in info.cases] == [
        {
            "verdict": "ask",
            "rule": "two of them",
            "values": ["a.service"],
            "reason_needed": True,
            "approvals": {"needed": 2, "role": "approver"},
            "words": "2 different approvers, of those whom the rule names, must say yes first."
            " An ask without a reason is refused.",
        },
        {
            "verdict": "ask",
            "rule": "admins",
            "patterns": [r"^(?:b\.service|b.*)$"],
            "reason_needed": False,
            "approvals": {"needed": 1, "role": "admin"},
            "words": "An admin must say yes first.",
        },
        {
            "verdict": "allow",
            "rule": "the rest",
            "patterns": [r"^(?:d\.service|x.*\.service)$"],
            "reason_needed": False,
            "words": "It runs at once.",
        },
    ]
    assert "erin" not in json.dumps(info.as_json())


def test_one_rule_for_everything_names_no_resources() -> None:
    info = only("git.pull", [rule("ask", ["git.*"])], repositories=[APP])
    (case,) = info.cases
    assert (info.verdict, case.values, case.patterns) == ("ask", None, None)
    assert only("git.status", FREE, repositories=[APP]).undo is None


def test_what_its_parameters_make_a_question_depends() -> None:
    zfs = {"datasets": ["tank/.*"]}
    assert only("zfs.destroy", FREE, **zfs).verdict == "depends"
    assert only("pct.destroy", FREE, vmids="100").verdict == "ask"
    assert only("zfs.destroy", [rule("ask", ["zfs.*"])], **zfs).verdict == "ask"


def test_many_values_are_told_as_a_pattern() -> None:
    vmids = member(only("pct.stop", FREE, vmids="100-163"), "vmid")
    assert len(vmids["enum"]) == 64
    more = member(only("pct.stop", FREE, vmids="100-199,301"), "vmid")
    assert more["pattern"] == "^(?:1[0-9]{2}|301)$"
    repositories = [{"path": f"/srv/{number}"} for number in range(65)]
    many = member(only("git.status", FREE, repositories=repositories), "repository")
    assert many["pattern"].startswith(r"^(?:/srv/0|/srv/1|")


def test_what_cannot_be_compared_is_not_told() -> None:
    large = "(a|b)*a(a|b){14}"
    told = only("apt.install", FREE, packages=[large])
    assert "pattern" not in member(told, "package")
    assert "(a|b)" not in json.dumps(told.as_json())
    by_rule = [rule("deny", ["apt.*"], resources=[large]), rule("allow", ["apt.*"])]
    assert "(a|b)" not in json.dumps(only("apt.install", by_rule, packages=["[ab]*"]).as_json())
    named = [
        rule("deny", ["apt.*"], resources=[large]),
        rule("allow", ["apt.*"], resources=["a.*"]),
    ]
    assert "a.*" not in json.dumps(only("apt.install", named, packages=["[ab]*"]).as_json())
    looking = {**APP, "branches": ["(?!x).*"]}
    branch = member(only("git.switch", FREE, repositories=[looking]), "branch")
    assert branch["pattern"] == "^(?:(?!x).*)$"


def test_names_of_tools_are_short_and_apart() -> None:
    assert tool_name("zfs.destroy") == "zfs_destroy"
    long, other = tool_name("exec.run", "a" * 64), tool_name("exec.run", "a" * 63)
    assert len(long) == len(other) == 64
    assert long != other
    names = [tool_name(name) for name in CATALOGUE.names]
    assert len(set(names)) == len(names)
    assert {name.replace("_", ".", 1) for name in names} == CATALOGUE.names


def test_every_change_says_how_it_is_undone() -> None:
    for spec in CATALOGUE:
        assert (spec.undo is None) == (spec.effect.value == "read"), spec.name
