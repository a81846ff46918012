"""One check: what it is about, how it went, what was seen, what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from host_agent.canonical import JsonValue


class CheckState(StrEnum):
    """How a check went. A warning does not keep the agent from its work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one check; `remedy` is empty where there is nothing to do."""

    name: str
    state: CheckState
    sentence: str
    remedy: str = ""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the check for scripts."""
        return {
            "name": self.name,
            "state": self.state.value,
            "sentence": self.sentence,
            "remedy": self.remedy or None,
        }


def ok(name: str, sentence: str) -> Check:
    """Return a check that found its part as it should be."""
    return Check(name=name, state=CheckState.OK, sentence=sentence)


def warning(name: str, sentence: str, remedy: str) -> Check:
    """Return a check that found something to look after."""
    return Check(name=name, state=CheckState.WARNING, sentence=sentence, remedy=remedy)


def problem(name: str, sentence: str, remedy: str) -> Check:
    """Return a check that found something which keeps the agent from its work, or its promises."""
    return Check(name=name, state=CheckState.PROBLEM, sentence=sentence, remedy=remedy)


def is_well(checks: Iterable[Check]) -> bool:
    """Return whether no check found a problem."""
    return all(check.state is not CheckState.PROBLEM for check in checks)


def instant(moment: datetime) -> str:
    """Return `moment` as the sentences write it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
