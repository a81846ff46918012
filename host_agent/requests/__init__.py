"""The decision: what is approved, by whom, by which code. Pure."""
