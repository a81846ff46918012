"""A package repository of the tests' own: packages by dpkg-deb, an index, a key, a signature."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.support.machine import Machine

ORIGIN = "Tests"
SOURCE = "/srv/packages"
"""Where it lies on a machine."""
_KEY = "/etc/apt/keyrings/tests.asc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package to build. `fields` are further lines of its control file."""

    name: str
    version: str
    architecture: str = "all"
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Contents by absolute path; those below /etc are its configuration files."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """Maintainer scripts by name: `postinst` and its like."""

    @property
    def file(self) -> str:
        """Return the name of the file that it is in."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


class PackageRepository:
    """A directory that apt takes as a flat repository, signed with a key made here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "repository"
        self.directory.mkdir()
        self._work = directory / "work"
        self._work.mkdir()
        self._home = directory / "gpg"
        self._home.mkdir(mode=0o700)
        self._gpg("--quick-generate-key", "Tests of host-agent", "ed25519", "sign", "1d")
        self.key = self._gpg("--armor", "--export")

    def _gpg(self, *arguments: str) -> str:
        done = subprocess.run(
            ["gpg", "--batch", "--no-tty", "--pinentry-mode=loopback", "--passphrase=", *arguments],
            env={"GNUPGHOME": str(self._home), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def close(self) -> None:
        """End the agent that keeps the key."""
        subprocess.run(
            ["gpgconf", "--homedir", str(self._home), "--kill", "gpg-agent"], check=False
        )

    def configure(self, machine: Machine) -> None:
        """Make this the one source of a machine; its index is not read yet."""
        machine.must("mkdir", "-p", SOURCE)
        machine.must("bash", "-c", "rm -rf /etc/apt/sources.list.d/*")
        machine.write(_KEY, self.key)
        machine.write("/etc/apt/sources.list", f"deb [signed-by={_KEY}] file:{SOURCE} ./\n")

    def show(self, machine: Machine) -> None:
        """Let a configured machine have the packages as they are now, and read their index."""
        place = machine.path(SOURCE)
        for file in place.iterdir():
            file.unlink()
        for file in self.directory.iterdir():
            shutil.copy(file, place / file.name)
        machine.must("apt-get", "-q", "update", timeout=120)

    def build(self, package: Package) -> Path:
        """Build one package and return its file, which is not in the repository yet."""
        root = self._work / "root"
        shutil.rmtree(root, ignore_errors=True)
        control = {
            "Package": package.name,
            "Version": package.version,
            "Architecture": package.architecture,
            "Maintainer": "Tests <tests@example.org>",
            "Section": "misc",
            "Priority": "optional",
            "Description": f"{package.name} of the tests",
            **package.fields,
        }
        (root / "DEBIAN").mkdir(parents=True)
        lines = "".join(f"{name}: {value}\n" for name, value in control.items())
        (root / "DEBIAN/control").write_text(lines)
        for path, content in package.files.items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        kept = [path for path in package.files if path.startswith("/etc/")]
        if kept:
            (root / "DEBIAN/conffiles").write_text("".join(f"{path}\n" for path in kept))
        for name, script in package.scripts.items():
            place = root / "DEBIAN" / name
            place.write_text(f"#!/bin/sh\nset -e\n{script}\n")
            place.chmod(0o755)
        made = self._work / package.file
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(made)],
            check=True,
            capture_output=True,
        )
        return made

    def publish(self, *packages: Package) -> None:
        """Build `packages`, add them to what is there, and sign the new index."""
        for package in packages:
            self.build(package).rename(self.directory / package.file)
        self.index()

    def withdraw(self, *packages: Package) -> None:
        """Take packages out of the repository, and sign the new index."""
        for package in packages:
            (self.directory / package.file).unlink()
        self.index()

    def index(self) -> None:
        """Write `Packages`, `Release` and `InRelease` for the packages that are there."""
        entries = [self.entry(file) for file in sorted(self.directory.glob("*.deb"))]
        content = "\n".join(entries)
        (self.directory / "Packages").write_text(content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        now = datetime.now(UTC)
        release = (
            f"Origin: {ORIGIN}\nLabel: {ORIGIN}\nSuite: stable\nCodename: tests\n"
            f"Date: {now:%a, %d %b %Y %H:%M:%S} UTC\n"
            f"SHA256:\n {digest} {len(content.encode())} Packages\n"
        )
        (self.directory / "Release").write_text(release)
        signed = self.directory / "InRelease"
        signed.unlink(missing_ok=True)
        self._gpg("--clearsign", "--output", str(signed), str(self.directory / "Release"))

    def entry(self, file: Path) -> str:
        """Return what an index says of one package."""
        told = subprocess.run(
            ["dpkg-deb", "--field", str(file)], check=True, capture_output=True, text=True
        )
        content = file.read_bytes()
        return (
            f"{told.stdout.rstrip()}\nFilename: ./{file.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
