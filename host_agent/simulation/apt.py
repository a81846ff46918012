"""Packages in memory: installed or not, with what the sources have."""

from collections.abc import Iterator
from dataclasses import dataclass

from host_agent.simulation.stand_in import (
    MISSING,
    die,
    hashed,
    number,
    require_same,
    tabbed,
    unknown,
)


@dataclass(slots=True)
class SimulatedPackage:
    """A package; `installed` is None where it is not."""

    name: str
    candidate: str
    installed: str | None = None
    description: str = "a package of the simulation"

    def line(self) -> str:
        """What would change, as the wrapper tells it."""
        return f"{self.name} amd64 {self.installed or '-'} {self.candidate}"


class SimulatedApt:
    """What stands in for `wrappers/apt-*`. A package comes alone: it needs no other."""

    def __init__(self) -> None:
        self._packages = {
            package.name: package
            for package in (
                SimulatedPackage("web-server", "2.0", "1.0", "a web server"),
                SimulatedPackage("web-tool", "1.0", None, "a tool for the web server"),
                SimulatedPackage("curl", "8.14.1-2", "8.14.1-2", "command line tool for URLs"),
            )
        }

    def add(self, name: str) -> None:
        """Add a package that is installed and can be upgraded, where it is missing."""
        self._packages.setdefault(name, SimulatedPackage(name, "2.0", "1.0"))

    def answer(self, verb: str, arguments: tuple[str, ...]) -> str:
        """Return what `apt-VERB` prints."""
        match verb, arguments:
            case "list", (state,):
                return tabbed(
                    (one.name, "amd64", one.installed, one.candidate, "install")
                    for one in self._packages.values()
                    if one.installed and (state == "installed" or one.installed != one.candidate)
                )
            case "show", (name,):
                return tabbed(self._shown(self._one(name)))
            case "inspect", ("after", _, name):
                one = self._one(name)
                status = "installed" if one.installed else "not-installed"
                return tabbed([("status", status), ("version", one.installed or "")])
            case "inspect", (what, name):
                return tabbed(self._facts(what, self._one(name)))
            case (("install" | "upgrade"), (name, transaction)):
                one = self._one(name)
                require_same(transaction, hashed(one.line()))
                before, one.installed = one.installed, one.candidate
                return f"Setting up {name} ({one.candidate}) over ({before or 'none'}) ...\n"
            case _:
                raise unknown()

    def _one(self, name: str) -> SimulatedPackage:
        if name not in self._packages:
            die(MISSING, "no source has the package")
        return self._packages[name]

    def _shown(self, one: SimulatedPackage) -> Iterator[tuple[str, str]]:
        yield "want", "install"
        if one.installed:
            yield "installed", one.installed
        yield "candidate", one.candidate
        yield "source", f"500 https://deb.example.org simulated/main {one.candidate}"
        yield "Architecture", "amd64"
        yield "Description", one.description

    def _facts(self, what: str, one: SimulatedPackage) -> Iterator[tuple[str, object]]:
        if what == "install" and one.installed:
            die(1, "the package is installed already")
        if what == "upgrade" and not one.installed:
            die(1, "the package is not installed")
        if one.installed == one.candidate:
            die(1, "the package is at the newest version that the sources have")
        yield "change", one.line()
        yield "from", one.installed or "-"
        yield "to", one.candidate
        yield "bytes", number(one.name, 6)
        yield "transaction", hashed(one.line())
