"""The zfs wrappers unmodified, as root, on a stand-in for OpenZFS in a mount namespace."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
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
from host_agent.operations.catalogue import Output, PreviewAccuracy
from tests.support.patience import PATIENCE
from tests.support.zfs_host import PLACE, WRAPPERS, ZfsHost, can_run_stand_in, operation

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_run_stand_in(), reason="needs root and util-linux, for namespaces"),
]
STATE_HASH = "a" * 64


def dataset(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "type": "filesystem",
        "guid": 16 * 10**18 + number,
        "createtxg": number,
        "used": 45056,
        "available": 66424320,
        "referenced": 23552,
        "creation": 1795217344,
        "origin": "-",
        "mountpoint": "/tank/media",
        "written": 512,
        **changed,
    }


def snapshot(number: int, **changed: Any) -> dict[str, Any]:
    return dataset(number, **{"type": "snapshot", "used": 100, "holds": {}, **changed})


def state(version: str = "2.1.11", /, **more: Any) -> dict[str, Any]:
    datasets = {
        "tank": dataset(1),
        "tank/media": dataset(2),
        "tank/media@old": snapshot(3),
        "tank/media@new": snapshot(4),
        "tank/media/a": dataset(5),
        "tank/media/a@old": snapshot(6),
        "tank/vault": dataset(7),
        "tank/vault@old": snapshot(8),
        "tank/top": dataset(9),
        "tank/top/keep": dataset(10),
        "tank@root": snapshot(11),
    }
    return {"version": version, "next": 50, "datasets": {**datasets, **more}}


@pytest.fixture
def host() -> Iterator[ZfsHost]:
    with ZfsHost.with_stand_in(state()) as started:
        yield started


def data_of(host: ZfsHost, name: str, /, **params: JsonValue) -> JsonValue:
    asked = operation(name, **params)
    output = host.perform(asked)
    assert output.exit_code == 0, output.stderr
    assert asked.spec.parse is not None
    return asked.spec.parse(asked.params, output)


def names_of(host: ZfsHost, /, **params: JsonValue) -> list[JsonValue]:
    rows = data_of(host, "zfs.list", **params)
    assert isinstance(rows, list)
    return [row["name"] for row in rows]


def error_of(host: ZfsHost, name: str, /, **params: JsonValue) -> HostAgentError:
    asked = operation(name, **params)
    with pytest.raises(HostAgentError) as refusal:
        host.inspect(asked)
    return refusal.value


def changing_calls(host: ZfsHost) -> list[Any]:
    changing = {"snapshot", "hold", "release", "destroy", "rollback"}
    return [call for call in host.calls() if call[0] in changing and "-n" not in call]


# -- reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.8.6", "2.1.11", "2.2.99", "2.3.0", "2.4.1", "10.0.0"])
def test_list_and_get_are_read_from_what_the_version_has(version: str) -> None:
    with ZfsHost.with_stand_in(state(version)) as host:
        rows = data_of(host, "zfs.list", dataset="tank/media")
        assert rows == [
            {
                "name": "tank/media",
                "type": "filesystem",
                "used": 45056,
                "available": 66424320,
                "referenced": 23552,
                "guid": "16000000000000000002",
                "createtxg": "2",
                "creation": 1795217344,
                "origin": None,
                "userrefs": None,
                "mountpoint": "/tank/media",
            }
        ]
        got = data_of(host, "zfs.get", dataset="tank/media@old", properties=["used", "userrefs"])
        assert got == {
            "name": "tank/media@old",
            "properties": {
                "used": {"value": "100", "source": None, "inherited_from": None},
                "userrefs": {"value": "0", "source": None, "inherited_from": None},
            },
        }
        json_calls = [call for call in host.calls() if "-j" in call]
        assert len(json_calls) == (2 if version in {"2.3.0", "2.4.1", "10.0.0"} else 0)


@pytest.mark.parametrize("version", ["2.1.11", "2.3.0"])
def test_a_list_is_as_wide_as_it_was_asked(version: str) -> None:
    with ZfsHost.with_stand_in(state(version)) as host:
        assert len(names_of(host)) == 6
        below = names_of(host, dataset="tank/media", recursive=True)
        assert below == ["tank/media", "tank/media/a"]
        below = names_of(host, dataset="tank/media", recursive=True, types=["snapshot"])
        assert below == ["tank/media@old", "tank/media@new", "tank/media/a@old"]
        assert names_of(host, dataset="tank/media@old") == ["tank/media@old"]


def test_a_property_that_zfs_does_not_know_is_the_askers_fault(host: ZfsHost) -> None:
    asked = operation("zfs.get", dataset="tank/media", properties=["bogus"])
    failure = asked.spec.failure(asked.params, host.perform(asked))
    assert failure.code == "request:invalid-parameter"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("zfs.list", {"dataset": "tank/none"}),
        ("zfs.get", {"dataset": "tank/none", "properties": ["used"]}),
    ],
)
def test_a_read_of_what_does_not_exist_is_not_found(
    host: ZfsHost, name: str, params: dict[str, JsonValue]
) -> None:
    asked = operation(name, **params)
    assert isinstance(asked.spec.failure(asked.params, host.perform(asked)), HostNotFoundError)


# -- changes ---------------------------------------------------------------------------------------

CHANGES: list[tuple[str, dict[str, JsonValue], list[str]]] = [
    (
        "zfs.snapshot",
        {"dataset": "tank/media", "name": "x"},
        ["snapshot", "--", "tank/media@x"],
    ),
    (
        "zfs.snapshot",
        {"dataset": "tank/media", "name": "x", "recursive": True},
        ["snapshot", "-r", "--", "tank/media@x"],
    ),
    ("zfs.hold", {"dataset": "tank/media@old", "tag": "t"}, ["hold", "--", "t", "tank/media@old"]),
    ("zfs.destroy", {"dataset": "tank/media@old"}, ["destroy", "--", "tank/media@old"]),
    (
        "zfs.destroy",
        {"dataset": "tank/media@old", "recursive": True},
        ["destroy", "-r", "--", "tank/media@old"],
    ),
    (
        "zfs.destroy",
        {"dataset": "tank/media", "recursive": True},
        ["destroy", "-r", "--", "tank/media"],
    ),
    ("zfs.destroy", {"dataset": "tank@root"}, ["destroy", "--", "tank@root"]),
    ("zfs.rollback", {"dataset": "tank/media@new"}, ["rollback", "--", "tank/media@new"]),
]


@pytest.mark.parametrize(("name", "params", "call"), CHANGES)
def test_a_change_runs_once_and_is_seen_afterwards(
    host: ZfsHost, name: str, params: dict[str, JsonValue], call: list[str]
) -> None:
    asked = operation(name, **params)
    found = host.inspect(asked)
    assert not host.probe(asked, found.precondition)
    output = host.perform(asked, found.precondition)
    assert output.exit_code == 0, output.stderr
    assert changing_calls(host) == [call]
    assert host.probe(asked, found.precondition)


def test_a_release_takes_the_hold_off() -> None:
    held = snapshot(3, holds={"keep": "then", "other": "then"})
    with ZfsHost.with_stand_in(state(**{"tank/media@old": held})) as host:
        asked = operation("zfs.release", dataset="tank/media@old", tag="keep")
        found = host.inspect(asked)
        assert found.precondition["userrefs"] == 2
        assert host.perform(asked, found.precondition).exit_code == 0
        assert host.probe(asked, found.precondition)
        assert isinstance(
            error_of(host, "zfs.release", dataset="tank/media@old", tag="keep"), HostNotFoundError
        )
        assert isinstance(
            error_of(host, "zfs.hold", dataset="tank/media@old", tag="other"), HostFailedError
        )


def test_a_destroy_shows_what_zfs_says_that_it_would_do(host: ZfsHost) -> None:
    preview = host.inspect(operation("zfs.destroy", dataset="tank/media", recursive=True)).preview
    assert preview.accuracy is PreviewAccuracy.EXACT
    assert preview.summary == "Lost for good: 88 KiB in 5."
    assert len(preview.details) == 5


def test_a_destroy_of_what_is_held_is_shown_as_an_estimate() -> None:
    held = snapshot(3, holds={"keep": "then"})
    with ZfsHost.with_stand_in(state(**{"tank/media@old": held})) as host:
        asked = operation("zfs.destroy", dataset="tank/media@old")
        found = host.inspect(asked)
        assert found.preview.accuracy is PreviewAccuracy.ESTIMATE
        assert "1 of these are held" in found.preview.details[0]
        failure = asked.spec.failure(asked.params, host.perform(asked, found.precondition))
        assert failure.code == "host:busy"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("zfs.snapshot", {"dataset": "tank/none", "name": "x"}),
        ("zfs.hold", {"dataset": "tank/media@none", "tag": "t"}),
        ("zfs.release", {"dataset": "tank/media@none", "tag": "t"}),
        ("zfs.destroy", {"dataset": "tank/none"}),
        ("zfs.destroy", {"dataset": "tank/media@none"}),
        ("zfs.destroy", {"dataset": "tank/media@none", "recursive": True}),
        ("zfs.rollback", {"dataset": "tank/media@none"}),
    ],
)
def test_a_change_of_what_does_not_exist_is_not_found_when_asked(
    host: ZfsHost, name: str, params: dict[str, JsonValue]
) -> None:
    assert isinstance(error_of(host, name, **params), HostNotFoundError)


def test_what_would_fail_fails_when_it_is_asked(host: ZfsHost) -> None:
    futile: list[tuple[str, dict[str, JsonValue]]] = [
        ("zfs.snapshot", {"dataset": "tank/media", "name": "old"}),
        ("zfs.destroy", {"dataset": "tank/media"}),
        ("zfs.rollback", {"dataset": "tank/media@old"}),
    ]
    for name, params in futile:
        assert isinstance(error_of(host, name, **params), HostFailedError)
    taken = operation("zfs.snapshot", dataset="tank/media", name="old", recursive=True)
    with pytest.raises(HostFailedError):
        host.inspect(taken)


def test_a_bookmark_after_the_snapshot_is_in_the_way_of_a_rollback() -> None:
    bookmark = dataset(20, type="bookmark", used="-", referenced="-")
    with ZfsHost.with_stand_in(state(**{"tank/media#later": bookmark})) as host:
        refusal = error_of(host, "zfs.rollback", dataset="tank/media@new")
        assert isinstance(refusal, HostFailedError)
        assert "#later" in refusal.detail


# -- protections, which root holds whatever it is asked --------------------------------------------


def protected_operations() -> list[tuple[str, dict[str, JsonValue]]]:
    return [
        ("zfs.destroy", {"dataset": "tank"}),
        ("zfs.destroy", {"dataset": "tank", "recursive": True}),
        ("zfs.destroy", {"dataset": "tank/vault"}),
        ("zfs.destroy", {"dataset": "tank/vault", "recursive": True}),
        ("zfs.destroy", {"dataset": "tank/vault@old"}),
        ("zfs.destroy", {"dataset": "tank/top", "recursive": True}),
        ("zfs.destroy", {"dataset": "tank@old", "recursive": True}),
        ("zfs.rollback", {"dataset": "tank@root"}),
        ("zfs.rollback", {"dataset": "tank/vault@old"}),
    ]


@pytest.mark.promise("c50")
@pytest.mark.parametrize(("name", "params"), protected_operations())
def test_root_refuses_what_is_protected_whatever_it_is_asked(
    name: str, params: dict[str, JsonValue]
) -> None:
    with ZfsHost.with_stand_in(state(**{"tank@old": snapshot(12)})) as host:
        assert isinstance(error_of(host, name, **params), ProtectedError)
        asked = operation(name, **params)
        guid = str(state()["datasets"].get(str(params["dataset"]), {"guid": 1})["guid"])
        held: Mapping[str, JsonValue] = {"guid": guid, "state": STATE_HASH}
        assert host.perform(asked, held).exit_code == 77
        assert changing_calls(host) == []


@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize("clone", ["tank/clone", "tank/media/clone"])
def test_a_destroy_that_would_take_a_clone_along_is_refused(clone: str, recursive: bool) -> None:
    cloned = dataset(20, origin="tank/media@old")
    with ZfsHost.with_stand_in(state(**{clone: cloned})) as host:
        target = "tank/media" if recursive else "tank/media@old"
        refusal = error_of(host, "zfs.destroy", dataset=target, recursive=recursive)
        assert isinstance(refusal, ProtectedError)
        assert "clones" in refusal.detail
        own = host.inspect(operation("zfs.destroy", dataset=clone))
        assert "a clone of tank/media@old" in own.preview.details[0]


@pytest.mark.parametrize(
    "protected", ["zfs\n", "zfs (\n", "zfs [z\n", "zfs tank/vault\nzfs *(\n", "zfs"]
)
def test_a_list_that_cannot_be_understood_protects_everything(protected: str) -> None:
    with ZfsHost.with_stand_in(state(), protected) as host:
        for name, params, _ in CHANGES:
            assert isinstance(error_of(host, name, **params), ProtectedError)


def test_the_list_has_comments_other_adapters_and_a_last_line_without_an_end() -> None:
    with ZfsHost.with_stand_in(state(), "#zfs tank/.*\n\npct 101\n  zfs tank/vau.+") as host:
        host.inspect(operation("zfs.destroy", dataset="tank/media@old"))
        refused = error_of(host, "zfs.destroy", dataset="tank/vault@old")
        assert isinstance(refused, ProtectedError)


@pytest.mark.promise("c35")
@pytest.mark.parametrize(
    "spoil",
    [
        f"rm {PLACE}/protected",
        f"chmod g+w {PLACE}/protected",
        f"chmod o+w {PLACE}/protected",
        f"chown 65534 {PLACE}/protected",
        f"mv {PLACE}/protected {PLACE}/p; ln -s p {PLACE}/protected",
        f"rm {PLACE}/protected; mkdir {PLACE}/protected",
        f"rm {PLACE}/protected; mkfifo {PLACE}/protected",
    ],
)
def test_no_change_without_roots_own_list(host: ZfsHost, spoil: str) -> None:
    host.must("/bin/bash", "-c", spoil)
    before = host.datasets()
    for name, params, _ in CHANGES:
        assert isinstance(error_of(host, name, **params), ProtectedError)
        held: Mapping[str, JsonValue] = {"guid": "1", "state": STATE_HASH}
        assert host.perform(operation(name, **params), held).exit_code == 77
    assert changing_calls(host) == []
    assert host.datasets() == before
    assert len(names_of(host)) == 6  # reads go on


def test_patterns_match_whole_names() -> None:
    with ZfsHost.with_stand_in(state(), "zfs tank/med|media/a|ank/media\n") as host:
        assert host.perform(operation("zfs.destroy", dataset="tank/media@old")).exit_code == 0


# -- what was approved is what is changed ----------------------------------------------------------

EXCHANGES = [
    "s['tank/media@old']['guid'] += 1",
    "s['tank/media@old']['createtxg'] += 1000",
    "s['tank/media@old']['holds']['x'] = 'then'",
]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_snapshot_that_changed_since_is_not_destroyed(host: ZfsHost, exchange: str) -> None:
    asked = operation("zfs.destroy", dataset="tank/media@old")
    held = host.inspect(asked).precondition
    edit(host, exchange)
    output = host.perform(asked, held)
    assert output.exit_code == 75
    assert isinstance(asked.spec.failure(asked.params, output), TargetChangedError)
    assert changing_calls(host) == []


def edit(host: ZfsHost, statement: str) -> None:
    program = (
        "import json, pathlib; p = pathlib.Path('/run/openzfs/state.json');"
        "d = json.loads(p.read_text()); s = d['datasets'];"
        f"exec({statement!r}); p.write_text(json.dumps(d))"
    )
    host.must("/usr/bin/python3", "-c", program)


@pytest.mark.parametrize(
    "exchange",
    [
        *EXCHANGES,
        "s['tank/media/b'] = dict(s['tank/media/a'], guid=99)",
        "s['tank/media/a@new'] = dict(s['tank/media/a@old'], guid=98)",
        "del s['tank/media@new']",
        "s['tank/media/a']['guid'] += 1",
    ],
)
def test_a_recursive_destroy_is_bound_to_everything_that_it_takes(
    host: ZfsHost, exchange: str
) -> None:
    asked = operation("zfs.destroy", dataset="tank/media", recursive=True)
    held = host.inspect(asked).precondition
    assert host.inspect(asked).precondition == held
    edit(host, exchange)
    assert host.inspect(asked).precondition["state"] != held["state"]
    assert host.perform(asked, held).exit_code == 75
    assert changing_calls(host) == []


def test_sizes_and_order_are_no_part_of_what_was_approved(host: ZfsHost) -> None:
    asked = operation("zfs.destroy", dataset="tank/media", recursive=True)
    held = host.inspect(asked).precondition
    edit(host, "s['tank/media']['used'] = 1; s['tank/media']['referenced'] = 2")
    edit(host, "s['tank/media@old'] = s.pop('tank/media@old')")
    assert host.inspect(asked).precondition == held
    assert host.perform(asked, held).exit_code == 0


@pytest.mark.parametrize(
    ("name", "params"),
    [(name, params) for name, params, _ in CHANGES],
)
def test_every_change_is_bound_to_the_guid(
    host: ZfsHost, name: str, params: dict[str, JsonValue]
) -> None:
    asked = operation(name, **params)
    held = {**host.inspect(asked).precondition, "guid": "12345"}
    assert host.perform(asked, held).exit_code == 75
    assert changing_calls(host) == []


@pytest.mark.parametrize("below", [False, True])
def test_a_recursive_snapshot_destroy_does_not_take_datasets(host: ZfsHost, below: bool) -> None:
    target = "tank/media/a@old" if below else "tank/media@old"
    assert host.perform(operation("zfs.destroy", dataset=target, recursive=True)).exit_code == 0
    left = host.datasets()
    assert "tank/media/a" in left
    assert "tank/media/a@old" not in left
    assert "tank/vault@old" in left


# -- hostile arguments -----------------------------------------------------------------------------

GOOD_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "zfs-list": ("one", "filesystem,volume", "tank/media"),
    "zfs-get": ("used,org.example:x", "tank/media"),
    "zfs-snapshot": ("tank/media", "x", "one", "1", STATE_HASH),
    "zfs-hold": ("tank/media@old", "t", "1"),
    "zfs-release": ("tank/media@old", "t", "1"),
    "zfs-destroy": ("tank/media@old", "one", "1", STATE_HASH),
    "zfs-rollback": ("tank/media@old", "1", STATE_HASH),
    "zfs-inspect": ("destroy", "tank/media@old", "one"),
}
HOSTILE = [
    *("", " ", "-r", "-R", "--root=/", "-o", "--", "--help", "$(touch /run/canary)", "`id`"),
    *("a[$(touch /run/canary)]", "x;touch /run/canary", "x\ny", "*", "/*", "~root", "{a,b}"),
    *("${IFS}", "t\u0430nk/data", "tank/\u202ea", "tank/../x", "tank@a/b", "x%y", "x,y z", "08\n"),
    *("one recursive", "recursive\n", "a" * 300, "'", '"', "\\", "!!", "\x1b[2J"),
]


NO_NUMBERS = ["1e3", "0x10", "-1", "+1", "1" * 21, "a", "1.0"]


def test_every_wrapper_of_zfs_is_tried() -> None:
    assert {path.name for path in WRAPPERS.glob("zfs-*")} == set(GOOD_ARGUMENTS)


@pytest.mark.promise("c21")
@pytest.mark.parametrize("wrapper", GOOD_ARGUMENTS)
def test_a_hostile_argument_in_any_place_is_refused(host: ZfsHost, wrapper: str) -> None:
    good = GOOD_ARGUMENTS[wrapper]
    for place in range(len(good)):
        for hostile in HOSTILE + (NO_NUMBERS if good[place].isdigit() else []):
            arguments = (*good[:place], hostile, *good[place + 1 :])
            output = host.wrapper(wrapper, *arguments)
            assert output.exit_code == 64, (arguments, output.stderr)
            assert output.stdout == ""
    assert host.run("/usr/bin/test", "-e", "/run/canary").exit_code == 1
    assert host.run("/usr/bin/test", "-e", "/run/openzfs/argv").exit_code == 1  # zfs was not run


@pytest.mark.promise("c20")
@pytest.mark.parametrize("wrapper", GOOD_ARGUMENTS)
def test_another_number_of_arguments_is_refused(host: ZfsHost, wrapper: str) -> None:
    good = GOOD_ARGUMENTS[wrapper]
    for arguments in ((), good[:1], (*good, "tank/b"), (*good, "-R"), (*good, *good)):
        assert host.wrapper(wrapper, *arguments).exit_code == 64
    assert host.run("/usr/bin/test", "-e", "/run/openzfs/argv").exit_code == 1


@pytest.mark.promise("c34")
def test_nothing_of_the_environment_reaches_zfs(host: ZfsHost) -> None:
    hostile = {
        "BASH_ENV": "/run/evil",
        "ENV": "/run/evil",
        "LD_LIBRARY_PATH": "/run",
        "ZPOOL_SCRIPTS_PATH": "/run",
        "ZFS_COLOR": "1",
        "PATH": "/run",
        "IFS": "/",
        "LC_ALL": "de_DE.UTF-8",
        "SHELLOPTS": "xtrace",
        "variable": "x",
        "caller": "0",
        "dataset": "tank",
        "SUDO_UID": "1000",
    }
    host.must("/bin/bash", "-c", "echo 'touch /run/canary' >/run/evil")
    output = host.wrapper("zfs-list", "one", "filesystem", environment=hostile)
    assert output.exit_code == 0, output.stderr
    asked = operation("zfs.destroy", dataset="tank/media@old")
    assert asked.spec.inspect is not None
    arguments = asked.spec.inspect(asked.params).arguments
    output = host.wrapper("zfs-inspect", *arguments, environment=hostile)
    assert output.exit_code == 0, output.stderr
    assert host.run("/usr/bin/test", "-e", "/run/canary").exit_code == 1
    for environment in host.environments():
        assert set(environment) <= {"PATH", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
        assert environment["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin"
        assert environment["LC_ALL"] == "C"


def test_a_zfs_that_answers_in_another_form_is_no_ground_to_act_on(host: ZfsHost) -> None:
    for answer in ("x", "tank/media@old\ttype\tsnapshot", "a\tb\tc\n" * 7):
        replace_zfs(host, f"printf '%s' '{answer}'")
        assert host.wrapper("zfs-inspect", "destroy", "tank/media@old", "one").exit_code == 65


def test_a_zfs_that_is_not_there_is_told(host: ZfsHost) -> None:
    host.must("/bin/rm", "/usr/sbin/zfs")
    for wrapper, arguments in GOOD_ARGUMENTS.items():
        output = host.wrapper(wrapper, *arguments)
        assert output.exit_code == 69, wrapper
        assert "not installed" in output.stderr


def replace_zfs(host: ZfsHost, body: str) -> None:
    script = f"#!/bin/bash\n{body}\n"
    host.must(
        "/bin/bash", "-c", 'printf %s "$1" >/usr/sbin/zfs; chmod 755 /usr/sbin/zfs', "x", script
    )


@pytest.mark.promise("c37")
def test_a_wrapper_that_is_told_to_end_ends_a_zfs_that_resists(host: ZfsHost) -> None:
    replace_zfs(
        host, "[[ $1 != version ]] || exit 1\ntrap '' TERM\necho $$ >/run/pid\nsleep 60 &\nwait"
    )
    command = ["nsenter", f"--target={host.inside}", "--mount", "--pid", "--"]
    running = subprocess.Popen([*command, f"{PLACE}/zfs-list", "one", "filesystem"])
    try:
        wait_until(lambda: host.run("/usr/bin/test", "-s", "/run/pid").exit_code == 0)
        wrapper = int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text())
        Path(f"/proc/{wrapper}").stat()
        signal_to(wrapper, signal.SIGTERM)
        running.wait(timeout=PATIENCE)
    finally:
        running.kill()
        running.wait()
    pid = host.must("/bin/cat", "/run/pid").strip()
    wait_until(lambda: host.run("/bin/bash", "-c", f"kill -0 {pid}").exit_code == 1)


def signal_to(pid: int, number: signal.Signals) -> None:
    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, number)
    os.close(descriptor)


def wait_until(is_so: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end


def test_what_zfs_prints_on_failure_is_handed_on(host: ZfsHost) -> None:
    replace_zfs(
        host, "echo out; echo 'internal error: failed to initialize ZFS library' >&2; exit 1"
    )
    output: Output = host.wrapper("zfs-list", "one", "filesystem")
    asked = operation("zfs.list")
    assert output.exit_code == 1
    assert asked.spec.failure(asked.params, output).code == "adapter:unavailable"


# -- how it is run ---------------------------------------------------------------------------------


def put(host: ZfsHost, path: str, body: str) -> None:
    """Put a script in the place of a program."""
    host.must(
        *("/bin/bash", "-c", 'printf %s "$2" >"$3"; chmod 755 "$3"; mount --bind "$3" "$1"', "x"),
        *(path, f"#!/bin/bash\n{body}\n", f"/run/{path.rpartition('/')[2]}"),
    )


@pytest.mark.promise("c36")
@pytest.mark.parametrize(("name", "params", "call"), CHANGES)
def test_a_change_runs_in_a_bounded_scope_where_systemd_runs(
    host: ZfsHost, name: str, params: dict[str, JsonValue], call: list[str]
) -> None:
    host.must("/bin/mkdir", "-p", "/run/systemd/system")
    put(host, "/usr/bin/systemd-run", 'echo "$@" >/run/scoped; exec "${@:12}"')
    output = host.perform(operation(name, **params))
    assert output.exit_code == 0, output.stderr
    limits = "RuntimeMaxSec=300", "TimeoutStopSec=3", "TasksMax=64", "MemoryMax=1G"
    options = " ".join(("--quiet --scope --collect", *(f"-p {limit}" for limit in limits)))
    expected = f"{options} -- /usr/sbin/zfs {' '.join(call)}\n"
    assert host.must("/bin/cat", "/run/scoped") == expected


@pytest.mark.parametrize(("name", "params", "call"), CHANGES)
def test_what_mounts_runs_in_the_mount_namespace_of_process_1(
    host: ZfsHost, name: str, params: dict[str, JsonValue], call: list[str]
) -> None:
    asked = operation(name, **params)
    invocation = asked.spec.invoke(asked.params, host.inspect(asked).precondition)
    wrapper = f"{PLACE}/{invocation.wrapper}"
    output = host.run("unshare", "--mount", wrapper, *invocation.arguments)
    assert output.exit_code == 0, output.stderr
    last = host.must("/usr/bin/tail", "-n", "1", "/run/openzfs/argv")
    first_process = host.must("/bin/readlink", "/proc/1/ns/mnt").strip()
    assert json.loads(last)["argv"] == call
    mounts = name in {"zfs.destroy", "zfs.rollback"}
    assert (json.loads(last)["mounts"] == first_process) == mounts


@pytest.mark.promise("c32")
@pytest.mark.parametrize("wrapper", GOOD_ARGUMENTS)
def test_a_run_is_logged_once_with_the_user_that_sudo_names(host: ZfsHost, wrapper: str) -> None:
    put(host, "/usr/bin/logger", 'printf "%s\\n" "$*" >>/run/logged')
    arguments = GOOD_ARGUMENTS[wrapper]
    for uid in ("1000", "1000\nforged", "x", ""):
        host.wrapper(wrapper, *arguments, environment={"SUDO_UID": uid})
    host.wrapper(wrapper, *arguments)
    wait_until(lambda: host.run("/usr/bin/test", "-s", "/run/logged").exit_code == 0)
    expected = f"-t host-agent -p authpriv.notice -- uid 1000: {wrapper} {' '.join(arguments)}\n"
    assert host.must("/bin/cat", "/run/logged") == expected


def test_a_log_that_hangs_holds_nothing_up(host: ZfsHost) -> None:
    """Here not even the log's own limit ends it, so who waits for it waits for ever."""
    host.must("/bin/cp", "/usr/bin/timeout", "/run/timeout.real")
    put(
        host,
        "/usr/bin/timeout",
        """
        [[ $* == */usr/bin/logger* ]] || exec /run/timeout.real "$@"
        : >/run/logging
        until [[ -e /run/enough ]]; do sleep 0.1; done
        """,
    )
    output = host.wrapper("zfs-list", "one", "filesystem", environment={"SUDO_UID": "1000"})
    assert output.exit_code == 0
    wait_until(lambda: host.run("/usr/bin/test", "-e", "/run/logging").exit_code == 0)
    host.must("/usr/bin/touch", "/run/enough")


# -- the wrappers are alike ------------------------------------------------------------------------


def test_the_wrappers_share_their_head_to_the_byte() -> None:
    heads = set()
    for path in WRAPPERS.glob("zfs-*"):
        text = path.read_text()
        assert text.startswith("#!/bin/bash -p\n")
        start = text.index("set -euo pipefail")
        end = text.index("is_mode() {")
        heads.add(text[start:end])
    assert len(heads) == 1
