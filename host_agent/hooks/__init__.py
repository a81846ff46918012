"""What an agent's own shell may not do: the hook that its host calls before each command.

A guard rail that names the operation to ask for, never a boundary. The standard library only, and
little of it: a hook is started before every command. So no dataclass and no pydantic here.
"""
