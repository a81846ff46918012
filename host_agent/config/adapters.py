"""The sections of the adapters that act on the host as root: what may be touched, and what never.

An empty allow-list means nothing. `protected` patterns are enforced twice, here and by the root
wrappers, so they are written in the part of regular expressions that Python and POSIX extended
regular expressions read alike.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from host_agent.config.values import MAX_PATTERN_LENGTH, Pattern

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

    datasets: tuple[Pattern, ...] = Field(
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

    units: tuple[Pattern, ...] = Field(
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
