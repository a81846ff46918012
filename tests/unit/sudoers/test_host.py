"""What the host says of itself: who may write what, users, names."""

import os
from pathlib import Path

import pytest

from host_agent.sudoers.host import LiveHost


def test_a_file_of_another_than_root_can_be_changed(tmp_path: Path) -> None:
    command = tmp_path / "run"
    command.touch(mode=0o755)
    if os.geteuid() == 0:
        os.chown(command, 12345, 0)

    assert str(command) in (LiveHost().write_fault(str(command)) or "")


def test_a_name_that_is_not_there_can_be_made_by_who_writes_the_directory() -> None:
    assert LiveHost().write_fault("/tmp/not-there/run") == "/tmp is writable by everybody"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to own files")
@pytest.mark.root
def test_a_file_of_root_in_a_sticky_directory_is_safe_and_below_a_loose_one_is_not(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    command = folder / "run"
    command.touch(mode=0o755)

    assert LiveHost().write_fault(str(command)) is None
    folder.chmod(0o777)
    assert "writable by everybody" in (LiveHost().write_fault(str(command)) or "")
    folder.chmod(0o1777)
    assert LiveHost().write_fault(str(command)) is None
    os.chown(folder, 0, 12345)
    folder.chmod(0o775)
    assert "12345" in (LiveHost().write_fault(str(command)) or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to own files")
@pytest.mark.root
def test_a_link_is_followed_to_what_can_be_changed(tmp_path: Path) -> None:
    loose, link = tmp_path / "loose", tmp_path / "link"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "run").touch(mode=0o755)
    link.symlink_to(loose / "run")

    assert f"{loose} is writable" in (LiveHost().write_fault(str(link)) or "")


def test_users_are_found_with_their_groups_and_need_not_exist() -> None:
    root = LiveHost().subject("root")
    nobody = LiveHost().subject("no-such-user-here")

    assert root.uid == 0
    assert "root" in root.groups
    assert (nobody.uid, nobody.groups) == (None, frozenset({"no-such-user-here"}))


def test_the_host_has_names_and_no_loopback_address() -> None:
    assert os.uname().nodename.lower() in LiveHost().names
    assert "localhost" not in LiveHost().names
    assert not {"127.0.0.1", "::1"} & LiveHost().addresses
