"""What the scripted approver answers: the first answer that fits operation and resource."""

import re
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from host_agent.errors import ConfigurationError, UsageError
from host_agent.identity.files import read_plain

MAX_SCRIPT_BYTES = 65_536
MAX_DELAY_SECONDS = 86_400.0
_SPAN = re.compile(r"(?P<count>[0-9]{1,6}(?:\.[0-9]{1,3})?)(?P<unit>ms|s|m|h)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class AnswerKind(StrEnum):
    """What becomes of a held request."""

    APPROVE = "approve"
    DENY = "deny"
    EXPIRE = "expire"
    LEAVE = "leave"


def delay_seconds(text: object) -> float:
    """Return the seconds that `5s`, `250ms`, `2m`, `1h` or a plain number mean.

    Raises:
        ValueError: it is none, or more than a day.
    """
    found = _SPAN.fullmatch(str(text))
    seconds = float(found["count"]) * _UNITS[found["unit"]] if found else -1.0
    if not 0 <= seconds <= MAX_DELAY_SECONDS:
        message = "must be a span of time up to a day, as in 5s, 250ms or 2m"
        raise ValueError(message)
    return seconds


class ScriptedAnswer(BaseModel):
    """One answer. `*` and `?` in operations and resources stand for any characters, and for one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    answer: AnswerKind
    operations: tuple[str, ...] = Field(default=("*",), min_length=1)
    resources: tuple[str, ...] = Field(default=("*",), min_length=1)
    words: Annotated[str, Field(max_length=500)] | None = None
    after: Annotated[float, BeforeValidator(delay_seconds)] = 0.0
    times: Annotated[int, Field(ge=1, strict=True)] | None = None

    def fits(self, operation: str, resource: str | None) -> bool:
        """Return whether this is the answer for an operation on a resource."""
        return any(fnmatchcase(operation, pattern) for pattern in self.operations) and any(
            fnmatchcase(resource or "", pattern) for pattern in self.resources
        )


class _ScriptFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    answers: tuple[ScriptedAnswer, ...] = Field(min_length=1)


@dataclass(slots=True)
class Script:
    """Answers in their order; what none fits is left to a person. One request has one answer."""

    answers: tuple[ScriptedAnswer, ...] = ()
    _given: dict[str, ScriptedAnswer | None] = field(default_factory=dict)
    _used: dict[int, int] = field(default_factory=dict)

    def answer(
        self, request_id: str, operation: str, resource: str | None
    ) -> ScriptedAnswer | None:
        """Return the answer for a request, the same however often it is asked; None is none."""
        if request_id not in self._given:
            self._given[request_id] = self._next(operation, resource)
        return self._given[request_id]

    def _next(self, operation: str, resource: str | None) -> ScriptedAnswer | None:
        for place, answer in enumerate(self.answers):
            used = self._used.get(place, 0)
            if answer.fits(operation, resource) and (answer.times is None or used < answer.times):
                self._used[place] = used + 1
                return answer
        return None


def read_script(path: Path) -> tuple[ScriptedAnswer, ...]:
    """Return the answers of a script file.

    Raises:
        ConfigurationError: with every fault.
    """
    try:
        table = tomllib.loads(read_plain(path, limit=MAX_SCRIPT_BYTES).decode())
        return _ScriptFile.model_validate(table).answers
    except ValidationError as error:
        faults = [f"{path}: {_key(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise ConfigurationError(faults) from error
    except (ValueError, RecursionError) as error:
        said = str(error)
        raise ConfigurationError([said if str(path) in said else f"{path}: {said}"]) from error


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def parse_answer(text: str, *, after: float) -> ScriptedAnswer:
    """Return the answer that `PATTERN=ANSWER` means; `deny` may have `:WORDS` after it.

    Raises:
        UsageError: it is none.
    """
    pattern, _, said = text.partition("=")
    kind, colon, words = said.partition(":")
    if pattern and kind in set(AnswerKind) and (not colon or (kind == "deny" and words)):
        return ScriptedAnswer(
            answer=AnswerKind(kind), operations=(pattern,), words=words or None, after=after
        )
    message = (
        f"`{text}` is not PATTERN=ANSWER, as in 'git.*=approve', 'zfs.destroy=deny:not today' or"
        " 'pct.*=expire'."
    )
    raise UsageError(message)
