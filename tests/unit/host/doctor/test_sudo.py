"""What the doctor says of sudoers findings and groups: which are problems, which are warnings."""

import os

import pytest

from host_agent.config import Config, RunnerKind
from host_agent.host.doctor.sudo import granted_checks
from host_agent.host.doctor.values import CheckState
from host_agent.sudoers.host import Subject
from host_agent.sudoers.membership import POWERS, memberships
from host_agent.sudoers.values import AuditReport, Origin, Severity, SudoersFinding, report, unknown
from tests.support.sudoers_example import example

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may look")


def finding(severity: Severity, line: int = 7) -> SudoersFinding:
    return SudoersFinding(
        origin=Origin(file="/etc/sudoers.d/x", line=line),
        rule=f"r{line}",
        severity=severity,
        reason="It grants much.",
        remedy="Remove it.",
    )


def states(found: AuditReport, config: Config | None = None) -> list[CheckState]:
    return [check.state for check in granted_checks(config or example(), lambda: found)]


@AS_ROOT
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], [CheckState.OK]),
        ([finding(Severity.LOW)], [CheckState.OK]),
        ([finding(Severity.MEDIUM)], [CheckState.WARNING, CheckState.OK]),
        ([finding(Severity.HIGH)], [CheckState.PROBLEM]),
        ([finding(Severity.CRITICAL)], [CheckState.PROBLEM]),
        ([unknown("/etc/sudoers", 0, "not read", "read it")], [CheckState.PROBLEM]),
        ([finding(Severity.HIGH, line) for line in range(25)], [CheckState.PROBLEM] * 21),
    ],
)
def test_high_and_critical_are_problems_and_medium_a_warning(
    found: list[SudoersFinding], expected: list[CheckState]
) -> None:
    assert states(report(found)) == expected


@AS_ROOT
def test_the_place_is_told() -> None:
    (check,) = granted_checks(example(), lambda: report([finding(Severity.HIGH)]))
    assert check.sentence == "high: /etc/sudoers.d/x:7: It grants much."


def test_runner_direct_does_not_ask_sudo() -> None:
    config = example()
    direct = config.execution.model_copy(update={"runner": RunnerKind.DIRECT})
    asked = config.model_copy(update={"execution": direct})
    assert states(report([finding(Severity.CRITICAL)]), asked) == []


def subject(name: str, *groups: str, uid: int | None = 990) -> Subject:
    return Subject(name=name, uid=uid, groups=frozenset(groups))


@pytest.mark.parametrize("group", ["disk", "docker", "shadow", "lxd", "libvirt", "kmem", "sudo"])
def test_a_group_that_comes_close_to_root_is_high_or_critical(group: str) -> None:
    (found,) = memberships([subject("host-agent", "host-agent", group)])
    assert found.severity in (Severity.CRITICAL, Severity.HIGH)
    assert found.reason.startswith(f"host-agent is in the group {group}, which ")
    assert group in found.remedy


@pytest.mark.parametrize("group", ["adm", "systemd-journal"])
def test_a_group_that_reads_logs_is_medium(group: str) -> None:
    (found,) = memberships([subject("host-agent", group), subject("librarian", group)])
    assert found.severity is Severity.MEDIUM
    assert found.reason.startswith(f"host-agent, librarian are in the group {group}")


def test_ordinary_groups_root_and_who_is_not_there_are_no_finding() -> None:
    assert not list(memberships([subject("host-agent", "host-agent", "users", "www-data")]))
    assert not list(memberships([subject("root", "root", "disk", uid=0)]))
    assert not list(memberships([subject("disk", "disk", uid=None)]))


def test_every_power_has_a_reason_that_ends_the_sentence() -> None:
    assert all(power and not power.endswith(".") for _, power in POWERS.values())
