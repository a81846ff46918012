"""The states of a request, the steps between them, and what a person answers. Imports nothing."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a request is."""

    PENDING = "pending"
    APPROVED = "approved"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    UNKNOWN = "unknown"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED}),
    State.APPROVED: frozenset({State.RUNNING, State.FAILED, State.EXPIRED, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.UNKNOWN}),
}
LIVE: Final[frozenset[State]] = frozenset({State.PENDING, State.APPROVED, State.RUNNING})
"""States in which an identical ask attaches."""
NOTHING_RAN: Final[frozenset[State]] = TRANSITIONS[State.PENDING] - LIVE
"""Ends before which nothing was run, for certain: one that failed may have been."""


class Verb(StrEnum):
    """What a person answers."""

    APPROVE = "approve"
    DENY = "deny"
