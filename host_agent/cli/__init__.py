"""The `host-agent` command: one module a noun."""
