"""Every operation of the contract on the booted host: asked once for real, and once per refusal.

A case is a row of a table. What `prepare` and `proof` say is bash, run inside as root: the proof
holds afterwards, whatever the agent answered.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from host_agent.canonical import JsonValue

Params = Mapping[str, JsonValue]

APP = "/srv/app"
_PCT = "/var/lib/pct.state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One operation: how it succeeds, and with which parameters it is refused for which reason."""

    operation: str
    params: Params
    prepare: str = ""
    proof: str = "true"
    shows: Callable[[Any], bool] = lambda _data: True
    """What the parsed data of the answer must show."""
    is_verified: bool | None = True
    """What the probe says; None for what has no probe."""
    grammar: tuple[Params, ...]
    unlisted: tuple[Params, ...] = ()
    protected: tuple[Params, ...] = ()
    denied: Params | None = None
    """What a rule denies that the allow-list has."""
    is_read: bool = False


def _names(rows: Iterable[Mapping[str, object]], key: str) -> set[str]:
    return {str(row[key]) for row in rows}


# -- zfs -------------------------------------------------------------------------------------------

_DATASETS = (
    "-r",
    "tank/media@a/b",
    "tank//media",
    "tank/../tank",
    "tank/m\u0435dia",
    "tank/a b",
    "",
)


def _datasets(**more: JsonValue) -> tuple[Params, ...]:
    return tuple({"dataset": dataset, **more} for dataset in _DATASETS)


def _zfs(verb: str, params: Params, **more: Any) -> Case:
    rest = {name: value for name, value in params.items() if name != "dataset"}
    where = str(params["dataset"])
    snapshot = f"@{where.partition('@')[2]}" if "@" in where else ""
    declared: dict[str, Any] = {
        "grammar": (*_datasets(**rest), {**params, "approved": True}),
        "unlisted": ({**params, "dataset": f"tank/private{snapshot}"},),
        "denied": {**params, "dataset": f"tank/denied{snapshot}"},
        **more,
    }
    return Case(operation=f"zfs.{verb}", params=params, **declared)


def _userrefs(snapshot: str, count: int) -> str:
    return f'[[ "$(zfs get -H -p -o value userrefs {snapshot})" == {count} ]]'


ZFS = (
    Case(
        operation="zfs.list",
        params={},
        shows=lambda data: (
            "tank/media" in _names(data, "name") and "tank/private" not in _names(data, "name")
        ),
        grammar=(*_datasets(), {"types": ["bookmark"]}, {"recursive": "yes"}),
        unlisted=({"dataset": "tank/private"}, {"dataset": "pool"}),
        denied={"dataset": "tank/denied"},
        is_read=True,
        is_verified=None,
    ),
    _zfs(
        "get",
        {"dataset": "tank/media", "properties": ["guid", "used"]},
        shows=lambda data: data["properties"]["guid"]["value"].isdigit(),
        is_read=True,
        is_verified=None,
    ),
    _zfs(
        "snapshot",
        {"dataset": "tank/media", "name": "daily"},
        proof="zfs list -t snapshot tank/media@daily",
        grammar=(*_datasets(name="daily"), {"dataset": "tank/media", "name": "-r"}),
    ),
    _zfs(
        "hold",
        {"dataset": "tank/media@held", "tag": "keep"},
        prepare="zfs snapshot tank/media@held",
        proof=_userrefs("tank/media@held", 1),
        grammar=(*_datasets(tag="keep"), {"dataset": "tank/media@held", "tag": "$(id)"}),
    ),
    _zfs(
        "release",
        {"dataset": "tank/media@freed", "tag": "keep"},
        prepare="zfs snapshot tank/media@freed; zfs hold keep tank/media@freed",
        proof=_userrefs("tank/media@freed", 0),
    ),
    _zfs(
        "destroy",
        {"dataset": "tank/media@gone"},
        prepare="zfs snapshot tank/media@gone",
        proof="! zfs list tank/media@gone",
        protected=(
            {"dataset": "tank"},
            {"dataset": "tank", "recursive": True},
            {"dataset": "tank/vault"},
            {"dataset": "tank/vault@old"},
            {"dataset": "tank/top", "recursive": True},
        ),
    ),
    _zfs(
        "rollback",
        {"dataset": "tank/media@then"},
        prepare="zfs snapshot tank/media@then",
        proof="zfs list tank/media@then",
        protected=({"dataset": "tank@root"}, {"dataset": "tank/vault@old"}),
    ),
)

# -- systemd ---------------------------------------------------------------------------------------

_UNITS = (
    *("web", "-h", "web.service;id", "../web.service", "web@.service", "web*.service", "web.socke"),
    *("w\u0435b.service", "web\\x2d.service", "", " web.service"),
)
_PROTECTED_UNITS = tuple(
    {"unit": unit} for unit in ("ssh.service", "host-agent.service", "frontdoor.service")
)


def _systemd(verb: str, unit: str, **more: Any) -> Case:
    return Case(
        operation=f"systemd.{verb}",
        params={"unit": unit},
        grammar=(*({"unit": text} for text in _UNITS), {"unit": unit, "force": True}, {}),
        unlisted=({"unit": "private.service"}, {"unit": "cron.service"}),
        denied={"unit": "denied.service"},
        **more,
    )


SYSTEMD = (
    _systemd(
        "status",
        "web.service",
        shows=lambda data: data["active"] == "active",
        is_read=True,
        is_verified=None,
    ),
    _systemd(
        "logs",
        "web.service",
        shows=lambda data: any("web serves" in row["message"] for row in data["entries"]),
        is_read=True,
        is_verified=None,
    ),
    Case(
        operation="systemd.list",
        params={},
        shows=lambda data: (
            {"web.service", "private.service"} & _names(data["units"], "unit") == {"web.service"}
        ),
        grammar=({"pattern": "web"}, {"pattern": "-a"}, {"pattern": "a b*"}, {"pattern": "[a]*"}),
        is_read=True,
        is_verified=None,
    ),
    _systemd(
        "start",
        "idle.service",
        prepare="systemctl stop idle.service",
        proof="systemctl is-active idle.service",
        protected=(*_PROTECTED_UNITS, {"unit": "poweroff.target"}),
    ),
    _systemd(
        "restart",
        "idle.service",
        prepare="systemctl show -P MainPID idle.service >/run/idle.before",
        proof='systemctl is-active idle && [[ "$(systemctl show -P MainPID idle)" != '
        '"$(</run/idle.before)" ]]',
        protected=_PROTECTED_UNITS,
    ),
    _systemd(
        "reload",
        "web.service",
        prepare="rm -f /run/web.reloaded",
        proof="for ((i = 0; i < 50; i++)); do [[ ! -s /run/web.reloaded ]] || exit 0; sleep 0.1;"
        " done; exit 1",
        protected=_PROTECTED_UNITS,
    ),
    _systemd(
        "stop",
        "idle.service",
        prepare="systemctl start idle.service",
        proof='[[ "$(systemctl is-active idle.service)" == inactive ]]',
        protected=_PROTECTED_UNITS,
    ),
)

# -- pct -------------------------------------------------------------------------------------------

_VMIDS = (
    "99",
    "1e2",
    "0101",
    "-1",
    "101 --purge",
    "\uff11\uff10\uff11",
    "18446744073709551717",
    "",
)


def _pct(verb: str, vmid: str, *, status: str | None = None, **more: Any) -> Case:
    rest: Params = more.pop("rest", {})
    declared: dict[str, Any] = {
        "grammar": (
            *({"vmid": text, **rest} for text in _VMIDS),
            {"vmid": vmid, **rest, "force": True},
            *more.pop("hostile", ()),
        ),
        "unlisted": ({"vmid": "201", **rest},),
        "denied": {"vmid": "150", **rest},
        **more,
    }
    if status is not None:
        declared["proof"] = f'[[ "$(pct status {vmid})" == "status: {status}" ]]'
    return Case(operation=f"pct.{verb}", params={"vmid": vmid, **rest}, **declared)


_TEMPLATE = {"template": "local:vztmpl/debian-12.tar.zst"}
PCT = (
    Case(
        operation="pct.list",
        params={},
        shows=lambda data: {"101", "201"} & _names(data["containers"], "vmid") == {"101"},
        grammar=({"vmid": "101"},),
        is_read=True,
        is_verified=None,
    ),
    _pct(
        "status",
        "101",
        shows=lambda data: data["status"] == "stopped",
        is_read=True,
        is_verified=None,
    ),
    _pct("config", "101", is_read=True, is_verified=None),
    _pct("start", "101", status="running"),
    _pct(
        "snapshot",
        "102",
        rest={"name": "before"},
        proof=f"grep -q before {_PCT}/102.json",
        hostile=({"vmid": "102", "name": "--help"}, {"vmid": "102", "name": "current"}),
    ),
    _pct(
        "create",
        "110",
        rest={**_TEMPLATE, "hostname": "web", "memory": 512, "rootfs": "local-zfs:4"},
        status="stopped",
        hostile=(
            {"vmid": "110", "template": "/etc/shadow"},
            {"vmid": "110", **_TEMPLATE, "password": "secret"},
            {"vmid": "110", **_TEMPLATE, "rootfs": "/dev/sda"},
        ),
    ),
    _pct("stop", "102", status="stopped"),
    _pct("shutdown", "101", status="stopped"),
    _pct(
        "rollback",
        "102",
        rest={"name": "before"},
        proof=f"grep -q before {_PCT}/102.json",
    ),
    _pct("destroy", "103", proof=f"[[ ! -e {_PCT}/103.json ]]"),
)

# -- git -------------------------------------------------------------------------------------------

_PATHS = ("srv/app", "/srv/../srv/app", "/srv//app", "/srv/app/", "--help", "")
_PUSH = """\
runuser -u librarian -- bash -eu -c '
export HOME=/home/librarian
cd /srv/git/elsewhere
git commit -q --allow-empty -m "from elsewhere"
git push -q origin main
'
git -c safe.directory='*' -C /srv/git/app.git rev-parse main >/run/git.tip
"""
_IS_AT_TIP = (
    f'[[ "$(git -c safe.directory=\'*\' -C {APP} rev-parse {{ref}})" == "$(</run/git.tip)" ]]'
)


def _git(verb: str, *, more_unlisted: tuple[Params, ...] = (), **declared: Any) -> Case:
    rest: Params = declared.pop("rest", {})
    elsewhere = ("/srv/private", "/srv/git/app.git", "/srv/foreign", "/etc")
    return Case(
        operation=f"git.{verb}",
        params={"repository": APP, **rest},
        grammar=(
            *({"repository": path, **rest} for path in _PATHS),
            {"repository": APP, **rest, "argv": ["--help"]},
            *declared.pop("hostile", ()),
        ),
        unlisted=(*({"repository": path, **rest} for path in elsewhere), *more_unlisted),
        denied={"repository": "/srv/denied", **rest},
        **declared,
    )


GIT = (
    _git("status", is_read=True, is_verified=None),
    _git(
        "log",
        shows=lambda data: data["commits"][0]["subject"] == "first",
        hostile=({"repository": APP, "ref": "--output=/tmp/x"}, {"repository": APP, "limit": 0}),
        is_read=True,
        is_verified=None,
    ),
    _git(
        "diff",
        hostile=({"repository": APP, "ref": "a..b"},),
        is_read=True,
        is_verified=None,
    ),
    _git(
        "fetch",
        rest={"remote": "origin"},
        prepare=_PUSH,
        proof=_IS_AT_TIP.format(ref="origin/main"),
        is_verified=None,
        hostile=({"repository": APP, "remote": "ext::sh -c id"},),
        more_unlisted=({"repository": APP, "remote": "upstream"},),
    ),
    _git(
        "pull",
        rest={"remote": "origin", "branch": "main"},
        prepare=_PUSH,
        proof=_IS_AT_TIP.format(ref="HEAD"),
        hostile=({"repository": APP, "remote": "origin", "branch": "+main:main"},),
        more_unlisted=({"repository": APP, "remote": "origin", "branch": "secret"},),
    ),
    _git(
        "switch",
        rest={"branch": "topic"},
        proof=f"[[ \"$(git -c safe.directory='*' -C {APP} branch --show-current)\" == topic ]]",
        hostile=({"repository": APP, "branch": "README.md;id"},),
        more_unlisted=({"repository": APP, "branch": "secret"},),
    ),
    _git(
        "reset",
        rest={"ref": "main"},
        proof=f"[[ \"$(git -c safe.directory='*' -C {APP} rev-parse HEAD)\" == "
        f"\"$(git -c safe.directory='*' -C {APP} rev-parse main)\" ]]",
        hostile=({"repository": APP, "ref": "HEAD~1"},),
    ),
)

# -- exec ------------------------------------------------------------------------------------------

EXEC = (
    Case(
        operation="exec.run",
        params={"name": "greet", "arguments": {"whom": "ann"}},
        proof="[[ $(tail -n 1 /var/lib/greetings/all) == ann ]]",
        is_verified=None,
        grammar=(
            {"name": "greet", "arguments": {"whom": "ann;id"}},
            {"name": "greet", "arguments": {"whom": "-n"}},
            {"name": "greet", "arguments": {}},
            {"name": "greet", "arguments": ["ann"]},
            {"name": "/bin/sh", "arguments": {}},
        ),
        unlisted=({"name": "reboot", "arguments": {}},),
        denied={"name": "denied", "arguments": {"whom": "ann"}},
    ),
)

# -- apt -------------------------------------------------------------------------------------------

_NOT_PACKAGES = (
    *("-o", "web-server-", "web-server=1.0", "web-server/stable", "web-server:amd64", "web*"),
    *("?name(web)", "web^", "/srv/packages/web-server_1.0_all.deb", "web-server web-tool", ""),
)


def _apt(verb: str, package: str, **declared: Any) -> Case:
    return Case(
        operation=f"apt.{verb}",
        params={"package": package},
        grammar=(
            *({"package": name} for name in _NOT_PACKAGES),
            {"package": package, "version": "1.0"},
        ),
        unlisted=({"package": "sudo"},),
        denied={"package": "web-denied"},
        **declared,
    )


_PROTECTED_PACKAGES: tuple[Params, ...] = ({"package": "vault"}, {"package": "host-agent"})

APT = (
    Case(
        operation="apt.list",
        params={},
        prepare="apt-get install --yes web-common",
        shows=lambda data: _names(data["packages"], "package") == {"web-common"},
        grammar=({"state": "all"}, {"package": "web-common"}),
        is_read=True,
        is_verified=None,
    ),
    _apt(
        "show",
        "web-tool",
        shows=lambda data: (data["installed"], data["candidate"]) == (None, "1.0"),
        is_read=True,
        is_verified=None,
    ),
    _apt(
        "install",
        "web-tool",
        proof="dpkg-query --show --showformat='${db:Status-Status}' web-tool | grep -qx installed",
        protected=_PROTECTED_PACKAGES,
    ),
    _apt(
        "upgrade",
        "web-server",
        prepare="apt-get install --yes web-server=1.0",
        proof="dpkg-query --show --showformat='${Version}' web-server | grep -qx 2.0",
        protected=_PROTECTED_PACKAGES,
    ),
)

CASES = (*ZFS, *SYSTEMD, *PCT, *GIT, *EXEC, *APT)
