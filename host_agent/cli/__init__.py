"""The `host-agent` command."""
