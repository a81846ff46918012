"""A change is judged by all that it starts and stops, not by the unit that was named."""

from pathlib import Path

import pytest

from host_agent.errors import HostFailedError, ProtectedError
from host_agent.operations.systemd.adapter import BROUGHT
from tests.support.systemd_host import SystemdHost, operation, why_not

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or "can run"),
]

DOWN = {"ActiveState": "inactive", "SubState": "dead"}
NEEDS = ("Requires", "Requisite", "BindsTo", "Wants", "Upholds")
LATER = ("OnSuccess", "OnFailure", "Triggers")


@pytest.fixture
def host(tmp_path: Path) -> SystemdHost:
    host = SystemdHost(tmp_path)
    host.unit("app.service", **DOWN)
    return host


def inspect(host: SystemdHost, verb: str, unit: str = "app.service") -> tuple[int, str]:
    """Return the exit status and the wrapper's sentence."""
    output = host.run("systemd-inspect", verb, unit)
    return output.exit_code, output.stderr.removeprefix("host-agent: ").strip()


def reached(host: SystemdHost, verb: str, unit: str = "app.service") -> tuple[object, object]:
    """Return what would be started, and what stopped, with it."""
    found = host.inspect(operation(f"systemd.{verb}", unit=unit)).precondition
    return found["pulled"], found["affected"]


# -- what a start starts ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["start", "restart"])
@pytest.mark.parametrize("edge", [*NEEDS, *LATER])
def test_a_unit_that_would_start_a_protected_one_is_protected(
    host: SystemdHost, verb: str, edge: str
) -> None:
    host.unit("poweroff.target", **DOWN)
    host.change("app.service", **{edge: "poweroff.target"})
    status, sentence = inspect(host, verb)
    assert status == 77
    assert "started with it is protected: poweroff.target" in sentence
    with pytest.raises(ProtectedError):
        host.perform(operation(f"systemd.{verb}", unit="app.service"))
    assert host.changes() == []

    host.change("app.service", **{edge: ""})
    assert host.perform(operation(f"systemd.{verb}", unit="app.service")).exit_code == 0
    assert host.changes()[-1][2:] == [verb, "--", "app.service"]


@pytest.mark.parametrize(
    "door",
    [
        *("storage-target-mode.target", "debug-shell.service", "factory-reset.target"),
        *("system-update.target", "usb-gadget.target", "kexec-load.service", "kexec.target"),
        *("pve-guests.service", "emergency.target", "rescue.service", "halt.target"),
        *("soft-reboot.target", "runlevel6.target", "ctrl-alt-del.target", "sleep.target"),
        *("systemd-storagetm.service", "initrd-switch-root.service", "container-shell@1.service"),
        *("watchdog.service", "packagekit-offline-update.service", "home.mount"),
    ],
)
def test_a_door_is_found_however_deep_it_is(host: SystemdHost, door: str) -> None:
    host.unit("one.service", **DOWN, Wants="two.target")
    host.unit("two.target", **DOWN, BindsTo="three.path")
    host.unit("three.path", **DOWN, Triggers=door)
    host.unit(door, **DOWN)
    host.change("app.service", Wants="one.service")
    assert inspect(host, "start")[0] == 77
    assert inspect(host, "start", door)[0] == 77  # nor by its own name
    host.change("three.path", Triggers="harmless.service")
    host.unit("harmless.service", **DOWN)
    assert reached(host, "start") == (
        ["harmless.service", "one.service", "three.path", "two.target"],
        [],
    )


def test_another_name_of_a_door_is_known(host: SystemdHost) -> None:
    host.unit("poweroff.target", **DOWN)
    host.alias("sleep-now.target", of="poweroff.target")
    host.change("app.service", Wants="sleep-now.target")
    assert inspect(host, "start")[0] == 77


@pytest.mark.parametrize("state", ["not-found", "masked"])
def test_what_cannot_be_started_is_no_door(host: SystemdHost, state: str) -> None:
    host.unit("debug-shell.service", **DOWN, LoadState=state)
    host.change("app.service", Wants="debug-shell.service")
    assert reached(host, "start") == ([], [])


def test_what_is_up_is_not_started_but_what_it_needs_may_be(host: SystemdHost) -> None:
    host.unit("basic.target", Wants="systemd-firstboot.service")  # all that boots the host
    host.unit("systemd-firstboot.service", **DOWN)
    host.unit("database.service", Wants="helper.service")
    host.unit("helper.service", **DOWN)
    host.change("app.service", Requires="basic.target database.service")
    assert reached(host, "start") == (["helper.service"], [])
    host.change("helper.service", Wants="debug-shell.service")
    host.unit("debug-shell.service", **DOWN)
    assert inspect(host, "start")[0] == 77


@pytest.mark.parametrize(
    "helper",
    [
        *("network-online.target", "systemd-networkd-wait-online.service", "modprobe@fuse.service"),
        *("systemd-fsck@dev-vdb.service", "tmp.mount"),
    ],
)
def test_what_waits_checks_or_prepares_may_come_with_it(host: SystemdHost, helper: str) -> None:
    host.unit(helper, **DOWN)
    host.change("app.service", Wants=helper)
    assert reached(host, "start") == ([helper], [])
    assert inspect(host, "start", helper)[0] == 77  # by its own name it is protected as before
    assert BROUGHT


@pytest.mark.parametrize(
    "action", ["FailureAction", "SuccessAction", "JobTimeoutAction", "StartLimitAction"]
)
@pytest.mark.parametrize("value", ["reboot", "poweroff-force", "exit", "halt-immediate"])
@pytest.mark.parametrize("unit", ["app.service", "needed.service"])
def test_a_unit_whose_end_would_end_the_host_is_not_started(
    host: SystemdHost, action: str, value: str, unit: str
) -> None:
    host.unit("needed.service", **DOWN)
    host.change("app.service", Requires="needed.service", **dict.fromkeys([action], "none"))
    assert reached(host, "start") == (["needed.service"], [])
    host.change(unit, **{action: value})
    for verb in ("start", "restart"):
        status, sentence = inspect(host, verb)
        assert (status, sentence.partition(" of ")[0]) == (77, action)


@pytest.mark.parametrize("edge", ["OnSuccess", "OnFailure"])
@pytest.mark.parametrize("unit", ["app.service", "needed.service"])
def test_nor_one_whose_end_would_leave_only_another_unit_up(
    host: SystemdHost, edge: str, unit: str
) -> None:
    """`OnFailureJobMode=isolate` stops everything that the unit in `OnFailure=` does not need."""
    host.unit("needed.service", **DOWN)
    host.unit("alone.target", **DOWN)
    host.change("app.service", Requires="needed.service")
    host.change(unit, **{edge: "alone.target", f"{edge}JobMode": "replace"})
    assert reached(host, "start") == (["alone.target", "needed.service"], [])
    host.change(unit, **{f"{edge}JobMode": "isolate"})
    for verb in ("start", "restart"):
        status, sentence = inspect(host, verb)
        assert (status, sentence.partition(" of ")[0]) == (77, f"{edge}JobMode")
        with pytest.raises(ProtectedError):
            host.perform(operation(f"systemd.{verb}", unit="app.service"))
    host.change(unit, ActiveState="active")
    assert inspect(host, "stop", unit)[0] == 77
    assert host.changes() == []
    host.change(unit, **{edge: ""})  # there is nothing to be left alone
    assert inspect(host, "stop", unit)[0] == 0


@pytest.mark.parametrize("unit", ["app.service", "follower.service"])
def test_nor_stopped(host: SystemdHost, unit: str) -> None:
    host.change("app.service", ActiveState="active", RequiredBy="follower.service")
    host.unit("follower.service")
    assert reached(host, "stop") == ([], ["follower.service"])
    host.change(unit, SuccessAction="poweroff")
    assert inspect(host, "stop")[0] == 77
    assert inspect(host, "restart")[0] == 77


@pytest.mark.parametrize("kind", ["target", "slice", "swap", "automount", "scope", "device"])
def test_another_type_is_started_only_where_a_pattern_says_so(host: SystemdHost, kind: str) -> None:
    host.unit(f"backup.{kind}", **DOWN)
    status, sentence = inspect(host, "start", f"backup.{kind}")
    assert (status, f"no pattern that ends in \\.{kind}" in sentence) == (77, True)
    assert inspect(host, "restart", f"backup.{kind}")[0] == 77
    assert inspect(host, "stop", f"backup.{kind}")[0] == 0
    host.allowed.write_text(
        f"version 1\nnames systemd .*\nnames systemd backup\\.{kind}\nallowed systemd.*\n"
    )
    assert inspect(host, "start", f"backup.{kind}")[0] == 0


# -- what it stops ---------------------------------------------------------------------------------


def test_a_restart_of_what_is_down_stops_what_it_conflicts_with(host: SystemdHost) -> None:
    host.unit("vault-time.service")  # running, on root's list
    host.unit("otherclock.service", **DOWN, Conflicts="vault-time.service")
    for verb in ("start", "restart"):
        assert inspect(host, verb, "otherclock.service")[0] == 77
    host.unit("othertime.service", **DOWN, Conflicts="free-time.service")
    host.unit("free-time.service")
    for verb in ("start", "restart"):
        assert reached(host, verb, "othertime.service") == ([], ["free-time.service"])
    assert host.changes() == []


@pytest.mark.parametrize("edge", ["Conflicts", "ConflictedBy"])
def test_what_a_start_brings_has_conflicts_too(host: SystemdHost, edge: str) -> None:
    host.unit("needed.service", **DOWN, **{edge: "free.service"})
    host.unit("free.service")
    host.unit("vault-time.service")
    host.change("app.service", Requires="needed.service")
    assert reached(host, "start") == (["needed.service"], ["free.service"])
    host.change("free.service", BoundBy="vault-time.service")
    assert inspect(host, "start")[0] == 77


@pytest.mark.parametrize("edge", NEEDS)
@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_what_nobody_else_needs_stops_with_it(host: SystemdHost, edge: str, verb: str) -> None:
    host.change("app.service", ActiveState="active", **{edge: "vault-helper.service"})
    host.unit("vault-helper.service", StopWhenUnneeded="yes", WantedBy="app.service")
    assert inspect(host, verb)[0] == 77  # it would stop one on root's list

    host.change("vault-helper.service", WantedBy="app.service other.service")
    host.unit("other.service")
    assert reached(host, verb) == ([], [])  # kept up by another one
    host.change("other.service", **DOWN)
    assert inspect(host, verb)[0] == 77
    host.change("vault-helper.service", StopWhenUnneeded="no")
    assert reached(host, verb) == ([], [])


def test_what_is_not_needed_any_more_takes_its_own_helpers_along(host: SystemdHost) -> None:
    host.change("app.service", ActiveState="active", Wants="one.service")
    host.unit("one.service", StopWhenUnneeded="yes", WantedBy="app.service", Wants="two.service")
    host.unit("two.service", StopWhenUnneeded="yes", WantedBy="one.service")
    assert reached(host, "stop") == ([], ["one.service", "two.service"])


def test_the_end_of_a_unit_can_start_another(host: SystemdHost) -> None:
    host.change("app.service", ActiveState="active", OnSuccess="report.service")
    host.unit("report.service", **DOWN)
    assert reached(host, "stop") == (["report.service"], [])
    host.change("report.service", Requires="reboot.target")
    host.unit("reboot.target", **DOWN)
    assert inspect(host, "stop")[0] == 77


# -- what a person is told -------------------------------------------------------------------------


def test_the_preview_tells_what_is_started_and_stopped(host: SystemdHost) -> None:
    host.unit("needed.service", **DOWN)
    host.unit("rival.service")
    host.change("app.service", Requires="needed.service", Conflicts="rival.service")
    preview = host.inspect(operation("systemd.start", unit="app.service")).preview
    assert "1 other unit stops for it. 1 other unit starts with it." in preview.summary
    assert preview.details[-2:] == (
        "rival.service cannot run beside it and would be stopped",
        "needed.service would be started with it, or later by it",
    )


def test_a_start_of_what_is_up_may_still_start_something(host: SystemdHost) -> None:
    host.change("app.service", ActiveState="active", Wants="needed.service")
    host.unit("needed.service")
    asked = operation("systemd.start", unit="app.service")
    assert host.inspect(asked).preview.summary.startswith("Nothing to do")
    host.change("needed.service", **DOWN)
    assert "1 other unit starts with it." in host.inspect(asked).preview.summary


def test_what_comes_with_it_is_part_of_what_was_approved(host: SystemdHost) -> None:
    host.unit("needed.service", **DOWN)
    asked = operation("systemd.start", unit="app.service")
    before = host.inspect(asked).precondition
    host.change("app.service", Wants="needed.service")
    assert host.perform(asked, before).exit_code == 75
    assert host.changes() == []
    assert host.perform(asked).exit_code == 0


@pytest.mark.parametrize("active", ["active", "inactive"])
def test_a_restart_that_systemd_would_refuse_is_not_asked_for(
    host: SystemdHost, active: str
) -> None:
    host.change("app.service", ActiveState=active, CanStop="no")  # RefuseManualStop=yes
    with pytest.raises(HostFailedError, match="does not restart on request"):
        host.inspect(operation("systemd.restart", unit="app.service"))
    host.change("app.service", CanStop="yes")
    assert host.inspect(operation("systemd.restart", unit="app.service"))


def test_the_unit_of_a_protected_container_is_protected(host: SystemdHost) -> None:
    host.protected.write_text("pct 15[0-9]\n")
    for unit in ("pve-container@150.service", "lxc@159.service", "pve-container-debug@150.service"):
        host.unit(unit)
        assert inspect(host, "stop", unit)[0] == 77
    host.unit("pve-container@160.service")
    assert inspect(host, "stop", "pve-container@160.service")[0] == 0
