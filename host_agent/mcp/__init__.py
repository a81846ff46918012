"""An MCP server: a client of the API with its own certificate, never a second way in."""

WAIT_SECONDS = 20
"""How long a call waits for a decision and for the run before it says that it waits."""
LONGEST_WAIT_SECONDS = 50
"""Of any call: clients give up after 60 seconds unless they are told otherwise."""
