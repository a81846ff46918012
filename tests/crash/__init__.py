"""The crash harness: kill the agent, restart it, and look for a broken promise.

`python -m tests.crash --kills 1000`. The parts, in the order of a kill:

- `place`: a directory that an agent serves from; its wrapper notes every execution in a side file
- `points`: where the agent can be told to kill itself, and the fuse that does it
- `ports`: the agent with a fuse in its store, audit log and runner
- `nursery`: the process that forks agents, so that a start costs no import
- `ledger`: what the callers wished for and what they were told
- `driver`: callers and approvers at work, one life of the agent after the other
- `evidence`: what is on disk after a kill, held against the ledger
- `report`: what came of it
"""
