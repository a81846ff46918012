"""exec: programs that the administrator registered one by one, each with its hash and arguments.

Callers name a command and give its arguments by name; which program that is, and in which order it
gets them, is said by root's own list beside `wrappers/exec-run`, which `commands_file` renders. The
wrapper checks list, program and arguments again as root; nothing is ever read by a shell. What a
command does is its own affair: it counts as `destroy`, and cannot be looked at afterwards.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, NoReturn

from pydantic import AfterValidator, Field, StringConstraints

from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    InvalidOutputError,
    InvalidParameterError,
    PolicyDeniedError,
    correct,
)
from host_agent.operations.catalogue import (
    Adapter,
    Allowed,
    Choice,
    Effect,
    Inspection,
    Invocation,
    OperationSpec,
    Output,
    Parameters,
    Preview,
    PreviewAccuracy,
    RunAs,
)
from host_agent.operations.endings import Endings, by_status, tool_endings, unknown, wrapper_endings
from host_agent.operations.exec.section import ExecSection
from host_agent.text import HASH_PREFIX

WRAPPER = "exec-run"
MAX_ARGUMENTS = 32
MAX_VALUE_LENGTH = 256

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_VALUE = re.compile(r"[!-,./-~][!-~]{0,255}", re.ASCII)

# -- parameters ------------------------------------------------------------------------------------


def _command_name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        message = "must be the name of a command: lower-case letters, digits and '-'"
        raise ValueError(message)
    return text


def _arguments(given: dict[str, str]) -> dict[str, str]:
    if any(_ARGUMENT.fullmatch(name) is None for name in given):
        message = "must be named by lower-case letters, digits and '_', a letter first"
        raise ValueError(message)
    if any(_VALUE.fullmatch(value) is None for value in given.values()):
        message = (
            f"must be 1 to {MAX_VALUE_LENGTH} visible ASCII characters each, without spaces, and"
            " not begin with '-'"
        )
        raise ValueError(message)
    return dict(sorted(given.items()))


class RunParameters(Parameters):
    """`run`: one registered command, with its arguments by name."""

    positional: ClassVar[tuple[str, ...]] = ("name", "arguments")
    phrases: ClassVar[Mapping[str, str]] = {"arguments": " {}"}
    name: Annotated[
        str,
        StringConstraints(max_length=64),
        AfterValidator(_command_name),
        Field(description="The name that the command is registered under."),
    ]
    arguments: Annotated[
        dict[str, str],
        Field(
            default_factory=dict,
            max_length=MAX_ARGUMENTS,
            description="Every argument of the command by its name, as text.",
        ),
        AfterValidator(_arguments),
    ]

    def pairs(self) -> tuple[str, ...]:
        """Return the arguments as the wrapper takes them, in the order of their names."""
        return tuple(f"{name}={value}" for name, value in self.arguments.items())


# -- what is registered ----------------------------------------------------------------------------


def admit(params: RunParameters, section: ExecSection) -> None:
    """Refuse a command that is not registered, and arguments that are not its own.

    Raises:
        PolicyDeniedError: no command of that name is registered.
        InvalidParameterError: an argument is missing, unknown, or does not match its pattern.
    """
    command = section.command(params.name)
    if command is None:
        message = "This command is not one that may be run here."
        raise PolicyDeniedError(message)
    patterns = {argument.name: argument.pattern for argument in command.arguments}
    if patterns.keys() != params.arguments.keys():
        names = ", ".join(patterns) or "none"
        message = f"arguments: this command takes exactly these: {names}."
        fix = correct(message, "params", "arguments")
        raise InvalidParameterError(message, recovery=fix)
    for name, pattern in patterns.items():
        if re.fullmatch(pattern, params.arguments[name], re.ASCII) is None:
            message = f"arguments.{name}: is not a value that this command takes."
            fix = correct(message, "params", "arguments", name)
            raise InvalidParameterError(message, recovery=fix)


def _choices(section: ExecSection) -> tuple[Choice, ...]:
    return tuple(
        Choice(
            resource=Allowed(values=(command.name,)),
            others={
                "arguments": {
                    argument.name: Allowed(patterns=(argument.pattern,))
                    for argument in command.arguments
                }
            },
        )
        for command in section.commands
    )


def commands_file(section: ExecSection | None) -> str:
    """Return root's own list of commands, the file `commands` in the directory of the wrappers.

    A line a command: name, hash, effect, path, and `name=pattern` for each argument, in order.
    """
    lines = ["# The commands of exec-run: NAME SHA256 EFFECT PATH [ARGUMENT=PATTERN ...]"]
    for command in section.commands if section else ():
        arguments = [f"{argument.name}={argument.pattern}" for argument in command.arguments]
        digest = command.sha256.removeprefix(HASH_PREFIX)
        lines.append(" ".join((command.name, digest, command.effect, command.path, *arguments)))
    return "\n".join([*lines, ""])


def may_reach(params: RunParameters, resource: str) -> bool:
    """Return whether an argument names `resource`: whole, or as whole parts of a path or word.

    What a command does to it is its own affair, so this is all that can be told. `tank/old` is
    named by `/tank/old/mail`, `tank/old@daily` and `pool=tank/old`, not by `tank/older`.
    """
    named = re.compile(rf"(?<![A-Za-z0-9_.-]){re.escape(resource)}(?![A-Za-z0-9_.-])", re.ASCII)
    return any(
        named.search(value) is not None or named.search(posixpath.normpath(value)) is not None
        for value in params.arguments.values()
    )


# -- invocations -----------------------------------------------------------------------------------

_SECONDS = 1800.0


def _inspect(params: RunParameters) -> Invocation:
    arguments = ("inspect", params.name, *params.pairs())
    return Invocation(wrapper=WRAPPER, arguments=arguments, run_as=RunAs.ROOT)


def _invoke(params: RunParameters, held: Mapping[str, JsonValue]) -> Invocation:
    digest = str(held["sha256"]).removeprefix(HASH_PREFIX)
    arguments = ("run", params.name, digest, *params.pairs())
    return Invocation(
        wrapper=WRAPPER, arguments=arguments, run_as=RunAs.ROOT, timeout_seconds=_SECONDS
    )


_SHOWN_HASH = 8
_DECLARED: Mapping[str, str] = {
    "change": "changes, does not destroy",
    "destroy": "may destroy",
}
"""What the administrator says of a command."""
_FACTS: Mapping[str, str] = {
    "sha256": r"[0-9a-f]{64}",
    "effect": r"change|destroy",
    "path": r"/[!-~]{1,512}",
}


def _inspected(params: RunParameters, output: Output) -> Inspection:
    facts: dict[str, str] = {}
    arguments: list[str] = []
    for line in output.stdout.splitlines():
        name, _, value = line.partition("\t")
        if name == "argument" and _VALUE.fullmatch(value) is not None:
            arguments.append(value)
        elif name not in facts and re.fullmatch(_FACTS.get(name, r"(?!)"), value) is not None:
            facts[name] = value
        else:
            _refuse()
    if facts.keys() != _FACTS.keys() or sorted(arguments) != sorted(params.arguments.values()):
        _refuse()
    preview = Preview(
        accuracy=PreviewAccuracy.NONE,
        summary=(
            f"Runs {facts['path']} as registered ({facts['sha256'][:_SHOWN_HASH]}):"
            f" {_DECLARED[facts['effect']]}. What it does is not known to the agent."
        ),
        details=(f"Its arguments: {' '.join(arguments)}",) if len(arguments) > 1 else (),
    )
    held: dict[str, JsonValue] = {
        "path": facts["path"],
        "sha256": f"{HASH_PREFIX}{facts['sha256']}",
    }
    return Inspection(precondition=held, preview=preview)


def _refuse() -> NoReturn:
    message = "What exec-run found out is not in the form that is understood here."
    raise InvalidOutputError(message)


# -- failures --------------------------------------------------------------------------------------

_WRAPPER = wrapper_endings("exec", "The command", nothing="run")
_REFUSALS: Endings = {
    **{status: _WRAPPER[status] for status in (64, 66, 75)},
    77: (PolicyDeniedError, "This command may not be run"),
}
_ENDINGS = tool_endings("The command")
_SAID = re.compile(r"host-agent: ([ -~]{1,200})\n")


def failure(_params: object, output: Output) -> HostAgentError:
    """Return the error for an exit status other than 0: the wrapper's own, or the command's.

    The wrapper refuses with nothing but its one sentence; whatever else was said, the command said.
    """
    is_wrappers = _SAID.fullmatch(output.stderr) is not None and not output.stdout_bytes
    refused = by_status(output, _REFUSALS) if is_wrappers else None
    own = replace(output, stderr="")  # of what a command says nothing gets into a detail
    return refused or by_status(own, _ENDINGS) or unknown(own, "The command")


# -- the table -------------------------------------------------------------------------------------


def _resource(params: RunParameters) -> str:
    return params.name


SPECS = (
    OperationSpec(
        name="exec.run",
        effect=Effect.DESTROY,
        summary="Run a program that the administrator registered.",
        parameters=RunParameters,
        resource=_resource,
        admit=admit,
        choices=_choices,
        is_offered_by_choice=True,
        undo="not known",
        inspect=_inspect,
        parse_inspection=_inspected,
        invoke=_invoke,
        failure=failure,
        may_reach=may_reach,
    ),
)
"""The operation of this adapter."""


def _names(section: ExecSection) -> tuple[str, ...]:
    return tuple(command.name for command in section.commands)


ADAPTER = Adapter(name="exec", section=ExecSection, specs=SPECS, names=_names, has_fixed_names=True)
