"""The table `[apt]`."""

from pydantic import Field

from host_agent.operations.section import ListedPattern, PortablePattern, Section


class AptSection(Section):
    """The apt adapter: which packages may be worked on, and which are never changed."""

    packages: tuple[ListedPattern, ...] = Field(
        default=(),
        description="Regular expressions over whole package names, as in `nginx.*`, of what may be "
        "asked for. What such a package needs may come along. None: no apt operation.",
    )
    protected: tuple[PortablePattern, ...] = Field(
        default=(),
        description="The same, for packages that are neither installed nor upgraded, not even "
        "along with another. The agent's own always are. Nothing is ever removed.",
    )
