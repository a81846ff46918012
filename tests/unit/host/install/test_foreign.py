"""What somebody else put where root's own files go is never an administrator's."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.host.install import layout
from host_agent.host.install.file_plan import foreign
from host_agent.host.install.transaction import StepFailedError
from host_agent.host.install.values import FileKind, Found, InstallationError
from tests.support.installing import Stand, picture, source

WRAPPER = f"{layout.WRAPPER_DIR}/zfs-list"


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    (tmp_path / "root").mkdir()
    return Stand(root=tmp_path / "root")


def found(**changed: object) -> Found:
    facts = {"digest": "a", "mode": 0o755, "uid": 0, "gid": 0, **changed}
    return Found(**facts)  # type: ignore[arg-type] # a table of a test


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (found(), None),
        (found(mode=0o640), None),
        (found(mode=0o775), None),  # of the group root
        (found(mode=0o755, gid=50), None),
        (found(digest=None, mode=0o777, link_to="/dev/null"), None),
        (found(digest=None, is_directory=True, mode=0o1777), None),
        (found(uid=1001), "belongs to uid 1001"),
        (found(mode=0o757), "can be written by everybody"),
        (found(mode=0o775, gid=50), "can be written by the group 50"),
        (found(digest=None, is_directory=True, mode=0o2775, gid=50), "can be written by the group"),
        (found(digest=None, mode=0o777, link_to="/home/m/zfs-list"), "is a symbolic link"),
        (found(digest=None, mode=0o777, link_to="/dev/null", uid=1001), "belongs to uid 1001"),
        (found(digest=None, mode=0o644), "is neither a file nor a directory"),
    ],
)
def test_what_is_not_surely_roots_is_said(there: Found, words: str | None) -> None:
    fault = foreign(there, uid=0, gid=0)

    assert fault is None if words is None else words in str(fault)


def loose(place: Path) -> None:
    place.write_text("#!/bin/sh\nid\n")
    place.chmod(0o777)


def linked(place: Path) -> None:
    theirs = place.parents[4] / "home" / "zfs-list"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("#!/bin/sh\nid\n")
    place.symlink_to("/home/zfs-list")


def piped(place: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("put", [loose, linked, piped])
@pytest.mark.parametrize("name", ["zfs-list", "protected", "unheard-of", "zfs-list.new"])
def test_it_stops_an_installation_before_anything_is_done(
    stand: Stand, put: Callable[[Path], None], name: str
) -> None:
    place = stand.at(f"{layout.WRAPPER_DIR}/{name}")
    place.parent.mkdir(parents=True)
    put(place)
    before = picture(stand.root)

    with pytest.raises(InstallationError, match=f"{layout.WRAPPER_DIR}/{name} .* take it away"):
        stand.install()

    assert picture(stand.root) == before
    assert stand.calls == []
    with pytest.raises(InstallationError):
        stand.install(is_dry=True)
    place.unlink()
    stand.install()
    assert stand.at(layout.SUDOERS).exists()


@pytest.mark.parametrize("put", [loose, linked, piped])
@pytest.mark.parametrize(
    "path", [layout.SUDOERS, layout.UNIT, layout.SYSUSERS, layout.TMPFILES, layout.LOGROTATE]
)
def test_nothing_is_granted_or_started_beside_it(
    stand: Stand, put: Callable[[Path], None], path: str
) -> None:
    place = stand.at(path)
    place.parent.mkdir(parents=True)
    put(place) if put is not linked else place.symlink_to("/home/x")
    before = picture(stand.root)

    with pytest.raises((StepFailedError, InstallationError), match=f"{path} .* take it away"):
        stand.install()

    assert picture(stand.root) == before


def test_what_others_could_have_open_is_made_anew(stand: Stand) -> None:
    stand.install()
    place = stand.at(WRAPPER)
    place.chmod(0o777)
    with place.open("r+b") as theirs:
        report = stand.install()
        theirs.write(b"#!/bin/sh\nid  ")

    assert [line.what for line in report.changes if line.kind is FileKind.ADJUSTED] == [
        f"{WRAPPER} (root:root 0755)"
    ]
    assert place.read_bytes() == source().wrappers["zfs-list"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "path",
    [
        *("/usr/local/lib", "/usr/local", "/usr", "/", layout.WRAPPER_DIR, "/etc/sudoers.d"),
        *("/etc", "/etc/systemd/system", f"{layout.UNIT}.d"),
    ],
)
def test_a_directory_on_the_way_that_others_can_write_stops_it(stand: Stand, path: str) -> None:
    stand.at(path).mkdir(parents=True, exist_ok=True)
    mode = stand.at(path).stat().st_mode
    stand.at(path).chmod(0o777)
    before = picture(stand.root)

    with pytest.raises(InstallationError, match=f"chmod go-w {path}"):
        stand.install()

    assert picture(stand.root) == before
    stand.at(path).chmod(mode)
    stand.install()


def test_a_drop_in_of_somebody_else_stops_it_and_roots_does_not(stand: Stand) -> None:
    place = stand.at(f"{layout.UNIT}.d/more.conf")
    place.parent.mkdir(parents=True)
    place.write_text("[Service]\nExecStartPre=/bin/true\n")
    stand.install()
    place.chmod(0o666)

    with pytest.raises(InstallationError, match=r"more\.conf can be written by everybody"):
        stand.install()


def test_what_root_has_there_is_left_alone(stand: Stand) -> None:
    place = stand.at(f"{layout.WRAPPER_DIR}/zfs-list.before")
    place.parent.mkdir(parents=True)
    place.write_text("an older one")
    (place.parent / "notes").mkdir()

    report = stand.install()

    assert place.read_text() == "an older one"
    assert not [line for line in report.changes if "before" in line.what]
