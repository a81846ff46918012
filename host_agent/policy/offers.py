"""What can be asked for: for one identity, the values that policy lets through, and on what terms.

Pure, and exact where names are regular: what an earlier rule takes is taken from the later ones,
and what every rule denies, or the adapter protects, is in no value and no pattern that is offered.
A pattern can be wider than what it is offered for: every ask is still judged by itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from pydantic import BaseModel

from host_agent.config import Rule
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Allowed, Choice, OperationSpec
from host_agent.operations.languages import (
    Expression,
    Language,
    LanguageTooLargeError,
    Machine,
    alternatives,
    shown,
    then,
)
from host_agent.operations.patterns import expression
from host_agent.policy.rules import (
    Allow,
    Ask,
    Deny,
    Rules,
    Verdict,
    read_only_refusal,
    verdicts,
)

MAX_VALUES = 64
"""Values that are told one by one; more are told as patterns."""
_MAX_PARTS = 32
"""Parts that a pattern is taken apart into, so that none is told for the sake of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Some names: `values` are all of them, or else `patterns` hold them; neither: not told."""

    values: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    @property
    def as_pattern(self) -> str:
        """Return one regular expression that they match from end to end; empty where not told."""
        every = (*map(_escaped, self.values), *self.patterns)
        return f"^(?:{'|'.join(every)})$" if every else ""

    @classmethod
    def joined(cls, parts: Iterable["Names"]) -> "Names":
        found = tuple(parts)
        if Names() in found:
            return cls()
        values = tuple(dict.fromkeys(value for part in found for value in part.values))
        patterns = tuple(dict.fromkeys(one for part in found for one in part.patterns))
        if len(values) > MAX_VALUES:
            values, patterns = (), (*map(_escaped, values), *patterns)
        return cls(values=values, patterns=patterns)


_SPECIAL = re.compile(r"[\^$\\.*+?()\[\]{}|]")


def _escaped(value: str) -> str:
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", value)


Limits: TypeAlias = Mapping[str, "Names | Mapping[str, Names]"]
"""What parameters may be, by name; a mapping is of an object that has exactly these members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a rule says, and of which resources; `is_of_none`: also where none is named."""

    rule: Rule
    verdict: Allow | Ask
    names: Names
    is_of_none: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing that can be asked for.

    `one` is the resource, for an operation that is offered for each. `limits` has an entry for each
    set of values that go together. `needs_resource`: without one, policy denies.
    """

    spec: OperationSpec
    one: str | None
    cases: tuple[Case, ...]
    limits: tuple[Limits, ...]
    needs_resource: bool

    @property
    def verdict(self) -> Literal["allow", "ask", "depends"]:
        """Return what is said whatever the parameters are."""
        every = {isinstance(case.verdict, Ask) for case in self.cases}
        if len(every) > 1:
            return "depends"
        return "ask" if every.pop() else "allow"


def offers(
    rules: Rules, principal: Principal, spec: OperationSpec, section: BaseModel
) -> tuple[Offer, ...]:
    """Return what `principal` can ask `spec` for; nothing where policy denies it altogether."""
    if Role.CALLER not in principal.roles or read_only_refusal(principal, spec):
        return ()
    deciding = tuple(
        (rule, verdicts(principal, rule, spec)) for rule in rules.deciding(principal.cn, spec)
    )
    found = [
        (choice, cases)
        for choice in spec.choices(section)
        if (cases := tuple(_cases(deciding, choice, spec)))
    ]
    if spec.is_offered_by_choice:
        return tuple(_offer(spec, [each]) for each in found)
    return (_offer(spec, found),) if found else ()


def _offer(spec: OperationSpec, found: Sequence[tuple[Choice, tuple[Case, ...]]]) -> Offer:
    alike: dict[tuple[Rule, bool], list[Case]] = {}
    for _, cases in found:
        for case in cases:
            alike.setdefault((case.rule, isinstance(case.verdict, Ask)), []).append(case)
    first = found[0][0].resource
    return Offer(
        spec=spec,
        one=first.values[0] if spec.is_offered_by_choice and first is not None else None,
        cases=tuple(
            Case(
                rule=same[0].rule,
                verdict=same[0].verdict,
                names=Names.joined(case.names for case in same),
                is_of_none=any(case.is_of_none for case in same),
            )
            for same in alike.values()
        ),
        limits=tuple(_limits(spec, choice, cases) for choice, cases in found),
        needs_resource=first is not None
        and not any(case.is_of_none for _, cases in found for case in cases),
    )


# -- which rule decides about what -----------------------------------------------------------------

_Deciding: TypeAlias = tuple[tuple[Rule, tuple[Verdict, ...]], ...]


def _cases(deciding: _Deciding, choice: Choice, spec: OperationSpec) -> Iterator[Case]:
    """Return what the rules say of a choice, where they do not deny, in their order."""
    resource = choice.resource
    taken: tuple[Rule, ...] = ()
    for rule, found in deciding:
        names = None if resource is None else _decided(rule, taken, resource)
        is_of_none = rule.resources is None and (resource is None or _is_optional(spec))
        if names is not None or is_of_none:
            for verdict in found:
                if not isinstance(verdict, Deny):
                    yield Case(
                        rule=rule,
                        verdict=verdict,
                        names=names or Names(),
                        is_of_none=is_of_none,
                    )
        taken = (*taken, rule)


def _is_optional(spec: OperationSpec) -> bool:
    """Return whether an operation with a resource can be asked for without naming one."""
    field = spec.parameters.model_fields[spec.parameters.positional[0]]
    return not field.is_required()


@lru_cache(maxsize=1024)  # the same for many operations, and at each question
def _decided(rule: Rule, taken: tuple[Rule, ...], resource: Allowed) -> Names | None:
    """Return the names that `rule` decides about, after those that were `taken`; None for none."""
    if not resource.patterns:
        values = tuple(
            value
            for value in resource.values
            if _covers(rule, value) and not any(_covers(earlier, value) for earlier in taken)
        )
        return Names(values=values) if values else None
    try:
        return _matched(rule, taken, resource)
    except (LanguageTooLargeError, ValueError):  # what is not known is not told
        return Names()


def _covers(rule: Rule, resource: str) -> bool:
    return rule.resources is None or any(
        re.fullmatch(pattern, resource, re.ASCII) for pattern in rule.resources
    )


def _matched(rule: Rule, taken: Sequence[Rule], resource: Allowed) -> Names | None:
    """Return the same where the names are known as patterns.

    Raises:
        LanguageTooLargeError, ValueError: they cannot be compared.
    """
    listed = _expressions(resource.patterns, resource.suffix)
    named = _expressions(rule.resources or ())
    within = [_machine(resource.patterns, resource.suffix)]
    if rule.resources is not None:
        within.append(_machine(rule.resources))
    gone = [_machine(earlier.resources or (".*",)) for earlier in taken]
    if resource.without:
        gone.append(_machine(resource.without))
    left = Language(within, gone).names(MAX_VALUES)
    if left is not None:
        return Names(values=left) if left else None
    parts = (part for one in listed for part in _parts(one, gone))
    told = [text for part in parts for text in _told(part, named, gone)]
    return Names(patterns=tuple(dict.fromkeys(told)))


@lru_cache(maxsize=256)
def _machine(patterns: tuple[str, ...], suffix: str = "") -> Machine:
    return Machine(_expressions(patterns, suffix))


def _expressions(patterns: tuple[str, ...], suffix: str = "") -> tuple[Expression, ...]:
    end = expression(suffix)
    return tuple(then(expression(pattern), end) for pattern in patterns)


def _parts(whole: Expression, gone: Sequence[Machine]) -> tuple[Expression, ...]:
    """Return what a name is told as: whole, or in parts where something of it is gone."""
    if all(Language([Machine([whole]), one]).is_empty() for one in gone):
        return (whole,)
    return alternatives(whole, _MAX_PARTS)


def _told(
    listed: Expression, named: Sequence[Expression], gone: Sequence[Machine]
) -> Iterator[str]:
    """Return the narrower of a listed name and those of a rule, where something of both is left."""
    names = Machine([listed])
    if not named:
        if not Language([names], gone).is_empty():
            yield shown(listed)
        return
    for whole in named:
        for one in _parts(whole, gone):
            other = Machine([one])
            if not Language([names, other], gone).is_empty():
                is_within = Language([names], [other]).is_empty()
                yield shown(listed if is_within else one)


# -- what goes together ----------------------------------------------------------------------------


def _limits(spec: OperationSpec, choice: Choice, cases: Sequence[Case]) -> Limits:
    found: dict[str, Names | Mapping[str, Names]] = {}
    if choice.resource is not None:
        name = spec.parameters.positional[0]
        found[name] = Names.joined(case.names for case in cases)
    for name, other in choice.others.items():
        if isinstance(other, Allowed):
            found[name] = _names(other)
        else:
            found[name] = {member: _names(allowed) for member, allowed in other.items()}
    return found


def _names(allowed: Allowed) -> Names:
    """Return what a parameter that no rule looks at may be."""
    if not allowed.patterns:
        return Names(values=allowed.values)
    try:
        of_all = _expressions(allowed.patterns)
        left = Language([Machine(of_all)]).names(MAX_VALUES)
    except (LanguageTooLargeError, ValueError):
        return Names(patterns=allowed.patterns)
    return Names(values=left) if left else Names(patterns=tuple(map(shown, of_all)))
