"""The agent hosts: where their settings are, what is put there, and whether they go by it."""

from host_agent.errors import UsageError
from host_agent.integration.hosts.claude_code import ClaudeCode
from host_agent.integration.hosts.codex import Codex
from host_agent.integration.hosts.host import AgentHost
from host_agent.integration.hosts.openclaw import OpenClaw

HOSTS: dict[str, type[AgentHost]] = {
    ClaudeCode.name: ClaudeCode,
    Codex.name: Codex,
    OpenClaw.name: OpenClaw,
}
"""The hosts by name."""


def host_of(name: str) -> type[AgentHost]:
    """Return the host of that name.

    Raises:
        UsageError: there is none.
    """
    found = HOSTS.get(name)
    if found is None:
        message = f"{name!a} is none of {', '.join(HOSTS)}."
        raise UsageError(message)
    return found
