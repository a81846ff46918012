"""Plain files only, bounded, and written whole."""

import os
import stat
from pathlib import Path

import pytest

from host_agent.identity import files


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"data")

    assert files.read_plain(path) == b"data"


@pytest.mark.parametrize("kind", ["missing", "empty", "large", "link", "fifo", "folder", "device"])
def test_anything_else_is_refused_at_once_and_named(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "list"
    match kind:
        case "empty":
            path.touch()
        case "large":
            path.write_bytes(b"x" * 11)
        case "link":
            path.symlink_to(__file__)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()

    with pytest.raises(ValueError, match=str(path)):
        files.read_plain(path, limit=10)


def test_a_new_file_has_its_mode_from_the_first_instant(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        files.create(path, b"secret", mode=files.PRIVATE)
    finally:
        os.umask(before)

    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_creating_overwrites_nothing(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "key", tmp_path / "other"
    match kind:
        case "file":
            path.write_bytes(b"old")
        case "link":
            other.write_bytes(b"old")
            path.symlink_to(other)
        case "dangling":
            path.symlink_to(other)

    with pytest.raises(FileExistsError):
        files.create(path, b"new", mode=files.PRIVATE)

    assert not other.exists() or other.read_bytes() == b"old"
    assert path.is_symlink() or path.read_bytes() == b"old"


def test_replacing_leaves_no_other_file_behind(tmp_path: Path) -> None:
    path = tmp_path / "ca.crl"
    path.write_bytes(b"old")

    files.replace(path, b"new", mode=files.PUBLIC)

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["ca.crl"]


def test_a_failed_replacement_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "ca.crl"
    path.mkdir()
    (path / "held").touch()

    with pytest.raises(OSError, match=r"ca\.crl"):
        files.replace(path, b"new", mode=files.PUBLIC)

    assert [entry.name for entry in tmp_path.iterdir()] == ["ca.crl"]
