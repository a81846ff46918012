"""What every adapter makes of a command that was ended from outside."""

import pytest

from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Adapter, Output
from tests.support.operation_cases import CASES, Case


@pytest.mark.promise("c36")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation)
@pytest.mark.parametrize("code", [124, 137, 143, -9, -15])
def test_a_command_that_was_killed_has_timed_out_whichever_way_that_is_told(
    case: Case, code: int
) -> None:
    asked = CATALOGUE.parse(case.operation, case.params)
    error = asked.spec.failure(asked.params, Output(exit_code=code))
    assert error.code == "host:timed-out"


def test_a_shell_tells_a_death_by_a_signal_as_a_number() -> None:
    assert [Output(exit_code=code).shell_status for code in (0, 77, -9, -15)] == [0, 77, 137, 143]


WRAPPERS_OWN = (64, 65, 66, 69, 75, 77)


@pytest.mark.parametrize("adapter", CATALOGUE.adapters, ids=lambda adapter: adapter.name)
def test_what_a_wrapper_refuses_by_is_told_with_its_own_sentence(adapter: Adapter) -> None:
    spec = adapter.specs[0]
    params = spec.parameters.model_construct()
    codes = []
    for status in WRAPPERS_OWN:
        output = Output(exit_code=status, stderr="host-agent: as the wrapper said it\n")
        error = spec.failure(params, output)
        codes.append(error.code)
        if error.code != "host:failed":
            assert error.detail.endswith(": as the wrapper said it.")
    assert codes[0] == "request:invalid-parameter"
    assert codes[2] == "host:not-found"
    assert codes[4] == "approval:target-changed"
    assert codes[5] in {"policy:protected", "policy:denied"}


@pytest.mark.parametrize("adapter", CATALOGUE.adapters, ids=lambda adapter: adapter.name)
def test_what_nobody_knows_is_a_failure_with_its_status(adapter: Adapter) -> None:
    spec = adapter.specs[0]
    error = spec.failure(spec.parameters.model_construct(), Output(exit_code=99, stderr="secret"))
    assert error.code == "host:failed"
    assert "99" in error.detail
    assert "secret" not in error.detail
