"""An error is whole where it is raised; who knows more raises another one from it."""

import pytest

from host_agent.errors import BY_CODE, HostAgentError


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE)
def test_an_amended_error_is_another_of_the_same_code(kind: type[HostAgentError]) -> None:
    error = kind("No.", retry_after_seconds=3, members={"request": 1}, about={"operation": "a"})
    more = error.amended(members={"outcome": 2}, about={"operation": "b", "reason": "c"})
    assert type(more) is kind
    assert (more.detail, more.retry_after_seconds) == ("No.", 3)
    assert more.members == {"request": 1, "outcome": 2}
    assert more.about == {"operation": "b", "reason": "c"}
    assert error.members == {"request": 1}
    assert error.about == {"operation": "a"}
