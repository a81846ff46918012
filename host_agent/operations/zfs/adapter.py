"""zfs on allow-listed datasets: declarations and pure functions; `wrappers/zfs-*` do the work.

A change is bound to the dataset by guid and createtxg and, by one hash, to everything else that it
would act on. `zfs-inspect` reads these facts; each changing wrapper reads them again as root, right
before it acts, and refuses where they are others, or where something is protected by root's own
list. Arguments and exit statuses of the wrappers are in docs/reference/zfs-wrappers.md.
"""

import re
from collections.abc import Callable, Mapping

from host_agent.canonical import JsonValue
from host_agent.errors import (
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
)
from host_agent.operations.patterns import extended
from host_agent.operations.zfs.failure import failure
from host_agent.operations.zfs.output import DatasetFacts, parse_get, parse_list, restrict_list
from host_agent.operations.zfs.parameters import (
    DatasetListParameters,
    DatasetSnapshotParameters,
    DestroyParameters,
    GetParameters,
    HoldParameters,
    NamedParameters,
    ReleaseParameters,
    RollbackParameters,
    base_of,
)
from host_agent.operations.zfs.preview import (
    preview_destroy,
    preview_hold,
    preview_release,
    preview_rollback,
    preview_snapshot,
)
from host_agent.operations.zfs.section import ZfsSection
from host_agent.text import HASH_PREFIX

# -- allow-lists and protections -------------------------------------------------------------------


def _matches(patterns: tuple[str, ...], dataset: str) -> bool:
    name = base_of(dataset)
    return any(re.fullmatch(pattern, name, re.ASCII) for pattern in patterns)


def admit(params: DatasetListParameters | NamedParameters, section: ZfsSection) -> None:
    """Refuse a dataset that the administrator did not list; what is protected is never lost.

    Raises:
        ProtectedError: a destroy, release or rollback of a protected dataset, or of a pool's root.
        PolicyDeniedError: the dataset is not listed; an empty list holds nothing.
    """
    if isinstance(params, DestroyParameters | ReleaseParameters | RollbackParameters):
        _refuse_protected(params, section)
    if params.dataset is None:
        is_listed = bool(section.datasets)
    else:
        is_listed = _matches(section.datasets, params.dataset)
    if not is_listed:
        message = "This dataset is not one that may be worked on here."
        raise PolicyDeniedError(message)


def _refuse_protected(
    params: DestroyParameters | ReleaseParameters | RollbackParameters, section: ZfsSection
) -> None:
    is_kept = not isinstance(params, RollbackParameters) and "@" in params.dataset
    if "/" not in base_of(params.dataset) and not is_kept:
        message = "The root of a pool is never destroyed or rolled back."
        raise ProtectedError(message)
    if _matches(section.protected, params.dataset):
        message = (
            "This dataset is protected; it is never destroyed or rolled back, and no hold is taken"
            " off its snapshots."
        )
        raise ProtectedError(message)


_AT = "@[A-Za-z0-9_.:-]+"


def _choices(
    suffix: str = f"({_AT})?", *, loses: str | None = None
) -> Callable[[ZfsSection], tuple[Choice, ...]]:
    """Return the choices of an operation: datasets with `suffix`.

    `loses` is for one that protections hold against, and a pattern of what the root of a pool is
    refused with.
    """

    def choices(section: ZfsSection) -> tuple[Choice, ...]:
        without: tuple[str, ...] = ()
        if loses is not None:
            kept = (f"({pattern})({_AT})?" for pattern in section.protected)
            without = (f"[^/@]+{loses}", *kept)
        if not section.datasets:
            return ()
        allowed = Allowed(patterns=section.datasets, suffix=suffix, without=without)
        return (Choice(resource=allowed),)

    return choices


def _guard_destroy(_params: DestroyParameters, section: ZfsSection, output: Output) -> None:
    """Refuse to take along what is protected, or not listed: `zfs-inspect` refuses clones."""
    for name in DatasetFacts.of(output).all("dataset"):
        if _matches(section.protected, name) or not _matches(section.datasets, name):
            message = "Something below it is protected or may not be worked on; nothing is taken."
            raise ProtectedError(message)


def _guard_snapshot(
    _params: DatasetSnapshotParameters, section: ZfsSection, output: Output
) -> None:
    if not all(_matches(section.datasets, name) for name in DatasetFacts.of(output).all("dataset")):
        message = "Something below this dataset may not be worked on here."
        raise PolicyDeniedError(message)


def _restrict_list(params: DatasetListParameters, section: ZfsSection, output: Output) -> Output:
    return restrict_list(
        output,
        lambda name, kind: _matches(section.datasets, name) and _is_asked(params, name, kind),
    )


def _is_asked(params: DatasetListParameters, name: str, kind: str) -> bool:
    """Return whether a row was asked for: zfs cannot always be asked that exactly."""
    if params.types is None:
        is_of_type = kind != "snapshot" or name == params.dataset
    else:
        is_of_type = kind in params.types or (name == params.dataset and "@" in name)
    if params.dataset is None:
        return is_of_type
    if params.recursive and "@" not in params.dataset:
        is_there = name.startswith((f"{params.dataset}/", f"{params.dataset}@"))
    else:
        is_there = base_of(name) == params.dataset
    return is_of_type and (is_there or name == params.dataset)


# -- invocations -----------------------------------------------------------------------------------


def _wrapper(verb: str, *arguments: str) -> Invocation:
    return Invocation(wrapper=f"zfs-{verb}", arguments=arguments, run_as=RunAs.ROOT)


def _mode(*, recursive: bool) -> str:
    return "recursive" if recursive else "one"


def _bound(held: Mapping[str, JsonValue]) -> tuple[str, str]:
    return str(held["guid"]), str(held["state"]).removeprefix(HASH_PREFIX)


def _invoke_list(params: DatasetListParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    types = ",".join(params.types or ("filesystem", "volume"))
    where = () if params.dataset is None else (params.dataset,)
    return _wrapper("list", _mode(recursive=params.recursive), types, *where)


def _invoke_get(params: GetParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("get", ",".join(params.properties), params.dataset)


def _inspect_snapshot(params: DatasetSnapshotParameters) -> Invocation:
    mode = _mode(recursive=params.recursive)
    return _wrapper("inspect", "snapshot", params.dataset, params.name, mode)


def _invoke_snapshot(
    params: DatasetSnapshotParameters, held: Mapping[str, JsonValue]
) -> Invocation:
    mode = _mode(recursive=params.recursive)
    return _wrapper("snapshot", params.dataset, params.name, mode, *_bound(held))


def _inspect_hold(params: HoldParameters) -> Invocation:
    return _wrapper("inspect", "hold", params.dataset, params.tag)


def _inspect_release(params: ReleaseParameters) -> Invocation:
    return _wrapper("inspect", "release", params.dataset, params.tag)


def _invoke_hold(params: HoldParameters, held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("hold", params.dataset, params.tag, str(held["guid"]))


def _invoke_release(params: ReleaseParameters, held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("release", params.dataset, params.tag, str(held["guid"]))


def _inspect_destroy(params: DestroyParameters) -> Invocation:
    mode = _mode(recursive=params.recursive)
    return _wrapper("inspect", "destroy", params.dataset, mode, *_released(params))


def _invoke_destroy(params: DestroyParameters, held: Mapping[str, JsonValue]) -> Invocation:
    mode = _mode(recursive=params.recursive)
    return _wrapper("destroy", params.dataset, mode, *_bound(held), *_released(params))


def _released(params: DestroyParameters) -> tuple[str, ...]:
    return () if params.release is None else (params.release,)


def _inspect_rollback(params: RollbackParameters) -> Invocation:
    return _wrapper("inspect", "rollback", params.dataset)


def _invoke_rollback(params: RollbackParameters, held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("rollback", params.dataset, *_bound(held))


# -- what is there, before and after ---------------------------------------------------------------


def _precondition(facts: DatasetFacts) -> dict[str, JsonValue]:
    return {
        "guid": facts.one("guid"),
        "createtxg": facts.one("createtxg"),
        "userrefs": facts.count("userrefs"),
        "members": facts.count("members"),
        "state": f"{HASH_PREFIX}{facts.state}",
    }


def _inspected_snapshot(_params: DatasetSnapshotParameters, output: Output) -> Inspection:
    facts = DatasetFacts.of(output)
    if facts.count("exists"):
        message = "A snapshot of that name exists already; take another name."
        raise HostFailedError(message)
    preview = preview_snapshot(facts)
    return Inspection(precondition=_precondition(facts), preview=preview)


def _inspected_hold(_params: HoldParameters, output: Output) -> Inspection:
    facts = DatasetFacts.of(output)
    if facts.one("has_tag", "yes|no|unknown") == "yes":
        message = "The snapshot has a hold of that tag already."
        raise HostFailedError(message)
    preview = preview_hold(facts)
    return Inspection(precondition=_precondition(facts), preview=preview)


def _inspected_release(_params: ReleaseParameters, output: Output) -> Inspection:
    facts = DatasetFacts.of(output)
    _refuse_unknown_tag(facts)
    preview = preview_release(facts)
    return Inspection(precondition=_precondition(facts), preview=preview)


def _refuse_unknown_tag(facts: DatasetFacts) -> None:
    if facts.one("has_tag", "yes|no|unknown") == "no" or not facts.count("userrefs"):
        message = "The snapshot has no hold of that tag."
        raise HostNotFoundError(message)


def _inspected_destroy(params: DestroyParameters, output: Output) -> Inspection:
    facts = DatasetFacts.of(output)
    if params.release is not None:
        _refuse_unknown_tag(facts)
    children = facts.count("children")
    if children and not params.recursive:
        message = (
            f"The dataset has {children} datasets or snapshots right below it; without `recursive`"
            " only one that has none is destroyed."
        )
        raise HostFailedError(message)
    preview = preview_destroy(
        facts, params.dataset, is_recursive=params.recursive, released=params.release
    )
    return Inspection(precondition=_precondition(facts), preview=preview)


def _inspected_rollback(params: RollbackParameters, output: Output) -> Inspection:
    facts = DatasetFacts.of(output)
    newer = facts.count("newers")
    if newer:
        shown = ", ".join(
            name.removeprefix(base_of(params.dataset)) for name in facts.all("newer")[:5]
        )
        message = (
            f"Only the newest snapshot may be rolled back to; {newer} newer ones would be lost,"
            f" among them {shown}."
        )
        raise HostFailedError(message)
    return Inspection(precondition=_precondition(facts), preview=preview_rollback(facts))


def _probe_snapshot(
    params: DatasetSnapshotParameters, _held: Mapping[str, JsonValue]
) -> Invocation:
    return _inspect_snapshot(params)


def _probe_hold(params: HoldParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _inspect_hold(params)


def _probe_destroy(params: DestroyParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("inspect", "gone", params.dataset, _mode(recursive=params.recursive))


def _probe_rollback(params: RollbackParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _inspect_rollback(params)


def _is_snapshotted(_params: object, held: Mapping[str, JsonValue], output: Output) -> bool:
    return DatasetFacts.of(output).count("exists") == held["members"]


def _has_tag(facts: DatasetFacts, held: Mapping[str, JsonValue], change: int) -> bool | None:
    """Return whether the tag is there; by the number of holds, where tags cannot be seen."""
    if facts.one("guid") != held["guid"]:
        return None
    told = facts.one("has_tag", "yes|no|unknown")
    if told != "unknown":
        return told == "yes"
    is_changed = facts.count("userrefs") == int(str(held["userrefs"])) + change
    return is_changed == (change > 0)


def _is_held(_params: object, held: Mapping[str, JsonValue], output: Output) -> bool:
    return _has_tag(DatasetFacts.of(output), held, 1) is True


def _is_released(_params: object, held: Mapping[str, JsonValue], output: Output) -> bool:
    return _has_tag(DatasetFacts.of(output), held, -1) is False


def _is_gone(_params: object, _held: Mapping[str, JsonValue], output: Output) -> bool:
    return DatasetFacts.of(output).count("left") == 0


def _is_rolled_back(_params: object, held: Mapping[str, JsonValue], output: Output) -> bool:
    """Return whether it is as its snapshot: nothing written or, in zfs-fuse, of the same size."""
    facts = DatasetFacts.of(output)
    is_newest = facts.one("guid") == held["guid"] and facts.count("newers") == 0
    written = facts.optional("written")
    if written is not None:
        return is_newest and written == 0
    return is_newest and facts.count("referenced") == facts.count("snapshot_referenced")


# -- the table -------------------------------------------------------------------------------------


def _resource(params: DatasetListParameters | NamedParameters) -> str | None:
    return params.dataset


def _turn(params: DatasetListParameters | NamedParameters) -> str:
    return base_of(params.dataset or "zfs.list")


def _is_recursive(params: DestroyParameters) -> bool:
    return params.recursive


def _discards(params: DestroyParameters | RollbackParameters) -> frozenset[Deed]:
    """Return that what was written since is lost, for a rollback and for a whole dataset's end."""
    is_kept = isinstance(params, DestroyParameters) and "@" in params.dataset
    return frozenset() if is_kept else frozenset({("zfs.discard", base_of(params.dataset))})


def _parse_list(_params: DatasetListParameters, output: Output) -> JsonValue:
    return parse_list(output)


def _parse_get(params: GetParameters, output: Output) -> JsonValue:
    return parse_get(output, dataset=params.dataset)


SPECS = (
    OperationSpec(
        name="zfs.list",
        effect=Effect.READ,
        summary="Datasets with their sizes, ids and mount points.",
        resource=_resource,
        admit=admit,
        choices=_choices(),
        failure=failure,
        turn=_turn,
        parameters=DatasetListParameters,
        invoke=_invoke_list,
        restrict=_restrict_list,
        parse=_parse_list,
    ),
    OperationSpec(
        name="zfs.get",
        effect=Effect.READ,
        summary="Properties of one dataset.",
        resource=_resource,
        admit=admit,
        choices=_choices(),
        failure=failure,
        turn=_turn,
        parameters=GetParameters,
        invoke=_invoke_get,
        parse=_parse_get,
    ),
    OperationSpec(
        name="zfs.snapshot",
        effect=Effect.CHANGE,
        summary="Take a snapshot.",
        inspector="zfs-inspect",
        resource=_resource,
        admit=admit,
        choices=_choices(""),
        undo="destroy it",
        failure=failure,
        turn=_turn,
        parameters=DatasetSnapshotParameters,
        inspect=_inspect_snapshot,
        parse_inspection=_inspected_snapshot,
        guard=_guard_snapshot,
        invoke=_invoke_snapshot,
        probe=_probe_snapshot,
        parse_probe=_is_snapshotted,
    ),
    OperationSpec(
        name="zfs.hold",
        effect=Effect.CHANGE,
        summary="Hold a snapshot, so that nobody can destroy it.",
        inspector="zfs-inspect",
        resource=_resource,
        admit=admit,
        choices=_choices(_AT),
        undo="release it",
        failure=failure,
        turn=_turn,
        parameters=HoldParameters,
        inspect=_inspect_hold,
        parse_inspection=_inspected_hold,
        invoke=_invoke_hold,
        probe=_probe_hold,
        parse_probe=_is_held,
    ),
    OperationSpec(
        name="zfs.release",
        effect=Effect.CHANGE,
        summary="Take a hold off a snapshot.",
        inspector="zfs-inspect",
        resource=_resource,
        admit=admit,
        choices=_choices(_AT, loses=""),
        undo="hold it again",
        failure=failure,
        turn=_turn,
        parameters=ReleaseParameters,
        inspect=_inspect_release,
        parse_inspection=_inspected_release,
        invoke=_invoke_release,
        probe=_probe_hold,
        parse_probe=_is_released,
    ),
    OperationSpec(
        name="zfs.destroy",
        effect=Effect.DESTROY,
        summary="Destroy a dataset or a snapshot; never a clone with it.",
        inspector="zfs-inspect",
        resource=_resource,
        admit=admit,
        choices=_choices(loses=""),
        undo="none",
        failure=failure,
        turn=_turn,
        parameters=DestroyParameters,
        always_asks=_is_recursive,
        deeds=_discards,
        inspect=_inspect_destroy,
        parse_inspection=_inspected_destroy,
        guard=_guard_destroy,
        invoke=_invoke_destroy,
        probe=_probe_destroy,
        parse_probe=_is_gone,
    ),
    OperationSpec(
        name="zfs.rollback",
        effect=Effect.DESTROY,
        summary="Set a dataset back to its newest snapshot; what was written since is lost.",
        inspector="zfs-inspect",
        resource=_resource,
        admit=admit,
        choices=_choices(_AT, loses=_AT),
        undo="none",
        failure=failure,
        turn=_turn,
        parameters=RollbackParameters,
        deeds=_discards,
        inspect=_inspect_rollback,
        parse_inspection=_inspected_rollback,
        invoke=_invoke_rollback,
        probe=_probe_rollback,
        parse_probe=_is_rolled_back,
    ),
)
"""The operations of this adapter."""


def _names(section: ZfsSection) -> tuple[str, ...]:
    return extended(section.datasets)


def _protected(section: ZfsSection) -> tuple[str, ...]:
    return section.protected


ADAPTER = Adapter(
    name="zfs",
    section=ZfsSection,
    specs=SPECS,
    tool=Tool(name="zfs", path="/usr/sbin/zfs", version=("version",)),
    names=_names,
    protected=_protected,
    programs=frozenset({"zdb", "zfs", "zfs-fuse", "zpool"}),
)
