"""An ask that is not meant yet: told what it would come to, and nothing else happens.

It is judged, looked at and bound as the ask itself is, and refused as that would be. Nothing is
stored, nobody is prompted, no grant is used and nothing runs; that it was tried is on record.
"""

from host_agent.api.wire.dry_run import Would
from host_agent.audit.record import Event
from host_agent.operations.catalogue import Inspection
from host_agent.pipeline.authorize import require_adapter
from host_agent.pipeline.context import Context
from host_agent.pipeline.fatigue import held_off_act, hold_off
from host_agent.pipeline.grants import is_granted
from host_agent.pipeline.judging import bind_to, judge_again, live_request, look, standing_of
from host_agent.pipeline.recipients import require_reachable
from host_agent.pipeline.responses import SubmitAnswer, dry
from host_agent.pipeline.run import Run
from host_agent.policy.rules import Ask
from host_agent.requests.model import Request
from host_agent.store.refusals import AskContext


async def dry_run(context: Context, run: Run) -> SubmitAnswer:
    """Return what the ask `run` would come to now.

    Raises:
        HostAgentError: what the ask itself would be refused with.
        AuditUnavailableError: it could not be written down, so nothing is told.
    """
    while True:
        require_adapter(run.snapshot, run.operation)
        standing = await standing_of(context, run)
        if isinstance(run.verdict, Ask) and not _is_granted(context, run, standing):
            require_reachable(context, run.verdict.terms, run.principal.owner)
        inspection = await look(context, run)
        now = judge_again(context, run)
        if now.is_judged_as(run):
            break
        run = now
    bound = bind_to(context, now, inspection)
    live = await live_request(context, now, inspection)
    would = await _would(context, bound, standing, inspection, live)
    user = context.runner.user_of(bound.operation.spec.run_as, bound.principal.unix_user)
    answer = dry(bound, would, inspection, live, runs_as=user)
    await context.audit.append(
        Event.OPERATION_TRIED,
        **{**bound.audit_fields(), "request_id": None},
        exchange_id=bound.request_id,
        reason=bound.reason,
        rule=bound.verdict.rule.name,
        state=would,
    )
    return answer


def _is_granted(context: Context, run: Run, standing: AskContext) -> bool:
    return is_granted(context, run.principal, run.operation, run.verdict, standing.grants)


async def _would(
    context: Context,
    run: Run,
    standing: AskContext,
    inspection: Inspection | None,
    live: Request | None,
) -> Would:
    """Return what would come of it, asked in the order in which the ask itself asks.

    Raises:
        RateLimitedError, HeldOffError: people would not be asked, as the caller is held off, or
            the act.
    """
    if live is not None:
        return "attach"
    if not isinstance(run.verdict, Ask):
        return "run"
    if run.operation.is_done_already(inspection):
        return "unchanged"
    if _is_granted(context, run, standing):
        return "run"
    too_many = hold_off(run.snapshot, standing.refusals)
    refusal = too_many or await held_off_act(context, run.principal, run.operation)
    if refusal is not None:
        raise refusal
    return "ask"
