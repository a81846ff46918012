"""git on allow-listed repositories: declarations and pure functions; `wrappers/git` does the work.

A change is bound to the repository and its `.git` by device, inode and birth, to HEAD (commit and
branch), and to the one commit that it leads to. The wrapper reads these facts in one run
(`inspect-VERB`), gets them back with the run itself, and refuses where they are others by then.
Its arguments and exit statuses are in docs/reference/git-wrapper.md.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    HostFailedError,
    HostNotFoundError,
    PolicyDeniedError,
)
from host_agent.operations.catalogue import (
    Adapter,
    Allowed,
    Choice,
    Deed,
    Effect,
    Inspection,
    Invocation,
    OperationSpec,
    Output,
    Parameters,
    RunAs,
    Tool,
)
from host_agent.operations.endings import Endings, by_status, tool_endings, unknown, wrapper_endings
from host_agent.operations.git.output import (
    parse_diff,
    parse_fetch_inspection,
    parse_log,
    parse_pull_inspection,
    parse_reset_inspection,
    parse_state,
    parse_status,
    parse_switch_inspection,
)
from host_agent.operations.git.section import GitSection, Repository
from host_agent.text import HASH_PREFIX

WRAPPER = "git"
MAX_REF_LENGTH = 200
MAX_PATH_LENGTH = 4096

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_PATH = re.compile(r"(?:/[ -.0-~]+)+")

# -- grammar ---------------------------------------------------------------------------------------


def is_ref(text: str) -> bool:
    """Return whether `text` is in the ref alphabet and `git check-ref-format --branch` accepts it.

    Rules of git-check-ref-format(1) that the alphabet leaves open: no `..`, no empty component,
    none that begins with `.` or ends with `.lock`, no `.` at the end; and no branch is `HEAD`.
    """
    if _REF.fullmatch(text) is None or text == "HEAD" or ".." in text or text.endswith("."):
        return False
    return all(
        part and not part.startswith(".") and not part.endswith(".lock") for part in text.split("/")
    )


def is_repository_path(text: str) -> bool:
    """Return whether `text` is an absolute, normal path of printable ASCII."""
    return (
        len(text) <= MAX_PATH_LENGTH
        and _PATH.fullmatch(text) is not None
        and not {".", ".."} & set(text.split("/"))
    )


def _checked(is_valid: Callable[[str], bool], sentence: str) -> AfterValidator:
    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


RepositoryPath = Annotated[
    str,
    StringConstraints(min_length=2, max_length=MAX_PATH_LENGTH),
    _checked(
        is_repository_path, "must be an absolute path without '.', '..', '//' or '/' at the end"
    ),
    Field(description="Exactly a configured path."),
]
RefName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_REF_LENGTH),
    _checked(
        is_ref, "must begin with a letter or digit and be a name that git accepts for a branch"
    ),
]
Remote = Annotated[RefName, Field(description="The name of an allow-listed remote, never a URL.")]
Branch = Annotated[RefName, Field(description="The name of an allow-listed branch.")]
Ref = Annotated[
    RefName, Field(description="A branch, a tag, a remote branch, or 40 hex digits of a commit.")
]

# -- parameters ------------------------------------------------------------------------------------


class RepositoryParameters(Parameters):
    """`status`: one repository."""

    positional: ClassVar[tuple[str, ...]] = ("repository",)
    repository: RepositoryPath


class LogParameters(RepositoryParameters):
    """`log`: the newest commits of HEAD or of `ref`."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "limit", "ref")
    limit: Annotated[int, Field(ge=1, le=1000, description="How many commits at most.")] = 20
    ref: Ref | None = None


class DiffParameters(RepositoryParameters):
    """`diff`: the working tree against the index, or against `ref`."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "ref")
    ref: Ref | None = None


class FetchParameters(RepositoryParameters):
    """`fetch`: one remote."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "remote")
    phrases: ClassVar[Mapping[str, str]] = {"remote": " from {}"}
    remote: Remote


class PullParameters(FetchParameters):
    """`pull`: one branch of one remote, into the branch of that name."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "remote", "branch")
    phrases: ClassVar[Mapping[str, str]] = {"branch": ", {}", "remote": " of {}"}
    branch: Branch


class SwitchParameters(RepositoryParameters):
    """`switch`: to one local branch."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "branch")
    phrases: ClassVar[Mapping[str, str]] = {"branch": " to {}"}
    branch: Branch


class ResetParameters(RepositoryParameters):
    """`reset`: the checked-out branch, the index and the working tree to `ref`."""

    positional: ClassVar[tuple[str, ...]] = ("repository", "ref")
    phrases: ClassVar[Mapping[str, str]] = {"ref": " to {}"}
    ref: Ref


# -- allow-lists -----------------------------------------------------------------------------------


def admit(params: RepositoryParameters, section: GitSection) -> None:
    """Refuse a repository, remote or branch that the administrator did not list.

    Raises:
        PolicyDeniedError: one of them is not listed; an empty list holds nothing.
    """
    repository = _listed(params.repository, section)
    if isinstance(params, FetchParameters) and params.remote not in repository.remotes:
        message = "This remote is not one that this repository may be updated from."
        raise PolicyDeniedError(message)
    if isinstance(params, PullParameters | SwitchParameters) and not any(
        re.fullmatch(pattern, params.branch, re.ASCII) for pattern in repository.branches
    ):
        message = "This branch is not one that may be worked on in this repository."
        raise PolicyDeniedError(message)


def _choices(*names: str) -> Callable[[GitSection], tuple[Choice, ...]]:
    """Return the choices of an operation that has these of a repository's parameters too."""

    def choices(section: GitSection) -> tuple[Choice, ...]:
        found = []
        for repository in section.repositories:
            limited = {
                "remote": Allowed(values=repository.remotes),
                "branch": Allowed(patterns=repository.branches),
            }
            others = {name: limited[name] for name in names}
            if all(others.values()):
                found.append(Choice(resource=Allowed(values=(repository.path,)), others=others))
        return tuple(found)

    return choices


def _listed(path: str, section: GitSection) -> Repository:
    for repository in section.repositories:
        if repository.path == path:
            return repository
    message = "This repository is not one that may be worked on here."
    raise PolicyDeniedError(message)


# -- invocations -----------------------------------------------------------------------------------


def _wrapper(*arguments: str) -> Invocation:
    return Invocation(wrapper=WRAPPER, arguments=arguments, run_as=RunAs.UNIX_USER)


def _hold(precondition: Mapping[str, JsonValue]) -> str:
    return f"{precondition['repository']},{precondition['git_directory']}"


def _fact(precondition: Mapping[str, JsonValue], name: str) -> str:
    return str(precondition[name])


def _invoke_status(params: RepositoryParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("status", params.repository)


def _invoke_log(params: LogParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    ref = () if params.ref is None else (params.ref,)
    return _wrapper("log", params.repository, str(params.limit), *ref)


def _invoke_diff(params: DiffParameters, _none: Mapping[str, JsonValue]) -> Invocation:
    ref = () if params.ref is None else (params.ref,)
    return _wrapper("diff", params.repository, *ref)


def _invoke_fetch(params: FetchParameters, held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("fetch", params.repository, _hold(held), params.remote)


def _invoke_pull(params: PullParameters, held: Mapping[str, JsonValue]) -> Invocation:
    head, target = _fact(held, "head"), _fact(held, "target")
    return _wrapper(
        "pull", params.repository, _hold(held), head, params.remote, params.branch, target
    )


def _invoke_switch(params: SwitchParameters, held: Mapping[str, JsonValue]) -> Invocation:
    head, head_ref, target = (_fact(held, name) for name in ("head", "head_ref", "target"))
    return _wrapper("switch", params.repository, _hold(held), head, head_ref, params.branch, target)


def _invoke_reset(params: ResetParameters, held: Mapping[str, JsonValue]) -> Invocation:
    head, head_ref, target = (_fact(held, name) for name in ("head", "head_ref", "target"))
    changes = _fact(held, "changes").removeprefix(HASH_PREFIX)
    return _wrapper(
        "reset", params.repository, _hold(held), head, head_ref, changes, params.ref, target
    )


def _inspect_fetch(params: FetchParameters) -> Invocation:
    return _wrapper("inspect-fetch", params.repository, params.remote)


def _inspect_pull(params: PullParameters) -> Invocation:
    return _wrapper("inspect-pull", params.repository, params.remote, params.branch)


def _inspect_switch(params: SwitchParameters) -> Invocation:
    return _wrapper("inspect-switch", params.repository, params.branch)


def _inspect_reset(params: ResetParameters) -> Invocation:
    return _wrapper("inspect-reset", params.repository, params.ref)


# -- what the wrapper's output means ---------------------------------------------------------------


def _parsed(parse: Callable[[Output], JsonValue]) -> Callable[[object, Output], JsonValue]:
    return lambda _params, output: parse(output)


def _inspect_fetch_output(params: FetchParameters, output: Output) -> Inspection:
    return parse_fetch_inspection(output, remote=params.remote)


def _inspect_pull_output(params: PullParameters, output: Output) -> Inspection:
    return parse_pull_inspection(output, remote=params.remote, branch=params.branch)


def _inspect_switch_output(params: SwitchParameters, output: Output) -> Inspection:
    return parse_switch_inspection(output, branch=params.branch)


def _inspect_reset_output(_params: ResetParameters, output: Output) -> Inspection:
    return parse_reset_inspection(output)


def _probe(params: RepositoryParameters, _held: Mapping[str, JsonValue]) -> Invocation:
    return _wrapper("state", params.repository)


def _is_at_target(
    params: RepositoryParameters, held: Mapping[str, JsonValue], output: Output
) -> bool:
    """Return whether HEAD is the approved commit, on the branch where it must be."""
    state = parse_state(output)
    branch = held["head_ref"]
    if isinstance(params, SwitchParameters):
        branch = f"refs/heads/{params.branch}"
    return state.head == held["target"] and state.head_ref == branch


def _is_reset(params: ResetParameters, held: Mapping[str, JsonValue], output: Output) -> bool:
    return _is_at_target(params, held, output) and not parse_state(output).is_dirty


_ENDINGS: Endings = {
    **wrapper_endings("git", "The repository", nothing="moved"),
    **tool_endings("git"),
    77: (PolicyDeniedError, "This repository may not be worked on"),
    78: (PolicyDeniedError, "This repository cannot be trusted as it is configured"),
}
_NO_COMMIT_YET = "does not have any commits yet"


def failure(_params: RepositoryParameters, output: Output) -> HostAgentError:
    """Return the error for an exit status other than 0: the wrapper's own, or git's failure."""
    if output.exit_code == 128 and _NO_COMMIT_YET in output.stderr:
        return HostNotFoundError("The repository has no commit yet.")
    known = by_status(output, _ENDINGS)
    if known is None and output.said:
        return HostFailedError(f"git refused: {output.said}.")
    return known or unknown(output, "git")


# -- the table -------------------------------------------------------------------------------------


def _resource(params: RepositoryParameters) -> str:
    return params.repository


def _reset_deeds(params: ResetParameters) -> frozenset[Deed]:
    """Return what a reset to the right commit stands for: the files are as after these."""
    return frozenset({("git.pull", params.repository), ("git.switch", params.repository)})


SPECS = (
    OperationSpec(
        name="git.status",
        effect=Effect.READ,
        summary="Branch, changed and untracked files.",
        wrapper=WRAPPER,
        run_as=RunAs.UNIX_USER,
        resource=_resource,
        admit=admit,
        choices=_choices(),
        failure=failure,
        parameters=RepositoryParameters,
        invoke=_invoke_status,
        parse=_parsed(parse_status),
    ),
    OperationSpec(
        name="git.log",
        effect=Effect.READ,
        summary="The newest commits.",
        wrapper=WRAPPER,
        run_as=RunAs.UNIX_USER,
        resource=_resource,
        admit=admit,
        choices=_choices(),
        failure=failure,
        parameters=LogParameters,
        invoke=_invoke_log,
        parse=_parsed(parse_log),
    ),
    OperationSpec(
        name="git.diff",
        effect=Effect.READ,
        summary="Uncommitted changes as a patch.",
        wrapper=WRAPPER,
        run_as=RunAs.UNIX_USER,
        resource=_resource,
        admit=admit,
        choices=_choices(),
        failure=failure,
        parameters=DiffParameters,
        invoke=_invoke_diff,
        parse=_parsed(parse_diff),
    ),
    OperationSpec(
        name="git.fetch",
        effect=Effect.CHANGE,
        summary="Update the remote branches; the working tree and the own branches stay.",
        wrapper=WRAPPER,
        run_as=RunAs.UNIX_USER,
        resource=_resource,
        admit=admit,
        choices=_choices("remote"),
        undo="none needed",
        failure=failure,
        parameters=FetchParameters,
        inspect=_inspect_fetch,
        parse_inspection=_inspect_fetch_output,
        invoke=_invoke_fetch,
    ),
    OperationSpec(
        name="git.pull",
        effect=Effect.CHANGE,
        summary="Fast-forward the checked-out branch to the commit that the remote has now.",
        wrapper=WRAPPER,
        run_as=RunAs.UNIX_USER,
        resource=_resource,
        admit=admit,
        choices=_choices("remote", "branch"),
        undo="reset to the commit before",
        failure=failure,
        parameters=PullParameters,
        inspect=_inspect_pull,
        parse_inspection=_inspect_pull_output,
        may_be_done_already=True,
        invoke=_invoke_pull,
        probe=_probe,
        parse_probe=_is_at_target,
    ),
    OperationSpec(
        name="git.switch",
        effect=Effect.CHANGE,
        summary="Check out a local branch; uncommitted changes are carried along or refuse it.",
        wrapper=WRAPPER,
        run_as=RunAs.UNIX_USER,
        resource=_resource,
        admit=admit,
        choices=_choices("branch"),
        undo="switch to the branch before",
        failure=failure,
        parameters=SwitchParameters,
        inspect=_inspect_switch,
        parse_inspection=_inspect_switch_output,
        may_be_done_already=True,
        invoke=_invoke_switch,
        probe=_probe,
        parse_probe=_is_at_target,
    ),
    OperationSpec(
        name="git.reset",
        effect=Effect.DESTROY,
        summary=(
            "Set the checked-out branch and its files to a commit; uncommitted changes are lost."
        ),
        wrapper=WRAPPER,
        run_as=RunAs.UNIX_USER,
        resource=_resource,
        admit=admit,
        choices=_choices(),
        undo="reset to the commit before, without uncommitted changes",
        failure=failure,
        parameters=ResetParameters,
        deeds=_reset_deeds,
        inspect=_inspect_reset,
        parse_inspection=_inspect_reset_output,
        invoke=_invoke_reset,
        probe=_probe,
        parse_probe=_is_reset,
    ),
)
"""The operations of this adapter."""


def _names(section: GitSection) -> tuple[str, ...]:
    return tuple(repository.path for repository in section.repositories)


ADAPTER = Adapter(
    name="git",
    section=GitSection,
    specs=SPECS,
    tool=Tool(name="git", path="/usr/bin/git", version=("--version",)),
    names=_names,
    has_fixed_names=True,
)
