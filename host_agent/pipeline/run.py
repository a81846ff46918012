"""One operation runs: intent on disk, the wrapper, the probe, the outcome on disk.

Steps 10 to 12 of the way of a request. The only callers are `submit` (a policy said allow) and
`lifecycle` (a person said yes); both have a turn for the resource when they come here.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    HostTimedOutError,
    InternalError,
    InvalidOutputError,
)
from host_agent.execution.redaction import LARGE_CHARACTERS, redact_output
from host_agent.identity.registry import Principal
from host_agent.operations.catalogue import Inspection, Invocation, Operation, Output
from host_agent.pipeline.context import Rooms, record
from host_agent.requests.model import Digest, State

_log = logging.getLogger("host_agent.pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """How a run ended: the terminal state, the outcome as answered, and the error if it failed."""

    state: State
    outcome: Mapping[str, JsonValue] | None
    error: HostAgentError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is about to run: who asked, what, its digest, and the state it assumes.

    `grant` is the id of the grant that was used for it. `require` asks once more, at once, whether
    it may run as things are now, and raises what refuses it.
    """

    request_id: str
    caller: str
    fingerprint: str
    owner: str
    unix_user: str | None
    operation: Operation
    digest: Digest
    require: Callable[[], object]
    precondition: Mapping[str, JsonValue] | None = None
    grant: str | None = None

    @classmethod
    def of(
        cls,
        principal: Principal,
        operation: Operation,
        *,
        request_id: str,
        digest: Digest,
        require: Callable[[], object],
        precondition: Mapping[str, JsonValue] | None = None,
        grant: str | None = None,
    ) -> "Act":
        """Return the act of a principal who is here now."""
        return cls(
            request_id=request_id,
            caller=principal.cn,
            fingerprint=principal.fingerprint,
            owner=principal.owner,
            unix_user=principal.unix_user,
            operation=operation,
            digest=digest,
            require=require,
            precondition=precondition,
            grant=grant,
        )

    def audit_fields(self) -> dict[str, JsonValue]:
        """Return the audit fields that name this act."""
        return {
            "caller": self.caller,
            "fingerprint": self.fingerprint,
            "owner": self.owner,
            "operation": self.operation.name,
            "resource": self.operation.resource,
            "params": self.operation.params.canonical(),
            "digest": self.digest,
            "request_id": self.request_id,
            "grant": self.grant,
        }


async def inspect(
    rooms: Rooms, operation: Operation, principal: Principal, request_id: str
) -> Inspection | None:
    """Return the state that `operation` assumes and what it would do; None for reads.

    An inspection is a process too, as root where the operation is: that it begins is on disk
    before. The caller has a turn (a second one from inside a first could wait for itself), and has
    judged inside it.

    Raises:
        AuditUnavailableError: it could not be written; nothing ran.
        HostAgentError: the resource does not exist, cannot be read, or is refused by the wrapper.
    """
    spec = operation.spec
    if spec.inspect is None or spec.parse_inspection is None:
        return None
    await rooms.audit.append(
        Event.OPERATION_INSPECTED,
        caller=principal.cn,
        fingerprint=principal.fingerprint,
        owner=principal.owner,
        operation=operation.name,
        resource=operation.resource,
        params=operation.params.canonical(),
        request_id=request_id,
    )
    invocation = spec.inspect(operation.params)
    printed = await rooms.runner.run(invocation, unix_user=principal.unix_user)
    output = await _without_secrets(printed)
    if output.timed_out:
        message = "The state of the resource could not be read in time; try again later."
        raise HostTimedOutError(message)
    if output.exit_code != 0:
        raise spec.failure(operation.params, output)
    if spec.guard is not None:
        spec.guard(operation.params, rooms.snapshot.section(spec), output)
    return spec.parse_inspection(operation.params, output)


async def perform(rooms: Rooms, act: Act) -> Performance:
    """Run `act` once. The intent is on disk before the process starts.

    Writing it takes its time: `act.require` is asked after it, and nothing is waited for between
    that and the runner.

    Never raises for what the host did: that is in the result.

    Raises:
        AuditUnavailableError: the intent could not be written; nothing ran.
        AdapterUnavailableError: the wrapper could not be started; nothing ran, and the audit log
            says so.
        HostAgentError: it may not run any more; nothing ran, and the audit log says so.
    """
    named = act.audit_fields()
    await rooms.audit.append(Event.OPERATION_STARTED, **named)
    try:
        act.require()
        output = await _run(rooms, act)
        verified = await _probe(rooms, act, output)
        performance = _conclude(act, output, verified=verified)
    except HostAgentError as error:
        error.is_recorded = True
        await _record_finish(rooms, act, named, State.FAILED, None, error)
        raise
    except asyncio.CancelledError:
        await _record_finish(rooms, act, named, State.UNKNOWN, None, _interrupted())
        raise
    except Exception:  # noqa: BLE001 - a defect after the start must not leave it running
        # It may have happened: it gets an end here, or its like would wait for it for ever.
        _log.exception("the operation of request %s failed in the agent", act.request_id)
        defect = InternalError(_DEFECT)
        defect.is_recorded = True
        await _record_finish(rooms, act, named, State.UNKNOWN, None, defect)
        return Performance(state=State.UNKNOWN, outcome=None, error=defect)
    audited = await _record_finish(
        rooms, act, named, performance.state, performance.outcome, performance.error
    )
    if audited or performance.outcome is None:
        return performance
    # What happened is told, and marked: the log does not have its end.
    marked = {**performance.outcome, "audited": False}
    if performance.error is not None:
        performance.error.members["outcome"] = marked
    return Performance(state=performance.state, outcome=marked, error=performance.error)


_DEFECT = (
    "The agent failed while this ran: it may or may not have happened. Look at the resource; it is "
    "not run again by itself."
)


async def _run(rooms: Rooms, act: Act) -> Output:
    spec, params = act.operation.spec, act.operation.params
    invocation = spec.invoke(params, act.precondition or {})
    printed = await rooms.runner.run(invocation, unix_user=act.unix_user)
    if spec.decode is not None and printed.exit_code == 0:
        printed = spec.decode(printed)
    output = await _without_secrets(printed)
    if spec.restrict is not None and output.exit_code == 0:
        output = spec.restrict(params, rooms.snapshot.section(spec), output)
    return output


async def _without_secrets(printed: Output) -> Output:
    if len(printed.stdout) + len(printed.stderr) > LARGE_CHARACTERS:
        return await asyncio.to_thread(redact_output, printed)
    return redact_output(printed)


def _interrupted() -> HostAgentError:
    return InternalError("The agent was stopped while the operation ran; its outcome is unknown.")


async def _probe(rooms: Rooms, act: Act, output: Output) -> bool | None:
    spec = act.operation.spec
    if spec.probe is None or spec.parse_probe is None or output.exit_code != 0:
        return None
    precondition = act.precondition or {}
    invocation: Invocation = spec.probe(act.operation.params, precondition)
    try:
        seen = await rooms.runner.run(invocation, unix_user=act.unix_user)
        if seen.timed_out or seen.exit_code != 0:
            return False
        return spec.parse_probe(act.operation.params, precondition, seen)
    except HostAgentError as error:
        _log.warning("the probe of %s failed: %s", act.request_id, error.detail)
        return False


def _conclude(act: Act, output: Output, *, verified: bool | None) -> Performance:
    spec = act.operation.spec
    error: HostAgentError | None = None
    data: JsonValue = None
    state = State.SUCCEEDED
    if output.timed_out:
        state = State.TIMED_OUT
        message = "The command was ended at its deadline; look at the resource before asking again."
        error = HostTimedOutError(message)
    elif output.exit_code != 0:
        state = State.FAILED
        error = spec.failure(act.operation.params, output)
    elif spec.parse is not None and not output.truncated:
        try:
            data = spec.parse(act.operation.params, output)
        except InvalidOutputError as unreadable:
            state, error = State.FAILED, unreadable
    outcome = outcome_json(output, data=data, verified=verified)
    if error is not None:
        error.members["outcome"] = outcome
        error.is_recorded = True
    return Performance(state=state, outcome=outcome, error=error)


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


async def _record_finish(
    rooms: Rooms,
    act: Act,
    named: Mapping[str, JsonValue],
    state: State,
    outcome: Mapping[str, JsonValue] | None,
    error: HostAgentError | None,
) -> bool:
    """Write the end down; return False where it could not be, which must not hide what happened."""
    summary: dict[str, JsonValue] = {"state": state.value}
    if outcome is not None:
        summary |= {key: outcome[key] for key in _AUDITED}
        summary |= {"stdout_sha256": outcome["stdout_sha256"], "verified": outcome["verified"]}
    seconds = int(str(summary.get("duration_ms", 0))) / 1000
    rooms.metrics.operation_finished(act.operation.name, state.value, seconds)
    code = None if error is None else error.code
    what = f"the outcome of {act.request_id}"
    return await record(rooms, Event.OPERATION_FINISHED, what, **named, outcome=summary, code=code)
