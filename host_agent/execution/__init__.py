"""It runs: the only door to a process."""
