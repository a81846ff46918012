"""Registered commands that do nothing: each prints what it would have been run with."""

from collections.abc import Iterable

from host_agent.operations.exec.section import Command
from host_agent.simulation.stand_in import REFUSED, die, require_same, tabbed
from host_agent.text import HASH_PREFIX


class SimulatedExec:
    """What stands in for `wrappers/exec-run`."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def register(self, commands: Iterable[Command]) -> None:
        """Take the configured commands."""
        self._commands |= {command.name: command for command in commands}

    def answer(self, _verb: str, arguments: tuple[str, ...]) -> str:
        """Return what `exec-run` prints."""
        what, name, *rest = arguments
        if name not in self._commands:
            die(REFUSED, "no command is registered by that name")
        command = self._commands[name]
        registered = command.sha256.removeprefix(HASH_PREFIX)
        if what == "run":
            require_same(rest.pop(0), registered)
        given = dict(pair.split("=", 1) for pair in rest)
        values = [given[argument.name] for argument in command.arguments]
        if what == "run":
            return f"simulated: {' '.join((command.path, *values))}\n"
        rows = [("sha256", registered), ("effect", command.effect), ("path", command.path)]
        return tabbed([*rows, *(("argument", value) for value in values)])
