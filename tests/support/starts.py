"""What a start of a unit would start, by systemd's own word on a booted machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from host_agent.operations.systemd.adapter import is_brought, is_protected
from tests.support.installed import WRAPPERS
from tests.support.machine import Machine

LIST = f"{WRAPPERS}/allowed"
PULLS = (
    "Requires",
    "Requisite",
    "BindsTo",
    "Wants",
    "Upholds",
    "Triggers",
    "OnSuccess",
    "OnFailure",
)
_UNITS = "/run/systemd/system"
_KEPT = "/run/allowed.kept"
_EVERY_UNIT = "version 1\nnames systemd .*\nnames systemd .*\\.target\nallowed systemd.*\n"


def targets(machine: Machine) -> list[str]:
    """Return the name of every target that ships with the machine's systemd."""
    files = machine.must(
        *("systemctl", "list-unit-files", "--type=target", "--no-legend", "--no-pager", "--full")
    )
    return [line.split()[0] for line in files.splitlines() if "@." not in line.split()[0]]


def active_targets(machine: Machine) -> str:
    """Return the targets that are up: a start of any target would add one."""
    return machine.must(
        *("systemctl", "list-units", "--type=target", "--state=active", "--plain", "--no-legend")
    )


def reaches_protected(machine: Machine, target: str) -> str | None:
    """Return a protected unit that a start of `target` would start, by a walk of the tests' own."""
    seen, level = set[str](), [target]
    while level:
        found = _shown(machine, level)
        level = []
        for name, facts in found.items():
            is_up = facts["ActiveState"] not in ("inactive", "failed")
            if (is_up or facts["LoadState"] in ("not-found", "masked")) and name != target:
                continue
            names = {facts["Id"], *facts["Names"].split()}
            if any(is_protected(one) and not is_brought(one) for one in names):
                return facts["Id"]
            level += [one for edge in PULLS for one in facts.get(edge, "").split()]
        level = [one for one in dict.fromkeys(level) if one not in seen]
        seen.update(level)
    return None


def _shown(machine: Machine, names: list[str]) -> dict[str, dict[str, str]]:
    """Return properties of units, by the name that was asked for."""
    asked = ",".join((*PULLS, "Id", "Names", "ActiveState", "LoadState"))
    text = machine.must("systemctl", "show", f"--property={asked}", "--", *names)
    blocks = [
        dict(line.partition("=")[::2] for line in block.splitlines())
        for block in text.strip("\n").split("\n\n")
    ]
    return dict(zip(names, blocks, strict=True))


@contextmanager
def every_unit(machine: Machine) -> Iterator[None]:
    """Let root's list name every unit, so that only the walk is left to refuse anything."""
    machine.must("cp", "-a", LIST, _KEPT)
    try:
        machine.write(LIST, _EVERY_UNIT)
        yield
    finally:
        machine.must("cp", "-a", _KEPT, LIST)


@contextmanager
def units(machine: Machine, files: Mapping[str, str]) -> Iterator[None]:
    """Have units of these names and texts for a while; at the end they are stopped and gone."""
    try:
        for name, text in files.items():
            machine.write(f"{_UNITS}/{name}", text)
        machine.must("systemctl", "daemon-reload")
        yield
    finally:
        machine.run("systemctl", "stop", "--", *files)
        machine.must("rm", "-f", "--", *(f"{_UNITS}/{name}" for name in files))
        machine.must("systemctl", "daemon-reload")
