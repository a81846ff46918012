"""An error is whole where it is raised; who knows more raises another one from it."""

import pytest

from host_agent.errors import (
    BY_CODE,
    NEVER,
    HostAgentError,
    PolicyDeniedError,
    RateLimitedError,
    Recovery,
    RecoveryKind,
    again_after,
    exit_status,
    pointer,
    wait_for,
)


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


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE)
def test_every_code_says_what_to_do_next_and_how_it_ends_a_command(
    kind: type[HostAgentError],
) -> None:
    recovery = kind("No.").recovery
    match recovery.kind:
        case RecoveryKind.CHANGE_PARAMETERS:
            assert [fault.message for fault in recovery.faults] == ["No."]
        case RecoveryKind.ASK_AGAIN_AFTER:
            assert recovery.seconds is not None
            assert recovery.seconds >= 0
        case RecoveryKind.WAIT_FOR:
            pytest.fail("no code alone names what to wait for")
        case RecoveryKind.NEVER | RecoveryKind.ASK_A_PERSON:
            assert recovery == Recovery(kind=recovery.kind)
    assert exit_status(kind.code) != 0


@pytest.mark.parametrize("lacks", ["title", "usual_recovery"])
def test_a_code_without_its_title_or_recovery_is_no_class(lacks: str) -> None:
    declared = {"code": "x:y", "title": "X", "usual_recovery": NEVER}
    del declared[lacks]
    with pytest.raises(TypeError, match="declares a code without"):
        type("IncompleteError", (HostAgentError,), declared)
    assert "x:y" not in BY_CODE


def test_an_error_that_knows_more_says_another_thing_to_do_next() -> None:
    error = PolicyDeniedError("It waits.", recovery=wait_for(equivalent_to="5f0c"))
    assert error.recovery.equivalent_to == "5f0c"
    assert error.amended(about={"a": 1}).recovery == error.recovery
    assert error.amended(recovery=NEVER).recovery == NEVER
    assert PolicyDeniedError("No.").recovery == NEVER


@pytest.mark.parametrize(("told", "seconds"), [(None, 60), (0.0, 1), (2.1, 3)])
def test_when_to_ask_again_is_one_number(told: float | None, seconds: int) -> None:
    assert RateLimitedError("Slow.", retry_after_seconds=told).recovery == again_after(seconds)


def test_a_pointer_is_that_of_rfc_6901() -> None:
    assert pointer(["params", "a/b", "c~1", 0]) == "/params/a~1b/c~01/0"
    assert pointer([]) == ""
