"""Operations as tools, in the forms that makers of models document. Pure.

A tool takes the operation's parameters and, for what changes something, a `reason` beside them.
Values come from what the identity is told; nothing is listed here that is declared elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from pydantic import Field, JsonValue

from host_agent.api.wire.model import Json, WireAnswer
from host_agent.api.wire.operations import OperationInfo

REASON: Final = "reason"
MAX_DESCRIPTION_CHARACTERS: Final = 1000
"""What OpenAI takes at most is 1024."""

_EFFECTS: Final[Mapping[str, str]] = {
    "read": "Changes nothing.",
    "change": "Changes the host.",
    "destroy": "Destroys something on the host.",
}


class ToolList(WireAnswer):
    """What this identity can ask for, as tools."""

    tools: tuple[Json, ...] = Field(description="In the form that was asked for.")


def takes_reason(info: OperationInfo) -> bool:
    """Return whether its tool has a `reason` beside the parameters: a read is asked of nobody."""
    return info.effect != "read" and REASON not in _object(info.parameters.get("properties"))


def tool_description(info: OperationInfo) -> str:
    """Return what a tool changes, what needs a person, and how it is undone, in sentences."""
    return " ".join(filter(None, _sentences(info)))[:MAX_DESCRIPTION_CHARACTERS]


def tool_input(info: OperationInfo) -> Json:
    """Return the JSON Schema of what a tool takes.

    `oneOf`, which says which values go together, is left out: not every model takes it here.
    """
    schema: Json = {"type": "object", "properties": {}, **info.parameters}
    schema.pop("oneOf", None)
    if takes_reason(info):
        about: Json = {"type": "string", "description": "Why, for who decides."}
        schema["properties"] = {**_object(schema["properties"]), REASON: about}
        if all(case.reason_needed for case in info.cases):
            required = schema.get("required")
            schema["required"] = [*(required if isinstance(required, list) else []), REASON]
    return schema


def _sentences(info: OperationInfo) -> Iterator[str]:
    yield info.summary
    yield _EFFECTS.get(info.effect, "")
    seen = set[str]()
    for case in info.cases:
        about = ", ".join((*(case.values or ()), *(case.patterns or ())))
        line = f"{about}: {case.words}" if about and len(info.cases) > 1 else case.words
        if line not in seen:
            seen.add(line)
            yield line
    if info.undo is not None:
        yield f"Undo: {info.undo}."


def _object(value: JsonValue) -> Json:
    return value if isinstance(value, dict) else {}


# -- the forms -------------------------------------------------------------------------------------

_OUTPUT: Final[Json] = {
    "type": "object",
    "properties": {"state": {"type": "string"}, "request_id": {"type": "string"}},
}
"""What ran and what is held have alike: small, because every tool has it."""


def _mcp(info: OperationInfo) -> Json:
    return {
        "name": info.tool,
        "description": tool_description(info),
        "inputSchema": tool_input(info),
        "outputSchema": _OUTPUT,
        "annotations": {
            "readOnlyHint": info.effect == "read",
            "destructiveHint": info.effect == "destroy",
            "idempotentHint": info.effect == "read",
            "openWorldHint": False,
        },
    }


def _openai(info: OperationInfo) -> Json:
    function: Json = {
        "name": info.tool,
        "description": tool_description(info),
        "parameters": tool_input(info),
    }
    return {"type": "function", "function": function}


def _anthropic(info: OperationInfo) -> Json:
    return {
        "name": info.tool,
        "description": tool_description(info),
        "input_schema": tool_input(info),
    }


ToolForm = Literal["mcp", "openai", "anthropic"]
TOOL_FORMS: Final[Mapping[ToolForm, Callable[[OperationInfo], Json]]] = {
    "mcp": _mcp,
    "openai": _openai,
    "anthropic": _anthropic,
}
"""The forms by name: the Model Context Protocol, OpenAI's functions, Anthropic's tools."""
