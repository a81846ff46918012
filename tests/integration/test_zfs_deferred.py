"""Deferred destroys: what goes with the last hold or clone is a destroy, by whatever it is asked.

The zfs wrappers unmodified, as root, on a real pool of zfs-fuse and on the stand-in for OpenZFS.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    HostFailedError,
    HostNotFoundError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import PreviewAccuracy
from host_agent.operations.zfs.section import ZfsSection
from tests.support.zfs_host import ZfsHost, can_run_fuse, can_run_stand_in, operation

pytestmark = [pytest.mark.root, pytest.mark.serial]
NAMES = ("media", "media/a", "vault", "top", "top/clones")


def dataset(number: int) -> dict[str, Any]:
    return {
        "type": "filesystem",
        "guid": 16 * 10**18 + number,
        "createtxg": number,
        "used": 45056,
        "available": 66424320,
        "referenced": 23552,
        "creation": 1795217344,
        "origin": "-",
        "mountpoint": "none",
        "written": 0,
    }


@pytest.fixture(scope="module", params=["zfs-fuse", "stand-in"])
def started(request: pytest.FixtureRequest) -> Iterator[ZfsHost]:
    if request.param == "zfs-fuse":
        if not can_run_fuse():
            pytest.skip("needs root, zfs-fuse and /dev/fuse")
        host = ZfsHost.with_fuse()
    else:
        if not can_run_stand_in():
            pytest.skip("needs root and util-linux, for namespaces")
        pool = {"tank": dataset(1)}
        host = ZfsHost.with_stand_in({"version": "2.1.11", "next": 50, "datasets": pool})
    with host:
        yield host


@pytest.fixture
def host(started: ZfsHost) -> Iterator[ZfsHost]:
    for name in NAMES:
        zfs(started, "create", "-o", "mountpoint=none", f"tank/{name}")
    for name in ("media@old", "media/a@old", "vault@old"):
        zfs(started, "snapshot", f"tank/{name}")
    yield started
    for tag, name in (("keep", "media@old"), ("other", "media@old"), ("keep", "vault@old")):
        started.run("/usr/sbin/zfs", "release", tag, f"tank/{name}")
    for name in ("top", "media", "vault"):
        if f"tank/{name}" in started.datasets():
            zfs(started, "destroy", "-r", f"tank/{name}")


def zfs(host: ZfsHost, *arguments: str) -> str:
    return host.must("/usr/sbin/zfs", *arguments)


def defer(host: ZfsHost, snapshot: str, *tags: str) -> None:
    """Mark a snapshot as an administrator or a replication tool would, while `tags` hold it."""
    for tag in tags:
        zfs(host, "hold", tag, snapshot)
    zfs(host, "destroy", "-d", snapshot)
    assert snapshot in host.datasets()


def refusal(host: ZfsHost, name: str, **params: JsonValue) -> HostAgentError:
    """Return how the inspection refuses; the change itself, run past it, must refuse alike."""
    asked = operation(name, **params)
    before = host.datasets()
    with pytest.raises(HostAgentError) as refused:
        host.inspect(asked)
    guid = zfs(host, "get", "-H", "-p", "-o", "value", "guid", str(params["dataset"])).strip()
    output = host.perform(asked, {"guid": guid, "state": "a" * 64})
    assert output.exit_code in (1, 75, 77), output.stderr
    assert host.datasets() == before
    return refused.value


def test_the_last_hold_of_a_deferred_snapshot_is_not_released(host: ZfsHost) -> None:
    defer(host, "tank/media@old", "keep")
    refused = refusal(host, "zfs.release", dataset="tank/media@old", tag="keep")
    assert isinstance(refused, ProtectedError)
    assert "ask for zfs.destroy" in refused.detail


def test_of_a_snapshot_that_is_not_deferred_it_is(host: ZfsHost) -> None:
    zfs(host, "hold", "keep", "tank/media@old")
    asked = operation("zfs.release", dataset="tank/media@old", tag="keep")
    found = host.inspect(asked)
    assert "It can be destroyed then" in found.preview.summary
    assert host.perform(asked, found.precondition).exit_code == 0
    assert host.probe(asked, found.precondition)
    assert "tank/media@old" in host.datasets()


def test_one_of_two_holds_of_a_deferred_snapshot_is_released_the_other_is_not(
    host: ZfsHost,
) -> None:
    defer(host, "tank/media@old", "keep", "other")
    asked = operation("zfs.release", dataset="tank/media@old", tag="other")
    found = host.inspect(asked)
    assert any("deferred destroy" in line for line in found.preview.details)
    # Between the approval and the run somebody else takes the other one off.
    zfs(host, "release", "keep", "tank/media@old")
    assert host.perform(asked, found.precondition).exit_code == 77
    assert "tank/media@old" in host.datasets()
    zfs(host, "hold", "keep", "tank/media@old")
    assert host.perform(asked, found.precondition).exit_code == 0
    assert "tank/media@old" in host.datasets()


def test_a_clone_that_keeps_a_deferred_snapshot_lets_its_last_hold_go(host: ZfsHost) -> None:
    zfs(host, "clone", "-o", "mountpoint=none", "tank/media@old", "tank/top/clones/one")
    defer(host, "tank/media@old", "keep")
    asked = operation("zfs.release", dataset="tank/media@old", tag="keep")
    found = host.inspect(asked)
    assert "Only its clones keep it" in found.preview.summary
    assert host.perform(asked, found.precondition).exit_code == 0
    assert "tank/media@old" in host.datasets()
    zfs(host, "hold", "keep", "tank/media@old")
    zfs(host, "destroy", "tank/top/clones/one")  # and now nothing else does
    assert host.perform(asked, found.precondition).exit_code == 77
    assert "tank/media@old" in host.datasets()


def test_a_destroy_that_names_the_last_hold_destroys_a_deferred_snapshot(host: ZfsHost) -> None:
    defer(host, "tank/media@old", "keep")
    plain = host.inspect(operation("zfs.destroy", dataset="tank/media@old"))
    assert "ask with `release`" in plain.preview.details[0]
    asked = operation("zfs.destroy", dataset="tank/media@old", release="keep")
    found = host.inspect(asked)
    assert "Its last hold, keep, is taken off: that destroys it." in found.preview.details
    assert found.preview.accuracy is PreviewAccuracy.ESTIMATE
    assert host.perform(asked, found.precondition).exit_code == 0
    assert host.probe(asked, found.precondition)
    assert "tank/media@old" not in host.datasets()
    assert "tank/media/a@old" in host.datasets()


def test_a_destroy_takes_no_hold_off_that_is_not_the_last_of_a_deferred_one(host: ZfsHost) -> None:
    zfs(host, "hold", "keep", "tank/media@old")
    asked: dict[str, JsonValue] = {"dataset": "tank/media@old", "release": "keep"}
    assert isinstance(refusal(host, "zfs.destroy", **asked), HostFailedError)
    zfs(host, "hold", "other", "tank/media@old")
    zfs(host, "destroy", "-d", "tank/media@old")
    assert isinstance(refusal(host, "zfs.destroy", **asked), HostFailedError)


def test_a_destroy_with_another_tag_than_the_last_hold_leaves_it(host: ZfsHost) -> None:
    defer(host, "tank/media@old", "keep")
    asked = operation("zfs.destroy", dataset="tank/media@old", release="nobody")
    try:
        held = host.inspect(asked).precondition
    except HostNotFoundError:
        return  # OpenZFS tells the tags; zfs-fuse finds out when it is asked
    assert host.perform(asked, held).exit_code not in (0, 64)
    assert "tank/media@old" in host.datasets()


def test_a_hold_that_comes_in_between_stops_a_destroy_by_release(host: ZfsHost) -> None:
    defer(host, "tank/media@old", "keep")
    asked = operation("zfs.destroy", dataset="tank/media@old", release="keep")
    held = host.inspect(asked).precondition
    zfs(host, "hold", "other", "tank/media@old")
    assert host.perform(asked, held).exit_code != 0
    assert "tank/media@old" in host.datasets()


@pytest.mark.promise("c50")
@pytest.mark.parametrize("is_deferred", [False, True])
def test_no_hold_is_taken_off_what_is_protected(host: ZfsHost, is_deferred: bool) -> None:
    zfs(host, "hold", "keep", "tank/vault@old")
    if is_deferred:
        zfs(host, "destroy", "-d", "tank/vault@old")
    for name, params in (("zfs.release", {"tag": "keep"}), ("zfs.destroy", {"release": "keep"})):
        refused = refusal(host, name, dataset="tank/vault@old", **params)
        assert isinstance(refused, ProtectedError)
        assert "protected" in refused.detail
    hold = operation("zfs.hold", dataset="tank/vault@old", tag="more")  # what loses nothing may
    assert host.perform(hold).exit_code == 0
    zfs(host, "release", "more", "tank/vault@old")


# -- the last clone ends its origin ----------------------------------------------------------------


def clone(host: ZfsHost, snapshot: str, *names: str) -> None:
    for name in names:
        zfs(host, "clone", "-o", "mountpoint=none", snapshot, name)
    zfs(host, "destroy", "-d", snapshot)
    assert snapshot in host.datasets()


@pytest.mark.parametrize(
    ("target", "is_recursive"), [("tank/top/clones/one", False), ("tank/top/clones", True)]
)
def test_the_origin_that_goes_with_its_last_clone_is_shown_and_bound(
    host: ZfsHost, target: str, is_recursive: bool
) -> None:
    clone(host, "tank/media@old", "tank/top/clones/one")
    asked = operation("zfs.destroy", dataset=target, recursive=is_recursive)
    found = host.inspect(asked)
    assert "With the last of its clones goes tank/media@old." in found.preview.details
    assert any(line.startswith("tank/media@old, ") for line in found.preview.details)
    assert found.precondition["members"] == (3 if is_recursive else 2)
    zfs(host, "hold", "keep", "tank/media@old")  # it would stay now: something else was approved
    output = host.perform(asked, found.precondition)
    assert isinstance(asked.spec.failure(asked.params, output), TargetChangedError)
    zfs(host, "release", "keep", "tank/media@old")
    assert "tank/top/clones/one" in host.datasets()
    assert host.perform(asked, found.precondition).exit_code == 0
    assert "tank/media@old" not in host.datasets()
    assert "tank/media" in host.datasets()


def test_an_origin_with_another_clone_stays_and_is_not_shown(host: ZfsHost) -> None:
    clone(host, "tank/media@old", "tank/top/clones/one", "tank/top/two")
    asked = operation("zfs.destroy", dataset="tank/top/clones/one")
    found = host.inspect(asked)
    assert not any("goes" in line for line in found.preview.details)
    assert host.perform(asked, found.precondition).exit_code == 0
    assert "tank/media@old" in host.datasets()


@pytest.mark.promise("c50")
def test_a_clone_whose_end_would_take_a_protected_snapshot_along_stays(host: ZfsHost) -> None:
    clone(host, "tank/vault@old", "tank/top/clones/one")
    for target, is_recursive in (("tank/top/clones/one", False), ("tank/top/clones", True)):
        refused = refusal(host, "zfs.destroy", dataset=target, recursive=is_recursive)
        assert isinstance(refused, ProtectedError)


def test_a_clone_whose_end_would_take_along_what_is_not_listed_stays(host: ZfsHost) -> None:
    clone(host, "tank/media/a@old", "tank/top/clones/one")
    asked = operation("zfs.destroy", dataset="tank/top/clones/one")
    assert asked.spec.inspect is not None
    assert asked.spec.guard is not None
    output = host.invoke(asked.spec.inspect(asked.params))
    section = ZfsSection(datasets=("tank/top(/.*)?",))
    with pytest.raises(ProtectedError):
        asked.spec.guard(asked.params, section, output)
    asked.spec.guard(asked.params, ZfsSection(datasets=("tank/.*",)), output)
