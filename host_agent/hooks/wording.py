"""What a denial says to the agent: the operations to ask for, or how to find them."""

import json

from host_agent.hooks.judgement import CommandDenial
from host_agent.hooks.translation import Suggestion, Value

SERVER = "host-agent"
"""The name that the MCP server is registered under."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")
_MOST_SUGGESTIONS = 8


def tool_name(operation: str) -> str:
    """Return the name of the MCP tool of an operation."""
    return operation.replace(".", "_")


def command_line(suggestion: Suggestion) -> str:
    """Return the command that asks for the operation; what is missing in capitals."""
    words = [f"{name}={_word(value)}" for name, value in suggestion.parameters.items()]
    words += [f"{name}={name.upper()}" for name in suggestion.missing]
    return " ".join(["host-agent call", suggestion.operation, *words])


def sentence(denial: CommandDenial) -> str:
    """Return the whole text of a denial."""
    what = f"This command was not run: it is about `{denial.program}`, which changes this host"
    if not denial.is_simple:
        return (
            f"{what}, and it is more than one simple command. Ask for one operation at a time"
            " instead, with the tools of the MCP server `host-agent`, or with `host-agent call"
            " OPERATION NAME=VALUE`; `host-agent operations` lists what may be asked for. A command"
            f" that only has the word `{denial.program}` in it can be run alone, without pipes and"
            " operators."
        )
    if not denial.suggestions:
        return (
            f"{what}, and no operation does just this. See the tools of the MCP server"
            " `host-agent`, or `host-agent operations`, for what may be asked for; a program that"
            " the administrator registered is run by exec.run. If nothing fits, ask the person"
            " whom you work for; do not try another way."
        )
    lines = [f"{what}. Ask for this instead:"]
    lines += map(_line, denial.suggestions[:_MOST_SUGGESTIONS])
    left = len(denial.suggestions) - _MOST_SUGGESTIONS
    if left > 0:
        lines.append(f"- and {left} more of this kind")
    lines.append("It may be held until a person says yes; then nothing has run yet: wait for it.")
    return "\n".join(lines)


def _line(suggestion: Suggestion) -> str:
    tool, given = tool_name(suggestion.operation), json.dumps(suggestion.parameters)
    return (
        f"- the MCP tool `{tool}` of the server `{SERVER}` with {given},"
        f" or: {command_line(suggestion)}{_missing(suggestion)}"
    )


def _missing(suggestion: Suggestion) -> str:
    if not suggestion.missing:
        return ""
    return f" (give {' and '.join(f'`{name}`' for name in suggestion.missing)} too)"


def _word(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ",".join(value) if isinstance(value, list) else str(value)
    return text if set(text) <= _PLAIN else "'" + text.replace("'", "'\\''") + "'"
