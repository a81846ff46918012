"""Every error ends a command with its row of the exit table, and one sentence without control."""

import pytest

from host_agent import errors
from host_agent.cli import exit_status

PROBLEMS = {
    "host:failed": 1,
    "host:sudo-refused": 1,
    "host:timed-out": 1,
    "host:busy": 1,
    "request:malformed": 65,
    "request:invalid-parameter": 65,
    "request:unknown-operation": 65,
    "request:too-large": 65,
    "request:not-json": 65,
    "store:unavailable": 69,
    "audit:unavailable": 69,
    "approval:unreachable": 69,
    "internal": 70,
    "approval:already-decided": 75,
    "approval:digest-mismatch": 75,
    "approval:expired": 75,
    "approval:queue-full": 75,
    "rate:limited": 75,
    "approval:denied": 77,
    "identity:unknown": 77,
    "policy:no-rule": 77,
    "from:the-future": 70,
}


def problem(code: str, detail: str = "Ask alice.") -> errors.ProblemError:
    return errors.ProblemError(code=code, status=400, detail=detail, body={"code": code})


@pytest.mark.parametrize(("code", "status"), PROBLEMS.items())
def test_a_problem_has_the_exit_status_of_its_code(
    code: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status.end(problem(code), as_json=False) == status

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"host-agent: Ask alice. ({code})\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UsageError("Say what."), 64),
        (errors.ConnectionFailedError("Nobody there."), 69),
        (errors.CertificateRefusedError("Not you."), 77),
        (errors.InvalidAnswerError("Not us."), 70),
        (errors.ConfigurationError(["a: b.", "c: d."]), 78),
        (errors.AuditUnavailableError("Full."), 69),
        (ValueError("secret inside"), 70),
        (RecursionError(), 70),
    ],
)
def test_other_errors_have_theirs(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status.end(error, as_json=True) == status

    said = capsys.readouterr().err
    assert all(line.startswith("host-agent: ") for line in said.splitlines())
    assert "Traceback" not in said
    assert "secret" not in said


def test_every_code_of_the_tree_ends_with_a_status_of_the_table() -> None:
    table = {1, 65, 69, 70, 75, 77}

    assert {errors.exit_status(code) for code in errors.BY_CODE} <= table


@pytest.mark.promise("c31")
def test_a_problems_words_cannot_control_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exit_status.end(
        problem("host:failed", "\x1b[2Jgone\nhost-agent: approved" + "x" * 9000), as_json=False
    )

    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert len(said) < 1300


def test_json_gives_the_problems_body_too(capsys: pytest.CaptureFixture[str]) -> None:
    exit_status.end(problem("rate:limited"), as_json=True)

    assert '"code": "rate:limited"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recovery", "hint"),
    [
        (errors.NEVER, ""),
        (errors.ASK_A_PERSON, ""),
        (errors.again_after(0), ""),
        (errors.again_after(61), " Try again in 61 s."),
        (
            errors.wait_for(equivalent_to="5f0c" * 8),
            " Look at it with: host-agent requests show 5f0c5f0c",
        ),
        (errors.wait_for(request_id="ab"), " Look at it with: host-agent requests show ab"),
        (errors.correct("Not so.", "params", "name"), ""),
    ],
)
def test_what_to_do_next_is_said(
    recovery: errors.Recovery, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = errors.ProblemError(code="x:y", status=400, detail="No.", recovery=recovery)
    exit_status.end(error, as_json=False)
    assert capsys.readouterr().err == f"host-agent: No.{hint} (x:y)\n"


def test_several_faults_are_a_line_each_and_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    faults = (
        errors.Fault(pointer="/params/a", message="Too long."),
        errors.Fault(pointer="/\x1b[2J", message="Unknown."),
    )
    recovery = errors.Recovery(kind=errors.RecoveryKind.CHANGE_PARAMETERS, faults=faults)
    error = errors.ProblemError(code="x:y", status=400, detail="No.", recovery=recovery)
    exit_status.end(error, as_json=False)
    said = capsys.readouterr().err
    assert "body /params/a: Too long.\n" in said
    assert "\x1b" not in said
    assert len(said.splitlines()) == 3


def test_what_who_denied_said_is_told_bounded_and_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for said in ('not "now"\x1b[2J' + "x" * 1000, 5):
        body = {"decision_reason": said}
        error = errors.ProblemError(code="x:y", status=429, detail="No.", body=body)
        exit_status.end(error, as_json=False)
        told = capsys.readouterr().err
        assert ("Who denied it said: \"not 'now'\\u{1b}[2J" in told) is isinstance(said, str)
        assert "\x1b" not in told
        assert len(told) < 600
