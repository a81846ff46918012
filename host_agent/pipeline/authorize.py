"""May it: autonomy, protections and allow-lists, then rules, in this order.

Used when an operation is asked for, and again, unchanged, right before an approved one runs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from host_agent.canonical import JsonValue
from host_agent.errors import (
    BY_CODE,
    AdapterUnavailableError,
    PolicyDeniedError,
    ReadOnlyError,
    RoleRequiredError,
    UnknownIdentityError,
)
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Operation
from host_agent.pipeline.context import Context, Snapshot, welcome
from host_agent.pipeline.run import Run
from host_agent.policy.rules import Allow, Ask, Deny, policy_fingerprint, read_only_refusal
from host_agent.requests.digest import compute


def require_role(principal: Principal, *roles: Role) -> None:
    """Refuse a principal that has none of `roles`.

    Raises:
        RoleRequiredError: naming the roles that the route takes.
    """
    if principal.roles.isdisjoint(roles):
        wanted = " or ".join(role.value for role in roles)
        message = f"This needs the role {wanted}."
        raise RoleRequiredError(message)


def as_now(context: Context, principal: Principal, *roles: Role) -> Principal:
    """Return a principal that was identified a while ago as things are now.

    A body may take long to come, and an answer may be waited for: what the administrator has
    changed meanwhile counts.

    Raises:
        IdentityError: not welcome any more, or without any of `roles` where some are
            given.
    """
    now = welcome(context, principal.credential)
    if roles:
        require_role(now, *roles)
    return now


def judge(snapshot: Snapshot, principal: Principal, operation: Operation) -> Allow | Ask:
    """Return the verdict for this principal and this operation.

    Raises:
        PolicyError: autonomy, an allow-list, a protection or a rule refuses.
    """
    if refusal := read_only_refusal(principal, operation.spec):
        raise ReadOnlyError(refusal.reason)
    section = snapshot.section(operation.spec)
    if section is not None:
        operation.spec.admit(operation.params, section)
    verdict = snapshot.rules.judge(principal, operation)
    match verdict:
        case Allow() | Ask():
            return verdict
        case Deny(code=code, reason=reason):
            raise BY_CODE.get(code, PolicyDeniedError)(reason)
        case _:
            assert_never(verdict)


def require_adapter(snapshot: Snapshot, operation: Operation) -> None:
    """Refuse an operation whose adapter is not configured on this host.

    Raises:
        AdapterUnavailableError: there is no configuration section for it.
    """
    if snapshot.section(operation.spec) is None:
        message = f"The adapter {operation.spec.adapter} is not configured on this host."
        raise AdapterUnavailableError(message)


def bind(context: Context, run: Run, precondition: Mapping[str, JsonValue] | None) -> Run:
    """Return a run that is bound to a state, by the digest of what would run as the world is now.

    Raises:
        AdapterUnavailableError: the wrapper is missing or unsafe.
        UnknownIdentityError: the caller's entry is gone.
    """
    snapshot, principal, operation = run.snapshot, run.principal, run.operation
    identity = snapshot.identity(principal.cn)
    if identity is None:
        message = "The identity is no longer registered."
        raise UnknownIdentityError(message)
    section = snapshot.section(operation.spec)
    digest = compute(
        host=snapshot.config.host,
        caller=principal.cn,
        unix_user=principal.unix_user,
        operation=operation.name,
        params=operation.params.canonical(),
        policy=policy_fingerprint(identity, run.verdict.rule, section),
        wrapper=context.wrappers.digest_all(operation.wrappers),
        precondition=precondition,
    )
    return replace(run, digest=digest, precondition=precondition)
