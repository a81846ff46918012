"""Every wrapper refuses what root's own list does not name or allow; nothing moves on a refusal."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.operations.catalogue import Output
from tests.support import pct_host, systemd_host, zfs_host
from tests.support.pct_host import PctHost
from tests.support.repositories import run_git
from tests.support.systemd_host import SystemdHost
from tests.support.zfs_host import ZfsHost

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        systemd_host.why_not() is not None or not pct_host.can_run(),
        reason="needs root, namespaces and systemd's programs",
    ),
]

STATE = "0" * 64
NOT_NAMED = "root's list does not name it; `host-agent root render`"
NOT_ALLOWED = "root's list does not allow it; `host-agent root render`"


def refused(output: Output, sentence: str) -> None:
    """Demand a refusal in these words, and not a byte besides."""
    assert (output.exit_code, output.stdout) == (77, "")
    assert output.stderr == f"host-agent: {sentence}\n"


# -- systemd ---------------------------------------------------------------------------------------

UNITS = [
    ("systemd-status", "{}"),
    ("systemd-logs", "{} 5"),
    ("systemd-inspect", "stop {}"),
    ("systemd-inspect", "start {}"),
    ("systemd-inspect", "after stop {}"),
    ("systemd-start", "{} {state}"),
    ("systemd-restart", "{} {state}"),
    ("systemd-reload", "{} {state}"),
    ("systemd-stop", "{} {state}"),
]


@pytest.fixture
def units(tmp_path: Path) -> SystemdHost:
    host = SystemdHost(tmp_path)
    for name in ("web.service", "idle.service"):
        host.unit(name)
    host.allowed.write_text("version 1\nnames systemd web\\.service\nallowed systemd.*\n")
    return host


@pytest.mark.parametrize(("wrapper", "arguments"), UNITS)
def test_a_unit_that_root_does_not_name_is_refused(
    units: SystemdHost, wrapper: str, arguments: str
) -> None:
    asked = arguments.format("idle.service", state=STATE).split()
    refused(units.run(wrapper, *asked), NOT_NAMED)
    assert not [call for call in units.calls() if "idle.service" in call]

    listed = units.run(wrapper, *arguments.format("web.service", state=STATE).split())
    assert listed.exit_code == (75 if STATE in arguments.format("", state=STATE) else 0)


@pytest.mark.parametrize(
    "decisions",
    [
        "",
        "allowed systemd.status\n",
        "allowed zfs.*\n",
        "never systemd.stop\nallowed systemd.*\n",
        "never systemd.* web.*\nallowed systemd.*\n",
        "allowed systemd.* idle\\.service\n",
        "allowed systemd.stop web\\.servic\n",
        "allowed systemd.sto\nallowed systemd.stopp\n",
    ],
)
def test_an_operation_that_no_rule_allows_is_refused(units: SystemdHost, decisions: str) -> None:
    units.allowed.write_text(f"version 1\nnames systemd .*\n{decisions}")
    refused(units.run("systemd-inspect", "stop", "web.service"), NOT_ALLOWED)
    refused(units.run("systemd-stop", "web.service", STATE), NOT_ALLOWED)
    assert units.calls("systemctl") == []


@pytest.mark.parametrize(
    "decisions",
    [
        "allowed systemd.stop\n",
        "allowed zfs.*,systemd.status,systemd.stop\n",
        "never systemd.stop idle.*\nallowed systemd.*\n",
        "allowed systemd.stop web\\.service\nnever systemd.*\n",
        "# a comment\n\nallowed systemd.* (web|idle)\\.service\n",
    ],
)
def test_what_a_rule_allows_goes_on(units: SystemdHost, decisions: str) -> None:
    units.allowed.write_text(f"version 1\nnames systemd .*\n{decisions}")
    assert units.run("systemd-inspect", "stop", "web.service").exit_code == 0


def test_a_list_of_units_needs_to_be_allowed_as_well(units: SystemdHost) -> None:
    assert units.run("systemd-list").exit_code == 0
    units.allowed.write_text("version 1\nnames systemd .*\nallowed systemd.list web.*\n")
    refused(units.run("systemd-list"), NOT_ALLOWED)


@pytest.mark.parametrize("spoil", ["missing", "group", "others", "owner", "link", "directory"])
def test_a_list_that_is_not_roots_alone_refuses_everything(units: SystemdHost, spoil: str) -> None:
    match spoil:
        case "missing":
            units.allowed.unlink()
        case "group":
            units.allowed.chmod(0o664)
        case "others":
            units.allowed.chmod(0o646)
        case "owner":
            os.chown(units.allowed, 65534, 65534)
        case "link":
            units.allowed.rename(units.directory / "elsewhere")
            units.allowed.symlink_to(units.directory / "elsewhere")
        case "directory":
            units.allowed.unlink()
            units.allowed.mkdir()
    for wrapper, arguments in (*UNITS, ("systemd-list", "")):
        output = units.run(wrapper, *arguments.format("web.service", state=STATE).split())
        assert (output.exit_code, output.stdout) == (77, ""), wrapper
    assert units.calls("systemctl") == []


@pytest.mark.parametrize(
    "text",
    [
        "names systemd .*\nallowed systemd.*\n",
        "version 2\nnames systemd .*\nallowed systemd.*\n",
        "version 1\nversion 1\nnames systemd .*\nallowed systemd.*\n",
        "version 1\nnames systemd .*\nfree systemd.*\n",
        "version 1\nnames systemd (\nallowed systemd.*\n",
        "version 1\nnames systemd .*\nnever systemd.* (\nallowed systemd.*\n",
        "version 1\nnames systemd .*\nreceipt 2 systemd.*\n",
    ],
)
def test_a_list_that_is_not_understood_refuses_everything(units: SystemdHost, text: str) -> None:
    units.allowed.write_text(text)
    output = units.run("systemd-inspect", "stop", "web.service")
    assert (output.exit_code, output.stdout) == (77, "")
    assert units.calls("systemctl") == []


def test_a_wrapper_reads_nothing_but_roots_lists(units: SystemdHost) -> None:
    for path in units.wrappers.iterdir():
        if path.name not in {"systemd-inspect", "allowed", "protected"}:
            path.unlink()
    assert units.run("systemd-inspect", "stop", "web.service").exit_code == 0
    calls = len(units.calls("systemctl"))
    units.allowed.unlink()
    assert units.run("systemd-inspect", "stop", "web.service").exit_code == 77
    assert len(units.calls("systemctl")) == calls


# -- containers and commands -----------------------------------------------------------------------

CONTAINERS = [
    ("pct-status", "{}"),
    ("pct-config", "{}"),
    ("pct-inspect", "stop {}"),
    ("pct-inspect", "state {}"),
    ("pct-start", "{} {state}"),
    ("pct-stop", "{} {state}"),
    ("pct-shutdown", "{} {state}"),
    ("pct-destroy", "{} {state}"),
    ("pct-snapshot", "{} before {state}"),
    ("pct-rollback", "{} before {state} {state}"),
    ("pct-create", "{} local:vztmpl/debian.tar.zst hostname=x"),
]


@pytest.fixture(scope="module")
def containers() -> Iterator[PctHost]:
    allowed = "version 1\nnames pct 101-101\nnames pct 110-120\nallowed pct.*\n"
    with PctHost(allowed=allowed) as host:
        for vmid in ("101", "102"):
            host.put(vmid, pct_host.container("running"))
        yield host


@pytest.mark.parametrize("vmid", ["100", "102", "109", "121", "1010", "111111111"])
@pytest.mark.parametrize(("wrapper", "arguments"), CONTAINERS)
def test_a_container_that_root_does_not_name_is_refused(
    containers: PctHost, wrapper: str, arguments: str, vmid: str
) -> None:
    before = containers.containers()
    calls = len(containers.calls())
    refused(containers.wrapper(wrapper, *arguments.format(vmid, state=STATE).split()), NOT_NAMED)
    assert containers.containers() == before
    assert len(containers.calls()) == calls


def test_a_container_that_root_names_goes_on(containers: PctHost) -> None:
    assert containers.wrapper("pct-status", "101").exit_code == 0
    assert containers.wrapper("pct-config", "101").exit_code == 0
    assert containers.wrapper("pct-list").exit_code == 0
    assert containers.wrapper("pct-inspect", "stop", "101").exit_code == 0
    assert containers.wrapper("pct-inspect", "create", "115").exit_code == 0


def test_a_command_that_root_does_not_name_is_refused() -> None:
    with PctHost() as host:
        digest = host.install("/run/tools/say", "#!/bin/bash -p\necho said >/run/said\n")
        host.register(f"say {digest} change /run/tools/say\n")
        assert host.wrapper("exec-run", "inspect", "say").exit_code == 0
        host.write(f"{pct_host.PLACE}/allowed", "version 1\nnames exec other\nallowed exec.run\n")
        refused(host.wrapper("exec-run", "inspect", "say"), NOT_NAMED)
        refused(host.wrapper("exec-run", "run", "say", digest), NOT_NAMED)
        host.write(f"{pct_host.PLACE}/allowed", "version 1\nnames exec say\nallowed pct.*\n")
        refused(host.wrapper("exec-run", "run", "say", digest), NOT_ALLOWED)
        assert host.run("/usr/bin/test", "-e", "/run/said").exit_code == 1
        host.write(f"{pct_host.PLACE}/allowed", "version 1\nnames exec say\nallowed exec.run say\n")
        assert host.wrapper("exec-run", "run", "say", digest).exit_code == 0
        assert host.run("/usr/bin/test", "-e", "/run/said").exit_code == 0


# -- datasets --------------------------------------------------------------------------------------

EVERYTHING = ("/usr/sbin/zfs", "get", "-H", "-r", "-o", "name,value", "guid,userrefs", "tank")
DATASETS = [
    ("zfs-get", "used {}"),
    ("zfs-list", "one filesystem {}"),
    ("zfs-inspect", "destroy {} one"),
    ("zfs-inspect", "gone {} one"),
    ("zfs-inspect", "snapshot {} new one"),
    ("zfs-inspect", "hold {}@s tag"),
    ("zfs-inspect", "release {}@s tag"),
    ("zfs-inspect", "rollback {}@s"),
    ("zfs-destroy", "{} one 1 {state}"),
    ("zfs-destroy", "{}@s one 1 {state}"),
    ("zfs-snapshot", "{} new one 1 {state}"),
    ("zfs-hold", "{}@s tag 1"),
    ("zfs-release", "{}@s tag 1"),
    ("zfs-rollback", "{}@s 1 {state}"),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[ZfsHost]:
    if not zfs_host.can_run_fuse():
        pytest.skip("needs zfs-fuse")
    allowed = "version 1\nnames zfs tank/(media|top)\nallowed zfs.*\n"
    with ZfsHost.with_fuse(allowed=allowed) as host:
        for name in ("media", "media/below", "private", "top"):
            host.must("/usr/sbin/zfs", "create", f"tank/{name}")
        for name in ("media", "private"):
            host.must("/usr/sbin/zfs", "snapshot", f"tank/{name}@s")
        yield host


@pytest.mark.parametrize("dataset", ["tank/private", "tank", "tank/media/below", "tank/medias"])
@pytest.mark.parametrize(("wrapper", "arguments"), DATASETS)
def test_a_dataset_that_root_does_not_name_is_refused(
    pool: ZfsHost, wrapper: str, arguments: str, dataset: str
) -> None:
    before = pool.must(*EVERYTHING)
    refused(pool.wrapper(wrapper, *arguments.format(dataset, state=STATE).split()), NOT_NAMED)
    assert pool.must(*EVERYTHING) == before


def test_a_dataset_that_root_names_goes_on_but_takes_nothing_else_along(pool: ZfsHost) -> None:
    assert pool.wrapper("zfs-get", "used", "tank/media").exit_code == 0
    assert pool.wrapper("zfs-inspect", "hold", "tank/media@s", "tag").exit_code == 0
    assert pool.wrapper("zfs-inspect", "destroy", "tank/top", "one").exit_code == 0
    refused(pool.wrapper("zfs-inspect", "destroy", "tank/media", "recursive"), NOT_NAMED)
    refused(pool.wrapper("zfs-inspect", "snapshot", "tank/media", "n", "recursive"), NOT_NAMED)


def test_a_protected_container_keeps_its_volumes() -> None:
    if not zfs_host.can_run_fuse():
        pytest.skip("needs zfs-fuse")
    with ZfsHost.with_fuse(protected="pct 15[0-9]\n") as host:
        for name in ("subvol-150-disk-0", "subvol-160-disk-0", "subvol-1500-disk-0"):
            host.must("/usr/sbin/zfs", "create", f"tank/{name}")
        output = host.wrapper("zfs-inspect", "destroy", "tank/subvol-150-disk-0", "one")
        refused(output, "a dataset that this would act on is protected")
        for other in ("tank/subvol-160-disk-0", "tank/subvol-1500-disk-0"):
            assert host.wrapper("zfs-inspect", "destroy", other, "one").exit_code == 0


# -- git -------------------------------------------------------------------------------------------


@pytest.fixture
def repositories() -> Iterator[Path]:
    """Two repositories of `nobody`, and a git wrapper of root's beside a list."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to others
        yield furnished(Path(directory))


def furnished(place: Path) -> Path:
    place.chmod(0o755)
    wrappers = place / "wrappers"
    wrappers.mkdir()
    (wrappers / "git").write_bytes((systemd_host.WRAPPERS / "git").read_bytes())
    (wrappers / "git").chmod(0o755)
    for name in ("app", "other"):
        path = place / name
        path.mkdir()
        run_git(path, "init", "--quiet", "--initial-branch=main")
        run_git(path, "commit", "--quiet", "--allow-empty", "--message=first")
        subprocess.run(["chown", "-R", "nobody", str(path)], check=True)
    return place


def git(place: Path, *arguments: str, uid: str | None = "1234") -> Output:
    done = subprocess.run(
        [str(place / "wrappers" / "git"), *arguments],
        env={} if uid is None else {"SUDO_UID": uid},
        cwd="/",
        capture_output=True,
        check=False,
        text=True,
        user="nobody",
        group=65534,
        extra_groups=[],
    )
    return Output(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def test_a_repository_that_root_does_not_name_for_the_user_is_refused(repositories: Path) -> None:
    listed, other = str(repositories / "app"), str(repositories / "other")
    allowed = repositories / "wrappers" / "allowed"
    missing = "there is no list of root's; `host-agent root render`"
    refused(git(repositories, "status", listed), missing)
    allowed.write_text(
        f"version 1\nnames git nobody {listed}\nnames git daemon {other}\n"
        "allowed git.status\nnever git.log\nallowed git.fetch\n"
    )
    allowed.chmod(0o644)
    assert git(repositories, "status", listed).exit_code == 0
    assert git(repositories, "state", listed).exit_code == 0
    refused(git(repositories, "status", other), NOT_NAMED)
    refused(git(repositories, "state", other), NOT_NAMED)
    refused(git(repositories, "log", listed, "5"), NOT_ALLOWED)
    refused(git(repositories, "inspect-switch", listed, "main"), NOT_ALLOWED)
    assert git(repositories, "inspect-fetch", listed, "origin").exit_code == 66  # no such remote
    # Without sudo it is the user's own doing, with no more than the user's own rights.
    assert git(repositories, "status", other, uid=None).exit_code == 0


@pytest.mark.parametrize("spoil", ["writable", "unreadable", "foreign"])
def test_a_git_wrapper_whose_list_is_not_roots_refuses(repositories: Path, spoil: str) -> None:
    listed, allowed = str(repositories / "app"), repositories / "wrappers" / "allowed"
    allowed.write_text(f"version 1\nnames git nobody {listed}\nallowed git.*\n")
    allowed.chmod(0o644)
    assert git(repositories, "status", listed).exit_code == 0
    match spoil:
        case "writable":
            allowed.chmod(0o646)
        case "unreadable":
            allowed.chmod(0o600)
        case "foreign":
            os.chown(allowed, 65534, 65534)  # the user's own, who runs it
    output = git(repositories, "status", listed)
    assert (output.exit_code, output.stdout) == (77, "")
