"""The brake on asking people: hold-offs, and no second door to what was denied or waits.

A caller with many requests that came to nothing is held off for a while. And what one operation was
denied is not had by another one that could have the same effect, whatever the rules say of that
one: not while the first waits, nor for the cooldown after a denial. The same operation may be asked
again; it is a new request.
"""

from datetime import timedelta

from host_agent.api.wire.people import Released
from host_agent.audit.record import Event
from host_agent.errors import (
    NEVER,
    FaultPlace,
    PolicyDeniedError,
    RateLimitedError,
    RequestError,
    RequestNotFoundError,
    correct,
    wait_for,
)
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Effect, Operation
from host_agent.pipeline.authorize import as_now
from host_agent.pipeline.context import Context, Snapshot
from host_agent.requests.model import Request, State
from host_agent.store.refusals import AskContext

HOLD_OFF_WINDOW = timedelta(hours=1)
RETRY_SECONDS = 300.0


# -- too many --------------------------------------------------------------------------------------


async def look_around(
    context: Context, snapshot: Snapshot, principal: Principal, operation: Operation
) -> AskContext:
    """Return what stands between `principal` and one more ask.

    Raises:
        StoreUnavailableError: that cannot be known.
    """
    now = context.clock.now()
    return await context.store.ask_context(
        principal.cn,
        operation.name,
        refused_since=now - HOLD_OFF_WINDOW,
        denied_since=now - timedelta(seconds=snapshot.config.approvals.cooldown_seconds),
        now=now,
    )


def hold_off(snapshot: Snapshot, refusals: int) -> RateLimitedError | None:
    """Return why nothing more is put before people for who has so many refusals, or None."""
    if refusals < snapshot.config.limits.held_off_after:
        return None
    message = (
        f"{refusals} requests of this identity were denied or expired within the hour; "
        "nothing more is put before people until some time has passed."
    )
    return RateLimitedError(message, retry_after_seconds=RETRY_SECONDS)


# -- by another door -------------------------------------------------------------------------------


def require_no_equivalent(context: Context, operation: Operation, others: list[Request]) -> None:
    """Refuse a change that does what another operation of this caller waits for or was denied.

    Raises:
        PolicyDeniedError: a request through another operation, with an effect that this one could
            have too, is pending, or was denied within the cooldown.
    """
    if operation.effect is Effect.READ:
        return
    now = context.clock.now()
    for request in others:
        if request.state is State.PENDING and request.is_expired(now):
            continue
        if _is_equivalent(context, operation, request):
            raise _refusal(request)


def _is_equivalent(context: Context, operation: Operation, request: Request) -> bool:
    try:
        return operation.does_as(context.catalogue.parse(request.operation, request.params))
    except RequestError:
        return False  # an older version took it, with another grammar


def _refusal(request: Request) -> PolicyDeniedError:
    if request.state is State.PENDING:
        message = (
            f"An equivalent act of yours, {request.operation}, is waiting for a person; nothing was"
            " run. Wait for the decision on that."
        )
        recovery = wait_for(equivalent_to=request.id)
    else:
        message = (
            f"An equivalent act of yours, {request.operation}, was denied; nothing was run. Do not"
            " try it another way."
        )
        recovery = NEVER
    return PolicyDeniedError(
        message, recovery=recovery, about={"cause": f"equivalent to request {request.id}"}
    )


# -- an admin lets go ------------------------------------------------------------------------------


class Fatigue:
    """Releases identities. One instance lives as long as the agent."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def release(self, principal: Principal, cn: str) -> Released:
        """Forget what came to nothing of `cn` so far, which ends a hold-off and cooldowns.

        Raises:
            RoleRequiredError: for admins only.
            RequestNotFoundError: no identity is called exactly `cn`.
            AuditUnavailableError: it cannot be written down, so nothing is forgotten.
        """
        context = self._context
        principal = as_now(context, principal, Role.ADMIN)
        if context.snapshot.identity(cn) is None:
            message = "No identity of that name is registered; names are compared whole."
            fix = correct(message, "cn", place=FaultPlace.PATH)
            raise RequestNotFoundError(message, recovery=fix)
        await context.tasks.shielded(self._release(principal, cn), name=f"release {cn}")
        return Released(cn=cn, released=True)

    async def _release(self, principal: Principal, cn: str) -> None:
        context = self._context
        # It loosens: what is not written down does not happen.
        await context.audit.append(Event.IDENTITY_RELEASED, caller=cn, by=principal.cn)
        await context.store.release(cn, by=principal.cn, now=context.clock.now())
