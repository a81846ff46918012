"""One operation runs: intent on disk, the wrapper, the probe, the outcome on disk.

Steps 10 to 12 of the way of a request. The only callers are `submit` (a policy said allow) and
`lifecycle` (a person said yes); both have a turn for the resource when they come here.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    HostNotFoundError,
    HostTimedOutError,
    InternalError,
    InvalidOutputError,
    correct,
)
from host_agent.execution.redaction import LARGE_CHARACTERS, redact_output
from host_agent.identity.registry import Principal
from host_agent.operations.catalogue import Inspection, Invocation, Operation, Output
from host_agent.pipeline.context import Context, Snapshot, audit_fields, record
from host_agent.policy.rules import Allow, Ask
from host_agent.requests.model import Digest, State

_log = logging.getLogger("host_agent.pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One operation on its way: judged, then bound to a digest, then ended.

    `request_id` is the exchange's, and the stored request's where there is one. `snapshot` is what
    it was judged by. `digest` is empty and `precondition` None until it is bound to the state that
    it assumes; `grant` is the id of the grant that was used for it. `state` is None until it has
    ended; then `outcome` is as callers see it, and `error` says what went wrong.
    """

    request_id: str
    principal: Principal
    operation: Operation
    snapshot: Snapshot
    verdict: Allow | Ask
    reason: str | None = None
    grant: str | None = None
    digest: Digest = Digest("")  # noqa: RUF009 - a new type's constructor is the identity
    precondition: Mapping[str, JsonValue] | None = None
    state: State | None = None
    outcome: Mapping[str, JsonValue] | None = None
    error: HostAgentError | None = None

    def is_judged_as(self, earlier: "Run") -> bool:
        """Return whether policy says of this what it said `earlier`."""
        return self.snapshot is earlier.snapshot or self.verdict == earlier.verdict

    def audit_fields(self) -> dict[str, JsonValue]:
        return audit_fields(
            request_id=self.request_id,
            caller=self.principal.cn,
            fingerprint=self.principal.fingerprint,
            owner=self.principal.owner,
            operation=self.operation.name,
            resource=self.operation.resource,
            params=self.operation.params.canonical(),
            digest=self.digest or None,
            grant=self.grant,
        )


async def inspect(context: Context, run: Run) -> Inspection | None:
    """Return the state that an operation assumes and what it would do; None for reads.

    An inspection is a process too, as root where the operation is: that it begins is on disk
    before. The caller has a turn (a second one from inside a first could wait for itself), and has
    judged inside it.

    Raises:
        AuditUnavailableError: it could not be written; nothing ran.
        HostAgentError: the resource does not exist, cannot be read, or is refused by the wrapper.
    """
    spec, params = run.operation.spec, run.operation.params
    if spec.inspect is None or spec.parse_inspection is None:
        return None
    await context.audit.append(Event.OPERATION_INSPECTED, **run.audit_fields())
    printed = await context.runner.run(spec.inspect(params), unix_user=run.principal.unix_user)
    output = await _without_secrets(printed)
    if output.timed_out:
        message = "The state of the resource could not be read in time; try again later."
        raise HostTimedOutError(message)
    if output.exit_code != 0:
        raise _failure(run.operation, output)
    if spec.guard is not None:
        spec.guard(params, context.snapshot.section(spec), output)
    return spec.parse_inspection(params, output)


async def perform(context: Context, run: Run, require: Callable[[], object]) -> Run:
    """Run it once and return it as it ended. The intent is on disk before the process starts.

    Writing that takes its time: `require` is called after it, asks once more whether it may run as
    things are now, and raises what refuses it. Nothing is waited for between that and the runner.

    Whatever goes wrong once the intent is on disk is the run's `error`, also where nothing was
    started; the audit log has it then.

    Raises:
        AuditUnavailableError: the intent could not be written; nothing ran.
    """
    await context.audit.append(Event.OPERATION_STARTED, **run.audit_fields())
    try:
        require()
        output = await _run(context, run)
        verified = await _probe(context, run, output)
        ended = _conclude(run, output, verified=verified)
    except HostAgentError as error:
        ended = replace(run, state=State.FAILED, error=error)
    except asyncio.CancelledError:
        await _record_finish(context, replace(run, state=State.UNKNOWN, error=_interrupted()))
        raise
    except Exception:  # noqa: BLE001 - a defect after the start must not leave it running
        # It may have happened: it gets an end here, or its like would wait for it for ever.
        _log.exception("the operation of request %s failed in the agent", run.request_id)
        ended = replace(run, state=State.UNKNOWN, error=InternalError(_DEFECT))
    if await _record_finish(context, ended) or ended.outcome is None:
        return ended
    # What happened is told, and marked: the log does not have its end.
    return replace(ended, outcome={**ended.outcome, "audited": False})


_DEFECT = (
    "The agent failed while this ran: it may or may not have happened. Look at the resource; it is "
    "not run again by itself."
)


async def _run(context: Context, run: Run) -> Output:
    spec, params = run.operation.spec, run.operation.params
    invocation = spec.invoke(params, run.precondition or {})
    printed = await context.runner.run(invocation, unix_user=run.principal.unix_user)
    if spec.decode is not None and printed.exit_code == 0:
        printed = spec.decode(printed)
    output = await _without_secrets(printed)
    if spec.restrict is not None and output.exit_code == 0:
        output = spec.restrict(params, context.snapshot.section(spec), output)
    return output


async def _without_secrets(printed: Output) -> Output:
    if len(printed.stdout) + len(printed.stderr) > LARGE_CHARACTERS:
        return await asyncio.to_thread(redact_output, printed)
    return redact_output(printed)


def _interrupted() -> HostAgentError:
    return InternalError("The agent was stopped while the operation ran; its outcome is unknown.")


async def _probe(context: Context, run: Run, output: Output) -> bool | None:
    spec, params = run.operation.spec, run.operation.params
    if spec.probe is None or spec.parse_probe is None or output.exit_code != 0:
        return None
    precondition = run.precondition or {}
    invocation: Invocation = spec.probe(params, precondition)
    try:
        seen = await context.runner.run(invocation, unix_user=run.principal.unix_user)
        if seen.timed_out or seen.exit_code != 0:
            return False
        return spec.parse_probe(params, precondition, seen)
    except HostAgentError as error:
        _log.warning("the probe of %s failed: %s", run.request_id, error.detail)
        return False


def _conclude(run: Run, output: Output, *, verified: bool | None) -> Run:
    spec = run.operation.spec
    error: HostAgentError | None = None
    data: JsonValue = None
    state = State.SUCCEEDED
    if output.timed_out:
        state = State.TIMED_OUT
        message = "The command was ended at its deadline; look at the resource before asking again."
        error = HostTimedOutError(message)
    elif output.exit_code != 0:
        state = State.FAILED
        error = _failure(run.operation, output)
    elif spec.parse is not None and not output.truncated:
        try:
            data = spec.parse(run.operation.params, output)
        except InvalidOutputError as unreadable:
            state, error = State.FAILED, unreadable
    outcome = outcome_json(output, data=data, verified=verified)
    return replace(run, state=state, outcome=outcome, error=error)


def _failure(operation: Operation, output: Output) -> HostAgentError:
    """Return the error of an ending; where one parameter alone can be what is missing, at that."""
    error = operation.spec.failure(operation.params, output)
    name = operation.only_name
    if isinstance(error, HostNotFoundError) and name is not None:
        return error.amended(recovery=correct(error.detail, "params", name))
    return error


def outcome_json(output: Output, *, data: JsonValue, verified: bool | None) -> dict[str, JsonValue]:
    """Return an outcome as callers see it, with the true sizes of the output."""
    return {
        "exit_code": output.exit_code,
        "stdout": output.stdout,
        "stderr": output.stderr,
        "truncated": output.truncated,
        "stdout_bytes": output.stdout_bytes,
        "stderr_bytes": output.stderr_bytes,
        "stdout_sha256": output.stdout_sha256,
        "duration_ms": output.duration_ms,
        "data": data,
        "verified": verified,
    }


_AUDITED = ("exit_code", "duration_ms", "truncated", "stdout_bytes", "stderr_bytes")


async def _record_finish(context: Context, ended: Run) -> bool:
    """Write the end down; return False where it could not be, which must not hide what happened."""
    summary: dict[str, JsonValue] = {"state": str(ended.state)}
    outcome, error = ended.outcome, ended.error
    if outcome is not None:
        summary |= {key: outcome[key] for key in _AUDITED}
        summary |= {"stdout_sha256": outcome["stdout_sha256"], "verified": outcome["verified"]}
    seconds = int(str(summary.get("duration_ms", 0))) / 1000
    context.metrics.operation_finished(ended.operation.name, str(ended.state), seconds)
    code = None if error is None else error.code
    return await record(
        context,
        Event.OPERATION_FINISHED,
        f"the outcome of {ended.request_id}",
        **ended.audit_fields(),
        outcome=summary,
        code=code,
    )
