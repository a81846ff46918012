"""Both locks, installed by real pips while other releases of everything lie beside them."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from host_agent import __version__
from tests.support.locks import LOCK, SERVER_LOCK, Pin, pins
from tests.support.packaged import ROOT, build_wheel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RELEASES = ("pip==23.0.1", "pip")
"""What Debian 12 ships, and the newest."""
OPTIONS = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
"""As the Makefile and the how-to pages do it."""

EACH = pytest.mark.parametrize("lock", [LOCK, SERVER_LOCK], ids=lambda lock: lock.name)


@dataclass(frozen=True, slots=True)
class Pip:
    """A pip that installs into another environment."""

    program: Path
    environment: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it for that environment."""
        python = self.environment / "bin/python"
        return _run(self.program, "--python", python, *arguments)

    def installed(self) -> dict[str, str]:
        """Return the version of everything that is there."""
        packages = json.loads(self.run("list", "--format", "json").stdout)
        return {canonicalize_name(package["name"]): package["version"] for package in packages}


@pytest.fixture(scope="module", params=RELEASES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That release of pip."""
    home = tmp_path_factory.mktemp("pip")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    ended = _run(home / "bin/pip", "install", "--quiet", "--upgrade", request.param)
    if ended.returncode:
        pytest.skip(f"no index gives {request.param}: {ended.stderr.strip().splitlines()[-1]}")
    return home / "bin/pip"


@pytest.fixture
def pip(program: Path, tmp_path: Path) -> Pip:
    """That pip, in front of an empty environment."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    return Pip(program, environment)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a newer release of everything, and another one of the locked version."""
    directory = tmp_path_factory.mktemp("beside")
    for pin in pins(LOCK):
        _put_wheel(directory, pin, "9999.0")
        _put_wheel(directory, pin, pin.version)
    return directory


@pytest.fixture(scope="module")
def wheels() -> Path:
    """The wheels that the lock names: downloaded once, kept until the lock names others."""
    directory = ROOT / "build" / "wheels"
    if not _has_all(directory):
        ended = _run(
            *(sys.executable, "-m", "pip", "download", *OPTIONS, "--dest", directory, "-r", LOCK)
        )
        if ended.returncode:
            pytest.skip(f"no index gives the wheels: {ended.stderr.strip().splitlines()[-1]}")
        assert _has_all(directory)
    return directory


def _has_all(directory: Path) -> bool:
    found = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in directory.glob("*.whl")}
    return all(found.intersection(pin.hashes) for pin in _for_here(LOCK))


def _put_wheel(directory: Path, pin: Pin, version: str) -> None:
    """Write a wheel of that name and version, with nothing in it."""
    name = pin.name.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    extras = "".join(f"Provides-Extra: {extra}\n" for extra in pin.requirement.extras)
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {pin.name}\nVersion: {version}\n{extras}",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"},
    )


def _for_here(lock: Path) -> tuple[Pin, ...]:
    return tuple(
        pin
        for pin in pins(lock)
        if pin.requirement.marker is None or pin.requirement.marker.evaluate()
    )


@EACH
def test_a_lock_installs_what_it_names_whatever_lies_beside(
    pip: Pip, wheels: Path, beside: Path, lock: Path, tmp_path: Path
) -> None:
    places = ("--no-index", "--find-links", wheels, "--find-links", beside)
    ended = pip.run("install", *OPTIONS, *places, "-r", lock)
    assert ended.returncode == 0, ended.stderr
    ended = pip.run("install", "--no-deps", "--no-index", build_wheel(tmp_path))
    assert ended.returncode == 0, ended.stderr

    ended = pip.run("check")
    assert ended.returncode == 0, ended.stdout
    expected = {pin.name: pin.version for pin in _for_here(lock)} | {"host-agent": __version__}
    assert pip.installed() == expected
    ended = _run(pip.environment / "bin/host-agent", "--help")
    assert ended.returncode == 0, ended.stderr


def test_what_lies_beside_would_be_taken_without_the_lock(pip: Pip, beside: Path) -> None:
    """The twin: were the versions left open, each of those releases would be the one."""
    names = [pin.name for pin in _for_here(LOCK)]
    ended = pip.run("install", "--dry-run", "--no-index", "--find-links", beside, *names)
    assert ended.returncode == 0, ended.stderr
    (last,) = (line for line in ended.stdout.splitlines() if line.startswith("Would install"))
    assert last.count("-9999.0") == len(names)


@EACH
def test_other_bytes_of_the_locked_version_are_refused(pip: Pip, beside: Path, lock: Path) -> None:
    ended = pip.run("install", *OPTIONS, "--no-index", "--find-links", beside, "-r", lock)
    assert ended.returncode != 0
    assert "DO NOT MATCH THE HASHES" in ended.stderr
    assert pip.installed() == {}
