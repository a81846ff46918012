"""Programs of others, from the package registries with fixed versions, in a cache of their own.

It lies outside the checkout. Where no registry answers, the test that wants one is skipped.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE


def run(command: Sequence[str | Path], directory: Path, *, seconds: float = PATIENCE) -> str:
    """Run a program that must succeed, and return what it printed."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def cached(name: str, parts: Sequence[str], install: Sequence[Sequence[str]]) -> Path:
    """Return a directory with `parts` installed, kept from one run to the next.

    Each command of `install` runs in it; where one fails, the test is skipped with what it said.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    key = hashlib.sha256(" ".join((sys.version, *parts)).encode()).hexdigest()[:12]
    place = home / "host-agent-generators" / f"{name}-{key}"
    if place.exists():
        return place
    fresh = place.with_suffix(f".{os.getpid()}")
    fresh.mkdir(parents=True)
    for command in install:
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            pytest.skip(f"{name} cannot be installed: {done.stderr.strip()[-200:]}")
    fresh.rename(place)
    return place
