"""All logical lines that sudo reads, in its order, each with the file and line where it begins.

Includes are followed as sudo follows them (sudoers(5), "Including other files"): `@include`,
`@includedir` and their older spelling with `#`, `%h`, quotes, relative paths; in a directory, names
that hold a dot or end in `~` are passed over. What is not recognised here as an include is left in
the text, where `cvtsudoers` meets it: it cannot get lost.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from host_agent.sudoers.reading import (
    MissingSourceError,
    SudoersDirectory,
    SudoersFile,
    SudoersSource,
    UnreadableSourceError,
)
from host_agent.sudoers.values import Origin, Severity, SudoersFinding, unknown

MAX_DEPTH = 64
MAX_FILES = 1000

_INCLUDE = re.compile(
    r'(?:[ \t]*@include(?P<dir>dir)?(?:[ \t]+|(?="))|\#include(?P<olddir>dir)?[ \t]+)'
    r'(?:"(?P<quoted>(?:[^"\\\r\n]|\\.)*)"|(?P<bare>[^"\s](?:\\[ \t]|\S)*))[ \t]*(?:\#.*)?\r?'
)
_COMMENT = re.compile(r"[ \t]*#(?!-?[0-9])")
_CONTINUED = re.compile(r"(?<!\\)(?:\\\\)*\\[ \t]*\r?$")
_QUOTED = re.compile(r'(?:\\"|[^"])*')
_UNQUOTED = re.compile(r'(?:\\.|[^"#\\]|\\$|\#(?=-?[0-9]))*')
"""What a quoted string, and what stands outside, goes on with; `#` begins no number, a comment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalLine:
    """One line of sudoers as sudo sees it, its continuation lines still in it."""

    origin: Origin
    text: str

    @property
    def is_blank(self) -> bool:
        """Return whether it is empty or a comment."""
        return not self.text.strip() or _COMMENT.match(self.text) is not None


def logical_lines(path: str, text: str) -> Iterator[LogicalLine]:
    """Yield the logical lines of one file."""
    start, parts, is_quoted = 1, list[str](), False
    for number, physical in enumerate(text.split("\n"), 1):
        if not parts:
            start, is_quoted = number, False
        parts.append(physical)
        is_comment, is_quoted = _scan(physical, is_quoted=is_quoted)
        if _CONTINUED.search(physical) and not is_comment:
            continue
        yield LogicalLine(origin=Origin(file=path, line=start), text="\n".join(parts))
        parts = []
    if parts:
        yield LogicalLine(origin=Origin(file=path, line=start), text="\n".join(parts))


def _scan(physical: str, *, is_quoted: bool) -> tuple[bool, bool]:
    """Return whether a line ends in a comment, and whether it ends between quotes.

    As sudo's scanner (toke.l): a comment runs to the end of its line, a backslash there included.
    """
    at = 0
    while True:
        part = _QUOTED if is_quoted else _UNQUOTED
        found = part.match(physical, at)
        at = found.end() if found is not None else at
        if at == len(physical):
            return False, is_quoted
        if physical[at] == "#":
            return True, False
        is_quoted, at = not is_quoted, at + 1


@dataclass(slots=True)
class Gathered:
    """What sudo reads: lines in order, and what was noticed on the way."""

    lines: list[LogicalLine] = field(default_factory=list)
    findings: list[SudoersFinding] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def gather(source: SudoersSource, path: str, host: str) -> Gathered:
    """Return everything that sudo reads when it begins at `path`; `host` is what `%h` means."""
    gathering = _Gathering(source, host.partition(".")[0])
    gathering.file(path, Origin(file=path, line=0), depth=0)
    return gathering.gathered


class _Gathering:
    def __init__(self, source: SudoersSource, short_host: str) -> None:
        self._source = source
        self._host = short_host
        self.gathered = Gathered()

    def file(self, path: str, asked: Origin, depth: int) -> None:
        if depth > MAX_DEPTH or len(self.gathered.files) >= MAX_FILES:
            reason = f"{path} is included too deeply, or is one file too many"
            self._unknown(asked.file, asked.line, reason)
            return
        try:
            file = self._source.file(path)
        except MissingSourceError:
            self._unknown(path, 0, f"{path} does not exist, and sudo stops at that")
            return
        except UnreadableSourceError as error:
            self._unknown(path, 0, f"{path} cannot be read: {error}")
            return
        self.gathered.files.append(path)
        if self._is_refused(file):
            return
        for line in logical_lines(path, file.text):
            include = _INCLUDE.fullmatch(line.text)
            if include is None:
                self.gathered.lines.append(line)
            elif include["dir"] or include["olddir"]:
                self._directory(self._expanded(include, path), line.origin, depth)
            else:
                self.file(self._expanded(include, path), line.origin, depth + 1)

    def _directory(self, path: str, asked: Origin, depth: int) -> None:
        path = path.rstrip("/") or "/"
        try:
            directory = self._source.directory(path)
        except MissingSourceError:
            return  # sudo passes it over too
        except UnreadableSourceError as error:
            self._unknown(path, 0, f"the directory {path} cannot be read: {error}")
            return
        if self._is_refused(directory):
            return
        for name in sorted(directory.names, key=os.fsencode):
            if "." not in name and not name.endswith("~"):
                self.file(f"{path}/{name}", asked, depth + 1)

    def _expanded(self, include: re.Match[str], path: str) -> str:
        written = include["quoted"] if include["quoted"] is not None else include["bare"]
        target = re.sub(r"\\(.)", r"\1", written).replace("%h", self._host)
        return target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"

    def _is_refused(self, read: SudoersFile | SudoersDirectory) -> bool:
        """Note what sudo refuses to read for its owner or mode: it grants nothing now."""
        if read.fault is None:
            return False
        self.gathered.findings.append(
            SudoersFinding(
                origin=Origin(file=read.path, line=0),
                rule="insecure-sudoers",
                severity=Severity.HIGH,
                reason=f"{read.path} {read.fault}: sudo passes it over, and who can write it may"
                " be able to change what sudo grants.",
                remedy=f"chown root:root {read.path}, and take away write permission of group and"
                " others, or remove it.",
            )
        )
        return True

    def _unknown(self, file: str, line: int, reason: str) -> None:
        remedy = (
            "Make it readable to this check (as root: `host-agent sudoers check`), or repair it."
        )
        self.gathered.findings.append(unknown(file, line, f"{reason}.", remedy))
