"""What the doctor makes of a start that is tried as the agent's user."""

import os
from pathlib import Path

import pytest

from host_agent.errors import AdapterUnavailableError
from host_agent.host.doctor.starting import Start, start_checks, try_start
from host_agent.host.doctor.values import CheckState
from host_agent.operations.catalogue import Output


class Tools:
    """Keeps what was run, and answers as a program that ended so."""

    def __init__(self, exit_code: int, stderr: str = "", *, timed_out: bool = False) -> None:
        self.ran: list[tuple[str, ...]] = []
        self._answer = Output(exit_code=exit_code, stderr=stderr, timed_out=timed_out)

    def __call__(self, tool: str, *arguments: str) -> Output:
        self.ran.append((tool, *arguments))
        return self._answer


def tried(tools: Tools) -> Start:
    return try_start(Path("/etc/x.toml"), "somebody", os.geteuid(), tools)


def test_a_start_that_would_do_is_well() -> None:
    tools = Tools(0, '{"level": "warning", "message": "unwise"}\n')
    start = tried(tools)
    assert [check.state for check in start_checks(start, ())] == [CheckState.OK]
    (ran,) = tools.ran
    assert ran[-4:] == ("serve", "--check", "--config", "/etc/x.toml")


def test_the_configuration_is_named_from_the_root_as_the_start_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tools = Tools(0)

    try_start(Path("x.toml"), "somebody", os.geteuid(), tools)

    assert tools.ran[0][-1] == str(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("tools", "fault"),
    [
        (
            Tools(78, "host-agent: server.crl: /x cannot be read\nhost-agent: not started; x\n"),
            "server.crl: /x cannot be read",
        ),
        (
            Tools(78, '{"level": "critical", "message": "the agent ends: no x"}\n'),
            "start: the agent ends: no x",
        ),
        (
            Tools(126, "runuser: failed to execute /x: Permission denied\n"),
            "start: runuser: failed",
        ),
        (Tools(1), "start: exit status 1"),
        (Tools(-9, timed_out=True), "start: it did not end in time"),
        (Tools(70, "{not json\n"), "start: {not json"),
    ],
)
def test_a_start_that_fails_says_why(tools: Tools, fault: str) -> None:
    start = tried(tools)
    assert start.faults is not None
    assert len(start.faults) == 1
    assert start.faults[0].startswith(fault)
    (check,) = start_checks(start, ())
    assert check.state is CheckState.PROBLEM
    assert check.sentence.startswith("As somebody: ")
    assert check.remedy


def test_a_fault_is_found_by_its_key_and_told_once() -> None:
    start = Start(user="a", faults=("server.crl: not read", "server.crlx: other"))
    assert start.fault_of("server.crl") == "server.crl: not read"
    assert start.fault_of("server.private_key") is None
    assert start.fault_of("server.crl", known=["server.crl: not read"]) is None
    assert len(list(start_checks(start, ["server.crl: not read"]))) == 1


def absent(tool: str, *arguments: str) -> Output:
    message = "/usr/sbin/runuser is not installed."
    raise AdapterUnavailableError(message)


def test_where_it_cannot_be_tried_that_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    for start in (
        try_start(Path("/x"), "somebody", 1234, absent),
        try_start(Path("/x"), "somebody", 99, Tools(0)),
    ):
        assert [check.state for check in start_checks(start, ())] == [CheckState.WARNING]
