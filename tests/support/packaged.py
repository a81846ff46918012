"""The program as it is shipped: a wheel of this checkout, and the packages that it needs.

Nothing is downloaded: the packages are those of the running environment, which came from the lock
file with their hashes. So whoever takes them needs the same version of Python.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
NAME = "host-agent"


def build_wheel(directory: Path) -> Path:
    """Build the wheel of this checkout into `directory` and return it."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--disable-pip-version-check"),
            *("--wheel-dir", directory, ROOT),
        ],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    (wheel,) = directory.glob("*.whl")
    return wheel


def needed() -> tuple[Distribution, ...]:
    """Return the packages that the program needs at run time, those that they need too."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(NAME, "")]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found[name] = found.get(name) or distribution(name)
        for wanted in _requirements(found[name], extra):
            for part in ("", *wanted.extras):
                todo.append((canonicalize_name(wanted.name), part))
    del found[NAME]
    return tuple(found.values())


def _requirements(package: Distribution, extra: str) -> Iterator[Requirement]:
    for line in package.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            yield wanted


def copy_needed(site_packages: Path) -> None:
    """Copy those packages into another environment's `site_packages`, with what is compiled."""
    for package in needed():
        for file in package.files or ():
            if ".." in file.parts:
                continue  # a console script
            target = site_packages / file
            source = Path(str(package.locate_file(file)))
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)


def prepare(directory: Path) -> Path:
    """Install the wheel of this checkout, and what it needs, below `directory`; return that."""
    wheel = build_wheel(directory)
    prefix = directory / "prefix"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--disable-pip-version-check", "--ignore-installed", "--prefix", prefix, wheel),
        ],
        check=True,
    )
    copy_needed(prefix / "lib" / f"python3.{sys.version_info.minor}" / "site-packages")
    return prefix
