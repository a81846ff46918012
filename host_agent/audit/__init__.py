"""What happened: an append-only, chained log and its verifier."""
