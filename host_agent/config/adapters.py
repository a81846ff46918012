"""The sections of the adapters that act on the host as root: what may be touched, and what never.

An empty allow-list means nothing. `protected` patterns are enforced twice, here and by the root
wrappers, so they are written in the part of regular expressions that Python and POSIX extended
regular expressions read alike.
"""

import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from host_agent.config.commands import check_path
from host_agent.config.values import (
    MAX_PATTERN_LENGTH,
    ArgumentName,
    CommandName,
    Fingerprint,
    ListedPattern,
    Pattern,
)

_PORTABLE = re.compile(
    r"(?:[A-Za-z0-9_:/@,()|.*+?-]|\\[.+*?()|\[\]]|\[[A-Za-z0-9_.:-]+\])+", re.ASCII
)


def _check_portable(pattern: str) -> str:
    is_portable = _PORTABLE.fullmatch(pattern) is not None and "(?" not in pattern
    if is_portable and re.search(r"[*+?][*+?]", re.sub(r"\\.", "", pattern)) is None:
        return pattern
    message = (
        "must be a pattern that the root wrappers read alike: letters, digits, _ : / @ , - . with"
        " * + ? ( ) | and [...], a backslash only before . + * ? ( ) | [ ]"
    )
    raise ValueError(message)


PortablePattern = Annotated[
    Pattern, StringConstraints(max_length=MAX_PATTERN_LENGTH), AfterValidator(_check_portable)
]
_VMID = r"[1-9][0-9]{2,8}"


def _check_vmids(text: str) -> str:
    if re.fullmatch(rf"{_VMID}(?:-{_VMID})?(?:,{_VMID}(?:-{_VMID})?)*", text, re.ASCII) is None:
        message = "must be VMIDs and ranges of them, as in 100-199,201"
        raise ValueError(message)
    for first, last in vmid_ranges(text):
        if first > last:
            message = f"has a range that runs backwards: {first}-{last}"
            raise ValueError(message)
    return text


def vmid_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of `100-199,201`, both ends included."""
    ends = [part.partition("-") for part in text.split(",")]
    return tuple((int(first), int(last or first)) for first, _, last in ends)


class _Section(BaseModel):
    """A section: frozen, strict, nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ZfsSection(_Section):
    """The zfs adapter: which datasets may be touched, and which are never destroyed."""

    datasets: tuple[ListedPattern, ...] = Field(
        default=(),
        description="Regular expressions over whole dataset names, matched on the part before `@`."
        " None: no zfs operation.",
    )
    protected: tuple[PortablePattern, ...] = Field(
        default=(),
        description="The same, for datasets that are never destroyed or rolled back, whatever the "
        "rules say. Pool roots always are.",
    )


class SystemdSection(_Section):
    """The systemd adapter: which units may be touched."""

    units: tuple[ListedPattern, ...] = Field(
        default=(),
        description="Regular expressions over whole unit names, as in `nginx\\.service`. None: no "
        "systemd operation. The units that the host needs to stay reachable are always protected.",
    )


class PctSection(_Section):
    """The pct adapter: which containers may be touched."""

    vmids: Annotated[str, AfterValidator(_check_vmids)] = Field(
        description="VMIDs and ranges of them, as in `100-199,201`."
    )

    def covers(self, vmid: str) -> bool:
        """Return whether `vmid`, canonical digits, is in one of the ranges."""
        return any(first <= int(vmid) <= last for first, last in vmid_ranges(self.vmids))


class Argument(_Section):
    """One argument of a registered command. All are needed; their order here is the program's."""

    name: ArgumentName = Field(
        description="What callers name it by: lower-case letters, digits and `_`, a letter first."
    )
    pattern: PortablePattern = Field(
        description="Regular expression that the whole value must match. Values are visible ASCII "
        "without spaces, at most 256 characters, and never begin with `-`."
    )


_Named = TypeVar("_Named", bound="Argument | Command")


def _no_name_twice(items: tuple[_Named, ...]) -> tuple[_Named, ...]:
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            message = f"names {name} twice"
            raise ValueError(message)
    return items


class Command(_Section):
    """A program that callers may have run as root, by the name it is registered under."""

    name: CommandName = Field(
        description="What rules and callers name it by: lower-case letters, digits and `-`, a "
        "letter first."
    )
    path: Annotated[str, AfterValidator(check_path)] = Field(
        description="The program: absolute, of root, and no symbolic link; nobody else may write "
        "it or a directory above it. Shells, interpreters, programs that run or write anything, "
        "and the tools of the other adapters are refused."
    )
    sha256: Fingerprint = Field(
        description="`sha256:` and the hash of the program's bytes; another program does not run."
    )
    effect: Literal["change", "destroy"] = Field(
        default="destroy",
        description="What approvers are told that it does. For rules and autonomy every command "
        "counts as `destroy`.",
    )
    arguments: Annotated[tuple[Argument, ...], AfterValidator(_no_name_twice)] = Field(
        default=(),
        description="Its arguments, in the order in which the program gets them. All are needed.",
    )


class ExecSection(_Section):
    """The exec adapter: programs that are registered one by one. None: nothing can be run."""

    commands: Annotated[tuple[Command, ...], AfterValidator(_no_name_twice)] = Field(
        default=(), description="The commands. None: no exec operation."
    )

    def command(self, name: str) -> Command | None:
        """Return the command that is registered as `name`."""
        return next((command for command in self.commands if command.name == name), None)
