"""Do the locks name exactly what pyproject.toml asks for, for every supported Python?"""

import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.locks import (
    LOCK,
    ROOT,
    SERVER_EXTRAS,
    SERVER_LOCK,
    Pin,
    declared,
    environments,
    pins,
)

BOTH = pytest.mark.parametrize(
    ("lock", "extras"), [(LOCK, None), (SERVER_LOCK, SERVER_EXTRAS)], ids=["all", "server"]
)
EACH = pytest.mark.parametrize(
    "environment",
    tuple(environments()),
    ids=lambda environment: f"{environment['python_version']}-{environment['sys_platform']}",
)


def _holds(requirement: Requirement, environment: Mapping[str, str], extra: str = "") -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate({**environment, "extra": extra})


def _needed(
    lock: Path, extras: tuple[str, ...] | None, environment: Mapping[str, str]
) -> dict[str, list[Requirement]]:
    """Return who must be there, by name, and each requirement that says so."""
    locked = {pin.name: pin for pin in pins(lock) if _holds(pin.requirement, environment)}
    found: dict[str, list[Requirement]] = {}
    seen: set[tuple[str, str]] = set()
    todo = [wanted for wanted in declared(extras) if _holds(wanted, environment)]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        found.setdefault(name, []).append(wanted)
        assert name in locked, f"{wanted} is not in {lock.name}"
        for extra in ("", *wanted.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [
                    further
                    for further in _requirements(locked[name])
                    if _holds(further, environment, extra)
                ]
    return found


@functools.cache
def _requirements(pin: Pin) -> list[Requirement]:
    try:
        found = distribution(pin.name)
    except PackageNotFoundError:
        assert pin.requirement.marker is not None, f"{pin.name} is not installed"
        return []
    return [Requirement(line) for line in found.requires or ()]


def test_the_environment_is_the_lock() -> None:
    here = [pin for pin in pins(LOCK) if _holds(pin.requirement, {})]
    assert {pin.name: version(pin.name) for pin in here} == {pin.name: pin.version for pin in here}


@BOTH
@EACH
def test_every_requirement_is_locked_and_admitted(
    lock: Path, extras: tuple[str, ...] | None, environment: Mapping[str, str]
) -> None:
    locked = {pin.name: pin for pin in pins(lock)}
    for name, wanted in _needed(lock, extras, environment).items():
        for requirement in wanted:
            pin = locked[canonicalize_name(name)]
            assert requirement.specifier.contains(pin.version, prereleases=True), requirement


@BOTH
@EACH
def test_nothing_is_locked_that_nothing_needs(
    lock: Path, extras: tuple[str, ...] | None, environment: Mapping[str, str]
) -> None:
    needed = set(_needed(lock, extras, environment))
    assert needed == {pin.name for pin in pins(lock) if _holds(pin.requirement, environment)}


@BOTH
def test_extras_are_kept(lock: Path, extras: tuple[str, ...] | None) -> None:
    """An older pip resolves an extra anew, whatever the lock says, where the lock has lost it."""
    wanted: dict[str, set[str]] = {}
    for environment in environments():
        for name, requirements in _needed(lock, extras, environment).items():
            for requirement in requirements:
                wanted.setdefault(name, set()).update(requirement.extras)
    assert {pin.name: pin.requirement.extras for pin in pins(lock)} == {
        pin.name: wanted.get(pin.name, set()) for pin in pins(lock)
    }


@BOTH
def test_each_line_is_one_release_and_its_hashes(
    lock: Path, extras: tuple[str, ...] | None
) -> None:
    """No address, no index, no option: where the files come from is the machine's matter."""
    for pin in pins(lock):
        assert pin.hashes, pin.name
        assert not pin.rest, pin.rest
        assert pin.requirement.url is None
        assert Version(pin.version)
    names = [pin.name for pin in pins(lock)]
    assert names == sorted(set(names)), "one release each, for every Python"
    assert "://" not in lock.read_text()


def test_the_server_has_the_same_releases() -> None:
    everything = {pin.name: pin for pin in pins(LOCK)}
    for pin in pins(SERVER_LOCK):
        same = everything[pin.name]
        assert (pin.version, pin.hashes) == (same.version, same.hashes), pin.name


def test_the_server_has_no_tool_of_development() -> None:
    tools = {canonicalize_name(tool.name) for tool in declared(("dev",))}
    needed = {canonicalize_name(wanted.name) for wanted in declared(SERVER_EXTRAS)}
    assert not {pin.name for pin in pins(SERVER_LOCK)} & (tools - needed)


def test_an_upper_bound_has_its_reason_beside_it() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for requirement in declared():
        if _is_bounded(requirement.specifier):
            (line,) = (line for line in lines if line.strip().startswith(f'"{requirement.name}'))
            assert "#" in line, f"{requirement}: why not a newer one?"


def _is_bounded(specifier: SpecifierSet) -> bool:
    return any(part.operator in {"<", "<=", "==", "~=", "!="} for part in specifier)
