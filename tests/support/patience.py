"""How long a test waits for what must happen."""

PATIENCE = 120.0
"""Seconds: only what never happens takes so long, also on a machine with other things to do."""

OUTLASTING = 5 * PATIENCE
"""Seconds that something hangs for which nobody may wait: what ends within `PATIENCE` did not."""
