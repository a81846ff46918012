"""The wrappers are what their parts make, and nothing but wrappers is shipped."""

import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from host_agent.host.install.source import read_source
from tests.support.pages import REPOSITORY
from tests.support.wrapper_parts import (
    PREAMBLE,
    WRAPPERS,
    differences,
    made,
    read_parts,
    render,
    write,
)

PARTS = WRAPPERS / "parts"
SHIPPED = "share/host-agent/wrappers/"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRAPPERS, tmp_path / "wrappers"))


def test_the_wrappers_are_what_their_parts_make() -> None:
    assert list(differences()) == [], "run `make wrappers`"
    assert len(made()) > 30


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: replaced(folder / "git", "umask 022", "umask 002"), ["git is not what"]),
        (lambda folder: replaced(folder / "git", "set -f", "set  -f"), ["git is not what"]),
        (lambda folder: (folder / "zfs-get").unlink(), ["zfs-get is missing"]),
        (lambda folder: (folder / "zfs-get").chmod(0o644), ["zfs-get is not executable"]),
        (lambda folder: (folder / "zfs-set").touch(), ["zfs-set is made by no part"]),
        (lambda folder: linked(folder / "zfs-get"), ["zfs-get is not what"]),
        (
            lambda folder: replaced(folder / "parts" / "zfs-hold.in", "hold", "release"),
            ["zfs-hold is not what"],
        ),
        (
            lambda folder: replaced(folder / "parts" / "zfs-holding.sh", "300", "301"),
            ["zfs-hold is not what", "zfs-release is not what"],
        ),
    ],
)
def test_what_was_edited_by_hand_is_told_and_made_anew(
    copied: Path, spoil: Callable[[Path], None], said: list[str]
) -> None:
    assert list(differences(copied)) == []
    spoil(copied)
    found = list(differences(copied))
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(sorted(found), said, strict=True))

    (copied / "zfs-set").unlink(missing_ok=True)  # what nothing makes is for a person to take away
    write(copied)
    assert list(differences(copied)) == []


def linked(path: Path) -> None:
    aside = path.parent / "parts" / path.name
    path.rename(aside)
    path.symlink_to(aside)


def test_every_wrapper_begins_with_the_one_preamble() -> None:
    preamble = f"#begin {PREAMBLE}\n{read_parts()[PREAMBLE]}#end {PREAMBLE}\n"
    for name, text in made().items():
        assert text.startswith("#!/bin/bash -p\n"), name
        before, _, rest = text.partition(preamble)
        assert rest, name
        assert all(line.startswith("#") for line in before.splitlines()), name


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("#!/bin/bash -p\nexit 0\n#include preamble\n", "only comments stand before"),
        (
            "#!/bin/bash -p\n#include log\n#include preamble\n",
            "log is unknown, repeated, or before",
        ),
        ("#!/bin/bash -p\n#include preamble\n#include preamble\n", "unknown, repeated, or before"),
        ("#!/bin/bash -p\n#include preamble\n#include lgo\n", "lgo is unknown"),
        ("#!/bin/bash -p\n", "it has no preamble"),
    ],
)
def test_a_source_without_the_preamble_first_makes_nothing(source: str, fault: str) -> None:
    parts = read_parts()
    assert render("x", "#!/bin/bash -p\n#include preamble\n#include log\n", parts)
    with pytest.raises(ValueError, match=fault):
        render("x", source, parts)


def test_a_part_includes_none(copied: Path) -> None:
    with (copied / "parts" / "log.sh").open("a") as part:
        part.write("#include zfs\n")
    with pytest.raises(ValueError, match="a part includes nothing"):
        made(copied)


def test_a_part_is_what_several_wrappers_say() -> None:
    texts = made().values()
    for part in read_parts():
        assert sum(f"#begin {part}\n" in text for text in texts) > 1, part


def test_a_wrapper_runs_the_text_of_no_other_file() -> None:
    sourcing = re.compile(r"^\s*(source|\.|eval|bash|sh)\s", re.MULTILINE)
    assert sourcing.search("  source x\n")
    assert [name for name, text in made().items() if sourcing.search(text)] == []


def test_the_page_names_every_part() -> None:
    rows = [line for line in (PARTS / "README.md").read_text().splitlines() if line[:3] == "| `"]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])}
    assert named == read_parts().keys()


def test_no_part_can_be_started() -> None:
    for path in filter(Path.is_file, PARTS.iterdir()):
        assert not path.stat().st_mode & 0o111, path.name
        assert path.suffix in {".in", ".sh", ".py", ".md"}
        assert path.suffix != ".sh" or not path.read_bytes().startswith(b"#!")


# -- what is shipped -------------------------------------------------------------------------------


def test_what_is_installed_is_the_wrappers_and_no_part() -> None:
    assert read_source().wrappers == {name: text.encode() for name, text in made().items()}


def test_the_built_package_has_the_wrappers_and_no_part(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            _, is_shipped, name = entry.filename.partition(SHIPPED)
            if is_shipped:
                found[name] = (archive.read(entry), stat.S_IMODE(entry.external_attr >> 16))
    assert found == {name: (text.encode(), 0o755) for name, text in made().items()}
