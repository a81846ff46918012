"""apt on allow-listed packages: declarations and pure functions; `wrappers/apt-*` do the work.

A change is bound to one transaction: every package that would come or change its version, with its
old and its new version and the hash of its file, as apt's own simulation and the signed index have
them. `apt-inspect` reads these facts; the changing wrapper reads them again as root, and apt asks
once more right before dpkg gets the files. Nothing is removed, downgraded or taken from elsewhere
than the configured sources. Arguments and exit statuses are in docs/reference/apt-wrappers.md.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    PolicyDeniedError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.apt.output import (
    Transaction,
    is_done,
    parse_list,
    parse_show,
    restrict_list,
)
from host_agent.operations.apt.section import AptSection
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
    RunAs,
    Tool,
)
from host_agent.operations.endings import (
    Endings,
    Words,
    by_status,
    by_words,
    tool_endings,
    unknown,
    wrapper_endings,
)
from host_agent.operations.patterns import extended
from host_agent.operations.section import grammar
from host_agent.text import HASH_PREFIX

MAX_NAME_LENGTH = 128
PROTECTED = (r"host-agent.*",)
"""Packages that are never changed from here, as patterns over whole names. The wrappers have the
same: the agent would end itself in the middle of it."""

_SECONDS = 3600.0
_PROTECTED = re.compile("|".join(PROTECTED), re.ASCII)

PackageName = Annotated[
    str,
    StringConstraints(max_length=MAX_NAME_LENGTH),
    grammar(
        r"[a-z0-9][a-z0-9+.-]*[a-z0-9+]",
        "must be a whole package name; no version, release, architecture, task, pattern or path",
    ),
    Field(description="A whole package name of this host's own architecture, as in `nginx`."),
]


class PackageListParameters(Parameters):
    """`list`: all that is installed, or what the sources have another version of."""

    positional: ClassVar[tuple[str, ...]] = ("state",)
    state: Annotated[
        Literal["installed", "upgradable"],
        Field(description="All of them, or those that the sources have another version of."),
    ] = "installed"


class PackageParameters(Parameters):
    """One package."""

    positional: ClassVar[tuple[str, ...]] = ("package",)
    package: PackageName


# -- protections and allow-lists -------------------------------------------------------------------


def _is_protected(name: str, section: AptSection) -> bool:
    return _PROTECTED.fullmatch(name) is not None or any(
        re.fullmatch(pattern, name, re.ASCII) for pattern in section.protected
    )


def admit_read(params: PackageParameters, section: AptSection) -> None:
    """Refuse a package that the administrator did not list.

    Raises:
        PolicyDeniedError: it is not listed; an empty list holds nothing.
    """
    if not any(re.fullmatch(pattern, params.package, re.ASCII) for pattern in section.packages):
        message = "This package is not one that may be worked on here."
        raise PolicyDeniedError(message)


def admit_change(params: PackageParameters, section: AptSection) -> None:
    """Refuse a protected package, then one that is not listed.

    Raises:
        ProtectedError: it is never changed, whatever is listed.
        PolicyDeniedError: it is not listed.
    """
    if _is_protected(params.package, section):
        message = "This package is protected: it is never changed from here."
        raise ProtectedError(message)
    admit_read(params, section)


def admit_list(_params: PackageListParameters, section: AptSection) -> None:
    """Refuse where no package is listed at all; else the answer is filtered by the list.

    Raises:
        PolicyDeniedError: the list is empty.
    """
    if not section.packages:
        message = "No package may be worked on here."
        raise PolicyDeniedError(message)


def _choices_read(section: AptSection) -> tuple[Choice, ...]:
    return (Choice(resource=Allowed(patterns=section.packages)),)


def _choices_change(section: AptSection) -> tuple[Choice, ...]:
    kept = (*PROTECTED, *section.protected)
    return (Choice(resource=Allowed(patterns=section.packages, without=kept)),)


def _choices_list(section: AptSection) -> tuple[Choice, ...]:
    return (Choice(),) if section.packages else ()


def guard(_params: PackageParameters, section: AptSection, output: Output) -> None:
    """Refuse a transaction that would change a protected package along.

    Raises:
        ProtectedError: it would.
        InvalidOutputError: the inspection is not the wrapper's.
    """
    for change in Transaction.of(output).changes:
        if _is_protected(change.package, section):
            message = f"It would change {change.package}, which is protected."
            raise ProtectedError(message)


# -- failures --------------------------------------------------------------------------------------

_ENDINGS: Endings = {
    **wrapper_endings("apt", "The transaction"),
    **tool_endings("apt", after="; `dpkg --audit` tells what is left"),
    70: (HostFailedError, "apt cannot do it, or has not done all of it"),
}
# Words of apt-get(8) and dpkg(1), apt 2.6 and 3.0, in the C locale.
_WORDS: tuple[Words, ...] = (
    (
        r"returned an error code \(75\)",
        TargetChangedError,
        "apt would have done something else than was approved; nothing was changed.",
    ),
    ("Could not get lock", HostBusyError, "Another program works on the packages; ask again."),
    ("Unable to acquire the dpkg", HostBusyError, "Another program works on the packages."),
    (
        "dpkg was interrupted",
        HostFailedError,
        "dpkg was interrupted; an administrator has to run dpkg --configure -a.",
    ),
    ("unauthenticated packages", HostFailedError, "A package cannot be authenticated."),
    ("cannot be authenticated", HostFailedError, "A package cannot be authenticated."),
    ("Held packages were changed", ProtectedError, "A package is held at its version."),
    ("packages were downgraded", ProtectedError, "A package would be downgraded."),
    ("Essential packages", ProtectedError, "A package that the host needs would be removed."),
    ("remove is disabled", ProtectedError, "A package would be removed."),
    ("unmet dependencies", HostFailedError, "What it needs cannot be had from the sources."),
    ("Unable to correct problems", HostFailedError, "It does not go with what is installed."),
    ("Unable to locate package", HostNotFoundError, "No source has the package."),
    ("has no installation candidate", HostNotFoundError, "No source has the package."),
    ("was not found", HostNotFoundError, "No source has that version any more."),
    ("Unable to fetch", HostFailedError, "A package could not be fetched from its source."),
    ("Failed to fetch", HostFailedError, "A package could not be fetched from its source."),
    ("don't have enough free space", HostFailedError, "There is no space left for it."),
    ("No space left on device", HostFailedError, "There is no space left for it."),
    ("dpkg returned an error", HostFailedError, "dpkg could not do it; its output tells why."),
)


def failure(_params: object, output: Output) -> HostAgentError:
    """Return the error for an exit status other than 0: the wrapper's own, or apt's failure."""
    return by_status(output, _ENDINGS) or by_words(output, _WORDS) or unknown(output, "apt-get")


# -- the table -------------------------------------------------------------------------------------


def _wrapper(verb: str, *arguments: str, seconds: float | None = None) -> Invocation:
    return Invocation(
        wrapper=f"apt-{verb}", arguments=arguments, run_as=RunAs.ROOT, timeout_seconds=seconds
    )


def _invoke_list(params: PackageListParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("list", params.state)


def _invoke_show(params: PackageParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("show", params.package)


def _restrict_list(_params: PackageListParameters, section: AptSection, output: Output) -> Output:
    return restrict_list(output, section.packages)


def _parse_list(_params: PackageListParameters, output: Output) -> JsonValue:
    return parse_list(output)


def _parse_show(params: PackageParameters, output: Output) -> JsonValue:
    return parse_show(output, package=params.package)


def _package(params: PackageParameters) -> str:
    return params.package


def _nothing(_params: PackageListParameters) -> None:
    """Name no resource: the answer is filtered instead."""


def _one_at_a_time(_params: PackageParameters) -> str:
    return "apt"


def _change(
    verb: str, summary: str, preview: Callable[[Transaction], Inspection]
) -> OperationSpec[PackageParameters, AptSection]:
    def inspect(params: PackageParameters) -> Invocation:
        return _wrapper("inspect", verb, params.package)

    def inspected(_params: PackageParameters, output: Output) -> Inspection:
        return preview(Transaction.of(output))

    def invoke(params: PackageParameters, held: Mapping[str, JsonValue]) -> Invocation:
        transaction = str(held["transaction"]).removeprefix(HASH_PREFIX)
        return _wrapper(verb, params.package, transaction, seconds=_SECONDS)

    def probe(params: PackageParameters, _held: Mapping[str, JsonValue]) -> Invocation:
        return _wrapper("inspect", "after", verb, params.package)

    def probed(_params: PackageParameters, held: Mapping[str, JsonValue], output: Output) -> bool:
        return is_done(output, version=str(held["to"]))

    return OperationSpec(
        name=f"apt.{verb}",
        effect=Effect.CHANGE,
        summary=summary,
        parameters=PackageParameters,
        inspector="apt-inspect",
        resource=_package,
        admit=admit_change,
        choices=_choices_change,
        undo="none from here",
        inspect=inspect,
        parse_inspection=inspected,
        guard=guard,
        turn=_one_at_a_time,
        invoke=invoke,
        probe=probe,
        parse_probe=probed,
        failure=failure,
    )


SPECS = (
    OperationSpec(
        name="apt.list",
        effect=Effect.READ,
        summary="The installed packages that may be worked on, with what the sources have.",
        failure=failure,
        parameters=PackageListParameters,
        resource=_nothing,
        admit=admit_list,
        choices=_choices_list,
        invoke=_invoke_list,
        restrict=_restrict_list,
        parse=_parse_list,
    ),
    OperationSpec(
        name="apt.show",
        effect=Effect.READ,
        summary="One package: what is installed, what the sources have, and what they say of it.",
        failure=failure,
        parameters=PackageParameters,
        resource=_package,
        admit=admit_read,
        choices=_choices_read,
        invoke=_invoke_show,
        parse=_parse_show,
    ),
    _change(
        "install",
        "Install a package, with what it needs; nothing is removed for it.",
        Transaction.installs,
    ),
    _change(
        "upgrade",
        "Upgrade an installed package, with what it needs; nothing is removed for it.",
        Transaction.upgrades,
    ),
)
"""The operations of this adapter."""


def _names(section: AptSection) -> tuple[str, ...]:
    return extended(section.packages)


def _protected(section: AptSection) -> tuple[str, ...]:
    return section.protected


ADAPTER = Adapter(
    name="apt",
    section=AptSection,
    specs=SPECS,
    tool=Tool(name="apt-get", path="/usr/bin/apt-get", version=("--version",)),
    names=_names,
    protected=_protected,
    programs=frozenset({"apt", "apt-get", "aptitude", "dpkg"}),
)
