"""What the doctor draws: a sentence folds between words and hangs beside its label."""

from pathlib import Path

import pytest

from host_agent.__main__ import main
from host_agent.cli.commands import doctor
from host_agent.cli.terminal import render
from host_agent.host.doctor.values import Check, CheckState

COLUMNS = 80
SENTENCE = "/etc/host-agent/config.toml can be read: 7 identities and 10 rules, and nothing amiss."
REMEDY = "Write the key again, then `systemctl reload host-agent` and look at what it says there."
LONG = "/" + "x" * 120
CHECKS = (
    Check(name="configuration", state=CheckState.OK, sentence=SENTENCE),
    Check(
        name="store",
        state=CheckState.WARNING,
        sentence=f"{LONG} has\x1b[2J no room.",
        remedy=REMEDY,
    ),
    Check(name="clock", state=CheckState.PROBLEM, sentence="It is late.", remedy="Set it."),
)


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter(CHECKS))
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> list[str]:
    assert main(["doctor", "--config", str(tmp_path / "config.toml")]) == 1
    return capsys.readouterr().out.splitlines()


def test_at_80_columns_no_word_is_broken_and_what_folds_hangs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(render, "is_terminal", lambda _stream: True)
    monkeypatch.setenv("NO_COLOR", "1")
    lines = drawn(capsys, tmp_path)
    assert max(map(len, lines)) <= COLUMNS
    assert [line[:9].strip() for line in lines if line[:9].strip()][:3] == [
        "ok",
        "warning",
        "problem",
    ]
    told = " ".join(line[9:].strip() for line in lines)
    assert f"configuration: {SENTENCE}" in told
    assert REMEDY in told
    assert LONG in told.replace(" ", "")  # what fits no line is folded, and nothing of it is lost


def test_where_nobody_looks_a_sentence_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = drawn(capsys, tmp_path)
    assert lines[0] == f"ok       configuration: {SENTENCE}"
    assert lines[1].startswith(f"warning  store: {LONG} has\\u{{1b}}[2J")
    assert lines[2] == f"         {REMEDY}"
    assert lines[-1] == "3 checks: 1 problem, 1 warning."
