"""What every adapter makes of a command that was ended from outside."""

import pytest

from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Output
from tests.support.operation_cases import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation)
@pytest.mark.parametrize("code", [124, 137, 143, -9, -15])
def test_c36_a_command_that_was_killed_has_timed_out_whichever_way_that_is_told(
    case: Case, code: int
) -> None:
    asked = CATALOGUE.parse(case.operation, case.params)
    error = asked.spec.failure(asked.params, Output(exit_code=code))
    assert error.code == "host:timed-out"


def test_a_shell_tells_a_death_by_a_signal_as_a_number() -> None:
    assert [Output(exit_code=code).shell_status for code in (0, 77, -9, -15)] == [0, 77, 137, 143]
