"""What a script answers, and what is no script."""

from pathlib import Path

import pytest

from host_agent.errors import ConfigurationError, UsageError
from host_agent.simulation.script import (
    AnswerKind,
    Script,
    ScriptedAnswer,
    delay_seconds,
    parse_answer,
    read_script,
)


def kind(script: Script, request_id: str, operation: str, resource: str | None) -> str | None:
    answer = script.answer(request_id, operation, resource)
    return None if answer is None else answer.answer.value


def test_the_first_answer_that_fits_counts_as_often_as_it_says() -> None:
    script = Script(
        (
            ScriptedAnswer(
                answer=AnswerKind.DENY, operations=("git.*",), resources=("/srv/*",), times=1
            ),
            ScriptedAnswer(answer=AnswerKind.EXPIRE, operations=("pct.st?p",)),
            ScriptedAnswer(answer=AnswerKind.APPROVE, operations=("git.pull", "zfs.*")),
        )
    )
    assert kind(script, "1", "git.pull", "/srv/app") == "deny"
    assert kind(script, "1", "git.pull", "/srv/app") == "deny"
    assert kind(script, "2", "git.pull", "/srv/app") == "approve"
    assert kind(script, "3", "pct.stop", "101") == "expire"
    assert kind(script, "4", "pct.start", "101") is None
    assert kind(script, "5", "git.reset", "/srv/app") is None
    assert kind(script, "6", "zfs.destroy", None) == "approve"


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("250ms", 0.25), ("2m", 120), ("1h", 3600), (7, 7), ("0", 0)]
)
def test_a_span_is_seconds(text: object, seconds: float) -> None:
    assert delay_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1s", "5 s", "2d", "25h", "nan", "1e3", "\uff19s", None])
def test_anything_else_is_no_span(text: object) -> None:
    with pytest.raises(ValueError, match="span of time"):
        delay_seconds(text)


def test_an_option_is_an_answer() -> None:
    found = parse_answer("zfs.destroy=deny:not before noon = 12:00", after=3)
    assert found.operations == ("zfs.destroy",)
    assert (found.answer, found.words, found.after) == ("deny", "not before noon = 12:00", 3)
    assert parse_answer("git.*=approve", after=0).words is None


@pytest.mark.parametrize(
    "text", ["", "git.*", "=approve", "git.*=yes", "git.*=approve:words", "git.*=deny:", "a=b=c"]
)
def test_another_option_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="PATTERN=ANSWER"):
        parse_answer(text, after=0)


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text('[[answers]]\nanswer = "deny"\nwords = "no"\nafter = "2s"\ntimes = 1\n')
    (answer,) = read_script(file)
    assert (answer.answer, answer.words, answer.after, answer.times) == ("deny", "no", 2, 1)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("[[answers]", "Expected"),
        ("x = 1\n", "answers"),
        ("answers = []\n", "answers"),
        ('[[answers]]\nanswer = "yes"\n', "answers.0.answer"),
        ('[[answers]]\nanswer = "deny"\nwhy = "no"\n', "answers.0.why"),
        ('[[answers]]\nanswer = "deny"\nafter = "soon"\n', "answers.0.after"),
        ('[[answers]]\nanswer = "deny"\ntimes = 0\n', "answers.0.times"),
        ('[[answers]]\nanswer = "deny"\noperations = []\n', "answers.0.operations"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_its_key(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "answers.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        read_script(file)
    assert all(str(file) in said for said in refused.value.faults)
    assert fault in refused.value.faults[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"answers\.toml cannot be read"):
        read_script(tmp_path / "answers.toml")
