"""Which operations have the same effect: never the same operation, never a read, and both ways."""

from hypothesis import given
from hypothesis import strategies as st

from host_agent.canonical import JsonValue
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Effect, Operation, OperationSpec

POOLS: dict[str, tuple[JsonValue, ...]] = {
    "dataset": ("tank/old", "tank/older", "tank/old/mail"),
    "snapshot": ("tank/old@daily", "tank/older@daily"),
    "unit": ("nginx.service", "nginx.socket", "backup.service"),
    "vmid": ("101", "102"),
    "package": ("nginx", "nginx-core"),
    "repository": ("/srv/app", "/srv/app2"),
    "arguments": (
        {},
        {"target": "tank/old"},
        {"target": "/mnt/tank/old/mail", "other": "x"},
        {"unit": "nginx"},
        {"vmid": "101"},
        {"path": "/srv/app"},
    ),
}
_NEEDS_SNAPSHOT = {"zfs.hold", "zfs.release", "zfs.rollback"}
_NEEDS_DATASET = {"zfs.list", "zfs.snapshot"}


def params_of(draw: st.DrawFn, spec: OperationSpec) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for name in spec.parameters.model_json_schema().get("properties", {}):
        if name == "dataset":
            names = POOLS["snapshot"] if spec.name in _NEEDS_SNAPSHOT else POOLS["dataset"]
            if spec.name not in _NEEDS_SNAPSHOT | _NEEDS_DATASET:
                names = (*names, *POOLS["snapshot"])
            found[name] = draw(st.sampled_from(names))
        elif name in POOLS:
            found[name] = draw(st.sampled_from(POOLS[name]))
        elif name == "recursive":
            found[name] = draw(st.booleans())
        elif name == "properties":
            found[name] = ["all"]
        elif name == "template":
            found[name] = "local:vztmpl/debian-12.tar.zst"
        elif name in {"name", "tag", "remote", "branch", "ref"}:
            found[name] = draw(st.sampled_from(("main", "daily", "topic")))
    return found


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    spec = draw(st.sampled_from(list(CATALOGUE)))
    return CATALOGUE.parse(spec.name, params_of(draw, spec))


@given(operations(), operations())
def test_the_same_operation_is_never_hit_and_a_read_neither(
    one: Operation, other: Operation
) -> None:
    if one.name == other.name or Effect.READ in (one.effect, other.effect):
        assert not one.does_as(other)


@given(operations(), operations())
def test_equivalence_goes_both_ways(one: Operation, other: Operation) -> None:
    assert one.does_as(other) == other.does_as(one)


@given(operations(), operations())
def test_what_is_equivalent_is_of_one_adapter_and_names_one_thing_or_is_a_command(
    one: Operation, other: Operation
) -> None:
    if one.does_as(other) and "exec.run" not in (one.name, other.name):
        assert one.spec.adapter == other.spec.adapter
        first, second = (str(each.resource).partition("@")[0] for each in (one, other))
        assert first == second


@given(operations())
def test_a_change_always_does_at_least_what_it_is_called(operation: Operation) -> None:
    own = (operation.name, operation.resource or "")
    assert (own in operation.deeds) == (operation.effect is not Effect.READ)
