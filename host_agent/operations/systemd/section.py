"""The table `[systemd]`."""

from pydantic import Field

from host_agent.operations.section import ListedPattern, Section


class SystemdSection(Section):
    """The systemd adapter: which units may be touched."""

    units: tuple[ListedPattern, ...] = Field(
        default=(),
        description="Regular expressions over whole unit names, as in `nginx\\.service`. None: no "
        "systemd operation. The units that the host needs to stay reachable are always protected.",
    )
