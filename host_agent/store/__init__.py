"""On disk: the durable queue."""
