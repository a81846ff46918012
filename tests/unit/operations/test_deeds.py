"""Which acts count as the same one through another operation, pair by pair."""

import pytest

from host_agent.canonical import JsonValue
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Operation

SNAPSHOT = "tank/old@daily"
Asked = tuple[str, dict[str, JsonValue]]


def zfs(verb: str, dataset: str = "tank/old", **more: JsonValue) -> Asked:
    return f"zfs.{verb}", {"dataset": dataset, **more}


def pct(verb: str, vmid: str = "101", **more: JsonValue) -> Asked:
    return f"pct.{verb}", {"vmid": vmid, **more}


def unit(verb: str, name: str = "nginx.service") -> Asked:
    return f"systemd.{verb}", {"unit": name}


def git(verb: str, repository: str = "/srv/app", **more: JsonValue) -> Asked:
    return f"git.{verb}", {"repository": repository, **more}


def command(**arguments: JsonValue) -> Asked:
    return "exec.run", {"name": "tidy-up", "arguments": arguments}


def parse(asked: Asked) -> Operation:
    return CATALOGUE.parse(*asked)


PULL = git("pull", remote="origin", branch="main")
SWITCH = git("switch", branch="topic")
RESET = git("reset", ref="origin/main")

SAME: list[tuple[Asked, Asked]] = [
    (zfs("destroy"), zfs("rollback", SNAPSHOT)),
    (zfs("destroy", recursive=True), zfs("rollback", SNAPSHOT)),
    (pct("stop"), pct("shutdown")),
    (pct("stop"), pct("rollback", name="daily")),
    (pct("shutdown"), pct("rollback", name="daily")),
    (pct("destroy"), pct("rollback", name="daily")),
    (unit("start"), unit("restart")),
    (RESET, PULL),
    (RESET, SWITCH),
    (zfs("destroy"), command(what="tank/old")),
    (zfs("destroy"), command(other="x", what="/tank/old")),
    (zfs("destroy"), command(what="/mnt//tank/./old/mail")),
    (zfs("destroy"), command(what="pool=tank/old,force")),
    (zfs("destroy", SNAPSHOT), command(what=SNAPSHOT)),
    (zfs("rollback", SNAPSHOT), command(what="tank/old")),
    (unit("stop"), command(what="nginx.service")),
    (unit("stop"), command(what="nginx")),
    (pct("stop"), command(vmid="101")),
    (pct("destroy"), command(path="/etc/pve/lxc/101")),
    (PULL, command(path="/srv/app/.git")),
    (PULL, command(path="/srv/x/../app")),
]

OTHERS: list[tuple[Asked, Asked]] = [
    (zfs("destroy"), zfs("snapshot", name="daily")),
    (zfs("destroy", SNAPSHOT), zfs("rollback", SNAPSHOT)),
    (zfs("destroy", SNAPSHOT), zfs("release", SNAPSHOT, tag="keep")),
    (zfs("hold", SNAPSHOT, tag="keep"), zfs("release", SNAPSHOT, tag="keep")),
    (zfs("destroy", "tank/older"), zfs("rollback", SNAPSHOT)),
    (pct("stop"), pct("destroy")),
    (pct("stop"), pct("start")),
    (pct("stop", "102"), pct("shutdown")),
    (pct("snapshot", name="daily"), pct("rollback", name="daily")),
    (unit("stop"), unit("restart")),
    (unit("stop"), unit("start")),
    (unit("reload"), unit("restart")),
    (unit("start", "backup.service"), unit("restart")),
    (PULL, SWITCH),
    (git("fetch", remote="origin"), PULL),
    (git("reset", "/srv/app2", ref="main"), PULL),
    (zfs("destroy"), command()),
    (zfs("destroy"), command(what="tank/older")),
    (zfs("destroy"), command(what="tank/old-2")),
    (zfs("destroy"), command(what="xtank/old")),
    (zfs("destroy"), command(what="tank")),
    (unit("stop"), command(what="nginx.socket")),
    (pct("stop"), command(what="1010")),
    (pct("stop"), command(what="vm-101-disk-0")),
    (PULL, command(path="/srv/app2")),
    (PULL, command(path="/backup/srv/app")),
    (zfs("get", properties=["all"]), command(what="tank/old")),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=str)
def test_these_could_have_the_same_effect(one: Asked, other: Asked) -> None:
    assert parse(one).does_as(parse(other))
    assert parse(other).does_as(parse(one))


@pytest.mark.parametrize(("one", "other"), OTHERS, ids=str)
def test_these_are_other_acts(one: Asked, other: Asked) -> None:
    assert not parse(one).does_as(parse(other))
    assert not parse(other).does_as(parse(one))


@pytest.mark.parametrize("asked", [zfs("destroy"), command(what="tank/old"), pct("stop")])
def test_the_same_operation_is_a_new_request_not_another_door(asked: Asked) -> None:
    assert not parse(asked).does_as(parse(asked))
