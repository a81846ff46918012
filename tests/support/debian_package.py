"""The Debian package of this checkout, built by its own recipe in a root of each release."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.machine import Machine, Release, base_archive
from tests.support.packaged import ROOT

RECIPE = "systemd/deb/build"
_MADE_OF = (
    *("host_agent", "wrappers", "systemd", "sudoers", "docs", "pyproject.toml", "README.md"),
    *("LICENSE", "requirements-server.lock"),
)


def build(cache: Path, release: Release, *, source: Path = ROOT, out: Path | None = None) -> Path:
    """Build the package of `source` for `release` and return it; what is up to date stays.

    Raises:
        AssertionError: the recipe failed; the message has what it said.
    """
    done = subprocess.run(
        [
            *(source / RECIPE, release.suite, base_archive(cache, release)),
            cache / "packages" if out is None else out,
        ],
        cwd=source,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "XDG_CACHE_HOME": str(cache.parent),
            "COMPRESSION": "-Znone",  # a test reads it once
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return source / done.stdout.splitlines()[-1]


def wheels(cache: Path, machine: Machine) -> Path:
    """Return the archive of the wheels that the server's lock names, for the machine's Python.

    A package that was built for its release left it.
    """
    version = machine.must("python3", "-c", "import sys; print(*sys.version_info[:2], sep='')")
    lock = hashlib.sha256((ROOT / "requirements-server.lock").read_bytes()).hexdigest()[:16]
    return cache / f"wheels-cp{version.strip()}-{lock}.tar"


def next_version(directory: Path, *, wrapper: str) -> Path:
    """Copy this checkout to `directory` as a later version, with `wrapper` changed; return it."""
    directory.mkdir()
    for name in _MADE_OF:
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(
                place, directory / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True
            )
        else:
            shutil.copy2(place, directory / name)
    initial = directory / "host_agent/__init__.py"
    text = initial.read_text(encoding="utf-8")
    fresh, count = re.subn(
        r'^__version__ = ".*"$', '__version__ = "99.0"', text, flags=re.MULTILINE
    )
    assert count == 1
    initial.write_text(fresh, encoding="utf-8")
    with (directory / "wrappers" / wrapper).open("a", encoding="utf-8") as stream:
        stream.write("# Another byte makes another wrapper.\n")
    return directory
