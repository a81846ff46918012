"""Principals, operations and rules by their parts, for tests of policy."""

from typing import Any

from host_agent.config import Rule
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Autonomy, Principal, Role
from host_agent.operations.catalogue import (
    Choice,
    Effect,
    Invocation,
    Operation,
    OperationSpec,
    Parameters,
    RunAs,
    never_asks,
)


class Target(Parameters):
    """The parameters of a test's operation: its resource, or none, and whether it always asks."""

    resource: str | None = None
    grave: bool = False


def spec(name: str, effect: Effect = Effect.CHANGE, *, always_asks: bool = False) -> OperationSpec:
    """Return a declaration; with `always_asks`, its parameter `grave` asks a person."""
    return OperationSpec(
        name=name,
        effect=effect,
        summary="",
        parameters=Target,
        wrapper="none",
        run_as=RunAs.ROOT,
        resource=lambda params: params.resource,
        admit=lambda _params, _section: None,
        choices=lambda _section: (Choice(),),
        invoke=lambda _params, _precondition: Invocation(
            wrapper="none", arguments=(), run_as=RunAs.ROOT
        ),
        always_asks=(lambda params: params.grave) if always_asks else never_asks,
    )


def operation(
    name: str,
    resource: str | None = None,
    effect: Effect = Effect.CHANGE,
    *,
    grave: bool = False,
) -> Operation:
    """Return an ask for `name` on `resource`; a `grave` one always asks a person."""
    return Operation(spec(name, effect, always_asks=grave), Target(resource=resource, grave=grave))


def principal(
    cn: str = "librarian",
    *,
    owner: str | None = None,
    autonomy: Autonomy = Autonomy.SUPERVISED,
    skip_ask: bool = False,
) -> Principal:
    """Return an authenticated caller."""
    return Principal(
        cn=cn,
        unix_user=None,
        owner=(owner or cn).casefold(),
        roles=frozenset({Role.CALLER}),
        autonomy=autonomy,
        skip_ask=skip_ask,
        credential=Credential(cn=cn, fingerprint="sha256:" + "0" * 64, serial=1),
    )


def rule(verdict: str, operations: list[str], name: str = "r", **keys: Any) -> Rule:
    """Return a configured rule, validated as a file's."""
    table = {"name": name, "operations": operations, "verdict": verdict, **keys}
    return Rule.model_validate(table, strict=False)
