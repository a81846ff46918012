"""The two lock files, read as pip reads them, and the environments that they are for."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
SERVER_LOCK = ROOT / "requirements-server.lock"
SERVER_EXTRAS = ("signal", "notify")
"""A channel that the configuration can name must work from what was locked."""
_MINORS = (11, 12, 13, 14)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a lock, its continuations included."""

    requirement: Requirement
    hashes: tuple[str, ...]
    rest: str
    """What is neither requirement nor hash; nothing, in a lock that is right."""

    @property
    def name(self) -> NormalizedName:
        """Return the name as an index compares it."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """Return the one version that it admits."""
        (specifier,) = self.requirement.specifier
        assert specifier.operator == "==", self.requirement
        return specifier.version


def pins(lock: Path) -> tuple[Pin, ...]:
    """Return the pins of a lock, in its order."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    return tuple(map(_pin, "\n".join(lines).replace("\\\n", " ").splitlines()))


def _pin(line: str) -> Pin:
    requirement, *options = line.split(" --")
    text = " ".join(f"--{option.strip()}" for option in options)
    return Pin(
        Requirement(requirement.strip()),
        tuple(_HASH.findall(text)),
        _HASH.sub("", text).strip(),
    )


def declared(extras: tuple[str, ...] | None = None) -> tuple[Requirement, ...]:
    """Return what pyproject.toml asks for, with these extras; all of them where None."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = list(project["dependencies"])
    for extra in optional if extras is None else extras:
        lines += optional[extra]
    return tuple(map(Requirement, lines))


def environments() -> Iterator[Mapping[str, str]]:
    """Yield the marker environments of each supported Python, on each system that pip knows."""
    for minor in _MINORS:
        for system, platform, name in (
            ("linux", "Linux", "posix"),
            ("darwin", "Darwin", "posix"),
            ("win32", "Windows", "nt"),
        ):
            yield {
                "python_version": f"3.{minor}",
                "python_full_version": f"3.{minor}.4",
                "implementation_version": f"3.{minor}.4",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
                "platform_system": platform,
                "sys_platform": system,
                "os_name": name,
                "platform_machine": "x86_64",
                "platform_release": "",
                "platform_version": "",
                "extra": "",
            }
