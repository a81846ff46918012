"""The table `[zfs]`."""

from pydantic import Field

from host_agent.operations.section import ListedPattern, PortablePattern, Section


class ZfsSection(Section):
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
