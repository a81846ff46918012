"""Answers in the protocol's own form. They need the SDK, which is heavy; `answers` does not."""

from mcp.types import CallToolResult, TextContent, Tool, ToolAnnotations

from host_agent.client import RequestView
from host_agent.mcp import answers
from host_agent.mcp.answers import ToolAnswer
from host_agent.mcp.tools import ToolDeclaration


def result_of(answer: ToolAnswer | RequestView) -> CallToolResult:
    told = answers.of_request(answer) if isinstance(answer, RequestView) else answer
    return CallToolResult(
        content=[TextContent(text=told.text)],
        structured_content=dict(told.members),
        is_error=told.is_error,
    )


def tool_of(declaration: ToolDeclaration) -> Tool:
    """Return a tool as it is listed. Hints that say what is so without them are left out."""
    is_read, is_repeatable = declaration.is_read, declaration.is_repeatable
    return Tool(
        name=declaration.name,
        description=declaration.description,
        input_schema=declaration.input_schema,
        output_schema=declaration.output_schema,
        annotations=ToolAnnotations(
            read_only_hint=is_read,
            destructive_hint=None if is_read else declaration.effect == "destroy",
            idempotent_hint=True if is_repeatable and not is_read else None,
            open_world_hint=False,
        ),
    )
