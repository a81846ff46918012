"""The pct wrappers unmodified, as root, on a stand-in for pct in a mount namespace."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import PreviewAccuracy
from tests.support.patience import PATIENCE
from tests.support.pct_host import PLACE, REPOSITORY, STATE, PctHost, can_run, container, operation

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_run(), reason="needs root and util-linux, for namespaces"),
]
HASH = "a" * 64
TEMPLATE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


@pytest.fixture
def host() -> Iterator[PctHost]:
    with PctHost() as running:
        running.put("101", container("running"))
        running.put("102", container("stopped", hostname="db"))
        running.put("105", container("running", hostname="kept", protection="1"))
        running.put("106", container("stopped", hostname="busy", lock="backup"))
        running.put("150", container("running", hostname="vault"))
        yield running


# -- each operation, once --------------------------------------------------------------------------


def test_list_shows_rows_that_parse(host: PctHost) -> None:
    asked = operation("pct.list")
    output = host.perform(asked)
    assert output.exit_code == 0
    assert asked.spec.parse is not None
    data = asked.spec.parse(asked.params, output)
    assert data == {
        "containers": [
            {"vmid": "101", "status": "running", "lock": None, "name": "web"},
            {"vmid": "102", "status": "stopped", "lock": None, "name": "db"},
            {"vmid": "105", "status": "running", "lock": None, "name": "kept"},
            {"vmid": "106", "status": "stopped", "lock": "backup", "name": "busy"},
            {"vmid": "150", "status": "running", "lock": None, "name": "vault"},
        ]
    }


def test_status_and_config_are_read(host: PctHost) -> None:
    for name, expected in (("pct.status", {"status": "running"}), ("pct.config", None)):
        asked = operation(name, vmid=101)
        output = host.perform(asked)
        assert asked.spec.parse is not None
        data = asked.spec.parse(asked.params, output)
        assert isinstance(data, dict)
        assert expected is None or data == expected
        assert name == "pct.status" or data["lxc"] == [
            {"name": "lxc.cgroup2.devices.allow", "value": "c 10:200 rwm"}
        ]
    assert host.changes() == []


@pytest.mark.parametrize(
    ("name", "params", "before", "command"),
    [
        ("pct.start", {"vmid": "102"}, False, ["start", "102"]),
        ("pct.stop", {"vmid": "101"}, False, ["stop", "101"]),
        ("pct.shutdown", {"vmid": "101"}, False, ["shutdown", "101"]),
        ("pct.destroy", {"vmid": "102"}, False, ["destroy", "102"]),
        ("pct.snapshot", {"vmid": "101", "name": "daily"}, False, ["snapshot", "101", "daily"]),
        (
            "pct.create",
            {"vmid": "120", "template": TEMPLATE},
            False,
            ["create", "120", TEMPLATE, "--unprivileged", "1"],
        ),
    ],
)
def test_a_change_is_done_as_it_was_found_and_is_seen(
    host: PctHost, name: str, params: dict[str, JsonValue], before: bool, command: list[str]
) -> None:
    asked = operation(name, **params)
    found = host.inspect(asked)
    assert host.changes() == []
    assert host.probe(asked, found.precondition) is before
    output = host.perform(asked, found.precondition)
    assert (output.exit_code, output.stderr) == (0, "")
    assert host.changes() == [command]
    assert host.probe(asked, found.precondition)


def test_rollback_goes_back_to_the_snapshot(host: PctHost) -> None:
    host.perform(operation("pct.snapshot", vmid="101", name="daily"))
    changed = container("running", memory="4096", parent="daily")
    taken = host.containers()["101.json"]["snapshots"]
    host.put("101", {**changed, "snapshots": taken})
    asked = operation("pct.rollback", vmid="101", name="daily")
    found = host.inspect(asked)
    assert found.preview.accuracy is PreviewAccuracy.ESTIMATE
    assert "2023-11-14T22:13:20Z" in found.preview.summary
    assert "is stopped for that" in found.preview.summary
    assert host.perform(asked, found.precondition).exit_code == 0
    assert host.containers()["101.json"]["config"]["memory"] == "512"
    assert host.probe(asked, found.precondition)


def test_create_passes_on_what_was_given_and_is_always_unprivileged(host: PctHost) -> None:
    asked = operation(
        "pct.create",
        vmid=121,
        template=TEMPLATE,
        hostname="new.example",
        memory=1024,
        cores=2,
        rootfs="local-zfs:8",
        swap=0,
    )
    assert host.perform(asked).exit_code == 0
    [call] = host.changes()
    assert call == [
        *("create", "121", TEMPLATE, "--unprivileged", "1", "--hostname", "new.example"),
        *("--memory", "1024", "--cores", "2", "--rootfs", "local-zfs:8", "--swap", "0"),
    ]


# -- what is refused, and changes nothing ----------------------------------------------------------


def refused(host: PctHost, error: type[HostAgentError], asked: str, /, **params: JsonValue) -> str:
    before = host.containers()
    with pytest.raises(error) as raised:
        host.inspect(operation(asked, **params))
    assert host.containers() == before
    assert host.changes() == []
    return raised.value.detail


@pytest.mark.parametrize(
    ("name", "vmid", "error", "said"),
    [
        ("pct.start", "101", HostFailedError, "running already"),
        ("pct.stop", "102", HostFailedError, "not running"),
        ("pct.shutdown", "102", HostFailedError, "not running"),
        ("pct.destroy", "101", HostFailedError, "stopped first"),
        ("pct.destroy", "105", HostFailedError, "stopped first"),
        ("pct.start", "106", HostBusyError, "locked (backup)"),
        ("pct.destroy", "106", HostBusyError, "locked (backup)"),
        ("pct.stop", "150", ProtectedError, "is protected"),
        ("pct.start", "150", ProtectedError, "is protected"),
        ("pct.destroy", "159", ProtectedError, "is protected"),
        ("pct.start", "199", HostNotFoundError, "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_when_it_is_asked_for(
    host: PctHost, name: str, vmid: str, error: type[HostAgentError], said: str
) -> None:
    assert said in refused(host, error, name, vmid=vmid)


def test_a_container_with_its_protection_set_is_not_destroyed(host: PctHost) -> None:
    host.put("105", container("stopped", protection="1"))
    assert "protection" in refused(host, ProtectedError, "pct.destroy", vmid="105")


def test_a_template_is_not_started(host: PctHost) -> None:
    host.put("107", container("stopped", template="1"))
    assert "template" in refused(host, HostFailedError, "pct.start", vmid="107")


def test_snapshots_that_are_there_or_missing_are_told_apart(host: PctHost) -> None:
    refused(host, HostNotFoundError, "pct.rollback", vmid="101", name="daily")
    host.perform(operation("pct.snapshot", vmid="101", name="daily"))
    with pytest.raises(HostFailedError, match="already"):
        host.inspect(operation("pct.snapshot", vmid="101", name="daily"))


def test_a_vmid_in_use_is_not_created_again(host: PctHost) -> None:
    refused(host, HostFailedError, "pct.create", vmid="101", template=TEMPLATE)
    output = host.wrapper("pct-create", "101", TEMPLATE)
    assert (output.exit_code, host.changes()) == (1, [])


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("local:vztmpl/missing.tar.zst", HostNotFoundError),
        ("nowhere:vztmpl/debian.tar.zst", HostNotFoundError),
    ],
)
def test_what_pct_says_itself_is_mapped(
    host: PctHost, template: str, error: type[HostAgentError]
) -> None:
    asked = operation("pct.create", vmid="130", template=template)
    output = host.perform(asked)
    assert output.exit_code == 255
    assert isinstance(asked.spec.failure(asked.params, output), error)
    assert "130.json" not in host.containers()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("start busy", HostBusyError),
        ("status unready", AdapterUnavailableError),
        ("start fail something else", HostFailedError),
    ],
)
def test_faults_of_pct_are_mapped(host: PctHost, fault: str, error: type[HostAgentError]) -> None:
    host.fault(fault)
    asked = operation("pct.start", vmid="102")
    output = host.wrapper("pct-inspect", "start", "102")
    if output.exit_code == 0:
        output = host.perform(asked)
    assert isinstance(asked.spec.failure(asked.params, output), error)
    assert host.containers()["102.json"]["status"] == "stopped"


# -- what was approved is what runs ----------------------------------------------------------------


@pytest.mark.promise("c27")
@pytest.mark.parametrize("name", ["pct.stop", "pct.shutdown"])
def test_a_container_configured_otherwise_is_left_alone(host: PctHost, name: str) -> None:
    asked = operation(name, vmid="101")
    found = host.inspect(asked)
    host.put("101", container("running", memory="1024"))
    output = host.perform(asked, found.precondition)
    assert output.exit_code == 75
    assert isinstance(asked.spec.failure(asked.params, output), TargetChangedError)
    assert host.changes() == []


@pytest.mark.promise("c27")
def test_another_snapshot_of_the_same_name_is_not_rolled_back_to(host: PctHost) -> None:
    host.perform(operation("pct.snapshot", vmid="101", name="daily"))
    asked = operation("pct.rollback", vmid="101", name="daily")
    found = host.inspect(asked)
    state = host.containers()["101.json"]
    state["snapshots"]["daily"]["snaptime"] = "1800000000"
    host.put("101", state)
    output = host.perform(asked, found.precondition)
    assert output.exit_code == 75
    assert [call[0] for call in host.changes()] == ["snapshot"]


def test_a_lock_is_no_change_of_the_container(host: PctHost) -> None:
    asked = operation("pct.stop", vmid="101")
    found = host.inspect(asked)
    host.put("101", container("running", lock="backup"))
    output = host.perform(asked, found.precondition)
    assert isinstance(asked.spec.failure(asked.params, output), HostBusyError)
    host.put("101", container("running"))
    assert host.inspect(asked).precondition == found.precondition


# -- hostile arguments, straight to root -----------------------------------------------------------

HOSTILE = (
    *(
        "",
        " ",
        "-1",
        "--purge",
        "100 --purge",
        "99",
        "0101",
        "1e2",
        "\uff11\uff10\uff11",
        "\u0662\u0660\u0661",
        "4294967397",
    ),
    *("101\n", "101\n102", "$(touch /run/canary)", "a[$(touch /run/canary)]", "`id`", "101;id"),
    *("../101", "101/..", "{101,102}", "*", "~", "101#", "+101", "0x65", "101.0", "10 1", "101\t"),
)
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "pct-status": ("101",),
    "pct-config": ("101",),
    "pct-start": ("102", HASH),
    "pct-stop": ("101", HASH),
    "pct-shutdown": ("101", HASH),
    "pct-destroy": ("102", HASH),
    "pct-snapshot": ("101", "daily", HASH),
    "pct-rollback": ("101", "daily", HASH, HASH),
    "pct-create": ("120", TEMPLATE),
}


@pytest.mark.promise("c20", "c21", "c50")
@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_hostile_arguments_are_refused_before_pct_starts(host: PctHost, name: str) -> None:
    for place in range(len(ARGUMENTS[name])):
        for hostile in HOSTILE:
            arguments = list(ARGUMENTS[name])
            arguments[place] = hostile
            output = host.wrapper(name, *arguments)
            assert (output.exit_code, output.stdout) == (64, ""), (arguments, output)
    assert host.calls() == []
    assert host.run("/usr/bin/test", "-e", "/run/canary").exit_code == 1


@pytest.mark.promise("c20")
@pytest.mark.parametrize(
    "option",
    [
        *("password=secret", "ssh-public-keys=/etc/shadow", "features=nesting=1", "mp0=/,mp=/mnt"),
        *("unprivileged=0", "hookscript=local:snippets/x", "net0=name=eth0", "force=1", "--force"),
        *("hostname=-x", "hostname=a..b", "hostname=", "memory=1e3", "memory=-1", "cores=0"),
        *("rootfs=/etc", "rootfs=local:8,mountoptions=suid", "rootfs=local:0", "rootfs=a:8"),
        *("swap=00", "swap=a[$(touch /run/canary)]", "hostname=" + "a" * 65, "Hostname=web"),
    ],
)
def test_no_other_option_reaches_pct(host: PctHost, option: str) -> None:
    output = host.wrapper("pct-create", "120", TEMPLATE, option)
    assert (output.exit_code, host.calls()) == (64, [])


@pytest.mark.parametrize(
    "arguments",
    [
        ("hostname=a", "hostname=b"),
        ("memory=512", "hostname=a"),
        ("hostname=a", "memory=512", "cores=1", "rootfs=local:8", "swap=0", "swap=0"),
    ],
)
def test_options_come_once_and_in_order(host: PctHost, arguments: tuple[str, ...]) -> None:
    assert host.wrapper("pct-create", "120", TEMPLATE, *arguments).exit_code == 64
    assert host.calls() == []


@pytest.mark.promise("c20")
@pytest.mark.parametrize(
    "template",
    [
        *("/etc/passwd", "-", "--help", "local:vztmpl/../x.tar.gz", "local:iso/x.iso", "local:x"),
        *("local:vztmpl/-x.tar.gz", "local:vztmpl/x.tar.gz\n", "local:vztmpl/x.sh", "x.tar.gz"),
        *("local:vztmpl/x.tar.gz --force", "http://x/y.tar.gz", "local:backup/vzdump-lxc.tar.zst"),
    ],
)
def test_nothing_but_a_template_of_a_storage_is_unpacked(host: PctHost, template: str) -> None:
    assert host.wrapper("pct-create", "120", template).exit_code == 64
    assert host.calls() == []


@pytest.mark.parametrize("name", [*ARGUMENTS, "pct-list", "pct-inspect"])
def test_the_number_of_arguments_is_exact(host: PctHost, name: str) -> None:
    right = ARGUMENTS.get(name, ())
    short = () if name == "pct-create" else right[:-1]
    if right:
        assert host.wrapper(name, *short).exit_code == 64
    assert host.wrapper(name, *right, "x").exit_code == 64
    assert host.calls() == []


@pytest.mark.promise("c50")
def test_the_environment_does_not_reach_pct(host: PctHost) -> None:
    hostile = {
        "PERL5OPT": "-Mbase=/tmp",
        "PERL5LIB": "/tmp",
        "BASH_ENV": "/run/evil",
        "IFS": "1",
        "LD_PRELOAD": "/run/evil.so",
        "PATH": "/run/evil",
        "LANG": "de_DE",
        "SUDO_UID": "0",
    }
    output = host.wrapper("pct-status", "101", environment=hostile)
    assert output.exit_code == 0
    [call] = host.calls()
    kept = {"LC_ALL", "PATH", "PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
    assert set(call["environment"]) <= kept
    assert call["environment"]["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin"


# -- root's own list -------------------------------------------------------------------------------


@pytest.mark.promise("c35")
@pytest.mark.parametrize(
    "damage",
    [
        f"rm {PLACE}/protected",
        f"chmod 0664 {PLACE}/protected",
        f"chmod 0646 {PLACE}/protected",
        f"chown 65534 {PLACE}/protected",
        f"mv {PLACE}/protected /run/list; ln -s /run/list {PLACE}/protected",
        f"echo 'pct (101' >>{PLACE}/protected",
        f"echo 'pct' >>{PLACE}/protected",
    ],
)
def test_without_a_list_of_its_own_root_changes_nothing(host: PctHost, damage: str) -> None:
    asked = operation("pct.start", vmid="102")
    found = host.inspect(asked)
    host.must("/bin/bash", "-c", damage)
    output = host.perform(asked, found.precondition)
    assert output.exit_code == 77
    assert isinstance(asked.spec.failure(asked.params, output), ProtectedError)
    assert host.changes() == []
    assert host.wrapper("pct-status", "101").exit_code == 0


@pytest.mark.parametrize("verb", ["stop", "shutdown", "destroy"])
def test_root_refuses_what_is_protected_whatever_was_approved(host: PctHost, verb: str) -> None:
    assert host.wrapper(f"pct-{verb}", "150", HASH).exit_code == 77
    assert host.changes() == []


def test_a_missing_pct_is_said(host: PctHost) -> None:
    host.must("/bin/rm", "/usr/sbin/pct")
    asked = operation("pct.list")
    output = host.perform(asked)
    assert output.exit_code == 69
    assert isinstance(asked.spec.failure(asked.params, output), AdapterUnavailableError)


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.promise("c36", "c37")
def test_a_change_runs_in_a_scope_with_limits_where_systemd_runs(host: PctHost) -> None:
    recorder = (
        '#!/bin/bash\nprintf "%s\\n" "$@" >/run/scope\nwhile [[ $1 != -- ]]; do shift; done\n'
    )
    host.write("/run/systemd-run", f'{recorder}shift\nexec "$@"\n', "0755")
    host.must("/bin/mkdir", "-p", "/run/systemd/system")
    host.must("/bin/mount", "--bind", "/run/systemd-run", "/usr/bin/systemd-run")
    assert host.perform(operation("pct.start", vmid="102")).exit_code == 0
    told = host.must("/bin/cat", "/run/scope").split()
    assert told[:3] == ["--quiet", "--scope", "--collect"]
    assert {"RuntimeMaxSec=120", "TasksMax=256", "MemoryMax=2G"} <= set(told)
    assert told[-3:] == ["/usr/sbin/pct", "start", "102"]


@pytest.mark.promise("c36")
def test_a_hung_pct_ends_with_its_wrapper(host: PctHost, tmp_path: Path) -> None:
    """SIGTERM, as sudo relays it, goes on to pct, and SIGKILL after it: pct ignores the first."""
    host.fault("status hang")
    process = subprocess.Popen(
        host.command(f"{PLACE}/pct-status", "101"), stdout=subprocess.PIPE, env={}
    )
    end = time.monotonic() + PATIENCE
    while not host.calls("status"):
        assert time.monotonic() < end
    # nsenter has a child of its own for the pid namespace
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    os.kill(int(child), signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    left = host.run("/bin/bash", "-c", "for at in /proc/[0-9]*; do tr '\\0' ' ' <$at/cmdline; done")
    assert "/usr/sbin/pct status" not in left.stdout


@pytest.mark.promise("c38")
def test_a_flood_of_pct_passes_through_and_ends(host: PctHost) -> None:
    host.fault("list flood")
    output = host.wrapper("pct-list")
    assert output.exit_code == 0
    assert output.stdout_bytes > 1_500_000


def test_the_state_directory_is_where_the_stand_in_says(host: PctHost) -> None:
    assert "101.json" in host.must("/bin/ls", STATE)
    assert (REPOSITORY / "tests" / "support" / "pct").stat().st_mode & 0o111
