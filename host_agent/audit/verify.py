"""Says of audit files whether they are what was written, and whether all of it is there.

Integrity: every line is canonical, has the hash of its content, and links to the line before.
Completeness: the sequences have no gap, and a hash that was kept elsewhere is in the chain. The
second question cannot be answered from the files alone: whoever can write them can cut the end off,
or compute the whole chain anew, and only `head` shows it.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

from host_agent.audit.record import GENESIS, Event, Link, NotARecordError, Record, read
from host_agent.text import HASH_PREFIX, SHA256

MAX_LINE_BYTES = 1_048_576
MAX_FINDINGS = 1_000
"""No more findings are kept than this; all are counted."""

_CHUNK_BYTES = 1_048_576
_REPAIRS = tuple(
    f'{{"cause":"{cause}","event":"{Event.AUDIT_RECOVERED}","hash":"{HASH_PREFIX}'.encode()
    for cause in ("torn", "write-failed")
)
_HEAD = re.compile(f"(?:{HASH_PREFIX})?({SHA256})")


class NotAnAuditFileError(Exception):
    """A file cannot be read, or holds no audit record (exit status 65); the message says which."""


class Concern(StrEnum):
    """What a finding is about."""

    INTEGRITY = "integrity"
    COMPLETENESS = "completeness"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFinding:
    """One thing that is wrong: where, at which sequence of the chain, and what."""

    concern: Concern
    sequence: int
    file: str
    line: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Torn:
    """Bytes that a crash or a failed write left where record `sequence` would have been."""

    sequence: int
    file: str
    line: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The records of one file; both None where it has none."""

    file: str
    first: int | None
    last: int | None


@dataclass(slots=True, kw_only=True)
class ChainReport:
    """What was seen. `head` is the newest hash, `head_sequence` where the asked-for one was."""

    files: list[Span] = field(default_factory=list)
    records: int = 0
    first: int | None = None
    last: int | None = None
    head: str = GENESIS
    head_sequence: int | None = None
    torn: list[Torn] = field(default_factory=list)
    findings: list[ChainFinding] = field(default_factory=list)
    found: int = 0
    concerns: set[Concern] = field(default_factory=set)

    @property
    def first_bad(self) -> int | None:
        """Return the lowest sequence at which something is wrong."""
        return min((finding.sequence for finding in self.findings), default=None)

    def is_clean(self, concern: Concern) -> bool:
        """Return whether nothing was found about `concern`."""
        return concern not in self.concerns


def parse_head(text: str) -> str:
    """Return `text` as a hash of the chain; its `sha256:` may be left out.

    Raises:
        ValueError: it is not 64 hexadecimal digits.
    """
    match = _HEAD.fullmatch(text.strip().lower())
    if match is None:
        message = f"a head is {HASH_PREFIX} and 64 hexadecimal digits"
        raise ValueError(message)
    return f"{HASH_PREFIX}{match[1]}"


def verify(paths: Sequence[Path], head: str | None = None) -> ChainReport:
    """Return what can be said of the chain in `paths`, given in any order.

    The files are streamed: their size does not matter. A file that is named twice is read once.

    Raises:
        NotAnAuditFileError: a file cannot be read, is not a regular file, or holds no record.
    """
    sources = _in_order(paths)
    chain = _Chain(parse_head(head) if head is not None else None)
    for source, follower in zip(sources, [*sources[1:], None], strict=True):
        chain.take(source, follower.first if follower is not None else None)
    return chain.finish()


# -- the files ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    path: Path
    identity: tuple[int, int]
    first: Record | None
    skipped: int  # lines in front of `first`


def _in_order(paths: Sequence[Path]) -> list[_Source]:
    sources = {source.identity: source for source in map(_look, paths)}
    ordered = sorted(
        sources.values(),
        key=lambda source: source.first.sequence if source.first is not None else float("inf"),
    )
    if all(source.first is None and source.path.stat().st_size == 0 for source in ordered):
        message = f"{ordered[0].path} holds no audit record"
        raise NotAnAuditFileError(message)
    return ordered


def _look(path: Path) -> _Source:
    """Return the file with its first record, read from no more than its first lines."""
    with _opened(path) as stream:
        status = os.fstat(stream.fileno())
        first, seen, skipped, is_torn = None, 0, 0, status.st_size == 0
        for line in _lines(stream):
            try:
                first = read(line.data)
                break
            except NotARecordError:
                is_torn = seen == 0 and not line.is_ended and line.data.startswith(b"{")
                seen += len(line.data) + 1
                skipped += 1
                if seen > MAX_LINE_BYTES:
                    break
    if first is None and not is_torn:
        message = f"{path} is not an audit file: no audit record at its beginning"
        raise NotAnAuditFileError(message)
    identity = (status.st_dev, status.st_ino)
    return _Source(path=path, identity=identity, first=first, skipped=skipped)


def _opened(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{path} cannot be read: {reason}"
        raise NotAnAuditFileError(message) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        message = f"{path} is not a regular file"
        raise NotAnAuditFileError(message)
    return os.fdopen(descriptor, "rb", buffering=0)


class _RawLine(NamedTuple):
    """One line without its newline; longer than `MAX_LINE_BYTES` it is cut there."""

    data: bytes
    is_ended: bool


def _lines(stream: BinaryIO) -> Iterator[_RawLine]:
    """Yield the lines of `stream` in bounded memory."""
    rest = b""
    while chunk := stream.read(_CHUNK_BYTES):
        head, *others = chunk.split(b"\n")
        if len(rest) <= MAX_LINE_BYTES:
            rest += head
        for following in others:
            yield _RawLine(rest, True)
            rest = following
    if rest:
        yield _RawLine(rest, False)


# -- the chain ------------------------------------------------------------------------------------


class _Region:
    """Lines that are no records, as one run of bytes: counted and hashed, not kept."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.lines = 0
        self.length = 0
        self.is_ended = True
        self.is_under_repair = True
        """Whether every line but the first could be the beginning of a repair that was cut too."""
        self._hash = sha256()

    def add(self, line: _RawLine) -> None:
        data = line.data if self.lines == 0 else b"\n" + line.data
        if self.lines and not _begins_repair(line.data):
            self.is_under_repair = False
        self.lines += 1
        self.length += len(data)
        self.is_ended = line.is_ended
        self._hash.update(data)

    def is_vouched_by(self, record: Record) -> bool:
        """Return whether `record` tells this run's length and hash."""
        return (
            record.members.get("length") == self.length
            and record.members.get("sha256") == f"{HASH_PREFIX}{self._hash.hexdigest()}"
        )


class _Chain:
    """Reads records in order and notes what does not fit."""

    def __init__(self, wanted: str | None) -> None:
        self._report = ChainReport()
        self._wanted = wanted
        self._last: Link | Record | None = None
        self._bad_lines = 0  # since the last record
        self._region: _Region | None = None
        self._file = ""
        self._line = 0
        if wanted == GENESIS:
            self._report.head_sequence = 0

    def take(self, source: _Source, following: Record | None) -> None:
        """Read one file; `following` is the first record of the next one."""
        self._file, self._line = str(source.path), 0
        self._assume(source)
        span_first, before = None, self._report.records
        leaves_at = _leaves_at(following)
        with _opened(source.path) as stream:
            lines = _lines(stream)
            for line in lines:
                self._line += 1
                record = self._read(line)
                if record is None:
                    continue
                self._accept(record)
                span_first = record.sequence if span_first is None else span_first
                if record.hash == leaves_at and following is not None:
                    self._leave_behind(lines, following)
                    break
        self._end_file()
        last = self._last.sequence if self._last and self._report.records > before else None
        self._report.files.append(Span(file=self._file, first=span_first, last=last))

    def finish(self) -> ChainReport:
        """Return the report, with the answer about the head that was asked for."""
        report = self._report
        if self._last is not None:
            report.last, report.head = self._last.sequence, self._last.hash
        if self._wanted is not None and report.head_sequence is None:
            self._find(
                Concern.COMPLETENESS,
                self._next,
                f"no record has the hash {self._wanted}: the end was cut off, "
                "the chain was computed anew, or it is another chain",
            )
        return report

    @property
    def _next(self) -> int:
        return (self._last.sequence if self._last is not None else 0) + 1 + self._bad_lines

    def _read(self, line: _RawLine) -> Record | None:
        """Return the record in `line`; what is none is noted or kept for the next to explain."""
        try:
            return read(line.data)
        except NotARecordError as error:
            if error.is_cut and len(line.data) <= MAX_LINE_BYTES:
                if self._region is None:
                    self._region = _Region(self._line)
                self._region.add(line)
                return None
            self._end_region()
            self._find(Concern.INTEGRITY, self._next, f"the line {error}")
            self._bad_lines += 1
            return None

    def _accept(self, record: Record) -> None:
        report = self._report
        if self._region is not None or record.members["event"] == Event.AUDIT_RECOVERED:
            self._explain(record)
        last = self._last
        if last is None:
            self._begin(record)
        elif record.sequence != last.sequence + 1 or record.previous != last.hash:
            self._compare(record, last)
        report.records += 1
        self._bad_lines = 0
        self._last = record
        if record.hash == self._wanted:
            report.head_sequence = record.sequence

    def _assume(self, source: _Source) -> None:
        """Number damaged lines at the very beginning back from the first good record."""
        first = source.first
        if self._last is not None or first is None or not source.skipped:
            return
        if first.members["event"] != Event.AUDIT_RECOVERED:
            self._last = Link(sequence=max(0, first.sequence - source.skipped - 1), hash="")

    def _begin(self, record: Record) -> None:
        self._report.first = record.sequence
        if record.sequence == 1 and record.previous != GENESIS:
            self._find(Concern.INTEGRITY, 1, "the first record does not begin a chain")
        if record.sequence > 1 and record.previous == GENESIS:
            self._find(Concern.INTEGRITY, record.sequence, "a later record begins a chain")

    def _compare(self, record: Record, last: Link | Record) -> None:
        """Say why `record` does not follow `last`, unless damaged lines lie between that did."""
        expected = last.sequence + 1
        if self._report.first is None:
            self._report.first = record.sequence  # after damaged lines at the beginning
        if self._bad_lines and expected < record.sequence <= expected + self._bad_lines:
            return
        if record.sequence > expected:
            missing = (
                f"{expected}"
                if record.sequence == expected + 1
                else (f"{expected} to {record.sequence - 1}")
            )
            self._find(Concern.COMPLETENESS, expected, f"missing: {missing}")
        elif record.sequence < expected:
            self._find(
                Concern.INTEGRITY,
                record.sequence,
                f"record {record.sequence} is repeated or out of place, after {last.sequence}",
            )
        elif last.hash:
            self._find(Concern.INTEGRITY, expected, "the record does not link to the one before it")

    def _explain(self, record: Record) -> None:
        """Let `audit.recovered` account for the torn bytes in front of it."""
        region, self._region = self._region, None
        is_recovery = record.members["event"] == Event.AUDIT_RECOVERED
        follows = self._last is None or record.previous == self._last.hash
        if region is None:
            if record.members.get("length") != 0 and not self._bad_lines:
                self._find(
                    Concern.COMPLETENESS,
                    record.sequence,
                    "the torn bytes that it tells of are gone",
                )
        elif is_recovery and follows and region.is_vouched_by(record):
            self._note_torn(region, record.sequence)
        else:
            self._find_region(region)

    def _end_region(self) -> None:
        region, self._region = self._region, None
        if region is not None:
            self._find_region(region)

    def _find_region(self, region: _Region) -> None:
        self._find(Concern.INTEGRITY, self._next, "the line is not a JSON object", line=region.line)
        self._bad_lines += region.lines

    def _end_file(self) -> None:
        """Take a last line without its newline for torn; nothing else is left unexplained.

        An agent that is killed while it repairs a torn line leaves a torn repair behind it.
        """
        region = self._region
        if region is not None and region.is_under_repair and not region.is_ended:
            self._region = None
            self._note_torn(region, self._next)
        self._end_region()

    def _leave_behind(self, lines: Iterator[_RawLine], following: Record) -> None:
        """Read what a failed sync left in a file behind the record that the next one links to.

        It was never told to anybody as written, and some or all of it may have been lost since.
        Whole records among it are named: who may append could have them passed over as well.
        """
        region = _Region(self._line + 1)
        disowned: list[Record] = []
        for line in lines:
            self._line += 1
            region.add(line)
            with suppress(NotARecordError):
                disowned = [*disowned[:1], read(line.data)]
        length = following.members.get("length")
        if not region.lines:
            return
        if region.is_vouched_by(following) or (type(length) is int and region.length < length):
            self._note_torn(region, self._next)
            if disowned:
                self._find(
                    Concern.COMPLETENESS,
                    self._next,
                    f"whole records, {disowned[0].sequence} to {disowned[-1].sequence}, that the "
                    "next file does not go on from: a sync failed, or somebody hides them",
                    line=region.line,
                )
        else:
            self._find(
                Concern.INTEGRITY,
                self._next,
                "what lies behind the last record is not what the next file tells of",
                line=region.line,
            )

    def _note_torn(self, region: _Region, sequence: int) -> None:
        self._report.torn.append(
            Torn(sequence=sequence, file=self._file, line=region.line, length=region.length)
        )

    def _find(
        self, concern: Concern, sequence: int, message: str, *, line: int | None = None
    ) -> None:
        self._report.found += 1
        self._report.concerns.add(concern)
        if len(self._report.findings) < MAX_FINDINGS:
            self._report.findings.append(
                ChainFinding(
                    concern=concern,
                    sequence=sequence,
                    file=self._file,
                    line=self._line if line is None else line,
                    message=message,
                )
            )


def _begins_repair(data: bytes) -> bool:
    """Return whether `data` could be the beginning of an `audit.recovered` for torn bytes."""
    return any(
        bool(data) and (begin.startswith(data) or data.startswith(begin)) for begin in _REPAIRS
    )


def _leaves_at(following: Record | None) -> str | None:
    """Return the hash at which a file was left where the next one says that bytes lie behind it."""
    if following is None or following.members["event"] != Event.AUDIT_ROTATED:
        return None
    return following.previous if type(following.members.get("length")) is int else None
