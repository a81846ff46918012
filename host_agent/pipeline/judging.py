"""What an ask is told before anything of it happens: judged, looked at, what stands in its way.

Steps 3 to 5 of the way of a request, the same for an ask and for its dry run.
"""

from host_agent.errors import ReasonRequiredError
from host_agent.execution.slots import Slot
from host_agent.identity.registry import Principal, Role
from host_agent.operations.catalogue import Effect, Inspection, Operation
from host_agent.pipeline.authorize import as_now, bind, judge, require_adapter
from host_agent.pipeline.context import Context
from host_agent.pipeline.fatigue import look_around, require_no_equivalent
from host_agent.pipeline.run import Run, inspect
from host_agent.policy.rules import Ask
from host_agent.requests.model import Request
from host_agent.store.refusals import AskContext


def judge_ask(
    context: Context,
    principal: Principal,
    operation: Operation,
    *,
    request_id: str,
    reason: str | None,
) -> Run:
    """Return an ask as identity and policy judge it now.

    Raises:
        ReasonRequiredError: the rule wants a reason, and there is none.
        HostAgentError: what identity and policy say.
    """
    principal = as_now(context, principal, Role.CALLER)
    snapshot = context.snapshot
    verdict = judge(snapshot, principal, operation)
    if verdict.require_reason and not reason:
        message = "This needs a reason; give one that the approver can judge by."
        raise ReasonRequiredError(message)
    return Run(
        request_id=request_id,
        principal=principal,
        operation=operation,
        snapshot=snapshot,
        verdict=verdict,
        reason=reason,
    )


def judge_again(context: Context, run: Run) -> Run:
    """Judge an ask that has waited as things are now.

    Raises:
        HostAgentError: what identity and policy say now.
    """
    now = judge_ask(
        context, run.principal, run.operation, request_id=run.request_id, reason=run.reason
    )
    require_adapter(now.snapshot, now.operation)
    return now


async def standing_of(context: Context, run: Run) -> AskContext:
    """Return what stands between the caller and one more ask; for an allowed read nothing.

    Raises:
        PolicyDeniedError: it does what another operation of this caller waits for.
        StoreUnavailableError: that cannot be known.
    """
    is_allowed = not isinstance(run.verdict, Ask)
    if is_allowed and run.operation.effect is Effect.READ:
        return AskContext(refusals=0, others=[], grants=[])
    standing = await look_around(context, run.snapshot, run.principal, run.operation)
    require_no_equivalent(context, run.snapshot, run.operation, standing.others)
    return standing


def reading_slot(context: Context, run: Run) -> Slot:
    """Return a place to read in, of those that the caller has."""
    timeout = run.snapshot.config.execution.timeout_seconds
    return context.slots.read(timeout, caller=run.principal.cn)


async def look(context: Context, run: Run) -> Inspection | None:
    """Return what `inspect` finds in a place of its own, judged again inside it."""
    async with reading_slot(context, run):
        return await look_in_turn(context, run)


async def look_in_turn(context: Context, run: Run) -> Inspection | None:
    """Return what `inspect` finds, judged again right before; the caller has a place already."""
    return await inspect(context, judge_again(context, run))


def bind_to(context: Context, run: Run, inspection: Inspection | None) -> Run:
    """Return a run that is bound to what was found."""
    return bind(context, run, None if inspection is None else inspection.precondition)


async def live_request(context: Context, run: Run, inspection: Inspection | None) -> Request | None:
    """Return the caller's live request of the same digest, which an ask attaches to."""
    digest = bind_to(context, run, inspection).digest
    return await context.store.live_by_digest(run.principal.cn, digest)
