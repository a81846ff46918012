"""The tools: one for each operation that this certificate may ask for, and three for requests.

Pure: what `GET /host/operations` says becomes the tools' declarations. Names, allowed values and
verdicts come from there; nothing is listed here that is declared elsewhere.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from host_agent.client import (
    REASON,
    OperationInfo,
    takes_reason,
    tool_description,
    tool_input,
)
from host_agent.mcp import LONGEST_WAIT_SECONDS

LISTED_REQUESTS = 20

STATUS, CANCEL, REQUESTS = "request_status", "request_cancel", "my_requests"

ToolSchema = dict[str, JsonValue]

_OUTPUT: ToolSchema = {"type": "object", "required": ["state", "message"]}
"""Small, because every tool has it; docs/reference/mcp.md has the other members."""
_REQUEST_ID: ToolSchema = {"type": "string", "description": "As an earlier answer gave it."}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDeclaration:
    """What a client is told of one tool. `operation` is what it asks for; None for a request's."""

    name: str
    description: str
    effect: str
    input_schema: ToolSchema
    operation: str | None = None
    takes_reason: bool = False
    is_repeatable: bool = False
    """Whether an ask that was followed without an answer may be made again."""
    output_schema: ToolSchema = field(default_factory=lambda: copy.deepcopy(_OUTPUT))

    @property
    def is_read(self) -> bool:
        """Return whether it changes nothing, on the host or in the queue."""
        return self.effect == "read"

    @property
    def fixed(self) -> Mapping[str, JsonValue]:
        """Return the parameters that have one value in this tool, which people let run for that."""
        properties = _object(self.input_schema.get("properties"))
        found = {name: _object(schema) for name, schema in properties.items()}
        return {name: schema["const"] for name, schema in found.items() if "const" in schema}

    def params(self, arguments: Mapping[str, JsonValue]) -> tuple[dict[str, JsonValue], JsonValue]:
        """Return the operation's parameters and the reason that `arguments` mean."""
        given = dict(arguments)
        return given, given.pop(REASON, None) if self.takes_reason else None


_REASON: ToolSchema = {
    "type": "string",
    "maxLength": 2000,
    "description": "Why, for the people who decide.",
}


def declarations(infos: Iterable[OperationInfo]) -> tuple[ToolDeclaration, ...]:
    """Return the tools of an identity that is told `infos`, those for requests last."""
    return (*filter(None, map(_declared, infos)), *request_tools())


def _declared(info: OperationInfo) -> ToolDeclaration | None:
    if info.verdict == "deny":
        return None
    return ToolDeclaration(
        name=info.tool,
        description=tool_description(info),
        effect=info.effect,
        input_schema=copy.deepcopy(tool_input(info)),
        operation=info.name,
        takes_reason=takes_reason(info),
        is_repeatable=info.effect == "read",
    )


def request_tools() -> tuple[ToolDeclaration, ...]:
    """Return the tools that every identity has."""
    wait: ToolSchema = {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT_SECONDS}
    return (
        ToolDeclaration(
            name=STATUS,
            description="How a request of yours stands, and its result once it has ended. Waits for"
            f" an end for up to wait_seconds, at most {LONGEST_WAIT_SECONDS}. Asks nobody.",
            effect="read",
            input_schema=_closed({"request_id": _REQUEST_ID, "wait_seconds": wait}, "request_id"),
            is_repeatable=True,
        ),
        ToolDeclaration(
            name=CANCEL,
            description="Withdraws a request of yours that has not run. What runs goes on.",
            effect="change",
            input_schema=_closed({"request_id": _REQUEST_ID, REASON: _REASON}, "request_id"),
            is_repeatable=True,
        ),
        ToolDeclaration(
            name=REQUESTS,
            description=f"Your newest {LISTED_REQUESTS} requests with their ids and states. Look"
            " here first when an answer was lost: asking again could ask people again.",
            effect="read",
            input_schema=_closed({"state": {"type": "string"}}),
            is_repeatable=True,
        ),
    )


def _closed(properties: ToolSchema, *required: str) -> ToolSchema:
    return {
        "type": "object",
        "properties": {name: copy.deepcopy(schema) for name, schema in properties.items()},
        "required": list(required),
        "additionalProperties": False,
    }


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def is_of_requests(name: str) -> bool:
    """Return whether a tool is one of those for requests."""
    return name in {STATUS, CANCEL, REQUESTS}
