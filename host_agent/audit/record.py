"""One audit record, its canonical bytes and its link to the one before. Pure.

A record is one JSON object a line in RFC 8785 form. Its `hash` is taken over the canonical record
without `hash`, and its `previous` is the hash of the record before, so an edit, a gap or a swap
shows. Text that a person could not see, or that could steer a terminal, is made visible first.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from host_agent.canonical import (
    JsonValue,
    NoCanonicalFormError,
    canonical_json,
    decode_exact,
    is_canonical,
)
from host_agent.text import HASH_PREFIX, sha256_digest, visible

digest_of = sha256_digest
"""The hash of the chain, and of what gives way to its hash; another one begins another chain."""
GENESIS = HASH_PREFIX + "0" * 64
"""The `previous` of the first record of a chain."""

MAX_RECORD_BYTES = 65_536
"""No record is longer, its newline not counted; what is too long in it gives way to its hash."""

MAX_TEXT_CHARACTERS = 4_096
"""A longer text becomes its first `SHOWN_CHARACTERS` and a `\\u{cut ...}` with size and hash."""

SHOWN_CHARACTERS = 1_024


class Event(StrEnum):
    """What happened. The set is closed: a name is never reused for another meaning."""

    AGENT_STARTED = "agent.started"
    AGENT_STOPPED = "agent.stopped"
    AUDIT_RECOVERED = "audit.recovered"
    AUDIT_ROTATED = "audit.rotated"
    CLOCK_JUMPED = "clock.jumped"
    CONFIG_LOADED = "config.loaded"
    CONFIG_REJECTED = "config.rejected"
    APPROVER_DISABLED = "approver.disabled"
    APPROVER_ENROLLED = "approver.enrolled"
    DECISION_REFUSED = "decision.refused"
    ENROLMENT_OFFERED = "enrolment.offered"
    GRANT_REVOKED = "grant.revoked"
    IDENTITY_REFUSED = "identity.refused"
    IDENTITY_RELEASED = "identity.released"
    NOTIFICATION_FAILED = "notification.failed"
    OPERATION_FINISHED = "operation.finished"
    OPERATION_INSPECTED = "operation.inspected"
    OPERATION_STARTED = "operation.started"
    OPERATION_TRIED = "operation.tried"
    OPERATION_UNCHANGED = "operation.unchanged"
    POLICY_DENIED = "policy.denied"
    RENEWAL_ASKED = "renewal.asked"
    RENEWAL_DELIVERED = "renewal.delivered"
    REQUEST_ATTACHED = "request.attached"
    REQUEST_CANCELLED = "request.cancelled"
    REQUEST_DECIDED = "request.decided"
    REQUEST_EXPIRED = "request.expired"
    REQUEST_FAILED = "request.failed"
    REQUEST_HELD = "request.held"
    REQUEST_REFUSED = "request.refused"
    REQUEST_UNKNOWN = "request.unknown"
    SUDOERS_CHANGED = "sudoers.changed"


CHAIN_FIELDS = frozenset({"sequence", "time", "event", "previous", "hash"})
"""What every record has; only the log sets them."""

SUBJECT_FIELDS = (
    "caller",
    "fingerprint",
    "owner",
    "operation",
    "resource",
    "params",
    "digest",
    "request_id",
    "outcome",
    "code",
    "reason",
)
"""Who, what and how it ended: the named arguments of `AuditLog.append`, left out where absent."""

DETAIL_FIELDS = frozenset(
    {
        "approver",
        "approver_owner",
        "by",
        "cancelled_by",
        "cause",
        "channel",
        "decision",
        "detail",
        "dry_run",
        "exchange_id",
        "expires_at",
        "faults",
        "file",
        "grant",
        "host",
        "length",
        "lost",
        "not_before",
        "preview_sha256",
        "rule",
        "runner",
        "seconds",
        "sha256",
        "state",
        "suppressed",
        "through",
        "version",
        "vouchers",
    }
)
"""What single events add. A test holds every use in the package to this table and to the page."""

Members: TypeAlias = dict[str, JsonValue]


def build(event: Event, time: str, members: Mapping[str, JsonValue]) -> Members:
    """Return the members of a record but for its place in the chain.

    None is left out. Hidden characters become visible, over-long texts and members are cut and
    hashed; so a caller's text cannot fill the disk, and never makes this fail.

    Raises:
        ValueError: a member would shadow one of `CHAIN_FIELDS`, or holds a value that has no
            canonical form (a float, an integer beyond 2**53-1): a defect of the agent.
    """
    if not CHAIN_FIELDS.isdisjoint(members):
        message = "sequence, time, event, previous and hash are set by the log alone"
        raise ValueError(message)
    record: Members = {
        key: _seen(value) if type(value) is not str else _text(value)
        for key, value in members.items()
        if value is not None
    }
    record["event"] = event.value
    record["time"] = time
    return record


def _text(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARACTERS:
        return visible(text)
    whole = digest_of(text.encode("utf-8", "surrogatepass"))
    return f"{visible(text[:SHOWN_CHARACTERS])}\\u{{cut {len(text)} characters {whole}}}"


def _seen(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {visible(key): _seen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(item) for item in value]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A place in the chain: a record's sequence and hash."""

    sequence: int
    hash: str


ORIGIN = Link(sequence=0, hash=GENESIS)
"""What the first record of a chain links to."""


def link(members: Mapping[str, JsonValue], previous: Link) -> tuple[bytes, Link]:
    """Return the record's line, without newline, and the link that the next one takes.

    Raises:
        ValueError: a member has no canonical form.
    """
    line, hashed = _line(members, previous)
    if len(line) > MAX_RECORD_BYTES:
        line, hashed = _line(_fitted(members), previous)
    return line, Link(sequence=previous.sequence + 1, hash=hashed)


def _line(members: Mapping[str, JsonValue], previous: Link) -> tuple[bytes, str]:
    """Encode the members on both sides of where `hash` sorts, so that they are encoded once."""
    before = {key: value for key, value in members.items() if key < "hash"}
    after = {key: value for key, value in members.items() if key > "hash"}
    after["previous"] = previous.hash
    after["sequence"] = previous.sequence + 1
    head = canonical_json(before)[:-1]
    tail = canonical_json(after)[1:]
    hashed = digest_of(head + b"," + tail)
    return b'%b,"hash":"%b",%b' % (head, hashed.encode("ascii"), tail), hashed


def _fitted(members: Mapping[str, JsonValue]) -> Members:
    """Replace the largest members by their size and hash until the record fits."""
    fitted = dict(members)
    sizes = {key: canonical_json(value) for key, value in members.items()}
    room = MAX_RECORD_BYTES - 512
    for key in sorted(sizes, key=lambda key: len(sizes[key]), reverse=True):
        if sum(map(len, sizes.values())) + sum(map(len, sizes)) + 4 * len(sizes) <= room:
            break
        whole = sizes[key]
        fitted[key] = {"length": len(whole), "sha256": digest_of(whole)}
        sizes[key] = canonical_json(fitted[key])
    return fitted


# -- reading back ---------------------------------------------------------------------------------


class NotARecordError(ValueError):
    """A line is not a record as this module writes them.

    `is_cut` is true where the line is no JSON object at all, as a write that was cut short leaves
    it; a whole object with a wrong hash is never that.
    """

    def __init__(self, reason: str, *, is_cut: bool = False, sequence: int | None = None) -> None:
        super().__init__(reason)
        self.is_cut = is_cut
        self.sequence = sequence


class Record(NamedTuple):
    """One record that was read back: canonical, and its own hash is right."""

    sequence: int
    previous: str
    hash: str
    members: Members

    @property
    def link(self) -> Link:
        """Return the link that the next record takes."""
        return Link(sequence=self.sequence, hash=self.hash)


_parse = json.JSONDecoder().raw_decode


def read(line: bytes) -> Record:
    """Return the record that `line`, without newline, holds.

    Its place in the chain is not looked at: that takes the line before.

    Raises:
        NotARecordError: not JSON, not canonical, members missing, or the hash is another.
    """
    text, members, is_exact = _members(line)
    sequence, hashed = members.get("sequence"), members.get("hash")
    previous = members.get("previous")
    claimed = sequence if type(sequence) is int else None
    if not (
        claimed is not None
        and claimed >= 1
        and type(hashed) is str
        and type(previous) is str
        and type(members.get("event")) is str
        and type(members.get("time")) is str
    ):
        raise NotARecordError("is not an audit record", sequence=claimed)
    if not is_exact or not is_canonical(members, text):
        raise NotARecordError("is not in canonical form", sequence=claimed)
    # The line is canonical, so this member's text appears once unless a caller's object repeats it.
    member = f',"hash":"{hashed}"'.encode()
    body = line.replace(member, b"")
    if len(body) != len(line) - len(member):
        body = canonical_json({key: members[key] for key in members if key != "hash"})
    if digest_of(body) != hashed:
        raise NotARecordError(
            "does not have the content that its hash was taken of", sequence=claimed
        )
    return Record(claimed, previous, hashed, members)


def _members(line: bytes) -> tuple[str, Members, bool]:
    """Return the text of a line, its object, and whether all of that has a canonical form."""
    try:
        text, is_exact = line.decode("utf-8"), True
        try:
            value, end = decode_exact(text)
        except NoCanonicalFormError:
            (value, end), is_exact = _parse(text), False
    except (ValueError, RecursionError) as error:
        raise NotARecordError("is not a JSON object", is_cut=True) from error
    if end != len(text) or not isinstance(value, dict):
        raise NotARecordError("is not a JSON object alone")
    return text, value, is_exact
