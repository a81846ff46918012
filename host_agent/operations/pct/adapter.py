"""pct on allow-listed containers: declarations and pure functions; `wrappers/pct-*` do the work.

A change is bound to the container's configuration by one hash, and a rollback to its snapshot by
another. `pct-inspect` reads these facts; each changing wrapper reads them again as root, right
before it acts, and refuses where they are others, or where the container is on root's own list.
Arguments and exit statuses of the wrappers are in docs/reference/pct-wrappers.md.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    InvalidOutputError,
    InvalidParameterError,
    PolicyDeniedError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import (
    Adapter,
    Deed,
    Effect,
    Inspection,
    Invocation,
    OperationSpec,
    Output,
    Parameters,
    RunAs,
    Tool,
)
from host_agent.operations.pct.output import (
    ABSENT,
    Facts,
    inspected_create,
    inspected_destroy,
    inspected_rollback,
    inspected_snapshot,
    inspected_state,
    parse_config,
    parse_list,
    parse_status,
    restrict_list,
)
from host_agent.operations.pct.parameters import (
    ContainerParameters,
    CreateParameters,
    ListParameters,
    SnapshotParameters,
)
from host_agent.operations.pct.section import PctSection, vmid_ranges

_SECONDS: Mapping[str, float] = {
    "start": 120,
    "stop": 120,
    "shutdown": 180,
    "snapshot": 600,
    "create": 1800,
    "rollback": 1800,
    "destroy": 1800,
}
"""How long pct may take for each change; `[execution] timeout_seconds` counts for reads only."""

# -- allow-list ------------------------------------------------------------------------------------


def admit(params: ListParameters | ContainerParameters, section: PctSection) -> None:
    """Refuse a container that the administrator did not list.

    Raises:
        PolicyDeniedError: it is in none of the ranges.
    """
    if isinstance(params, ContainerParameters) and not section.covers(params.vmid):
        message = "This container is not one that may be worked on here."
        raise PolicyDeniedError(message)


def _restrict(_params: ListParameters, section: PctSection, output: Output) -> Output:
    return restrict_list(output, section.covers)


# -- invocations -----------------------------------------------------------------------------------


def _wrapper(verb: str, *arguments: str) -> Invocation:
    return Invocation(
        wrapper=f"pct-{verb}",
        arguments=arguments,
        run_as=RunAs.ROOT,
        timeout_seconds=_SECONDS.get(verb),
    )


def _hash(held: Mapping[str, JsonValue], name: str) -> str:
    return str(held[name]).removeprefix("sha256:")


def _read(verb: str) -> Callable[[ContainerParameters, Mapping[str, JsonValue]], Invocation]:
    return lambda params, _none: _wrapper(verb, params.vmid)


def _change(verb: str) -> Callable[[ContainerParameters, Mapping[str, JsonValue]], Invocation]:
    return lambda params, held: _wrapper(verb, params.vmid, _hash(held, "config"))


def _invoke_list(_params: ListParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("list")


def _invoke_snapshot(params: SnapshotParameters, held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("snapshot", params.vmid, params.name, _hash(held, "config"))


def _invoke_rollback(params: SnapshotParameters, held: Mapping[str, JsonValue]) -> Invocation:
    config, snapshot = _hash(held, "config"), _hash(held, "snapshot")
    return _wrapper("rollback", params.vmid, params.name, config, snapshot)


def _invoke_create(params: CreateParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("create", params.vmid, params.template, *params.options())


def _inspect(verb: str) -> Callable[[ContainerParameters], Invocation]:
    def inspect(params: ContainerParameters) -> Invocation:
        name = (params.name,) if isinstance(params, SnapshotParameters) else ()
        return _wrapper("inspect", verb, params.vmid, *name)

    return inspect


def _probe(params: ContainerParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _inspect("state")(params)


def _probe_status(params: ContainerParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("status", params.vmid)


# -- what is there, before and after ---------------------------------------------------------------

_Inspected = Callable[[Any, Output], Inspection]


def _state(does: str, undo: str) -> _Inspected:
    return lambda _params, output: inspected_state(output, does, undo)


def _inspected_snapshot(_params: SnapshotParameters, output: Output) -> Inspection:
    return inspected_snapshot(output)


def _inspected_rollback(_params: SnapshotParameters, output: Output) -> Inspection:
    return inspected_rollback(output)


def _inspected_destroy(_params: ContainerParameters, output: Output) -> Inspection:
    return inspected_destroy(output)


def _inspected_create(params: CreateParameters, output: Output) -> Inspection:
    wanted = (f"template={params.template}", *params.options(), "unprivileged=1")
    return inspected_create(output, wanted)


_Probed = Callable[[Any, Mapping[str, JsonValue], Output], bool]


def _is_now(status: str) -> _Probed:
    return lambda _params, _held, output: parse_status(output) == {"status": status}


def _is_created(_params: object, _held: Mapping[str, JsonValue], output: Output) -> bool:
    return Facts.of(output).status != ABSENT


def _is_gone(_params: object, _held: Mapping[str, JsonValue], output: Output) -> bool:
    return Facts.of(output).status == ABSENT


def _is_snapshotted(
    params: SnapshotParameters, _held: Mapping[str, JsonValue], output: Output
) -> bool:
    values = Facts.of(output).values
    return values.get("snapshot", ABSENT) != ABSENT and values.get("parent") == params.name


def _is_rolled_back(
    params: SnapshotParameters, held: Mapping[str, JsonValue], output: Output
) -> bool:
    """Return whether the snapshot is still that one, and the container descends from it."""
    values = Facts.of(output).values
    is_same = values.get("snapshot") == _hash(held, "snapshot")
    return is_same and values.get("parent") == params.name


# -- failures --------------------------------------------------------------------------------------

_FAILURES: Mapping[int, tuple[type[HostAgentError], str]] = {
    1: (HostFailedError, "pct would refuse this"),
    64: (InvalidParameterError, "The wrapper does not accept the form of a parameter"),
    65: (InvalidOutputError, "What pct answers is not understood here"),
    66: (HostNotFoundError, "What was asked for does not exist"),
    69: (AdapterUnavailableError, "pct cannot be used on this host"),
    71: (HostBusyError, "Something else works on the container; ask again later"),
    75: (TargetChangedError, "The container has changed since it was asked for; nothing was done"),
    77: (ProtectedError, "This is protected on the host"),
}
_ENDINGS: Mapping[int, tuple[type[HostAgentError], str]] = {
    124: (HostTimedOutError, "pct was ended at the limit of its wrapper."),
    126: (AdapterUnavailableError, "pct cannot be started on this host."),
    127: (AdapterUnavailableError, "pct or a tool of its wrapper is missing on this host."),
    137: (HostTimedOutError, "pct was killed at the limit of its wrapper."),
    143: (HostTimedOutError, "pct was ended before it was done."),
}
# Words of pve-container, pve-guest-common and pve-cluster, in the C locale.
_WORDS: tuple[tuple[str, type[HostAgentError], str], ...] = (
    (r"CT is locked \([a-z-]+\)", HostBusyError, "The container is locked; ask again later."),
    (r"can't lock file '", HostBusyError, "The container is locked; ask again later."),
    (r"Lost 'create' config lock", HostBusyError, "Another task took the container over."),
    (r"migration lock", HostBusyError, "The container is being replicated; ask again later."),
    (r"protection mode enabled", ProtectedError, "The container has its protection set."),
    (r"already running", HostFailedError, "The container is running already."),
    (r"already exists on node", HostFailedError, "A guest of that VMID exists already."),
    (r"snapshot name '[^']*' already used", HostFailedError, "The snapshot exists already."),
    (r"not most recent snapshot", HostFailedError, "Its storage goes back to the newest only."),
    (r"snapshot feature is not available", HostFailedError, "Its storage takes no snapshots."),
    (r"container is running", HostFailedError, "The container is running; it must be stopped."),
    (r"CT [0-9]+ not running", HostFailedError, "The container is not running."),
    (r"if it's a template", HostFailedError, "The container is a template."),
    (r"used in HA resources", HostFailedError, "The container is managed by the HA stack."),
    (r"/lxc/[0-9]+\.conf' does not exist", HostNotFoundError, "The container does not exist."),
    (r"snapshot '[^']*' does not exist", HostNotFoundError, "The snapshot does not exist."),
    (r"storage '[^']*' does not exist", HostNotFoundError, "The storage does not exist."),
    (r"volume '[^']*' does not exist", HostNotFoundError, "The template or volume does not exist."),
    (r"ipcc_send_rec|cluster not ready", AdapterUnavailableError, "Proxmox VE is not ready here."),
)


def failure(_params: object, output: Output) -> HostAgentError:
    """Return the error for an exit status other than 0: the wrapper's own, or pct's failure.

    pct ends nearly every failure with 255, so its words tell them apart. Of standard error only the
    wrapper's own last sentence gets into the detail, in printable ASCII.
    """
    known = _FAILURES.get(output.shell_status)
    if known is not None and output.said:
        error, sentence = known
        return error(f"{sentence}: {output.said}.")
    if output.shell_status in _ENDINGS:
        error, sentence = _ENDINGS[output.shell_status]
        return error(sentence)
    for words, error, sentence in _WORDS:
        if re.search(words, output.stderr):
            return error(sentence)
    return HostFailedError(
        f"pct ended with exit status {output.exit_code}; see its standard error."
    )


# -- the table -------------------------------------------------------------------------------------


def _resource(params: ListParameters | ContainerParameters) -> str | None:
    return params.vmid if isinstance(params, ContainerParameters) else None


def _deeds(*verbs: str) -> Callable[[ContainerParameters], frozenset[Deed]]:
    return lambda params: frozenset((f"pct.{verb}", params.vmid) for verb in verbs)


def _always(_params: ContainerParameters) -> bool:
    return True


def _parsed(parse: Callable[[Output], JsonValue]) -> Callable[[Any, Output], JsonValue]:
    return lambda _params, output: parse(output)


def _spec(verb: str, effect: Effect, summary: str, **more: Any) -> OperationSpec:
    parameters: type[Parameters] = more.pop("parameters", ContainerParameters)
    if effect is not Effect.READ:
        more["inspect"] = _inspect(verb)
    return OperationSpec(
        name=f"pct.{verb}",
        effect=effect,
        summary=summary,
        parameters=parameters,
        wrapper=f"pct-{verb}",
        inspector="pct-inspect",
        run_as=RunAs.ROOT,
        resource=_resource,
        admit=admit,
        failure=failure,
        **more,
    )


SPECS: tuple[OperationSpec, ...] = (
    _spec(
        "list",
        Effect.READ,
        "The allow-listed containers of this host, with status and lock.",
        parameters=ListParameters,
        invoke=_invoke_list,
        restrict=_restrict,
        parse=_parsed(parse_list),
    ),
    _spec(
        "status",
        Effect.READ,
        "Whether a container runs.",
        invoke=_read("status"),
        parse=_parsed(parse_status),
    ),
    _spec(
        "config",
        Effect.READ,
        "The configuration of a container, with changes that wait for its next start.",
        invoke=_read("config"),
        parse=_parsed(parse_config),
    ),
    _spec(
        "start",
        Effect.CHANGE,
        "Start a container.",
        parse_inspection=_state("it is started", "stop it"),
        invoke=_change("start"),
        probe=_probe_status,
        parse_probe=_is_now("running"),
    ),
    _spec(
        "snapshot",
        Effect.CHANGE,
        "Take a snapshot of a container's volumes and configuration.",
        parameters=SnapshotParameters,
        parse_inspection=_inspected_snapshot,
        invoke=_invoke_snapshot,
        probe=_probe,
        parse_probe=_is_snapshotted,
    ),
    _spec(
        "create",
        Effect.CHANGE,
        "Create an unprivileged container from a template; it is neither started nor connected.",
        parameters=CreateParameters,
        parse_inspection=_inspected_create,
        invoke=_invoke_create,
        probe=_probe,
        parse_probe=_is_created,
    ),
    _spec(
        "stop",
        Effect.DESTROY,
        "Stop a container at once, as if its power were cut.",
        deeds=_deeds("halt"),
        parse_inspection=_state("every process in it is killed", "start it"),
        invoke=_change("stop"),
        probe=_probe_status,
        parse_probe=_is_now("stopped"),
    ),
    _spec(
        "shutdown",
        Effect.DESTROY,
        "Shut a container down in order; one that does not end in time stays up.",
        deeds=_deeds("halt"),
        parse_inspection=_state("it is told to shut down", "start it"),
        invoke=_change("shutdown"),
        probe=_probe_status,
        parse_probe=_is_now("stopped"),
    ),
    _spec(
        "rollback",
        Effect.DESTROY,
        "Set a container back to one of its snapshots; what came after is lost.",
        parameters=SnapshotParameters,
        deeds=_deeds("halt", "discard"),  # pct stops a running one for that
        parse_inspection=_inspected_rollback,
        invoke=_invoke_rollback,
        probe=_probe,
        parse_probe=_is_rolled_back,
    ),
    _spec(
        "destroy",
        Effect.DESTROY,
        "Destroy a stopped container with its volumes and snapshots.",
        always_asks=_always,
        deeds=_deeds("discard"),  # a running one is refused, never stopped
        parse_inspection=_inspected_destroy,
        invoke=_change("destroy"),
        probe=_probe,
        parse_probe=_is_gone,
    ),
)
"""The operations of this adapter."""


def _names(section: PctSection) -> tuple[str, ...]:
    return tuple(f"{first}-{last}" for first, last in vmid_ranges(section.vmids))


ADAPTER = Adapter(
    name="pct",
    section=PctSection,
    specs=SPECS,
    tool=Tool(name="pct", path="/usr/sbin/pct", version=("help",)),
    names=_names,
    programs=frozenset(
        {
            *("lxc", "lxc-attach", "lxc-destroy", "lxc-execute", "lxc-start", "lxc-stop", "pct"),
            *("pvesh", "pvesm", "qm", "vzdump"),
        }
    ),
)
