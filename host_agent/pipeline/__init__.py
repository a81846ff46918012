"""The way of a request: ask, decide, cancel, expire, run.

The only package that sees all the rooms together. `Pipeline` is its face to `api` and `agent`:

- `authorize`: may it (autonomy, allow-lists and protections, rules, the digest)
- `judging`: what an ask is told before anything of it happens
- `dry_run`: that, and no more
- `submit`: an ask runs, is held, attaches to a live request, or is refused
- `grants`: bounded grants: given with an approval, used at an ask, revoked
- `fatigue`: hold-offs, and no second door to what was denied or waits
- `run`: one run: intent on disk, wrapper, probe, outcome on disk
- `transitions`: every step of a stored request: compare-and-set, wake, record
- `lifecycle`: what a stored request does by itself: run once, expire, recover
- `reconcile`: what was stored and not written down when the life before ended
- `decide`: a person approves, denies or cancels
- `views`: requests as their readers may see them, long polls
"""

from host_agent.pipeline.context import Context, Snapshot
from host_agent.pipeline.core import Pipeline
from host_agent.pipeline.responses import SubmitAnswer
from host_agent.pipeline.submit import Submission

__all__ = ["Context", "Pipeline", "Snapshot", "Submission", "SubmitAnswer"]
