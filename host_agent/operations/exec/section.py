"""The table `[exec]`: programs that are registered one by one."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from host_agent.operations.exec.programs import check_path
from host_agent.operations.section import Fingerprint, PortablePattern, Section, grammar

CommandName = Annotated[
    str,
    grammar(r"[a-z][a-z0-9-]{0,63}", "must be lower-case letters, digits and '-', a letter first"),
]
ArgumentName = Annotated[
    str,
    grammar(r"[a-z][a-z0-9_]{0,31}", "must be lower-case letters, digits and '_', a letter first"),
]


class Argument(Section):
    """One argument of a registered command. All are needed; their order here is the program's."""

    name: ArgumentName = Field(
        description="What callers name it by: lower-case letters, digits and `_`, a letter first."
    )
    pattern: PortablePattern = Field(
        description="Regular expression that the whole value must match. Values are visible ASCII "
        "without spaces, at most 256 characters, and never begin with `-`."
    )


_Named = TypeVar("_Named", bound="Argument | Command")


def _no_name_twice(items: tuple[_Named, ...]) -> tuple[_Named, ...]:
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            message = f"names {name} twice"
            raise ValueError(message)
    return items


class Command(Section):
    """A program that callers may have run as root, by the name it is registered under."""

    name: CommandName = Field(
        description="What rules and callers name it by: lower-case letters, digits and `-`, a "
        "letter first."
    )
    path: Annotated[str, AfterValidator(check_path)] = Field(
        description="The program: absolute, of root, and no symbolic link; nobody else may write "
        "it or a directory above it. Shells, interpreters, programs that run or write anything, "
        "and the tools of the other adapters are refused."
    )
    sha256: Fingerprint = Field(
        description="`sha256:` and the hash of the program's bytes; another program does not run."
    )
    effect: Literal["change", "destroy"] = Field(
        default="destroy",
        description="What approvers are told that it does. For rules and autonomy every command "
        "counts as `destroy`.",
    )
    arguments: Annotated[tuple[Argument, ...], AfterValidator(_no_name_twice)] = Field(
        default=(),
        description="Its arguments, in the order in which the program gets them. All are needed.",
    )


class ExecSection(Section):
    """The exec adapter: programs that are registered one by one. None: nothing can be run."""

    commands: Annotated[tuple[Command, ...], AfterValidator(_no_name_twice)] = Field(
        default=(), description="The commands. None: no exec operation."
    )

    def command(self, name: str) -> Command | None:
        """Return the command that is registered as `name`."""
        return next((command for command in self.commands if command.name == name), None)
