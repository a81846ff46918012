"""The table `[pct]`."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from host_agent.operations.section import Section

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


def range_patterns(first: int, last: int) -> tuple[str, ...]:
    """Return patterns of the decimal numbers from `first` to `last`, which have no leading zero."""
    found: list[str] = []
    while first <= last:
        step = 1  # so many numbers have one pattern: all that begin alike
        while first % (step * 10) == 0 and first + step * 10 - 1 <= last:
            step *= 10
        digits = len(str(step)) - 1
        lead = str(first)[: len(str(first)) - digits]
        times = min((last - first + 1) // step, 10 - int(lead[-1]))
        end = int(lead[-1]) + times - 1
        alike = lead[-1] if times == 1 else f"[{lead[-1]}-{end}]"
        found.append(f"{lead[:-1]}{alike}" + (f"[0-9]{{{digits}}}" if digits else ""))
        first += times * step
    return tuple(found)


class PctSection(Section):
    """The pct adapter: which containers may be touched."""

    vmids: Annotated[str, AfterValidator(_check_vmids)] = Field(
        description="VMIDs and ranges of them, as in `100-199,201`."
    )

    def covers(self, vmid: str) -> bool:
        """Return whether `vmid`, canonical digits, is in one of the ranges."""
        return any(first <= int(vmid) <= last for first, last in vmid_ranges(self.vmids))
