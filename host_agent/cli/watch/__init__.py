"""The live table of requests: `host-agent requests watch`."""
