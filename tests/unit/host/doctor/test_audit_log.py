"""What the doctor says of who keeps the audit log."""

import os
import subprocess
from pathlib import Path

import pytest

from host_agent.audit import sealing
from host_agent.audit.sealing import is_append_only
from host_agent.config import RunnerKind
from host_agent.host.doctor.audit_log import keeping_checks
from host_agent.host.doctor.values import CheckState
from tests.support.sudoers_example import example


def states(
    path: Path, *, append_only: bool, runner: RunnerKind = RunnerKind.SUDO
) -> list[CheckState]:
    config = example()
    audit = config.audit.model_copy(update={"path": path, "append_only": append_only})
    execution = config.execution.model_copy(update={"runner": runner})
    changed = config.model_copy(update={"audit": audit, "execution": execution})
    checks = list(keeping_checks(changed))
    assert all(check.remedy for check in checks if check.state is not CheckState.OK)
    return [check.state for check in checks]


def test_a_log_of_the_agents_own_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert states(path, append_only=False) == [CheckState.WARNING]
    assert states(path, append_only=False, runner=RunnerKind.DIRECT) == []


def test_a_log_that_is_not_there_yet_is_told_of(tmp_path: Path) -> None:
    assert states(tmp_path / "audit.jsonl", append_only=True) == [CheckState.WARNING]


def test_a_log_without_the_attribute_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    assert states(path, append_only=True) == [CheckState.WARNING]


def test_where_chattr_is_missing_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    monkeypatch.setattr(sealing, "CHATTR", tmp_path / "chattr")
    assert states(path, append_only=True) == [CheckState.PROBLEM]
    (tmp_path / "chattr").touch(0o755)
    assert states(path, append_only=True) == [CheckState.WARNING]


def test_finished_files_are_roots_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    finished = tmp_path / "audit-20260101T000000000000Z.jsonl"
    finished.touch(mode=0o640)
    is_root = os.geteuid() == 0
    last = CheckState.OK if is_root else CheckState.PROBLEM
    assert states(path, append_only=True)[-1] is last
    finished.chmod(0o662)
    assert states(path, append_only=True)[-1] is CheckState.PROBLEM


def test_a_file_system_without_attributes_is_told_of(tmp_path: Path) -> None:
    assert states(Path("/proc/version"), append_only=True) == [CheckState.WARNING]
    link = tmp_path / "audit.jsonl"
    link.symlink_to("/etc/passwd")
    assert states(link, append_only=True) == [CheckState.WARNING]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to set the attribute")
def test_a_log_that_can_only_be_appended_to_is_well(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    if subprocess.run(["/usr/bin/chattr", "+a", path], check=False).returncode != 0:
        pytest.skip("this file system has no such attribute")
    try:
        assert is_append_only(path)
        assert states(path, append_only=True) == [CheckState.OK]
    finally:
        subprocess.run(["/usr/bin/chattr", "-a", path], check=True)
