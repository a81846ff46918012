"""What an identity can ask for, as it is answered: JSON Schemas that hold only what it may say."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from host_agent.api.wire.operations import (
    ApprovalsNeeded,
    OperationCase,
    OperationInfo,
    OperationList,
)
from host_agent.identity.registry import Principal
from host_agent.operations.catalogue import Catalogue, OperationSpec
from host_agent.pipeline.context import Snapshot
from host_agent.policy.offers import Case, Limits, Names, Offer, offers
from host_agent.policy.rules import Ask, Rules

Schema = dict[str, Any]

MAX_TOOL_NAME = 64
"""Characters that every maker of models takes for the name of a tool."""


def discover(catalogue: Catalogue, snapshot: Snapshot, principal: Principal) -> OperationList:
    """Return what `principal` can ask for; what is denied altogether is left out."""
    found: list[OperationInfo] = []
    for spec in catalogue:
        section = snapshot.section(spec)
        if section is not None:
            found += infos(snapshot.rules, principal, spec, section)
    return OperationList(operations=tuple(found))


def infos(
    rules: Rules, principal: Principal, spec: OperationSpec, section: BaseModel
) -> Iterator[OperationInfo]:
    """Return what `principal` can ask `spec` for: one, or one for each of its resources."""
    return map(_info, offers(rules, principal, spec, section))


def tool_name(operation: str, one: str | None = None) -> str:
    """Return the name of an operation among tools, of one resource where it is offered for each.

    The adapter's name has no underscore, so the first one stands for the dot. What is too long is
    cut, and told apart by a hash.
    """
    name = "_".join((operation.replace(".", "_"), *([one] if one else [])))
    if len(name) <= MAX_TOOL_NAME:
        return name
    return f"{name[:55]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _info(offer: Offer) -> OperationInfo:
    spec = offer.spec
    info = OperationInfo(
        name=spec.name,
        tool=tool_name(spec.name, offer.one),
        effect=spec.effect.value,
        summary=spec.summary,
        parameters=_parameters(offer),
        verdict=offer.verdict,
        cases=tuple(_case(case, is_all=len(offer.cases) == 1) for case in offer.cases),
        reason_needed=any(case.verdict.require_reason for case in offer.cases),
    )
    return info if spec.undo is None else info.model_copy(update={"undo": spec.undo})


# -- rules in words --------------------------------------------------------------------------------


def _case(case: Case, *, is_all: bool) -> OperationCase:
    verdict, names = case.verdict, case.names
    told: dict[str, Any] = {}
    if not is_all and names.values and not names.patterns:
        told["values"] = names.values
    elif not is_all and names != Names():
        told["patterns"] = (names.as_pattern,)
    if isinstance(verdict, Ask):
        terms = verdict.terms
        told["approvals"] = ApprovalsNeeded(needed=terms.approvals, role=terms.approver_role)
    return OperationCase(
        verdict="ask" if isinstance(verdict, Ask) else "allow",
        rule=case.rule.name,
        reason_needed=verdict.require_reason,
        words=_words(case),
        **told,
    )


def _words(case: Case) -> str:
    verdict = case.verdict
    reason = " An ask without a reason is refused." if verdict.require_reason else ""
    if not isinstance(verdict, Ask):
        return f"It runs at once.{reason}"
    terms = verdict.terms
    role = terms.approver_role
    who = f"An {role}" if terms.approvals == 1 else f"{terms.approvals} different {role}s"
    which = "" if terms.approvers is None else ", of those whom the rule names,"
    return f"{who}{which} must say yes first.{reason}"


# -- schemas ---------------------------------------------------------------------------------------


def _parameters(offer: Offer) -> Schema:
    schema = plain(offer.spec.parameters.model_json_schema())
    if offer.needs_resource:
        needed = {offer.spec.parameters.positional[0], *schema.get("required", ())}
        schema["required"] = [name for name in schema["properties"] if name in needed]
    properties = schema.get("properties", {})
    for name, limit in _joined(offer.limits).items():
        properties[name] = _limited(properties[name], limit)
    if offer.one is not None:
        properties[offer.spec.parameters.positional[0]] = {"type": "string", "const": offer.one}
    if len(offer.limits) > 1 and any(len(limits) > 1 for limits in offer.limits):
        schema["oneOf"] = [
            {"properties": {name: _limited({}, limit) for name, limit in limits.items()}}
            for limits in offer.limits
        ]
    return schema


def _joined(every: tuple[Limits, ...]) -> Limits:
    """Return what each parameter may be in any of the sets."""
    if len(every) == 1:
        return every[0]
    found: dict[str, Names | Mapping[str, Names]] = {}
    for name in every[0]:
        parts = [limits[name] for limits in every]
        found[name] = Names.joined(part for part in parts if isinstance(part, Names))
    return found


def _limited(schema: Schema, limit: Names | Mapping[str, Names]) -> Schema:
    """Return the schema of a parameter with what it may be."""
    about = {key: schema[key] for key in ("description",) if key in schema}
    if isinstance(limit, Mapping):
        return {
            **about,
            "type": "object",
            "properties": {name: _limited({}, names) for name, names in limit.items()},
            "required": list(limit),
            "additionalProperties": False,
        }
    if limit.values and not limit.patterns:
        return {"type": "string", "enum": list(limit.values)}  # which says it all
    if pattern := limit.as_pattern:
        return {**about, "type": "string", "pattern": pattern}
    return schema


def plain(schema: Schema) -> Schema:
    """Return a schema of pydantic's without titles, and without the null of what can be left out.

    That says nothing that is not said otherwise: a parameter that is not required may be left out.
    """
    kept = {key: value for key, value in schema.items() if key != "title"}
    if kept.get("default", ...) is None:
        del kept["default"]
    options = [one for one in kept.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1 and len(kept["anyOf"]) == 2:
        del kept["anyOf"]
        kept = options[0] | kept
    for key in ("properties", "$defs"):
        if key in kept:
            kept[key] = {name: plain(member) for name, member in kept[key].items()}
    if "properties" in kept:
        kept.pop("description", None)
    return kept
