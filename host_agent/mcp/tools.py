"""The tools: one for each operation that this certificate may ask for, and three for requests.

Pure: what `GET /host/operations` says becomes the tools' declarations. Names, allowed values and
verdicts come from there; nothing is listed here that is declared elsewhere.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from host_agent.client import OperationInfo
from host_agent.mcp import LONGEST_WAIT_SECONDS

LISTED_REQUESTS = 20
REASON = "reason"
MAX_REASON_CHARACTERS = 2000
MAX_DESCRIPTION_CHARACTERS = 700

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

    def params(self, arguments: Mapping[str, JsonValue]) -> tuple[dict[str, JsonValue], JsonValue]:
        """Return the operation's parameters and the reason that `arguments` mean."""
        given = dict(arguments)
        return given, given.pop(REASON, None) if self.takes_reason else None


_REASON: ToolSchema = {
    "type": "string",
    "maxLength": MAX_REASON_CHARACTERS,
    "description": "Why, for the people who decide.",
}


def declarations(infos: Iterable[OperationInfo]) -> tuple[ToolDeclaration, ...]:
    """Return the tools of an identity that is told `infos`, those for requests last."""
    return (*filter(None, map(_declared, infos)), *request_tools())


def _declared(info: OperationInfo) -> ToolDeclaration | None:
    if info.verdict == "deny":
        return None
    is_taken = REASON in _object(info.parameters.get("properties"))
    takes_reason = info.effect != "read" and not is_taken
    return ToolDeclaration(
        name=tool_name(info),
        description=" ".join(filter(None, _sentences(info)))[:MAX_DESCRIPTION_CHARACTERS],
        effect=info.effect,
        input_schema=_with_reason(info) if takes_reason else _input_schema(info),
        operation=info.name,
        takes_reason=takes_reason,
        is_repeatable=info.effect == "read",
    )


def tool_name(info: OperationInfo) -> str:
    """Return the name of an operation among tools; the one place where a dot is mapped."""
    told = info.body.get("tool")
    return told if isinstance(told, str) else info.name.replace(".", "_")


def _sentences(info: OperationInfo) -> Iterator[str]:
    yield info.summary
    yield {
        "read": "Changes nothing.",
        "change": "Changes the host.",
        "destroy": "Destroys something on the host.",
    }.get(info.effect, "")
    yield from _case_words(info) or [_VERDICTS.get(info.verdict, "")]
    undo = info.body.get("undo")
    if isinstance(undo, str) and undo:
        yield f"Undo: {undo}."


_VERDICTS = {
    "allow": "Runs at once.",
    "ask": "A person has to approve each call.",
    "depends": "Whether a person has to approve depends on the parameters.",
}


def _case_words(info: OperationInfo) -> list[str]:
    cases = info.body.get("cases")
    found = [_object(case) for case in cases] if isinstance(cases, list) else []
    words: list[str] = []
    for case in found:
        about = case.get("values") or case.get("patterns")
        named = ", ".join(map(str, about)) if isinstance(about, list) else ""
        said = str(case.get("words", ""))
        line = f"{named}: {said}" if named and len(found) > 1 else said
        if line and line not in words:
            words.append(line)
    return words


def _input_schema(info: OperationInfo) -> ToolSchema:
    """Return the operation's parameters; their `properties` have every value that is let through.

    `oneOf`, which says which of them go together, is left out: not every client takes it here.
    """
    schema = copy.deepcopy(dict(info.parameters))
    schema.pop("oneOf", None)
    return {"type": "object", "properties": {}, **schema}


def _with_reason(info: OperationInfo) -> ToolSchema:
    schema = _input_schema(info)
    schema["properties"] = {**_object(schema["properties"]), REASON: dict(_REASON)}
    cases = info.body.get("cases")
    if isinstance(cases, list) and cases and all(_object(c).get("reason_needed") for c in cases):
        required = schema.get("required")
        schema["required"] = [*(required if isinstance(required, list) else []), REASON]
    return schema


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
