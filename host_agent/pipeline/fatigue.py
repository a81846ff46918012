"""The brake on asking people: hold-offs, and no second door to what was denied or waits.

A caller with many requests that came to nothing is held off for a while. And what one operation was
denied is not had by another one that could have the same effect, whatever the rules say of that
one: not while the first waits, nor for the cooldown after a denial. The same act may be
asked again, as a new request, once its cooldown is over: it grows with each denial within a day,
and who denies may say another time before which nobody wants to hear of it. That cooldown is of
the owner who asks, whichever of its callers does; another owner's ask is another question.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from host_agent.api.wire.people import Released
from host_agent.audit.record import Event
from host_agent.clock import rfc3339
from host_agent.errors import (
    FaultPlace,
    HeldOffError,
    InvalidParameterError,
    PolicyDeniedError,
    RateLimitedError,
    RequestError,
    RequestNotFoundError,
    again_after,
    correct,
    wait_for,
)
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Effect, Operation
from host_agent.pipeline.authorize import as_now
from host_agent.pipeline.context import Context, Snapshot
from host_agent.requests.model import Denials, Request, State
from host_agent.store.refusals import AskContext

HOLD_OFF_WINDOW = timedelta(hours=1)
RETRY_SECONDS = 300.0
COUNTED_DENIALS = timedelta(days=1)
"""So long a denial makes the next cooldown of the same act longer."""
LONGEST_NOT_BEFORE = timedelta(days=7)
"""Who denies may hold an act off for so long at most."""


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
        held_since=now - LONGEST_NOT_BEFORE,
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


# -- the same again --------------------------------------------------------------------------------


async def denials_of(context: Context, owner: str, operation: Operation) -> Denials:
    """Return how often this act was denied to `owner` within a day, and until when it is held off.

    Raises:
        StoreUnavailableError: that cannot be known.
    """
    now = context.clock.now()
    return await context.store.denials(
        owner,
        operation,
        counted_since=now - COUNTED_DENIALS,
        held_since=now - LONGEST_NOT_BEFORE,
    )


def cooled_down_at(cooldowns: Sequence[int], earlier: int, now: datetime) -> datetime | None:
    """Return until when an act is held off that is denied now, after `earlier` denials in a day.

    After more denials than there are `cooldowns` it is a day. None where there are none at all.
    """
    if not cooldowns:
        return None
    if earlier >= len(cooldowns):
        return now + COUNTED_DENIALS
    return now + timedelta(seconds=cooldowns[earlier])


async def held_off_act(
    context: Context, principal: Principal, operation: Operation
) -> HeldOffError | None:
    """Return why people are not asked for this act yet, or None.

    Raises:
        StoreUnavailableError: that cannot be known.
    """
    denied, now = await denials_of(context, principal.owner, operation), context.clock.now()
    if denied.until is None or denied.until <= now:
        return None
    often = "" if denied.times < 2 else f" {denied.times} times within a day"
    message = (
        f"This was denied{often}; nothing was run. People are not asked for it again before"
        f" {rfc3339(denied.until)}."
    )
    words = {} if denied.words is None else {"decision_reason": denied.words}
    left = (denied.until - now).total_seconds()
    return HeldOffError(message, retry_after_seconds=left, members=words)


def checked_not_before(not_before: datetime, now: datetime) -> datetime:
    """Return an instant that who denies has named, if it is one that can be held to.

    Raises:
        InvalidParameterError: it is over, or more than a week away.
    """
    if now < not_before <= now + LONGEST_NOT_BEFORE:
        return not_before
    message = f"not_before: a time to come, at most {LONGEST_NOT_BEFORE.days} days away."
    raise InvalidParameterError(message, recovery=correct(message, "not_before"))


# -- by another door -------------------------------------------------------------------------------


def require_no_equivalent(
    context: Context, snapshot: Snapshot, operation: Operation, others: list[Request]
) -> None:
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
            raise _refusal(request, now, snapshot.config.approvals.cooldown_seconds)


def _is_equivalent(context: Context, operation: Operation, request: Request) -> bool:
    try:
        return operation.does_as(context.catalogue.parse(request.operation, request.params))
    except RequestError:
        return False  # an older version took it, with another grammar


def _refusal(request: Request, now: datetime, cooldown_seconds: int) -> PolicyDeniedError:
    said = request.denial_words
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
        ends = [(request.finished_at or now) + timedelta(seconds=cooldown_seconds)]
        ends += [said.not_before for said in request.decisions if said.not_before is not None]
        recovery = again_after((max(ends) - now).total_seconds())
    return PolicyDeniedError(
        message,
        recovery=recovery,
        members={} if said is None else {"decision_reason": said},
        about={"cause": f"equivalent to request {request.id}"},
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
