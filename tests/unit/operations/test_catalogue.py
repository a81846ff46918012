"""The catalogue is what its adapters declare, and is what the contract says."""

from typing import Any

import pytest

from host_agent.config import Config
from host_agent.errors import FaultPlace, InvalidParameterError
from host_agent.execution.runner import TOOLS
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import MAX_FAULTS, Adapter
from tests.support.operation_cases import CASES, Case

CONTRACT = {
    "git": "status log diff fetch pull switch reset",
    "zfs": "list get snapshot hold release destroy rollback",
    "systemd": "status logs list start restart reload stop",
    "pct": "list status config start snapshot create stop shutdown rollback destroy",
    "apt": "list show install upgrade",
    "exec": "run",
}


def test_adapters_and_verbs_are_those_of_the_contract() -> None:
    declared = {
        adapter.name: [spec.name.removeprefix(f"{adapter.name}.") for spec in adapter.specs]
        for adapter in CATALOGUE.adapters
    }
    assert declared == {name: verbs.split() for name, verbs in CONTRACT.items()}
    assert CATALOGUE.names == {spec.name for spec in CATALOGUE}


@pytest.mark.parametrize("adapter", CATALOGUE.adapters, ids=lambda adapter: adapter.name)
def test_an_adapter_is_one_family_with_a_table_of_its_name(adapter: Adapter) -> None:
    assert {spec.adapter for spec in adapter.specs} == {adapter.name}
    assert {spec.run_as for spec in adapter.specs} == {adapter.run_as}
    assert Config.model_fields[adapter.name].annotation == adapter.section | None
    assert not Config.model_fields[adapter.name].is_required()
    if adapter.tool is not None:
        assert TOOLS[adapter.tool.name] == adapter.tool.path


def test_every_operation_has_a_case() -> None:
    assert {case.operation for case in CASES} == CATALOGUE.names


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if CATALOGUE.spec(case.operation).inspect is not None],
    ids=lambda case: case.operation,
)
def test_the_digest_covers_the_wrapper_that_looks(case: Case) -> None:
    operation = CATALOGUE.parse(case.operation, case.params)
    assert operation.spec.inspect is not None
    assert operation.spec.inspect(operation.params).wrapper in operation.wrappers


def faults(operation: str, params: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidParameterError) as caught:
        CATALOGUE.parse(operation, params)
    found = caught.value.recovery.faults
    assert {fault.place for fault in found} == {FaultPlace.BODY}
    return {fault.pointer: fault.message for fault in found}


def test_every_fault_of_the_parameters_has_its_pointer() -> None:
    found = faults("zfs.snapshot", {"dataset": "/x", "wrong/one~": 1})
    assert found.keys() == {"/params/dataset", "/params/name", "/params/wrong~1one~0"}
    assert "there are: dataset, name" in found["/params/wrong~1one~0"]
    assert "/x" not in "".join(found.values())


def test_a_pointer_leads_to_what_is_in_the_body() -> None:
    assert faults("exec.run", {"name": "x", "arguments": {"a": 1}}).keys() == {
        "/params/arguments/a"
    }
    bad = {"container": 100, "settings": {"memory": "much"}}
    assert all(fault.startswith("/params/") for fault in faults("pct.config", bad))


def test_a_key_of_any_length_is_not_repeated_and_faults_have_a_bound() -> None:
    assert faults("zfs.list", {"x" * 300: 1}).keys() == {"/params"}
    assert len(faults("zfs.list", {f"x{number}": 1 for number in range(50)})) == MAX_FAULTS
