"""What is offered is what policy lets through: every value of it, nothing else, under any rules."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import product
from typing import Any, TypeAlias

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from host_agent.api.wire.operations import OperationInfo
from host_agent.canonical import JsonValue
from host_agent.config import Rule
from host_agent.errors import HostAgentError
from host_agent.identity.registry import Autonomy, Principal
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Operation
from host_agent.pipeline.discovery import infos
from host_agent.policy.rules import Allow, Ask, Rules
from tests.support.policies import principal, rule

SECTIONS: Mapping[str, dict[str, Any]] = {
    "zfs": {"datasets": ["tank/.*", "pool", "back(up|ground)"], "protected": ["tank/kept.*"]},
    "systemd": {"units": [r"(nginx|redis)\.service", r"app@[a-z]+\.service", "ssh.*"]},
    "pct": {"vmids": "100-103,200-299"},
    "apt": {"packages": ["nginx.*", "curl"], "protected": ["nginx-core"]},
    "git": {
        "repositories": [
            {"path": "/srv/app", "remotes": ["origin"], "branches": ["main", "v[0-9]+"]},
            {"path": "/srv/vault", "remotes": ["up"], "branches": ["trunk"]},
            {"path": "/srv/bare"},
        ]
    },
    "exec": {
        "commands": [
            {
                "name": "reindex",
                "path": "/usr/local/sbin/reindex",
                "sha256": "sha256:" + "0" * 64,
                "arguments": [{"name": "how", "pattern": "fast|full"}],
            },
            {"name": "sweep", "path": "/usr/local/sbin/sweep", "sha256": "sha256:" + "0" * 64},
        ]
    },
}
RESOURCES: Mapping[str, tuple[str, ...]] = {
    "zfs": (
        *("pool", "pool@a", "tank/a", "tank/a@b", "tank/kept", "tank/kept/x@y", "tank/ab"),
        *("backup", "background@a", "other"),
    ),
    "systemd": ("nginx.service", "redis.service", "app@x.service", "ssh.service", "cron.service"),
    "pct": ("100", "103", "104", "250", "300"),
    "apt": ("nginx", "nginx-core", "curl", "bash"),
    "git": ("/srv/app", "/srv/vault", "/srv/bare", "/srv/other"),
    "exec": ("reindex", "sweep", "other"),
}
OTHERS: Mapping[str, tuple[JsonValue, ...]] = {
    "remote": ("origin", "up"),
    "branch": ("main", "v12", "trunk"),
    "arguments": ({}, {"how": "fast"}, {"how": "slow"}),
    "name": ("old",),
    "tag": ("keep",),
    "ref": ("main",),
    "template": ("local:vztmpl/debian-12.tar.zst",),
    "properties": (["all"],),
    "recursive": (False, True),
}
CALLERS = ("anna", "berta")
patterns = st.sampled_from(
    [
        *("tank/.*", "tank/a.*", ".*@.*", "[^@]*", "pool|tank/kept", "back.*", "nginx.*"),
        *(".*[.]service", "app@.*", "redis[.]service", "1.*", "[0-9]*3", "2[0-4].", "nginx|curl"),
        *("/srv/app", "/srv/.*", "re.*", ".*"),
    ]
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    verdict = draw(st.sampled_from(["allow", "ask", "deny"]))
    keys: dict[str, object] = {}
    if resources := draw(st.none() | st.lists(patterns, min_size=1, max_size=2)):
        keys["resources"] = resources
    if who := draw(st.none() | st.lists(st.sampled_from(CALLERS), min_size=1, unique=True)):
        keys["identities"] = who
    wide = st.just([f"{adapter.name}.*" for adapter in CATALOGUE.adapters])
    names = st.lists(st.sampled_from(sorted(CATALOGUE.names)), min_size=1, max_size=20)
    operations = draw(wide | names)
    return rule(verdict, operations, f"rule {draw(st.integers(0, 99))}", **keys)


principals = st.builds(principal, st.sampled_from(CALLERS), autonomy=st.sampled_from(Autonomy))


@cache
def section_of(name: str) -> BaseModel:
    (adapter,) = (one for one in CATALOGUE.adapters if one.name == name.partition(".")[0])
    found: BaseModel = adapter.section.model_validate(SECTIONS[adapter.name], strict=False)
    return found


def asks() -> Iterator[Operation]:
    """Return asks for everything that there is, with good values and others."""
    for spec in CATALOGUE:
        first = spec.parameters.positional[:1]
        said = [
            [(name, value) for value in OTHERS[name]]
            for name, member in spec.parameters.model_fields.items()
            if name not in first and (member.is_required() or name in {"recursive", "arguments"})
        ]
        named = [[(name, one) for one in RESOURCES[spec.adapter]] for name in first]
        for pairs in (*product(*named, *said), ()):
            with suppress(HostAgentError):
                yield CATALOGUE.parse(spec.name, dict(pairs))


ASKS = tuple(asks())


def judged(given_rules: Rules, who: Principal, asked: Operation) -> Allow | Ask | None:
    """Return what the pipeline would: allow-lists and protections first, then the rules."""
    try:
        asked.spec.admit(asked.params, section_of(asked.name))
    except HostAgentError:
        return None
    verdict = given_rules.judge(who, asked)
    return verdict if isinstance(verdict, Allow | Ask) else None


class Offered:
    """What is listed, with a validator of its parameters that is made once."""

    def __init__(self, info: OperationInfo) -> None:
        self.info = info
        self._validator = jsonschema_rs.Draft202012Validator(info.parameters)

    def holds(self, asked: Operation) -> bool:
        """Return whether it is for this operation, and lets these parameters through."""
        said = asked.params.model_dump(mode="json", exclude_none=True)
        return self.info.name == asked.name and self._validator.is_valid(said)


def listed(given_rules: Sequence[Rule], who: Principal, adapter: str) -> list[Offered]:
    made, section = Rules(given_rules), section_of(adapter)
    return [
        Offered(info)
        for spec in CATALOGUE
        if spec.adapter == adapter
        for info in infos(made, who, spec, section)
    ]


def of(adapter: str) -> list[Operation]:
    return [asked for asked in ASKS if asked.spec.adapter == adapter]


situations = st.tuples(st.lists(rules(), max_size=6), principals, st.sampled_from(list(SECTIONS)))
Situation: TypeAlias = tuple[list[Rule], Principal, str]


@given(situations)
@settings(max_examples=100, deadline=None)
def test_what_policy_lets_through_is_offered_with_its_verdict(situation: Situation) -> None:
    given_rules, who, adapter = situation
    offered = listed(given_rules, who, adapter)
    made = Rules(given_rules)
    for asked in of(adapter):
        verdict = judged(made, who, asked)
        if verdict is None:
            continue
        (info,) = (offer.info for offer in offered if offer.holds(asked))
        word = "ask" if isinstance(verdict, Ask) else "allow"
        assert info.verdict in (word, "depends")
        assert (verdict.rule.name, word) in {(case.rule, case.verdict) for case in info.cases}


@given(situations)
@settings(max_examples=100, deadline=None)
def test_no_value_is_offered_that_policy_denies(situation: Situation) -> None:
    given_rules, who, adapter = situation
    made = Rules(given_rules)
    for info in (offer.info for offer in listed(given_rules, who, adapter)):
        rules_of: dict[str, set[tuple[str, str]]] = {}
        for asked in (one for one in of(adapter) if one.name == info.name):
            verdict = judged(made, who, asked)
            if verdict is not None and asked.resource is not None:
                word = "ask" if isinstance(verdict, Ask) else "allow"
                rules_of.setdefault(asked.resource, set()).add((verdict.rule.name, word))
        resources = set(RESOURCES[adapter])
        assert set(values(info.parameters)) & resources <= set(rules_of)
        for case in info.cases:
            for value in resources & set(case.values or ()):
                assert (case.rule, case.verdict) in rules_of[value] or case.verdict == "ask"


def values(schema: object) -> Iterator[str]:
    """Return every member of an enumeration in a JSON Schema, however deep."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "enum" and isinstance(value, list):
                yield from map(str, value)
            elif key == "const":
                yield str(value)
            else:
                yield from values(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from values(value)


def test_the_asks_are_of_every_operation() -> None:
    assert {asked.name for asked in ASKS} == CATALOGUE.names


@pytest.mark.parametrize("adapter", sorted(SECTIONS))
def test_choices_hold_what_admit_lets_through(adapter: str) -> None:
    everything = [rule("allow", [f"{adapter}.*"])]
    offered = listed(everything, principal(), adapter)
    for asked in of(adapter):
        is_offered = any(offer.holds(asked) for offer in offered)
        is_admitted = judged(Rules(everything), principal(), asked) is not None
        # A pattern says nothing of what is protected in it.
        assert is_offered or not is_admitted
        assert is_admitted or not is_offered or adapter in {"apt", "systemd", "zfs"}
