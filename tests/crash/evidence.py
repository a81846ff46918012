"""What is on disk after a kill, held against the ledger.

Read from copies and from the outside: the audit log through its verifier and as plain JSON, the
store through SQLite on a copy of its files, executions from the side file.
"""

import json
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host_agent.audit.verify import Concern, NotAnAuditFileError, verify
from tests.crash.ledger import RAN, Kind, Ledger, Wish
from tests.crash.place import Place


@dataclass(slots=True)
class Row:
    """A stored request, as far as the harness asks."""

    request_id: str
    name: str
    state: str
    voices: set[tuple[str, str]]


@dataclass(slots=True)
class Trail:
    """The audit records about one request, as event and sequence."""

    events: list[tuple[str, int]] = field(default_factory=list)
    voices: dict[tuple[str, str], int] = field(default_factory=dict)
    name: str = ""

    def count(self, event: str) -> int:
        return sum(event == seen for seen, _ in self.events)

    def first(self, event: str) -> int | None:
        return next((sequence for seen, sequence in self.events if seen == event), None)


class Evidence:
    """Follows one place's files from kill to kill; every record is read once."""

    def __init__(self, place: Place, ledger: Ledger) -> None:
        self._place = place
        self._ledger = ledger
        self._offsets: dict[int, int] = {}
        self._side_offset = 0
        self.records = 0
        self.caught_up = 0
        self.recoveries = 0
        self.executions: Counter[tuple[str, str]] = Counter()
        self.trails: defaultdict[str, Trail] = defaultdict(Trail)
        self._started: dict[str, list[str]] = defaultdict(list)
        self._owed: set[str] = set()

    # -- after a kill -----------------------------------------------------------------------------

    def examine(self, *, has_served: bool, whole: bool = False) -> list[str]:
        """Return every broken promise that the files show, while no agent runs.

        `has_served`: the last life came as far as serving, so it wrote down what the one before
        had no time for. The verifier reads the newest two audit files, or with `whole` all.
        """
        wrong = [*self._verify(whole=whole), *self._read_audit()]
        self._read_side()
        rows = self.rows()
        wrong += self._check_rows(rows)
        wrong += self._check_executions()
        for name, wish in self._ledger.wishes.items():
            found = rows.get(name)
            wrong += [f"{name} ({wish.kind}): {what}" for what in self._check_wish(wish, found)]
        owed = {what for found in rows.values() for row in found for what in self._owes(row)}
        if has_served:
            wrong += sorted(owed & self._owed)
        self._owed = owed
        return wrong

    # -- the audit log ----------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        live = self._place.audit_path
        finished = sorted(live.parent.glob(f"{live.stem}-*{live.suffix}"))
        return [*finished, *([live] if live.exists() else [])]

    def _verify(self, *, whole: bool) -> Iterator[str]:
        files = [path for path in self._files() if path.stat().st_size]
        if not files:
            return
        try:
            report = verify(files if whole else files[-2:])
        except NotAnAuditFileError as error:
            yield f"audit verify: {error}"
            return
        for finding in report.findings:
            yield f"audit verify: {finding}"
        if not all(report.is_clean(concern) for concern in Concern):
            yield f"audit verify is not clean: {report.concerns}"

    def _read_audit(self) -> Iterator[str]:
        for path in self._files():
            status = path.stat()
            begin = self._offsets.get(status.st_ino, 0)
            with path.open("rb") as stream:
                stream.seek(begin)
                data = stream.read()
            end = data.rfind(b"\n") + 1
            self._offsets[status.st_ino] = begin + end
            for line in data[:end].splitlines():
                yield from self._take(line)

    def _take(self, line: bytes) -> Iterator[str]:
        try:
            record = json.loads(line)
        except ValueError:
            return  # torn: the verifier has its say about it
        if record["sequence"] != self.records + 1:
            yield f"audit: sequence {record['sequence']} follows {self.records}"
        self.records = record["sequence"]
        self.recoveries += record["event"] == "audit.recovered"
        self.caught_up += record.get("cause") == "caught-up"
        if "request_id" in record and "params" in record:
            self._follow(record)

    def _follow(self, record: dict[str, Any]) -> None:
        trail, event = self.trails[record["request_id"]], record["event"]
        trail.events.append((event, record["sequence"]))
        trail.name = name_of(record["params"])
        if event == "request.decided":
            trail.voices.setdefault((record["approver"], record["decision"]), record["sequence"])
        if event == "operation.started":
            self._started[trail.name].append(record["request_id"])

    # -- the side file ----------------------------------------------------------------------------

    def _read_side(self) -> None:
        with self._place.side_path.open("rb") as stream:
            stream.seek(self._side_offset)
            data = stream.read()
        end = data.rfind(b"\n") + 1
        self._side_offset += end
        for line in data[:end].decode().splitlines():
            _pid, verb, name = line.split(" ")
            self.executions[verb, name] += 1

    def _check_executions(self) -> Iterator[str]:
        for (verb, name), times in self.executions.items():
            if times > 1:
                yield f"{name}: git.{verb} ran {times} times"
            if not self._started.get(name):
                yield f"{name}: git.{verb} ran and no operation.started is on disk"

    # -- the store --------------------------------------------------------------------------------

    def rows(self) -> dict[str, list[Row]]:
        """Return the stored requests by the name of their wish, from a copy of the files."""
        copy = self._place.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        stored = self._place.store_path
        for suffix in ("", "-wal"):
            path = stored.with_name(stored.name + suffix)
            if path.exists():
                shutil.copy(path, copy / path.name)
        connection = sqlite3.connect(copy / stored.name)
        try:
            if not connection.execute(_HAS_TABLE).fetchone():
                return {}
            found: dict[str, list[Row]] = defaultdict(list)
            for request_id, state, params, decisions in connection.execute(_ROWS):
                voices = {(d["approver"], d["decision"]) for d in json.loads(decisions)}
                row = Row(request_id, name_of(json.loads(params)), state, voices)
                found[row.name].append(row)
            return found
        finally:
            connection.close()

    def _check_rows(self, rows: dict[str, list[Row]]) -> Iterator[str]:
        for name, found in rows.items():
            if len(found) > 1:
                yield f"{name}: has {len(found)} requests for one idempotency key"
            if name not in self._ledger.wishes:
                yield f"{name}: nobody asked for it"

    # -- one wish ---------------------------------------------------------------------------------

    def _check_wish(self, wish: Wish, rows: list[Row] | None) -> Iterator[str]:
        ran = self.executions[wish.verb, wish.name]
        if wish.kind is Kind.READ:
            if wish.told_done and ran != 1:
                yield f"was told as done and ran {ran} times"
            return
        if not rows:
            if wish.request_id is not None:
                yield f"request {wish.request_id} was told and is gone"
            return
        row = rows[0]
        if wish.request_id not in {None, row.request_id}:
            yield f"was told as {wish.request_id} and is {row.request_id}"
        yield from wish.observe(row.state, row.voices)
        trail = self.trails.get(row.request_id, Trail())
        yield from self._check_trail(wish, row, trail, ran)

    def _owes(self, row: Row) -> Iterator[str]:
        """Yield which records of a stored state are not there; the next life has to write them."""
        trail = self.trails.get(row.request_id, Trail())
        for event in ("request.held",) * bool(row.voices) + ENDS.get(row.state, ()):
            if not trail.first(event):
                yield f"{row.name}: is {row.state} and no {event} is recorded"
        for voice in row.voices - trail.voices.keys():
            yield f"{row.name}: has the decision {voice} and it is not recorded"

    def _check_trail(self, wish: Wish, row: Row, trail: Trail, ran: int) -> Iterator[str]:
        started = trail.first("operation.started")
        if trail.count("operation.started") > 1:
            yield f"request {row.request_id} was started {trail.count('operation.started')} times"
        if row.state not in RAN and (ran or started):
            yield f"is {row.state} and has been started"
        if trail.count("request.unknown") > 1:
            yield "is reported as unknown twice"
        if row.state == "succeeded" and not (ran and trail.first("operation.finished")):
            yield "is succeeded, and did not run or is not recorded as finished"
        if wish.told_held and not trail.first("request.held"):
            yield "was told as held and no request.held is recorded"
        unrecorded = wish.told_voices - trail.voices.keys()
        if unrecorded:
            yield f"decisions were told and are not recorded: {sorted(unrecorded)}"
        if started and wish.kind is not Kind.CHANGE:
            yield from _check_order(wish, row, trail, started)


def _check_order(wish: Wish, row: Row, trail: Trail, started: int) -> Iterator[str]:
    """What a person said is written down before it runs, as the contract's section 6 has it."""
    before = {voice for voice, sequence in trail.voices.items() if sequence < started}
    if not wish.is_approved(before):
        yield f"ran, and before that only these decisions are recorded: {sorted(before)}"
    held = trail.first("request.held")
    if held is None or held > started:
        yield "ran, and request.held is not recorded before that"


def name_of(params: dict[str, Any]) -> str:
    """Return the name of the wish whose parameters these are."""
    return str(params.get("branch") or params.get("ref"))


ENDS: dict[str, tuple[str, ...]] = {
    "pending": ("request.held",),
    "denied": ("request.decided",),
    "expired": ("request.held", "request.expired"),
    "cancelled": ("request.held", "request.cancelled"),
    "unknown": ("request.unknown",),
}
"""What must be in the audit log about a request in such a state."""

_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'requests'"
_ROWS = "SELECT id, state, params, decisions FROM requests"
