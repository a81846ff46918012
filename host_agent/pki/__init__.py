"""A small certificate authority, and whether the door would take its certificates."""
