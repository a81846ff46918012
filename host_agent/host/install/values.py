"""What an installation works with: what should be there, what is, and what was done."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

from host_agent.operations.catalogue import Output


class InstallationError(Exception):
    """A step could not be done; the message is one sentence."""


class Tools(Protocol):
    """Runs a fixed tool of the host, by its short name."""

    def __call__(self, tool: str, *arguments: str) -> Output:
        """Run `tool` and return what it left behind.

        Raises:
            AdapterUnavailableError: it is not installed. Nothing ran.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedDirectory:
    """A directory as it should be."""

    path: str
    mode: int
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """A file as it should be. `check` looks at the finished file before it takes its place.

    `check` gets the path of the file under its temporary name and raises `InstallationError`.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int
    owner: str = "root"
    group: str = "root"
    check: Callable[[str], None] | None = None

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the content, in hexadecimal digits."""
        return digest_of(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is at a path now; `digest` is None for what is no plain file.

    `link_to` is where a symbolic link leads; its mode means nothing.
    """

    digest: str | None
    mode: int
    uid: int
    gid: int
    is_directory: bool = False
    link_to: str | None = None


class FileKind(StrEnum):
    """What became of one thing, in the word that a person reads."""

    MADE = "made"
    REPLACED = "replaced"
    ADJUSTED = "adjusted"
    KEPT = "kept"
    REMOVED = "removed"
    RAN = "ran"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One line of the report. Of `KEPT` and `SKIPPED` nothing was changed."""

    kind: FileKind
    what: str

    @property
    def is_change(self) -> bool:
        """Return whether the host is another one for it."""
        return self.kind not in (FileKind.KEPT, FileKind.SKIPPED)


@dataclass(slots=True, kw_only=True)
class InstallReport:
    """What was done, in order, and what a person should do next.

    `advice` comes before the service is started, `later` after it.
    """

    changes: list[FileChange] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)

    def add(self, kind: FileKind, what: str) -> None:
        self.changes.append(FileChange(kind=kind, what=what))

    @property
    def is_unchanged(self) -> bool:
        """Return whether nothing was changed."""
        return not any(change.is_change for change in self.changes)


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of `content`, in hexadecimal digits."""
    return sha256(content).hexdigest()
