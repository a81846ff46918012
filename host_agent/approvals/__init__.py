"""Who says yes: requests, decisions, digests and the durable queue."""
