"""The way of a request: ask, decide, cancel, expire, run.

The only package that sees all the rooms together. `Pipeline` is its face to `gateway` and `agent`:

- `judging`: may it (autonomy, allow-lists and protections, rules, the digest)
- `asking`: an ask runs, is held, attaches to a live request, or is refused
- `granting`: bounded grants: given with an approval, used at an ask, revoked
- `braking`: hold-offs, and no second door to what was denied or waits
- `performing`: one run: intent on disk, wrapper, probe, outcome on disk
- `approved`: what a stored request does by itself: run once, expire, recover
- `catching_up`: what was stored and not written down when the life before ended
- `deciding`: a person approves, denies or cancels
- `showing`: requests as their readers may see them, long polls
"""

from host_agent.pipeline.answering import Answer
from host_agent.pipeline.asking import Ask
from host_agent.pipeline.core import Pipeline
from host_agent.pipeline.rooms import Rooms, Snapshot

__all__ = ["Answer", "Ask", "Pipeline", "Rooms", "Snapshot"]
