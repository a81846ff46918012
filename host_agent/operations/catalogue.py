"""What can be asked: operations, their parameters and effects, and the table of all of them.

An adapter declares its operations here as values and pure functions: nothing in this room opens a
process, a file or a socket. Everything that names an operation (HTTP, policy, sudoers, reference
pages, command line) reads this one table.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from host_agent.canonical import JsonValue
from host_agent.errors import (
    Fault,
    HostAgentError,
    HostFailedError,
    InvalidParameterError,
    Recovery,
    RecoveryKind,
    UnknownOperationError,
    pointer,
)
from host_agent.operations.section import Section


class Effect(StrEnum):
    """What an operation does to the host."""

    READ = "read"
    CHANGE = "change"
    DESTROY = "destroy"


class RunAs(StrEnum):
    """Which user a wrapper runs as: root, or the identity's unix user."""

    ROOT = "root"
    UNIX_USER = "unix_user"


class Parameters(BaseModel):
    """The parameters of one operation: frozen, strict, nothing unknown, ASCII only.

    `positional` is the order in which the older body form's `resource` and `args` fill them; the
    first is the resource, where the operation has one. `phrases` says parameters in words, in the
    order in which people read them: a name, and a text in which `{}` stands for the value. That of
    a switch is said where it is on. What has no phrase is shown by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
    positional: ClassVar[tuple[str, ...]] = ()
    phrases: ClassVar[Mapping[str, str]] = {}

    def canonical(self) -> dict[str, JsonValue]:
        """Return the parameters as JSON values, defaults filled in: what the digest covers."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One run of a wrapper: which file of the wrapper directory, with which arguments, as whom.

    `timeout_seconds` of None means the configuration's.
    """

    wrapper: str
    arguments: tuple[str, ...]
    run_as: RunAs
    timeout_seconds: float | None = None


_SAID = re.compile(r"host-agent: ([ -~]{1,200})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a process left behind, bounded and decoded.

    `exit_code` is the process's own, or `-N` for a death by signal N. `stdout` and `stderr` hold at
    most the configured bytes each, invalid UTF-8 shown as U+FFFD; `stdout_bytes` and
    `stderr_bytes` are the true sizes, and `stdout_sha256` is over all of standard output.
    """

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_sha256: str = ""
    truncated: bool = False
    timed_out: bool = False
    duration_ms: int = 0

    @property
    def shell_status(self) -> int:
        """Return the exit status as a shell tells it: 128 + N for a death by signal N.

        sudo dies by the signal that its command died by, so both forms come from one wrapper.
        """
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code

    @property
    def said(self) -> str | None:
        """Return the last sentence that the wrapper itself wrote to standard error, or None.

        All of standard error that may get into a problem's detail: printable ASCII, bounded.
        """
        found = [match[1] for line in self.stderr.split("\n") if (match := _SAID.fullmatch(line))]
        return found[-1] if found else None


class PreviewAccuracy(StrEnum):
    """How far a preview can be believed."""

    EXACT = "exact"
    ESTIMATE = "estimate"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What would happen: one sentence and bounded lines of detail (host data, never trusted).

    The sentence begins with words of the adapter's own and says what is lost or stops, in sum.
    Details begin with what decides; a list comes last, a line an item, and `left_out` counts the
    items that are not among them. `undo` says in a few words how it is taken back: `none` where it
    cannot be. `about` is what the host itself says of the resource, for longer views alone.
    """

    accuracy: PreviewAccuracy
    summary: str
    details: tuple[str, ...] = ()
    left_out: int = 0
    undo: str = "not known"
    about: str | None = None

    def as_json(self) -> dict[str, JsonValue]:
        """Return the preview as it is stored and shown."""
        return {
            "accuracy": self.accuracy.value,
            "summary": self.summary,
            "details": list(self.details),
            "left_out": self.left_out,
            "undo": self.undo,
            "about": self.about,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The state an operation assumes (`precondition`, part of the digest), and what it would do."""

    precondition: Mapping[str, JsonValue]
    preview: Preview
    is_done_already: bool = False
    """Whether the run would change nothing at all. Only an exact preview can say so."""


def never_asks(_params: object) -> bool:
    """Say that policy alone decides whether a person is asked: the default of `always_asks`."""
    return False


def always_asks(_params: object) -> bool:
    """Say that a person is asked whatever the rules allow."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a parameter may be: one of `values`, or what matches one of `patterns` as a whole.

    A pattern is a regular expression of Python over ASCII; `suffix` is another, of what follows
    each. What matches one of `without` is refused all the same, and is never shown.
    """

    values: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    suffix: str = ""
    without: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values or self.patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Values that go together: what the resource may be, and then other parameters, by name.

    `resource` of None is for an operation without one. A mapping among `others` is of a parameter
    that is an object, which then has exactly these members.
    """

    resource: Allowed | None = None
    others: Mapping[str, "Allowed | Mapping[str, Allowed]"] = field(default_factory=dict)


Deed: TypeAlias = tuple[str, str]
"""A verb with its adapter, and the resource that it is done to: `("pct.halt", "101")`."""


def may_reach_nothing(_params: object, _resource: str) -> bool:
    """Say that the deeds are all there is to it: the default of `may_reach`."""
    return False


if TYPE_CHECKING:  # who names no parameters means any: PEP 696, which Python 3.11 has not
    ParametersT = TypeVar("ParametersT", bound=Parameters, default=Any)
    SectionT = TypeVar("SectionT", bound=Section, default=Any)
else:
    ParametersT = TypeVar("ParametersT", bound=Parameters)
    SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSpec(Generic[ParametersT, SectionT]):
    """The declaration of one operation: values and pure functions.

    - `wrapper`: the file that runs it; `zfs-list` for `zfs.list`, where none is named.
    - `inspector`: the wrapper of `inspect` and `probe`, where it is not `wrapper` itself.
    - `resource`: the resource string that rules see, or None for an operation without one.
    - `admit`: raises `PolicyDeniedError` or `ProtectedError` where the adapter's allow-lists or
      built-in protections refuse the parameters; `section` is the adapter's configuration section.
    - `choices`: what `admit` lets through of these, as values and patterns; nothing where it lets
      nothing through. Parameters that are not named in one are free within their grammar.
    - `undo`: how a change is taken back, in a few words; None for a read.
    - `is_offered_by_choice`: callers see each choice as a thing of its own, by its resource.
    - `inspect` / `parse_inspection`: a read that yields precondition and preview in one process;
      None for reads. `parse_inspection` gets the output of exit status 0 only.
    - `may_be_done_already`: whether an inspection can find exactly that there is nothing to do.
      Such an ask is answered at once, and nobody is asked about it.
    - `invoke`: the run; gets the precondition (empty for reads), so that the wrapper can hold it.
    - `guard`: raises like `admit`, for what only the host can tell (a unit's other names, a
      dataset's descendants); gets the output of the inspection.
    - `decode`: the output as text in which secrets can be found, for a tool that encodes what it
      prints; never raises. It comes before `restrict` and `parse`, and is what the caller sees.
    - `restrict`: leaves out of an output what the section's allow-list does not name, for
      operations whose parameters do not name everything that they show.
    - `deeds`: what else a change does, and to what, under names that it shares with those other
      operations of its adapter that do the same; its own name and resource are always among them.
      None is only these. Never asked of a read.
    - `may_reach`: whether the run could do anything at all to a resource of any adapter, for an
      operation whose effect is not known here.
    - `turn`: the key under which changes wait for each other; None is the resource.
    - `probe` / `parse_probe`: a read after the run; True if the effect is seen, False if not.
    - `parse`: the structured `data` of an answer, from standard output of exit status 0; raises
      `InvalidOutputError`.
    - `failure`: the error for an output with another exit status (of run or inspection).
    """

    name: str
    effect: Effect
    summary: str
    parameters: type[ParametersT]
    wrapper: str = ""
    inspector: str | None = None
    run_as: RunAs = RunAs.ROOT
    resource: Callable[[ParametersT], str | None]
    admit: Callable[[ParametersT, SectionT], None]
    choices: Callable[[SectionT], tuple[Choice, ...]]
    undo: str | None = None
    is_offered_by_choice: bool = False
    invoke: Callable[[ParametersT, Mapping[str, JsonValue]], Invocation]
    failure: Callable[[ParametersT, Output], HostAgentError] = field(
        default=lambda _params, output: HostFailedError(
            f"The command ended with exit status {output.exit_code}; see its standard error."
        )
    )
    always_asks: Callable[[ParametersT], bool] = never_asks
    inspect: Callable[[ParametersT], Invocation] | None = None
    parse_inspection: Callable[[ParametersT, Output], Inspection] | None = None
    may_be_done_already: bool = False
    guard: Callable[[ParametersT, SectionT, Output], None] | None = None
    decode: Callable[[Output], Output] | None = None
    restrict: Callable[[ParametersT, SectionT, Output], Output] | None = None
    deeds: Callable[[ParametersT], frozenset[Deed]] | None = None
    may_reach: Callable[[ParametersT, str], bool] = may_reach_nothing
    turn: Callable[[ParametersT], str] | None = None
    probe: Callable[[ParametersT, Mapping[str, JsonValue]], Invocation] | None = None
    parse_probe: Callable[[ParametersT, Mapping[str, JsonValue], Output], bool] | None = None
    parse: Callable[[ParametersT, Output], JsonValue] | None = None

    def __post_init__(self) -> None:
        if not self.wrapper:
            object.__setattr__(self, "wrapper", self.name.replace(".", "-"))

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Return the wrappers that decide about it: the one that runs, and the one that looks."""
        if self.inspector is None or (self.inspect is None and self.probe is None):
            return (self.wrapper,)
        return (self.wrapper, self.inspector)

    @property
    def adapter(self) -> str:
        """Return the part of the name before the dot."""
        return self.name.partition(".")[0]

    @property
    def verb(self) -> str:
        """Return what it does, in a word as people read it: `DESTROY`."""
        return self.name.partition(".")[2].replace("_", " ").upper()

    @property
    def asks_always(self) -> tuple[bool, ...]:
        """Return what `always_asks` can say: whether it depends on the parameters is known here."""
        if self.always_asks is never_asks:
            return (False,)
        return (True,) if self.always_asks is always_asks else (False, True)


@dataclass(frozen=True, slots=True)
class Operation:
    """A parsed ask: a declaration and its validated parameters. Cannot hold a bad value."""

    spec: OperationSpec
    params: Parameters

    @property
    def name(self) -> str:
        """Return the catalogue name, `adapter.verb`."""
        return self.spec.name

    @property
    def only_name(self) -> str | None:
        """Return the parameter of the resource, where nothing else that was given is a text.

        What the host does not know can then be nothing else.
        """
        given = self.params.model_fields_set
        texts = [name for name in given if isinstance(getattr(self.params, name), str)]
        return texts[0] if texts == list(self.params.positional[:1]) else None

    @property
    def effect(self) -> Effect:
        """Return what it does to the host."""
        return self.spec.effect

    @property
    def resource(self) -> str | None:
        """Return the resource string that rules see."""
        return self.spec.resource(self.params)

    @property
    def deeds(self) -> frozenset[Deed]:
        """Return what a change does, and to what; nothing for a read."""
        if self.spec.effect is Effect.READ:
            return frozenset()
        own = frozenset({(self.name, self.resource or "")})
        return own if self.spec.deeds is None else own | self.spec.deeds(self.params)

    def does_as(self, other: "Operation") -> bool:
        """Return whether it is another operation than `other` and could have the same effect.

        The relation is symmetric. Resources are compared as they are named; that two names are of
        one thing (an alias of a unit, the volume of a container) is not known here.
        """
        if self.name == other.name or Effect.READ in (self.effect, other.effect):
            return False
        if self.deeds & other.deeds:
            return True
        return _may_reach(self, other) or _may_reach(other, self)

    def is_done_already(self, inspection: Inspection | None) -> bool:
        """Return whether `inspection` found exactly that there is nothing to do.

        Never where the operation does not declare that it can be, or the preview is no exact one.
        """
        if inspection is None or not self.spec.may_be_done_already:
            return False
        is_exact = inspection.preview.accuracy is PreviewAccuracy.EXACT
        return is_exact and inspection.is_done_already

    @property
    def turn(self) -> str:
        """Return the key under which changes of this resource wait for each other."""
        if self.spec.turn is not None:
            return self.spec.turn(self.params)
        return self.resource or self.name

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Return the wrappers that decide about it; the digest covers their bytes."""
        return self.spec.wrappers


def _may_reach(one: Operation, other: Operation) -> bool:
    resources = {resource for _, resource in other.deeds if resource}
    return any(one.spec.may_reach(one.params, resource) for resource in resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program of the host: its short name, where Debian has it, arguments that only print."""

    name: str
    path: str
    version: tuple[str, ...]


def _nothing_of(_section: object) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter(Generic[SectionT]):
    """One family of operations, and all that others have to know of it.

    - `section`: the table of the configuration, under the adapter's name.
    - `specs`: its operations.
    - `tool`: what its wrappers run, where that is one program.
    - `names`: what root's list allows to be named, from a section: POSIX extended regular
      expressions, or with `has_fixed_names` the resources themselves.
    - `protected`: patterns of what root never changes, from a section.
    - `programs`: base names of programs that do or undo what it does, so that `exec` takes none.
    """

    name: str
    section: type[SectionT]
    specs: tuple[OperationSpec[Any, SectionT], ...]
    tool: Tool | None = None
    names: Callable[[SectionT], Iterable[str]]
    has_fixed_names: bool = False
    protected: Callable[[SectionT], Iterable[str]] = _nothing_of
    programs: frozenset[str] = frozenset()

    @property
    def run_as(self) -> RunAs:
        """Return whom its wrappers run as."""
        return self.specs[0].run_as


class Catalogue:
    """The table of all adapters and operations that this build has."""

    def __init__(self, adapters: Iterable[Adapter]) -> None:
        self.adapters = tuple(adapters)
        self._specs = {spec.name: spec for adapter in self.adapters for spec in adapter.specs}
        self.names = frozenset(self._specs)
        self.programs = frozenset[str]().union(*(adapter.programs for adapter in self.adapters))

    def __iter__(self) -> Iterator[OperationSpec]:
        return iter(self._specs.values())

    def find(self, name: str) -> OperationSpec | None:
        """Return the declaration of `name`; None where this build has none."""
        return self._specs.get(name)

    def spec(self, name: str) -> OperationSpec:
        """Return the declaration of `name`.

        Raises:
            UnknownOperationError: there is none.
        """
        spec = self._specs.get(name)
        if spec is None:
            message = "There is no operation of that name; GET /host/operations lists all."
            raise UnknownOperationError(message)
        return spec

    def parse(self, name: str, params: Mapping[str, JsonValue]) -> Operation:
        """Return the operation `name` with `params` validated against its grammar.

        Raises:
            UnknownOperationError: there is no operation `name`.
            InvalidParameterError: a parameter is missing, unknown, or breaks its grammar.
        """
        spec = self.spec(name)
        try:
            # From a parsed body; strict mode refuses "3" for 3 and true for 1.
            return Operation(spec, spec.parameters.model_validate(dict(params)))
        except ValidationError as error:
            fix = faults_of(error, params, spec.parameters, "params")
            raise InvalidParameterError(explain(error), recovery=fix) from None


def explain(error: ValidationError) -> str:
    """Return the first faults of a validation as one sentence; never the offending values."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        where = ".".join(str(part) for part in fault["loc"]) or "parameters"
        faults.append(f"{where[:64]}: {fault['msg'].removeprefix('Value error, ')}")
    return "; ".join(faults) + "."


MAX_FAULTS = 20
_MAX_KEY = 256


def faults_of(
    error: ValidationError, value: Mapping[str, JsonValue], model: type[BaseModel], *base: str
) -> Recovery:
    """Return what to correct in `value`, which does not fit `model`: a pointer and why, for each.

    `base` leads to `value` from the top of the body. Values are never repeated; a key that is too
    long to be shown is left to the pointer of what it stands in.
    """
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = _path_in(value, fault["loc"], is_missing=fault["type"] == "missing")
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            message = f"There is no such member; there are: {', '.join(model.model_fields)}."
        faults.append(Fault(pointer=pointer((*base, *path)), message=message))
    return Recovery(kind=RecoveryKind.CHANGE_PARAMETERS, faults=tuple(faults[:MAX_FAULTS]))


def _path_in(
    value: object, location: Sequence[str | int], *, is_missing: bool
) -> Iterator[str | int]:
    """Yield the keys and indexes of a location that are in `value`, and the one that is missing.

    The others name the alternatives of a type, and what was asked of a key.
    """
    for place, part in enumerate(location):
        if len(str(part)) > _MAX_KEY:
            return
        if isinstance(value, Mapping) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif not (is_missing and place == len(location) - 1):
            continue
        yield part
