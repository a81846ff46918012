"""Sources: the disk, and what root's wrapper printed."""

import base64
import os
from pathlib import Path

import pytest

from host_agent.sudoers.reading import (
    FRAME_HEAD,
    MAX_FILE_BYTES,
    DiskSource,
    FrameError,
    FrameSource,
    MissingSourceError,
    UnreadableSourceError,
    insecurity,
)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def frame(*lines: str) -> str:
    return "\n".join([FRAME_HEAD, *lines, f"end {len(lines)}", ""])


FILE = f"file {encoded('/etc/sudoers')} 440 0 0 {encoded('root ALL=(ALL) ALL')}"
LIBRARY = f"directory {encoded('/etc/d')} 755 0 0"


def test_a_frame_gives_files_and_directories() -> None:
    inside = [f"file {encoded(f'/etc/d/{name}')} 440 0 0 {encoded(name)}" for name in ("b", "a")]
    source = FrameSource(frame(FILE, LIBRARY, *inside, f"missing {encoded('/etc/none')}"))

    assert source.file("/etc/sudoers").text == "root ALL=(ALL) ALL"
    assert source.directory("/etc/d").names == ("a", "b")
    assert source.file("/etc/d/a").text == "a"
    with pytest.raises(MissingSourceError):
        source.directory("/etc/none")


def test_an_empty_file_is_a_file() -> None:
    source = FrameSource(frame(f"file {encoded('/etc/sudoers')} 440 0 0 "))

    assert source.file("/etc/sudoers").text == ""


def test_what_a_frame_does_not_have_is_unreadable_not_missing() -> None:
    source = FrameSource(frame(FILE, f"unreadable {encoded('/etc/x')}"))

    for path in ("/etc/x", "/etc/y"):
        with pytest.raises(UnreadableSourceError):
            source.file(path)
    with pytest.raises(UnreadableSourceError):
        source.directory("/etc/d")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        FRAME_HEAD,
        f"{FRAME_HEAD}\n{FILE}\n",
        f"{FRAME_HEAD}\n{FILE}\nend 2\n",
        f"{FRAME_HEAD}\nend 0",
        f"{FRAME_HEAD}\nend 0\nend 1\nmore\n",
        frame(FILE)[:-20],
        frame("file"),
        frame(f"file {encoded('/etc/sudoers')} 999 0 0 "),
        frame(f"file {encoded('etc/sudoers')} 440 0 0 "),
        frame("file L2V0Yw== 440 0 0 a==="),
        frame("file L2V0Y 440 0 0 "),
        frame(f"missing {encoded('relative')}"),
    ],
)
def test_a_frame_that_is_cut_or_odd_is_refused(text: str) -> None:
    with pytest.raises(FrameError):
        FrameSource(text)


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "is_refused"),
    [
        (0o100440, 0, 0, False),
        (0o100644, 0, 5, False),
        (0o100664, 0, 0, False),
        (0o100664, 0, 5, True),
        (0o100646, 0, 0, True),
        (0o100440, 5, 0, True),
    ],
)
def test_what_sudo_refuses_for_owner_and_mode_is_known(
    mode: int, uid: int, gid: int, is_refused: bool
) -> None:
    assert (insecurity(mode, uid, gid) is not None) == is_refused


def test_the_disk_is_read_and_owners_do_not_count_in_a_trial(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"caf\xe9")
    (tmp_path / "a").chmod(0o666)
    (tmp_path / "sub").mkdir()

    file = DiskSource(is_trial=True).file(str(tmp_path / "a"))

    assert file.text.encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert file.fault is None
    assert DiskSource().file(str(tmp_path / "a")).fault is not None
    assert DiskSource(is_trial=True).directory(str(tmp_path)).names == ("a",)


def test_what_is_no_plain_file_of_text_is_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nul").write_bytes(b"a\0b")
    (tmp_path / "large").write_bytes(b"#" * (MAX_FILE_BYTES + 1))

    for name in ("fifo", "nul", "large", "."):
        with pytest.raises(UnreadableSourceError):
            DiskSource().file(str(tmp_path / name))
    with pytest.raises(MissingSourceError):
        DiskSource().file(str(tmp_path / "absent"))
    with pytest.raises(MissingSourceError):
        DiskSource().directory(str(tmp_path / "nul"))
