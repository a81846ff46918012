"""The zfs wrappers unmodified, as root, on a real pool of zfs-fuse in namespaces of its own."""

import time
from collections.abc import Iterator

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import HostAgentError, HostFailedError, HostNotFoundError, ProtectedError
from host_agent.operations.catalogue import PreviewAccuracy
from host_agent.operations.zfs.section import ZfsSection
from tests.support.patience import PATIENCE
from tests.support.zfs_host import ZfsHost, can_run_fuse, operation

pytestmark = [
    pytest.mark.root,
    pytest.mark.serial,
    pytest.mark.skipif(not can_run_fuse(), reason="needs root, zfs-fuse and /dev/fuse"),
]
SECTION = ZfsSection(datasets=("tank/.*",))
UNMOUNTED = ("-o", "mountpoint=none")


@pytest.fixture(scope="module")
def fuse() -> Iterator[ZfsHost]:
    with ZfsHost.with_fuse() as started:
        yield started


@pytest.fixture
def host(fuse: ZfsHost) -> Iterator[ZfsHost]:
    for name in ("media", "media/a", "vault", "top", "top/keep"):
        fuse.must("zfs", "create", *UNMOUNTED, f"tank/{name}")
    fuse.must("zfs", "snapshot", "-r", "tank/media@old")
    fuse.must("zfs", "snapshot", "tank/media@new")
    yield fuse
    for name in ("media", "vault", "top"):
        if f"tank/{name}" in fuse.must("zfs", "list", "-H", "-o", "name").split():
            fuse.must("zfs", "destroy", "-R", f"tank/{name}")


def names(host: ZfsHost) -> list[str]:
    listed = host.must("zfs", "list", "-H", "-o", "name", "-t", "filesystem,snapshot")
    return listed.split()


def rows(host: ZfsHost, **params: JsonValue) -> dict[str, JsonValue]:
    asked = operation("zfs.list", **params)
    assert asked.spec.restrict is not None
    assert asked.spec.parse is not None
    output = asked.spec.restrict(asked.params, SECTION, host.perform(asked))
    found = asked.spec.parse(asked.params, output)
    assert isinstance(found, list)
    return {row["name"]: row for row in found}


def test_list_is_read_from_zfs_fuse(host: ZfsHost) -> None:
    everything = rows(host)
    assert set(everything) == {
        f"tank/{n}" for n in ("media", "media/a", "vault", "top", "top/keep")
    }
    row = everything["tank/media"]
    assert isinstance(row, dict)
    assert row["type"] == "filesystem"
    assert isinstance(row["used"], int)
    assert isinstance(row["guid"], str)
    assert row["guid"].isdigit()
    assert row["mountpoint"] == "none"
    assert set(rows(host, dataset="tank/media")) == {"tank/media"}
    below = rows(host, dataset="tank/media", recursive=True, types=["filesystem"])
    assert set(below) == {"tank/media", "tank/media/a"}
    own = rows(host, dataset="tank/media", types=["snapshot"])
    assert set(own) == {"tank/media@old", "tank/media@new"}
    assert set(rows(host, dataset="tank/media@old")) == {"tank/media@old"}


def test_get_is_read_from_zfs_fuse(host: ZfsHost) -> None:
    asked = operation("zfs.get", dataset="tank/media", properties=["mountpoint", "used", "x:y"])
    assert asked.spec.parse is not None
    found = asked.spec.parse(asked.params, host.perform(asked))
    assert isinstance(found, dict)
    assert found["properties"]["mountpoint"] == {
        "value": "none",
        "source": "local",
        "inherited_from": None,
    }
    assert found["properties"]["x:y"]["value"] is None
    every = operation("zfs.get", dataset="tank/media/a", properties=["all"])
    assert every.spec.parse is not None
    found = every.spec.parse(every.params, host.perform(every))
    assert isinstance(found, dict)
    assert len(found["properties"]) > 30


@pytest.mark.parametrize("recursive", [False, True])
def test_a_snapshot_is_taken_and_seen(host: ZfsHost, recursive: bool) -> None:
    asked = operation("zfs.snapshot", dataset="tank/media", name="daily", recursive=recursive)
    found = host.inspect(asked)
    assert not host.probe(asked, found.precondition)
    assert host.perform(asked, found.precondition).exit_code == 0
    assert host.probe(asked, found.precondition)
    assert ("tank/media/a@daily" in names(host)) == recursive
    with pytest.raises(HostFailedError):
        host.inspect(asked)


def test_a_hold_is_put_on_seen_and_taken_off(host: ZfsHost) -> None:
    hold = operation("zfs.hold", dataset="tank/media@old", tag="keep")
    found = host.inspect(hold)
    assert host.perform(hold, found.precondition).exit_code == 0
    assert host.probe(hold, found.precondition)
    destroy = operation("zfs.destroy", dataset="tank/media@old")
    shown = host.inspect(destroy)
    assert "1 of these are held" in shown.preview.details[0]
    refused = destroy.spec.failure(destroy.params, host.perform(destroy, shown.precondition))
    assert refused.code == "host:busy"
    again = hold.spec.failure(hold.params, host.perform(hold))
    assert isinstance(again, HostFailedError)
    release = operation("zfs.release", dataset="tank/media@old", tag="keep")
    found = host.inspect(release)
    assert host.perform(release, found.precondition).exit_code == 0
    assert host.probe(release, found.precondition)
    with pytest.raises(HostNotFoundError):
        host.inspect(release)


def test_a_snapshot_is_destroyed_and_gone(host: ZfsHost) -> None:
    asked = operation("zfs.destroy", dataset="tank/media@old")
    found = host.inspect(asked)
    assert found.preview.accuracy is PreviewAccuracy.ESTIMATE
    assert host.perform(asked, found.precondition).exit_code == 0
    assert host.probe(asked, found.precondition)
    assert "tank/media/a@old" in names(host)


def test_a_recursive_destroy_takes_what_was_shown(host: ZfsHost) -> None:
    asked = operation("zfs.destroy", dataset="tank/media", recursive=True)
    found = host.inspect(asked)
    assert found.precondition["members"] == 5
    assert host.perform(asked, found.precondition).exit_code == 0
    assert host.probe(asked, found.precondition)
    assert not [name for name in names(host) if name.startswith("tank/media")]


def test_a_snapshot_taken_in_between_stops_a_recursive_destroy(host: ZfsHost) -> None:
    asked = operation("zfs.destroy", dataset="tank/media", recursive=True)
    found = host.inspect(asked)
    host.must("zfs", "snapshot", "tank/media/a@later")
    before = names(host)
    assert host.perform(asked, found.precondition).exit_code == 75
    assert names(host) == before


def test_a_snapshot_of_the_same_name_is_another_one(host: ZfsHost) -> None:
    asked = operation("zfs.destroy", dataset="tank/media@new")
    found = host.inspect(asked)
    host.must("zfs", "destroy", "tank/media@new")
    host.must("zfs", "snapshot", "tank/media@new")
    assert host.perform(asked, found.precondition).exit_code == 75
    assert "tank/media@new" in names(host)


@pytest.mark.promise("c50")
@pytest.mark.parametrize(
    ("name", "dataset", "recursive"),
    [
        ("zfs.destroy", "tank", False),
        ("zfs.destroy", "tank", True),
        ("zfs.destroy", "tank/vault", False),
        ("zfs.destroy", "tank/top", True),
        ("zfs.rollback", "tank@root", False),
    ],
)
def test_what_is_protected_stays(host: ZfsHost, name: str, dataset: str, recursive: bool) -> None:
    if dataset == "tank@root" and dataset not in names(host):
        host.must("zfs", "snapshot", dataset)
    before = names(host)
    params: dict[str, JsonValue] = {"dataset": dataset}
    if name == "zfs.destroy":
        params["recursive"] = recursive
    asked = operation(name, **params)
    with pytest.raises(ProtectedError):
        host.inspect(asked)
    assert host.perform(asked, {"guid": "1", "state": "a" * 64}).exit_code == 77
    assert names(host) == before


def test_a_clone_is_never_taken_along(host: ZfsHost) -> None:
    host.must("zfs", "clone", *UNMOUNTED, "tank/media/a@old", "tank/top/clone")
    before = names(host)
    for asked in (
        operation("zfs.destroy", dataset="tank/media", recursive=True),
        operation("zfs.destroy", dataset="tank/media/a@old"),
    ):
        with pytest.raises(ProtectedError):
            host.inspect(asked)
    assert names(host) == before
    clone = operation("zfs.destroy", dataset="tank/top/clone")
    assert host.perform(clone).exit_code == 0


def test_a_mounted_dataset_is_rolled_back_and_destroyed(host: ZfsHost) -> None:
    host.must("zfs", "create", "tank/files")
    host.must("/bin/bash", "-c", "echo first >/mnt/tank/files/text")
    host.must("zfs", "snapshot", "tank/files@then")
    host.must("/bin/bash", "-c", "head -c 300000 /dev/urandom >/mnt/tank/files/more")
    rollback = operation("zfs.rollback", dataset="tank/files@then")
    found = host.inspect(rollback)
    assert found.preview.summary.startswith("Lost for good: what was written since")
    until_done(host, "zfs.rollback", "tank/files@then")
    assert host.probe(rollback, found.precondition)
    assert host.must("ls", "/mnt/tank/files") == "text\n"
    host.must("zfs", "destroy", "tank/files@then")
    until_done(host, "zfs.destroy", "tank/files")
    assert "tank/files" not in names(host)


def until_done(host: ZfsHost, name: str, dataset: str) -> None:
    """Run a change again while zfs-fuse, whose mounts settle late, says that it is busy."""
    asked = operation(name, dataset=dataset)
    end = time.monotonic() + PATIENCE
    while (output := host.perform(asked)).exit_code != 0:
        failure: HostAgentError = asked.spec.failure(asked.params, output)
        assert failure.code == "host:busy", output.stderr
        assert time.monotonic() < end


def test_only_the_newest_snapshot_is_rolled_back_to(host: ZfsHost) -> None:
    with pytest.raises(HostFailedError, match="@new"):
        host.inspect(operation("zfs.rollback", dataset="tank/media@old"))
    newest = operation("zfs.rollback", dataset="tank/media@new")
    found = host.inspect(newest)
    host.must("zfs", "snapshot", "tank/media@newer")
    assert host.perform(newest, found.precondition).exit_code == 1  # zfs itself refuses
    assert "tank/media@newer" in names(host)


def test_what_does_not_exist_is_not_found(host: ZfsHost) -> None:
    for name, dataset in (
        ("zfs.destroy", "tank/none"),
        ("zfs.destroy", "tank/media@none"),
        ("zfs.rollback", "tank/media@none"),
    ):
        with pytest.raises(HostNotFoundError):
            host.inspect(operation(name, dataset=dataset))
    # Of what root's list does not name, nobody learns whether it exists.
    with pytest.raises(ProtectedError):
        host.inspect(operation("zfs.destroy", dataset="pool/none"))


def test_no_daemon_is_an_adapter_that_is_not_available(host: ZfsHost) -> None:
    asked = operation("zfs.list")
    output = host.run(
        *("unshare", "--mount", "bash", "-c", 'mount -t tmpfs x /run/zfs; exec "$@"', "x"),
        *("/run/host-agent-wrappers/zfs-list", "one", "filesystem"),
    )
    assert output.exit_code != 0
    assert asked.spec.failure(asked.params, output).code == "adapter:unavailable"
