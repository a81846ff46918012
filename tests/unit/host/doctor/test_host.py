"""What the doctor says of wrappers, tools and root's lists; the tools are stand-ins."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from host_agent.config import Config, parse
from host_agent.errors import AdapterUnavailableError
from host_agent.host.doctor.host import (
    REFUSED_ARGUMENT,
    list_checks,
    shipped_check,
    tool_checks,
    wrapper_checks,
)
from host_agent.host.doctor.values import Check, CheckState
from host_agent.operations.catalogue import Output
from tests.support.pages import REPOSITORY

GOOD = Output(exit_code=64, stderr="host-agent: exactly 4 arguments are needed")


def configuration(tmp_path: Path, **tables: object) -> Config:
    for name in ("a.crt", "a.key", "ca.crt"):
        (tmp_path / name).write_text("x")
    server = {"certificate": "a.crt", "private_key": "a.key", "client_ca": "ca.crt"}
    execution = {"wrapper_dir": str(tmp_path)}
    return parse({"server": server, "execution": execution, **tables}, base=tmp_path)


class Tools:
    """Answers every tool alike, and remembers what was asked."""

    def __init__(self, answer: Output | Callable[[], Output] = GOOD) -> None:
        self._answer = answer
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, tool: str, *arguments: str) -> Output:
        self.calls.append((tool, *arguments))
        return self._answer if isinstance(self._answer, Output) else self._answer()


@pytest.fixture
def zfs(tmp_path: Path) -> Config:
    return configuration(tmp_path, zfs={"datasets": ["tank/.*"]})


def wrappers(config: Config, tools: Tools) -> dict[str, Check]:
    return {check.name: check for check in wrapper_checks(config, "host-agent", tools)}


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
def test_every_wrapper_is_tried_as_the_agent_through_sudo(zfs: Config, tmp_path: Path) -> None:
    tools = Tools()

    found = wrappers(zfs, tools)

    assert {check.state for check in found.values()} == {CheckState.OK}
    assert {"wrapper zfs-destroy as root", "wrapper zfs-inspect as root"} <= found.keys()
    assert (
        *("runuser", "-u", "host-agent", "--", "/usr/bin/sudo", "-n", "-u", "root", "--"),
        *(f"{tmp_path}/zfs-destroy", REFUSED_ARGUMENT),
    ) in tools.calls


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("output", "words"),
    [
        (Output(exit_code=1, stderr="sudo: a password is required"), "sudo refuses it"),
        (Output(exit_code=69, stderr="host-agent: zfs is not installed here"), "not installed"),
        (Output(exit_code=0), "answers 0"),
        (Output(exit_code=64, timed_out=True), "did not answer in time"),
    ],
)
def test_another_answer_than_a_refusal_is_a_problem(
    zfs: Config, output: Output, words: str
) -> None:
    for check in wrappers(zfs, Tools(output)).values():
        assert check.state is CheckState.PROBLEM
        assert words in check.sentence
        assert check.remedy


def test_somebody_else_cannot_try_them_and_is_told(
    zfs: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    tools = Tools()

    (check,) = wrappers(zfs, tools).values()

    assert check.state is CheckState.WARNING
    assert tools.calls == []


def test_with_runner_direct_sudo_is_not_asked(tmp_path: Path) -> None:
    execution = {"wrapper_dir": str(REPOSITORY / "wrappers"), "runner": "direct"}
    config = configuration(tmp_path, zfs={}, execution=execution)
    tools = Tools()

    assert {check.state for check in wrappers(config, tools).values()} == {CheckState.OK}
    assert tools.calls == []


def test_the_tool_of_a_configured_adapter_tells_its_version(zfs: Config) -> None:
    (check,) = tool_checks(zfs, Tools(Output(exit_code=0, stdout="zfs-2.1.11-1\nzfs-kmod-2.1\n")))

    assert (check.state, check.sentence) == (CheckState.OK, "Its version is 2.1.11-1.")


def test_a_tool_that_is_missing_is_a_problem(zfs: Config) -> None:
    def absent() -> Output:
        raise AdapterUnavailableError("/usr/sbin/zfs is not installed on this host.")

    (check,) = tool_checks(zfs, Tools(absent))

    assert check.state is CheckState.PROBLEM
    assert "[zfs]" in check.remedy


def listed(config: Config, expected: Mapping[str, bytes]) -> Check:
    (check,) = list_checks(config, expected)
    return check


def test_a_list_that_is_missing_is_a_problem(zfs: Config, tmp_path: Path) -> None:
    check = listed(zfs, {f"{tmp_path}/protected": b"zfs a\n"})

    assert check.state is CheckState.PROBLEM
    assert "host-agent install" in check.remedy


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose the list must be")
class TestAsRoot:
    def test_roots_own_list_is_good(self, zfs: Config, tmp_path: Path) -> None:
        path = tmp_path / "protected"
        path.write_bytes(b"zfs a\n")

        assert listed(zfs, {str(path): b"zfs a\n"}).state is CheckState.OK

    def test_a_list_that_says_something_else_is_a_problem(
        self, zfs: Config, tmp_path: Path
    ) -> None:
        path = tmp_path / "protected"
        path.write_bytes(b"zfs a\n")

        assert listed(zfs, {str(path): b"zfs b\n"}).state is CheckState.PROBLEM

    @pytest.mark.parametrize("mode", [0o666, 0o664])
    def test_a_list_that_others_can_write_is_a_problem(
        self, zfs: Config, tmp_path: Path, mode: int
    ) -> None:
        path = tmp_path / "protected"
        path.write_bytes(b"zfs a\n")
        path.chmod(mode)

        assert listed(zfs, {str(path): b"zfs a\n"}).state is CheckState.PROBLEM

    def test_a_list_of_somebody_else_is_a_problem(self, zfs: Config, tmp_path: Path) -> None:
        path = tmp_path / "protected"
        path.write_bytes(b"zfs a\n")
        os.chown(path, 1000, 0)

        assert listed(zfs, {str(path): b"zfs a\n"}).state is CheckState.PROBLEM


def test_wrappers_of_another_version_are_named(zfs: Config, tmp_path: Path) -> None:
    (tmp_path / "git").write_bytes(b"old")
    (tmp_path / "zfs-get").write_bytes(b"new")

    check = shipped_check(zfs, {"git": b"new", "zfs-get": b"new", "zfs-list": b"new"})

    assert check.state is CheckState.WARNING
    assert "git, zfs-list" in check.sentence
