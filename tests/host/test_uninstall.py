"""Taking it off again. The last of this tier: afterwards there is no agent."""

from tests.support.installed import (
    AUTHORITY,
    CONFIGURATION,
    FRAGMENT,
    PROGRAM,
    UNIT,
    WRAPPERS,
    Host,
)


def test_uninstall_takes_off_what_was_installed_and_leaves_what_is_somebodys(host: Host) -> None:
    host.require_whole()
    machine = host.machine
    sequence = host.sequence
    said = machine.must(PROGRAM, "uninstall", "--dry-run")
    assert said.startswith("Nothing was changed")
    assert machine.must("systemctl", "is-active", UNIT) == "active\n"
    machine.must(PROGRAM, "uninstall")
    for path in (FRAGMENT, f"{WRAPPERS}/zfs-destroy", f"{WRAPPERS}/protected"):
        assert machine.run("test", "-e", path).exit_code != 0, path
    assert machine.run("test", "-e", f"/etc/systemd/system/{UNIT}").exit_code != 0
    assert machine.run("systemctl", "is-active", UNIT).stdout in ("inactive\n", "unknown\n")
    assert "NOPASSWD" not in machine.must("sudo", "-l", "-U", "host-agent")
    for path in (CONFIGURATION, f"{AUTHORITY}/ca.key", "/var/lib/host-agent/host-agent.db"):
        machine.must("test", "-f", path)
    machine.must("id", "host-agent")
    assert host.sequence >= sequence
    host.require_whole()
    assert host.records()[-1]["event"] == "agent.stopped"
    assert "There is nothing to do" in machine.must(PROGRAM, "uninstall")
