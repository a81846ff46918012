"""An agent without a model: a small state machine over the official MCP client.

It knows the tools' schemas, `state` and `recovery`; never a sentence, a code or an operation. What
it may say is its task's: the arguments, and for a pointer the further values that would do.
"""

import copy
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import jsonschema_rs
from jsonschema_rs import ValidationError, ValidationErrorKind
from mcp import Client
from pydantic import JsonValue

from tests.support.mcp_client import members

MAX_ASKS = 4
"""Asks of one task, whatever is answered."""
MAX_LOOKS = 4
"""Looks at one request that does not end."""
UNDER_WAY = frozenset({"pending", "approved", "running"})
Step = tuple[str, Mapping[str, JsonValue]]


class End(StrEnum):
    """How a task ended."""

    DONE = "done"
    WAITING = "waiting"
    PUT_OFF = "put off"
    GIVEN_UP = "given up"
    FOR_A_PERSON = "for a person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is wanted. `further` has other values by pointer, in the order of preference.

    `patience_seconds` is how long it may wait in all before it asks again.
    """

    tool: str
    arguments: Mapping[str, JsonValue]
    further: Mapping[str, Sequence[JsonValue]] = field(default_factory=dict)
    patience_seconds: float = 3600.0


@dataclass(slots=True)
class AgentLoop:
    """Does tasks one after the other; `steps` are the calls that it made.

    `checks_first` is whether it holds a call to the schema before it makes it.
    """

    client: Client
    wait: Callable[[float], Awaitable[None]]
    checks_first: bool = True
    look_seconds: int = 50
    steps: list[Step] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    async def do(self, task: Task) -> End:
        """Return how a task ended; `told` has the last answer."""
        schema = await self._schema(task.tool)
        if schema is None:
            return End.GIVEN_UP
        mend = _Mending(schema, copy.deepcopy(dict(task.arguments)), task.further)
        left = task.patience_seconds
        for _ in range(MAX_ASKS):
            if self.checks_first and not mend.all_of(_faults(schema, mend.arguments)):
                return End.GIVEN_UP
            await self._call(task.tool, mend.arguments)
            while self.told["state"] in UNDER_WAY:
                if not await self._ended(self.told["request_id"]):
                    return End.WAITING
            recovery = self.told.get("recovery")
            match recovery:
                case None:
                    return End.DONE
                case {"kind": "change_parameters", "faults": faults}:
                    if not mend.all_of(fault["pointer"] for fault in faults):
                        return End.GIVEN_UP
                case {"kind": "wait_for", **other}:
                    (request_id,) = map(str, other.values())
                    if not await self._ended(request_id):
                        return End.WAITING
                case {"kind": "ask_again_after", "seconds": seconds}:
                    if seconds > left:
                        return End.PUT_OFF
                    left -= seconds
                    await self.wait(seconds)
                case {"kind": "ask_a_person"}:
                    return End.FOR_A_PERSON
                case _:
                    return End.GIVEN_UP
        return End.GIVEN_UP

    async def _ended(self, request_id: str) -> bool:
        """Follow a request; return whether it has ended."""
        for _ in range(MAX_LOOKS):
            await self._call(
                "request_status", {"request_id": request_id, "wait_seconds": self.look_seconds}
            )
            if self.told["state"] not in UNDER_WAY:
                return True
        return False

    async def _schema(self, tool: str) -> dict[str, Any] | None:
        tools = (await self.client.list_tools()).tools
        return next((one.input_schema for one in tools if one.name == tool), None)

    async def _call(self, tool: str, arguments: Mapping[str, JsonValue]) -> None:
        self.steps.append((tool, copy.deepcopy(dict(arguments))))
        self.told = members(await self.client.call_tool(tool, dict(arguments)))


class _Mending:
    """The arguments of a task, and what can still be said in place of a value."""

    def __init__(
        self,
        schema: dict[str, Any],
        arguments: dict[str, JsonValue],
        further: Mapping[str, Sequence[JsonValue]],
    ) -> None:
        self._schema = schema
        self.arguments = arguments
        self._further = {pointer: list(values) for pointer, values in further.items()}

    def all_of(self, pointers: Iterable[str]) -> bool:
        """Say something else at each pointer; return whether there was something."""
        mended = [self._one(pointer) for pointer in sorted(set(pointers))]
        return all(mended)

    def _one(self, pointer: str) -> bool:
        *parents, name = pointer.split("/")
        place: Any = self.arguments
        schema: Any = self._schema
        for parent in parents[1:]:
            place = place.setdefault(parent, {})
            schema = schema.get("properties", {}).get(parent, {})
        if pointer == "" or not isinstance(place, dict):
            return False
        allowed = schema.get("properties", {}).get(name)
        if allowed is None:
            return place.pop(name, None) is not None
        for value in self._values(pointer, allowed):
            if jsonschema_rs.is_valid(allowed, value):
                place[name] = value
                return True
        return False

    def _values(self, pointer: str, allowed: Mapping[str, Any]) -> Iterator[JsonValue]:
        """Yield what was not said there yet; of a schema only what leaves no choice."""
        further = self._further.setdefault(pointer, _forced(allowed))
        while further:
            yield further.pop(0)


def _forced(allowed: Mapping[str, Any]) -> list[JsonValue]:
    if "const" in allowed:
        return [allowed["const"]]
    values = list(allowed.get("enum", ()))
    return values if len(values) == 1 else []


def _faults(schema: Mapping[str, Any], arguments: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield pointers to what a schema does not let through."""
    validator = jsonschema_rs.Draft202012Validator(json.loads(json.dumps(schema)))
    for fault in validator.iter_errors(dict(arguments)):
        path = "".join(f"/{part}" for part in fault.instance_path)
        yield from (f"{path}{more}" for more in _below(fault))


def _below(fault: ValidationError) -> list[str]:
    match fault.kind:
        case ValidationErrorKind.Required(property=name):
            return [f"/{name}"]
        case ValidationErrorKind.AdditionalProperties(unexpected=names):
            return [f"/{name}" for name in names]
        case _:
            return [""]
