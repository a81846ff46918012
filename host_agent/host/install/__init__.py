"""How the agent gets onto a host and off it: a plan, its steps, and the way back from each of them.

`layout`, `file_plan`, `rendering`, `manifest` and `datasets` are pure. `tree` changes files and
remembers how to undo it in a `journal`; `steps` and `removal` say in which order. Only root can use
it, and nothing of the agent's own user is read or followed.
"""
