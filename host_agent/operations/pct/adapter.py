"""pct on allow-listed containers: declarations and pure functions; `wrappers/pct-*` do the work.

A change is bound to the container's configuration by one hash, and a rollback to its snapshot by
another. `pct-inspect` reads these facts; each changing wrapper reads them again as root, right
before it acts, and refuses where they are others, or where the container is on root's own list.
Arguments and exit statuses of the wrappers are in docs/reference/pct-wrappers.md.
"""

from collections.abc import Callable, Mapping
from itertools import chain

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    PolicyDeniedError,
    ProtectedError,
)
from host_agent.operations.catalogue import (
    Adapter,
    Allowed,
    Choice,
    Deed,
    Effect,
    Inspection,
    Invocation,
    OperationSpec,
    Output,
    RunAs,
    Tool,
    always_asks,
)
from host_agent.operations.endings import (
    Endings,
    Words,
    by_status,
    by_words,
    tool_endings,
    unknown,
    wrapper_endings,
)
from host_agent.operations.pct.output import (
    ABSENT,
    ContainerFacts,
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
    ContainerListParameters,
    ContainerParameters,
    ContainerSnapshotParameters,
    CreateParameters,
)
from host_agent.operations.pct.section import PctSection, range_patterns, vmid_ranges
from host_agent.text import HASH_PREFIX

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


def admit(params: ContainerListParameters | ContainerParameters, section: PctSection) -> None:
    """Refuse a container that the administrator did not list.

    Raises:
        PolicyDeniedError: it is in none of the ranges.
    """
    if isinstance(params, ContainerParameters) and not section.covers(params.vmid):
        message = "This container is not one that may be worked on here."
        raise PolicyDeniedError(message)


def _choices(section: PctSection) -> tuple[Choice, ...]:
    ranges = (range_patterns(first, last) for first, last in vmid_ranges(section.vmids))
    return (Choice(resource=Allowed(patterns=tuple(chain.from_iterable(ranges)))),)


def _no_choice(_section: PctSection) -> tuple[Choice, ...]:
    return (Choice(),)


def _restrict(_params: ContainerListParameters, section: PctSection, output: Output) -> Output:
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
    return str(held[name]).removeprefix(HASH_PREFIX)


def _read(verb: str) -> Callable[[ContainerParameters, Mapping[str, JsonValue]], Invocation]:
    return lambda params, _none: _wrapper(verb, params.vmid)


def _change(verb: str) -> Callable[[ContainerParameters, Mapping[str, JsonValue]], Invocation]:
    return lambda params, held: _wrapper(verb, params.vmid, _hash(held, "config"))


def _invoke_list(_params: ContainerListParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("list")


def _invoke_snapshot(
    params: ContainerSnapshotParameters, held: Mapping[str, JsonValue]
) -> Invocation:
    return _wrapper("snapshot", params.vmid, params.name, _hash(held, "config"))


def _invoke_rollback(
    params: ContainerSnapshotParameters, held: Mapping[str, JsonValue]
) -> Invocation:
    config, snapshot = _hash(held, "config"), _hash(held, "snapshot")
    return _wrapper("rollback", params.vmid, params.name, config, snapshot)


def _invoke_create(params: CreateParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("create", params.vmid, params.template, *params.options())


def _inspect(verb: str) -> Callable[[ContainerParameters], Invocation]:
    def inspect(params: ContainerParameters) -> Invocation:
        name = (params.name,) if isinstance(params, ContainerSnapshotParameters) else ()
        return _wrapper("inspect", verb, params.vmid, *name)

    return inspect


def _probe(params: ContainerParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _inspect("state")(params)


def _probe_status(params: ContainerParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("status", params.vmid)


# -- what is there, before and after ---------------------------------------------------------------

_Inspected = Callable[[object, Output], Inspection]


def _state(does: str, undo: str) -> _Inspected:
    return lambda _params, output: inspected_state(output, does, undo)


def _inspected_snapshot(_params: ContainerSnapshotParameters, output: Output) -> Inspection:
    return inspected_snapshot(output)


def _inspected_rollback(_params: ContainerSnapshotParameters, output: Output) -> Inspection:
    return inspected_rollback(output)


def _inspected_destroy(_params: ContainerParameters, output: Output) -> Inspection:
    return inspected_destroy(output)


def _inspected_create(params: CreateParameters, output: Output) -> Inspection:
    wanted = (f"template={params.template}", *params.options(), "unprivileged=1")
    return inspected_create(output, wanted)


_Probed = Callable[[object, Mapping[str, JsonValue], Output], bool]


def _is_now(status: str) -> _Probed:
    return lambda _params, _held, output: parse_status(output) == {"status": status}


def _is_created(_params: object, _held: Mapping[str, JsonValue], output: Output) -> bool:
    return ContainerFacts.of(output).status != ABSENT


def _is_gone(_params: object, _held: Mapping[str, JsonValue], output: Output) -> bool:
    return ContainerFacts.of(output).status == ABSENT


def _is_snapshotted(
    params: ContainerSnapshotParameters, _held: Mapping[str, JsonValue], output: Output
) -> bool:
    values = ContainerFacts.of(output).values
    return values.get("snapshot", ABSENT) != ABSENT and values.get("parent") == params.name


def _is_rolled_back(
    params: ContainerSnapshotParameters, held: Mapping[str, JsonValue], output: Output
) -> bool:
    """Return whether the snapshot is still that one, and the container descends from it."""
    values = ContainerFacts.of(output).values
    is_same = values.get("snapshot") == _hash(held, "snapshot")
    return is_same and values.get("parent") == params.name


# -- failures --------------------------------------------------------------------------------------

_REFUSALS: Endings = {
    1: (HostFailedError, "pct would refuse this"),
    **wrapper_endings("pct", "The container"),
    71: (HostBusyError, "Something else works on the container; ask again later"),
}
_ENDINGS = tool_endings("pct")
# Words of pve-container, pve-guest-common and pve-cluster, in the C locale.
_WORDS: tuple[Words, ...] = (
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

    pct ends nearly every failure with 255, so its words tell them apart; a status is the wrapper's
    where the wrapper said something.
    """
    refused = by_status(output, _REFUSALS) if output.said else None
    return (
        refused or by_status(output, _ENDINGS) or by_words(output, _WORDS) or unknown(output, "pct")
    )


# -- the table -------------------------------------------------------------------------------------


def _resource(params: ContainerListParameters | ContainerParameters) -> str | None:
    return params.vmid if isinstance(params, ContainerParameters) else None


def _deeds(*verbs: str) -> Callable[[ContainerParameters], frozenset[Deed]]:
    return lambda params: frozenset((f"pct.{verb}", params.vmid) for verb in verbs)


def _parsed(parse: Callable[[Output], JsonValue]) -> Callable[[object, Output], JsonValue]:
    return lambda _params, output: parse(output)


SPECS = (
    OperationSpec(
        name="pct.list",
        effect=Effect.READ,
        summary="The allow-listed containers of this host, with status and lock.",
        resource=_resource,
        admit=admit,
        choices=_no_choice,
        failure=failure,
        parameters=ContainerListParameters,
        invoke=_invoke_list,
        restrict=_restrict,
        parse=_parsed(parse_list),
    ),
    OperationSpec(
        name="pct.status",
        effect=Effect.READ,
        summary="Whether a container runs.",
        parameters=ContainerParameters,
        resource=_resource,
        admit=admit,
        choices=_choices,
        failure=failure,
        invoke=_read("status"),
        parse=_parsed(parse_status),
    ),
    OperationSpec(
        name="pct.config",
        effect=Effect.READ,
        summary="The configuration of a container, with changes that wait for its next start.",
        parameters=ContainerParameters,
        resource=_resource,
        admit=admit,
        choices=_choices,
        failure=failure,
        invoke=_read("config"),
        parse=_parsed(parse_config),
    ),
    OperationSpec(
        name="pct.start",
        effect=Effect.CHANGE,
        summary="Start a container.",
        parameters=ContainerParameters,
        inspector="pct-inspect",
        inspect=_inspect("start"),
        resource=_resource,
        admit=admit,
        choices=_choices,
        undo="stop it",
        failure=failure,
        parse_inspection=_state("it is started", "stop it"),
        invoke=_change("start"),
        probe=_probe_status,
        parse_probe=_is_now("running"),
    ),
    OperationSpec(
        name="pct.snapshot",
        effect=Effect.CHANGE,
        summary="Take a snapshot of a container's volumes and configuration.",
        inspector="pct-inspect",
        inspect=_inspect("snapshot"),
        resource=_resource,
        admit=admit,
        choices=_choices,
        undo="not with this agent",
        failure=failure,
        parameters=ContainerSnapshotParameters,
        parse_inspection=_inspected_snapshot,
        invoke=_invoke_snapshot,
        probe=_probe,
        parse_probe=_is_snapshotted,
    ),
    OperationSpec(
        name="pct.create",
        effect=Effect.CHANGE,
        summary=(
            "Create an unprivileged container from a template; it is neither started nor connected."
        ),
        inspector="pct-inspect",
        inspect=_inspect("create"),
        resource=_resource,
        admit=admit,
        choices=_choices,
        undo="destroy it",
        failure=failure,
        parameters=CreateParameters,
        parse_inspection=_inspected_create,
        invoke=_invoke_create,
        probe=_probe,
        parse_probe=_is_created,
    ),
    OperationSpec(
        name="pct.stop",
        effect=Effect.DESTROY,
        summary="Stop a container at once, as if its power were cut.",
        parameters=ContainerParameters,
        inspector="pct-inspect",
        inspect=_inspect("stop"),
        resource=_resource,
        admit=admit,
        choices=_choices,
        undo="start it",
        failure=failure,
        deeds=_deeds("halt"),
        parse_inspection=_state("every process in it is killed", "start it"),
        invoke=_change("stop"),
        probe=_probe_status,
        parse_probe=_is_now("stopped"),
    ),
    OperationSpec(
        name="pct.shutdown",
        effect=Effect.DESTROY,
        summary="Shut a container down in order; one that does not end in time stays up.",
        parameters=ContainerParameters,
        inspector="pct-inspect",
        inspect=_inspect("shutdown"),
        resource=_resource,
        admit=admit,
        choices=_choices,
        undo="start it",
        failure=failure,
        deeds=_deeds("halt"),
        parse_inspection=_state("it is told to shut down", "start it"),
        invoke=_change("shutdown"),
        probe=_probe_status,
        parse_probe=_is_now("stopped"),
    ),
    OperationSpec(
        name="pct.rollback",
        effect=Effect.DESTROY,
        summary="Set a container back to one of its snapshots; what came after is lost.",
        inspector="pct-inspect",
        inspect=_inspect("rollback"),
        resource=_resource,
        admit=admit,
        choices=_choices,
        undo="none",
        failure=failure,
        parameters=ContainerSnapshotParameters,
        deeds=_deeds("halt", "discard"),  # pct stops a running one for that
        parse_inspection=_inspected_rollback,
        invoke=_invoke_rollback,
        probe=_probe,
        parse_probe=_is_rolled_back,
    ),
    OperationSpec(
        name="pct.destroy",
        effect=Effect.DESTROY,
        summary="Destroy a stopped container with its volumes and snapshots.",
        parameters=ContainerParameters,
        inspector="pct-inspect",
        inspect=_inspect("destroy"),
        resource=_resource,
        admit=admit,
        choices=_choices,
        undo="a backup, if there is",
        failure=failure,
        always_asks=always_asks,
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
