"""Root's own list on a real host: what it does not name root does not do, whoever has the service.

What a start of a listed unit may start is asked on each release, in `test_package`.
"""

import re

import pytest

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
        f"echo >>{WRAPPERS}/zfs-inspect",
        f"sudo -n {PROGRAM} root render --yes",
        f"{PROGRAM} root render --yes",
    ],
)
def test_the_service_cannot_write_the_list(host: Host, attack: str) -> None:
    before = host.machine.must("sha256sum", LIST, f"{WRAPPERS}/zfs-inspect")
    assert host.as_service("bash", "-c", attack).exit_code != 0
    assert host.machine.must("sha256sum", LIST, f"{WRAPPERS}/zfs-inspect") == before


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
