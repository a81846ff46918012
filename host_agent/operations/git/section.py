"""The table `[git]`: which repositories may be worked on, and how far."""

from typing import Annotated

from pydantic import AfterValidator, Field

from host_agent.operations.section import Pattern, Section, grammar


def _check_repository_path(path: str) -> str:
    """Hold the form that a `repository` parameter is compared with, byte by byte."""
    first, *parts = path.split("/")
    if first or not parts or not {"", ".", ".."}.isdisjoint(parts):
        message = "must be absolute, without '.', '..', '//' or a '/' at the end"
        raise ValueError(message)
    if not path.isascii() or not path.isprintable():
        message = "must be visible ASCII characters and spaces"
        raise ValueError(message)
    return path


RemoteName = Annotated[
    str,
    grammar(
        r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,99}", "must be the name of a remote, not a URL or pattern"
    ),
]
RepositoryPath = Annotated[str, AfterValidator(_check_repository_path)]


class Repository(Section):
    """One repository that may be worked on, and how far."""

    path: RepositoryPath = Field(
        description="Where it is: absolute, without `.`, `..`, `//` or a `/` at the end."
    )
    remotes: tuple[RemoteName, ...] = Field(
        default=(), description="Names of remotes that may be fetched from. None: no remote."
    )
    branches: tuple[Pattern, ...] = Field(
        default=(),
        description="Regular expressions over whole branch names. None: no branch.",
    )


class GitSection(Section):
    """The git adapter: its allow-list of repositories."""

    repositories: tuple[Repository, ...] = Field(
        default=(), description="The repositories. None: no git operation."
    )
