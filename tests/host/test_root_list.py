"""Root's own list on a real host: what it does not name root does not do, whoever has the service.

Units are inspected by systemd's own word of them, every target that ships with it among them.
"""

import re
from collections.abc import Iterator
from functools import partial

import pytest

from host_agent.operations.systemd.adapter import is_brought, is_protected
from tests.support.installed import PROGRAM, SECTIONS, WRAPPERS, Host, configuration

LIST = f"{WRAPPERS}/allowed"
STATE = "a" * 64
REFUSED = re.compile(
    r"host-agent: root's list does not (name|allow) it; `host-agent root render`\n"
)

# -- as the service, through sudo ------------------------------------------------------------------

TRIES = [
    ("root", "zfs-get used {}", "tank/private", "tank/media"),
    ("root", "zfs-list one filesystem {}", "tank/private", "tank/media"),
    ("root", "zfs-inspect destroy {}@old one", "tank/private", "tank/top"),
    ("root", "zfs-inspect snapshot {} new one", "tank/private", "tank/media"),
    ("root", "zfs-snapshot {} new one 1 {state}", "tank/private", "tank/media"),
    ("root", "zfs-destroy {}@old one 1 {state}", "tank/private", "tank/top"),
    ("root", "systemd-status {}", "private.service", "idle.service"),
    ("root", "systemd-logs {} 5", "private.service", "idle.service"),
    ("root", "systemd-inspect stop {}", "private.service", "idle.service"),
    ("root", "systemd-stop {} {state}", "private.service", "idle.service"),
    ("root", "systemd-restart {} {state}", "private.service", "idle.service"),
    ("root", "systemd-inspect start {}", "storage-target-mode.target", "idle.service"),
    ("root", "systemd-start {} {state}", "bluetooth.target", "idle.service"),
    ("root", "systemd-stop {} {state}", "pve-container@150.service", "idle.service"),
    ("root", "pct-status {}", "201", "102"),
    ("root", "pct-config {}", "201", "102"),
    ("root", "pct-inspect snapshot {} fresh", "201", "102"),
    ("root", "pct-snapshot {} fresh {state}", "201", "102"),
    ("root", "pct-snapshot {} fresh {state}", "150", "102"),  # named, and denied to everybody
    ("root", "exec-run inspect {} whom=x", "other", "greet"),
    ("root", "exec-run inspect {} whom=x", "denied", "greet"),  # denied to everybody
    ("librarian", "git status {}", "/srv/private", "/srv/app"),
    ("librarian", "git log {} 5", "/srv/private", "/srv/app"),
    ("librarian", "git state {}", "/srv/private", "/srv/app"),
]


@pytest.mark.parametrize(("user", "command", "unlisted", "listed"), TRIES, ids=str)
def test_as_the_service_what_root_does_not_name_is_refused(
    host: Host, user: str, command: str, unlisted: str, listed: str
) -> None:
    before = host.state()
    sudo = ("/usr/bin/sudo", "-n", "-u", user, "--")
    words = command.format(unlisted, state=STATE).split()
    done = host.as_service(*sudo, f"{WRAPPERS}/{words[0]}", *words[1:])
    assert (done.exit_code, done.stdout) == (77, "")
    assert REFUSED.fullmatch(done.stderr), done.stderr
    assert host.state() == before
    words = command.format(listed, state=STATE).split()
    twin = host.as_service(*sudo, f"{WRAPPERS}/{words[0]}", *words[1:])
    assert twin.exit_code == (75 if "{state}" in command else 0), twin.stderr


@pytest.mark.parametrize(
    "spoil",
    [
        f"mv {LIST} /root/allowed.aside",
        f"chmod 0664 {LIST}",
        f"chown host-agent {LIST}",
        f"echo 'free zfs.*' >>{LIST}",
        f"sed -i 's/^version 1/version 2/' {LIST}",
    ],
)
def test_a_list_that_is_not_roots_or_not_understood_allows_nothing(host: Host, spoil: str) -> None:
    machine = host.machine
    machine.must("cp", "-a", LIST, "/root/allowed.kept")
    before = host.state()
    try:
        machine.must("bash", "-c", spoil)
        for operation, params in (
            ("zfs.get", {"dataset": "tank/media", "properties": ["used"]}),
            ("systemd.status", {"unit": "idle.service"}),
            ("systemd.restart", {"unit": "idle.service"}),
            ("pct.status", {"vmid": "102"}),
            ("git.status", {"repository": "/srv/app"}),
        ):
            answer = host.ask(operation, params)
            assert answer.status_code == 403, (operation, answer.text)
        assert host.state() == before
    finally:
        machine.must("cp", "-a", "/root/allowed.kept", LIST)
    assert host.ask("systemd.status", {"unit": "idle.service"}).status_code == 200


@pytest.mark.parametrize(
    "attack",
    [
        f"echo 'names zfs .*' >>{LIST}",
        f"mv {LIST} {LIST}.old",
        f"touch {WRAPPERS}/allowed.new",
        f"echo >>{WRAPPERS}/root-list",
        f"sudo -n {PROGRAM} root render --yes",
        f"{PROGRAM} root render --yes",
    ],
)
def test_the_service_cannot_write_the_list(host: Host, attack: str) -> None:
    before = host.machine.must("sha256sum", LIST, f"{WRAPPERS}/root-list")
    assert host.as_service("bash", "-c", attack).exit_code != 0
    assert host.machine.must("sha256sum", LIST, f"{WRAPPERS}/root-list") == before


# -- a configuration that root has not seen --------------------------------------------------------


def test_a_configuration_that_root_has_not_rendered_changes_nothing(host: Host) -> None:
    machine = host.machine
    wider = configuration(sections=SECTIONS.replace("top|denied", "top|denied|private"))
    params = {"dataset": "tank/private", "properties": ["used"]}
    assert machine.run(PROGRAM, "root", "show").exit_code == 0
    try:
        assert host.reload(wider, is_rendered=False)["event"] == "config.loaded"
        answer = host.ask("zfs.get", params)
        assert answer.status_code == 403, answer.text
        assert "root's list does not name it" in answer.json()["detail"]
        for command in (("doctor",), ("config", "check", "--user", "host-agent")):
            told = machine.run(PROGRAM, *command)
            assert "root has not rendered this configuration yet" in told.stdout + told.stderr
        assert machine.run(PROGRAM, "root", "show").exit_code == 1
        assert "has not rendered" in host.inside("/ready")

        dry = machine.must(PROGRAM, "root", "render", "--dry-run")
        assert "+names zfs tank/(media|files|vault|top|denied|private)(/.*)?" in dry
        unasked = machine.run(PROGRAM, "root", "render")
        assert (unasked.exit_code, "--yes" in unasked.stderr) == (64, True)
        assert host.ask("zfs.get", params).status_code == 403

        machine.must(PROGRAM, "root", "render", "--yes")
        assert host.ask("zfs.get", params).status_code == 200
        assert machine.run(PROGRAM, "root", "show").exit_code == 0
        assert machine.must(PROGRAM, "root", "render", "--yes").startswith("There is nothing to do")
    finally:
        assert host.reload(configuration())["event"] == "config.loaded"
    assert host.ask("zfs.get", params).status_code == 403


# -- every target that ships with systemd ----------------------------------------------------------

PULLS = (
    "Requires",
    "Requisite",
    "BindsTo",
    "Wants",
    "Upholds",
    "Triggers",
    "OnSuccess",
    "OnFailure",
)


def shown(host: Host, names: list[str], *properties: str) -> dict[str, dict[str, str]]:
    """Return properties of units, by the name that was asked for."""
    asked = ",".join((*properties, "Id", "Names", "ActiveState", "LoadState"))
    text = host.machine.must("systemctl", "show", f"--property={asked}", "--", *names)
    blocks = [
        dict(line.partition("=")[::2] for line in block.splitlines())
        for block in text.strip("\n").split("\n\n")
    ]
    return dict(zip(names, blocks, strict=True))


def reaches_protected(host: Host, target: str) -> str | None:
    """Return a protected unit that a start of `target` would start, by a walk of the test's own."""
    seen, level = set[str](), [target]
    while level:
        found = shown(host, level, *PULLS)
        level = []
        for name, facts in found.items():
            is_up = facts["ActiveState"] not in ("inactive", "failed")
            if (is_up or facts["LoadState"] in ("not-found", "masked")) and name != target:
                continue
            names = {facts["Id"], *facts["Names"].split()}
            if any(is_protected(one) and not is_brought(one) for one in names):
                return facts["Id"]
            level += [one for edge in PULLS for one in facts.get(edge, "").split()]
        level = [one for one in dict.fromkeys(level) if one not in seen]
        seen.update(level)
    return None


@pytest.fixture
def every_unit(host: Host) -> Iterator[None]:
    """Root's list names every unit, so that only the walk is left to refuse anything."""
    host.machine.must("cp", "-a", LIST, "/root/allowed.kept")
    lines = "version 1\nnames systemd .*\nnames systemd .*\\.target\nallowed systemd.*\n"
    host.machine.write(LIST, lines)
    yield
    host.machine.must("cp", "-a", "/root/allowed.kept", LIST)


@pytest.mark.usefixtures("every_unit")
def test_no_target_that_reaches_a_protected_unit_is_started(host: Host) -> None:
    machine = host.machine
    files = machine.must(
        *("systemctl", "list-unit-files", "--type=target", "--no-legend", "--no-pager", "--full")
    )
    targets = [line.split()[0] for line in files.splitlines() if "@." not in line.split()[0]]
    assert len(targets) > 40
    before = host.state()
    passed: list[str] = []
    refused: list[str] = []
    for target in targets:
        done = machine.run(f"{WRAPPERS}/systemd-inspect", "start", target)
        assert done.exit_code in (0, 66, 77), (target, done.stderr)
        (passed if done.exit_code == 0 else refused).append(target)
        if done.exit_code == 0:
            assert reaches_protected(host, target) is None, target
    doors = {"poweroff.target", "reboot.target", "halt.target", "kexec.target", "rescue.target"}
    doors |= {"emergency.target", "system-update.target", "sleep.target", "initrd.target"}
    assert doors & set(targets) <= set(refused)
    assert {"bluetooth.target", "printer.target", "sound.target"} <= set(passed)
    assert host.state() == before


@pytest.mark.usefixtures("every_unit")
def test_a_unit_that_wants_poweroff_is_not_started(host: Host) -> None:
    machine = host.machine
    machine.write(
        "/etc/systemd/system/bye.service",
        "[Unit]\nDefaultDependencies=no\nWants=poweroff.target\n[Service]\nExecStart=/bin/true\n",
    )
    machine.write(
        "/etc/systemd/system/hello.service",
        "[Unit]\nWants=greeted.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
    )
    machine.write("/etc/systemd/system/greeted.service", "[Service]\nExecStart=/bin/true\n")
    machine.must("systemctl", "daemon-reload")
    before = host.state()
    sudo = ("/usr/bin/sudo", "-n", "--")
    done = host.as_service(*sudo, f"{WRAPPERS}/systemd-start", "bye.service", STATE)
    assert done.exit_code == 77
    assert "started with it is protected: poweroff.target" in done.stderr
    told = host.as_service(*sudo, f"{WRAPPERS}/systemd-inspect", "start", "hello.service")
    state = re.search(r"^state\t([0-9a-f]{64})$", told.stdout, re.MULTILINE)
    assert state is not None, told.stderr
    done = host.as_service(*sudo, f"{WRAPPERS}/systemd-start", "hello.service", state[1])
    assert done.exit_code == 0, done.stderr
    assert host.state() == before


@pytest.mark.usefixtures("every_unit")
def test_what_a_change_stops_is_what_systemd_stops(host: Host) -> None:
    """Otherclock and its rival, app and its helper: predicted, and then seen."""
    machine = host.machine
    sleeps = "[Unit]\n{}\n[Service]\nExecStart=/bin/sleep infinity\n"
    machine.write("/etc/systemd/system/keep-time.service", sleeps.format(""))
    machine.write(
        "/etc/systemd/system/otherclock.service", sleeps.format("Conflicts=keep-time.service")
    )
    machine.write("/etc/systemd/system/keep-helper.service", sleeps.format("StopWhenUnneeded=yes"))
    machine.write("/etc/systemd/system/app.service", sleeps.format("Wants=keep-helper.service"))
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", "keep-time.service", "app.service")
    protected = machine.must("cat", f"{WRAPPERS}/protected")
    inspect = f"{WRAPPERS}/systemd-inspect"
    try:
        machine.write(f"{WRAPPERS}/protected", protected + "systemd keep-.*\n")
        for verb, unit in (
            ("start", "otherclock.service"),
            ("restart", "otherclock.service"),
            ("stop", "app.service"),
            ("restart", "app.service"),
        ):
            done = machine.run(inspect, verb, unit)
            assert done.exit_code == 77, (verb, unit, done.stderr)
    finally:
        machine.write(f"{WRAPPERS}/protected", protected)
    for verb, unit, stopped in (
        ("restart", "otherclock.service", "keep-time.service"),
        ("stop", "app.service", "keep-helper.service"),
    ):
        told = machine.must(inspect, verb, unit)
        assert f"\naffected\t{stopped}\n" in told
        state = re.search(r"^state\t([0-9a-f]{64})$", told, re.MULTILINE)
        assert state is not None
        machine.must(f"{WRAPPERS}/systemd-{verb}", unit, state[1])
        machine.until(partial(_is_down, host, stopped), f"{stopped} is not stopped")
    machine.must("systemctl", "stop", "otherclock.service")


def _is_down(host: Host, unit: str) -> bool:
    return host.machine.run("systemctl", "is-active", unit).exit_code != 0
