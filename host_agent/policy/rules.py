"""Ordered rules: the first that matches operation, resource and identity decides; none denies.

Pure: values in, a verdict out, and the reason is always there. A verdict becomes an exception at
the pipeline's edge only. Names are compared whole, resources by `fullmatch`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, assert_never

from pydantic import BaseModel

from host_agent.canonical import canonical_json
from host_agent.config import IdentityEntry, Rule, VerdictKind, compile_pattern
from host_agent.errors import NoRuleError, PolicyDeniedError, ReadOnlyError
from host_agent.identity.registry import Autonomy, Principal
from host_agent.operations.catalogue import Effect, Operation, OperationSpec
from host_agent.requests.model import Terms
from host_agent.text import sha256_digest

Summary: TypeAlias = Literal["allow", "ask", "deny", "depends"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """It may run at once. `require_reason`: but an ask without a reason is refused."""

    rule: Rule
    require_reason: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """People must say yes on these `terms`; `ttl_seconds` of None is the configuration's."""

    rule: Rule
    terms: Terms
    require_reason: bool = False
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """It may not run: the `code` of the problem, and a `reason` that is safe to show.

    `rule` is None where no rule decided. The reason never says how to lift the restriction.
    """

    rule: Rule | None
    code: str
    reason: str


Verdict: TypeAlias = Allow | Ask | Deny


@dataclass(frozen=True, slots=True)
class _Matcher:
    """One rule, ready to be compared."""

    rule: Rule
    names: frozenset[str]
    adapters: frozenset[str]
    resources: tuple[re.Pattern[str], ...] | None
    identities: frozenset[str] | None

    @classmethod
    def of(cls, rule: Rule) -> "_Matcher":
        wide = {name.removesuffix(".*") for name in rule.operations if name.endswith(".*")}
        patterns = rule.resources
        return cls(
            rule,
            frozenset(rule.operations),
            frozenset(wide),
            None if patterns is None else tuple(compile_pattern(text) for text in patterns),
            None if rule.identities is None else frozenset(rule.identities),
        )

    def concerns(self, cn: str, spec: OperationSpec) -> bool:
        """Return whether identity and operation match, whatever the resource."""
        if self.identities is not None and cn not in self.identities:
            return False
        return spec.name in self.names or spec.adapter in self.adapters

    def covers(self, resource: str | None) -> bool:
        """Return whether the resource matches; none matches only a rule without resources."""
        if self.resources is None:
            return True
        return resource is not None and any(
            pattern.fullmatch(resource) is not None for pattern in self.resources
        )


class Rules:
    """The configured rules, in their order."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._matchers = tuple(_Matcher.of(rule) for rule in rules)

    def judge(self, principal: Principal, operation: Operation) -> Verdict:
        """Return what policy says to this principal about this operation.

        Says nothing of allow-lists and protections (`OperationSpec.admit`), which the pipeline asks
        before, nor of who could approve.
        """
        if refusal := read_only_refusal(principal, operation.spec):
            return refusal
        resource = operation.resource
        for matcher in self._matchers:
            if matcher.concerns(principal.cn, operation.spec) and matcher.covers(resource):
                return _verdict(
                    principal,
                    matcher.rule,
                    always_asks=operation.spec.always_asks(operation.params),
                )
        return Deny(
            rule=None,
            code=NoRuleError.code,
            reason="No rule covers this operation for this identity; nothing was run.",
        )

    def summary(self, principal: Principal, spec: OperationSpec) -> Summary:
        """Return what policy says about `spec` for every parameter, or `depends`."""
        if read_only_refusal(principal, spec):
            return "deny"
        possible = set(self._possible(principal, spec))
        return possible.pop() if len(possible) == 1 else "depends"

    def deciding(self, cn: str, spec: OperationSpec) -> tuple[Rule, ...]:
        """Return the rules that can decide about `spec` for the identity `cn`, in their order.

        The last one covers every resource; if it has `resources`, no rule is left for the others.
        """
        found: list[Rule] = []
        for matcher in self._matchers:
            if matcher.concerns(cn, spec):
                found.append(matcher.rule)
                if matcher.resources is None:
                    break
        return tuple(found)

    def _possible(self, principal: Principal, spec: OperationSpec) -> Iterator[Summary]:
        rules = self.deciding(principal.cn, spec)
        for rule in rules:
            yield from map(_said, verdicts(principal, rule, spec))
        if not rules or rules[-1].resources is not None:
            yield "deny"


def read_only_refusal(principal: Principal, spec: OperationSpec) -> Deny | None:
    """Return the refusal of a change by a `read_only` identity, or None.

    Asked before allow-lists and protections, and before any rule.
    """
    if principal.autonomy is not Autonomy.READ_ONLY or spec.effect is Effect.READ:
        return None
    reason = "This identity may only read; nothing was run."
    return Deny(rule=None, code=ReadOnlyError.code, reason=reason)


def verdicts(principal: Principal, rule: Rule, spec: OperationSpec) -> tuple[Verdict, ...]:
    """Return what `rule` can say to `principal` of `spec`: two, where its parameters count too."""
    found = (_verdict(principal, rule, always_asks=asks) for asks in spec.asks_always)
    return tuple(dict.fromkeys(found))


def _verdict(principal: Principal, rule: Rule, *, always_asks: bool) -> Verdict:
    """Return what `rule`, which matches, says to `principal`.

    `always_asks` is the operation's own: it turns an allow into an ask, and holds against full
    autonomy as `always_ask` of the rule does. It never turns a deny into anything.
    """
    match rule.verdict:
        case VerdictKind.DENY:
            reason = f'The rule "{rule.name}" denies this operation; nothing was run.'
            return Deny(rule=rule, code=PolicyDeniedError.code, reason=reason)
        case VerdictKind.ALLOW if always_asks:
            return Ask(rule=rule, terms=Terms(), require_reason=rule.require_reason)
        case VerdictKind.ALLOW:
            return Allow(rule=rule, require_reason=rule.require_reason)
        case VerdictKind.ASK:
            if not always_asks and _skips(principal, rule):
                return Allow(rule=rule, require_reason=rule.require_reason)
            return Ask(
                rule=rule,
                terms=terms_of(rule),
                require_reason=rule.require_reason,
                ttl_seconds=rule.ttl_seconds,
            )
        case _:
            assert_never(rule.verdict)


def _skips(principal: Principal, rule: Rule) -> bool:
    is_free = principal.autonomy is Autonomy.FULL and principal.skip_ask
    return is_free and not rule.always_ask


def terms_of(rule: Rule) -> Terms:
    """Return who must say yes to what `rule` asks for."""
    owners = rule.approvers
    return Terms(
        approvals=rule.approvals,
        approvers=None if owners is None else frozenset(owner.casefold() for owner in owners),
        approver_role=rule.approver_role,
    )


def _said(verdict: Verdict) -> Summary:
    match verdict:
        case Allow():
            return "allow"
        case Ask():
            return "ask"
        case Deny():
            return "deny"
        case _:
            assert_never(verdict)


@lru_cache(maxsize=4096)
def policy_fingerprint(identity: IdentityEntry, rule: Rule, section: BaseModel | None) -> str:
    """Return `sha256:` and the hash of the policy that a digest covers.

    That is the identity's entry, the matching rule and the adapter's section, by their content: a
    restart or a reload that leaves them alone changes nothing. What is at its default is left out,
    so a key that a newer agent adds does not change it either.
    """
    parts = {"identity": identity, "rule": rule, "section": section}
    content = {
        name: None if part is None else part.model_dump(mode="json", exclude_defaults=True)
        for name, part in parts.items()
    }
    return sha256_digest(canonical_json(content))
