"""What pct is asked with: the grammar of every value that reaches a command line of root.

There is no parameter for a password, a file of the host, a mount point, a device, a hook or a
feature of the kernel: what pct would read as root, or lend to a container, cannot be asked for.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from host_agent.operations.catalogue import Parameters

_VMID = re.compile(r"[1-9][0-9]{2,8}", re.ASCII)
_LEAST_VMID, _GREATEST_VMID = 100, 999_999_999  # pct(1)
_STORAGE = r"[A-Za-z][A-Za-z0-9._-]{0,62}[A-Za-z0-9]"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_RESERVED_NAMES = frozenset({"current", "pending", "vzdump"})
MAX_HOSTNAME_LENGTH = 64
"""What the kernel takes for a host's name, less than RFC 1123 allows."""
MAX_MEBIBYTES = 4_194_304


def canonical_vmid(value: object) -> object:
    """Return an integer in the range of VMIDs as its digits, and everything else as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if _LEAST_VMID <= value <= _GREATEST_VMID else ""
    return value


def is_snapshot_name(text: str) -> bool:
    """Return whether pct takes `text` for the name of a snapshot, and does not use it itself."""
    is_name = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{1,39}", text, re.ASCII) is not None
    return is_name and text.lower() not in _RESERVED_NAMES


def is_template(text: str) -> bool:
    """Return whether `text` names an archive among the templates of a storage."""
    name = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\.(?:tar\.(?:gz|xz|zst|bz2)|tgz)"
    return re.fullmatch(f"{_STORAGE}:vztmpl/{name}", text, re.ASCII) is not None


def is_hostname(text: str) -> bool:
    """Return whether `text` is a host's name by RFC 1123, of at most 64 characters."""
    is_name = re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", text, re.ASCII) is not None
    return is_name and len(text) <= MAX_HOSTNAME_LENGTH


def _checked(pattern: str, sentence: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def _snapshot_name(text: str) -> str:
    if not is_snapshot_name(text):
        message = (
            "must be 2 to 40 letters, digits, '_' and '-', begin with a letter,"
            " and be none of current, pending, vzdump"
        )
        raise ValueError(message)
    return text


def _template(text: str) -> str:
    if not is_template(text):
        message = "must be STORAGE:vztmpl/NAME, a .tar.gz, .tar.xz, .tar.zst, .tar.bz2 or .tgz"
        raise ValueError(message)
    return text


def _hostname(text: str) -> str:
    if not is_hostname(text):
        message = "must be a host name: labels of letters, digits and inner '-', joined by '.'"
        raise ValueError(message)
    return text


_VMID_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "maxLength": 9, "pattern": "^[1-9][0-9]{2,8}$"},
        {"type": "integer", "minimum": _LEAST_VMID, "maximum": _GREATEST_VMID},
    ],
    "description": "The number of a container; a string of digits or an integer, the same.",
}

Vmid = Annotated[
    str,
    BeforeValidator(canonical_vmid),
    _checked(_VMID.pattern, "must be a VMID: 3 to 9 digits, the first of them not 0"),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(_VMID_SCHEMA),
]
SnapshotName = Annotated[
    str,
    StringConstraints(min_length=2, max_length=40),
    AfterValidator(_snapshot_name),
    Field(description="The name of a snapshot: letters, digits, `_`, `-`, a letter first."),
]
Template = Annotated[
    str,
    StringConstraints(max_length=255),
    AfterValidator(_template),
    Field(description="A template of a storage: `local:vztmpl/debian-12-standard.tar.zst`."),
]
Hostname = Annotated[
    str,
    StringConstraints(max_length=MAX_HOSTNAME_LENGTH),
    AfterValidator(_hostname),
    Field(description="The name of the host inside; left out, pct makes one of the VMID."),
]
Rootfs = Annotated[
    str,
    StringConstraints(max_length=80),
    _checked(f"{_STORAGE}:[1-9][0-9]{{0,4}}", "must be STORAGE:SIZE, the size in GiB"),
    Field(description="Where the root file system is made, and its size in GiB: `local-zfs:8`."),
]
Memory = Annotated[int, Field(ge=16, le=MAX_MEBIBYTES, description="Memory in MiB.")]
Swap = Annotated[int, Field(ge=0, le=MAX_MEBIBYTES, description="Swap in MiB.")]
Cores = Annotated[int, Field(ge=1, le=8192, description="How many cores it sees.")]


class ContainerListParameters(Parameters):
    """`list`: nothing; what it shows are the containers of the allow-list."""


class ContainerParameters(Parameters):
    """One container."""

    positional: ClassVar[tuple[str, ...]] = ("vmid",)
    phrases: ClassVar[Mapping[str, str]] = {"vmid": "container {}"}
    vmid: Vmid


class ContainerSnapshotParameters(ContainerParameters):
    """`snapshot`, `rollback`: one snapshot of one container."""

    positional: ClassVar[tuple[str, ...]] = ("vmid", "name")
    phrases: ClassVar[Mapping[str, str]] = {"vmid": "container {}", "name": ", snapshot {}"}
    name: SnapshotName


class CreateParameters(ContainerParameters):
    """`create`: an unprivileged container from a template, stopped and without a network."""

    positional: ClassVar[tuple[str, ...]] = (
        "vmid",
        "template",
        "hostname",
        "memory",
        "cores",
        "rootfs",
        "swap",
    )
    phrases: ClassVar[Mapping[str, str]] = {
        "vmid": "container {}",
        "hostname": ", named {}",
        "template": " from {}",
        "memory": ", {} MiB",
        "swap": ", swap {} MiB",
        "cores": ", {} cores",
        "rootfs": ", on {}",
    }
    template: Template
    hostname: Hostname | None = None
    memory: Memory | None = None
    cores: Cores | None = None
    rootfs: Rootfs | None = None
    swap: Swap | None = None

    def options(self) -> tuple[str, ...]:
        """Return what was given beside the template, as `pct-create` takes it."""
        names = ("hostname", "memory", "cores", "rootfs", "swap")
        given = ((name, getattr(self, name)) for name in names)
        return tuple(f"{name}={value}" for name, value in given if value is not None)
