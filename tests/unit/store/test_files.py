"""The store's files: what is made, what is noticed, and what never makes trouble."""

import os
import stat
from pathlib import Path

import pytest

from host_agent.store.files import FilesChangedError, StoreFiles


@pytest.fixture
def files(tmp_path: Path) -> StoreFiles:
    files = StoreFiles(tmp_path / "state" / "x.db")
    files.prepare()
    files.journal.touch()
    return files


def test_existing_modes_are_left_to_the_permission_check(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch(0o644)
    path.chmod(0o644)
    StoreFiles(path).prepare()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_count_goes_up_with_the_commits(files: StoreFiles) -> None:
    files.watch(0)
    files.committed(7)
    files.committed(8)
    files.close()
    again = StoreFiles(files.path)
    again.watch(8)
    again.close()
    ahead = StoreFiles(files.path)
    ahead.watch(9)
    ahead.close()


@pytest.mark.promise("c46")
def test_fewer_commits_than_counted_is_an_older_copy(files: StoreFiles) -> None:
    files.watch(0)
    files.committed(8)
    files.close()
    older = StoreFiles(files.path)
    with pytest.raises(FilesChangedError, match="older copy"):
        older.watch(7)
    older.close()


@pytest.mark.parametrize("content", [b"", b"12", b"x" * 21, b"-0000000000000000001\n"])
def test_count_that_is_no_number_counts_for_nothing(files: StoreFiles, content: bytes) -> None:
    files.count.write_bytes(content)
    files.watch(0)
    files.close()


def test_a_count_that_is_no_file_is_refused(files: StoreFiles) -> None:
    os.mkfifo(files.count)
    with pytest.raises(FilesChangedError, match="not a regular file"):
        files.watch(0)
    files.count.unlink()
    files.watch(0)
    files.close()


def test_symlinked_count_is_refused(files: StoreFiles, tmp_path: Path) -> None:
    files.count.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        files.watch(0)


@pytest.mark.promise("c46")
@pytest.mark.parametrize("name", ["path", "journal"])
def test_missing_or_replaced_file_is_noticed(files: StoreFiles, name: str) -> None:
    path: Path = getattr(files, name)
    files.watch(0)
    files.check()
    kept = path.with_name("kept")
    path.rename(kept)
    with pytest.raises(FilesChangedError, match="gone"):
        files.check()
    path.touch()
    with pytest.raises(FilesChangedError, match="replaced"):
        files.check()
    kept.replace(path)
    files.check()
    files.close()


def test_closed_files_count_nothing(files: StoreFiles) -> None:
    files.watch(0)
    files.close()
    files.close()
    files.committed(3)
    assert files.count.read_bytes() == b""
