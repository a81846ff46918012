"""Root's own list of what is allowed, the file `allowed` beside the wrappers.

Every wrapper refuses what the list does not name, so whoever has the service user reaches no more
than some rule could allow to somebody. It says nothing of who asks or who has to approve: for one
operation and resource the first `allowed` or `never` line decides, as the first rule does in
policy, and it is `allowed` where any caller could get there. docs/reference/root-list.md has the
format.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import unified_diff
from enum import StrEnum
from pathlib import Path
from typing import Final

from host_agent.config import Config, IdentityEntry, Rule, RunnerKind, VerdictKind
from host_agent.host.install import layout
from host_agent.identity.registry import Autonomy, Role
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Adapter, Effect, OperationSpec, RunAs
from host_agent.operations.patterns import extended
from host_agent.policy.rules import Rules

VERSION: Final = 1
RENDER: Final = "host-agent root render"
"""What brings the list up to date."""

_MAX_BYTES = 4 * 1024 * 1024
_HEAD = f"""\
# What root's wrappers do at all, whoever asks. Written by `{RENDER}` and
# `host-agent install` from the configuration; without this file the wrappers do nothing.
#   names FAMILY ...               what may be named: patterns, VMIDs, repositories and their users
#   allowed|never OPERATION,... [PATTERN]   the first line that covers an operation decides
# Patterns are POSIX extended regular expressions over the whole name.
"""


class ListState(StrEnum):
    """How root's list stands to the configuration."""

    RENDERED = "rendered"
    """Root's list is what the configuration means."""
    DIFFERS = "differs"
    """Root has another list: until it is rendered, the wrappers go by that one."""
    MISSING = "missing"
    """There is none that the wrappers would read, so they refuse everything."""
    UNNEEDED = "unneeded"
    """With runner `direct` nothing runs as root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootList:
    """What was found. `what` are the lines that differ, as a diff has them, or the fault."""

    state: ListState
    path: Path
    what: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Return whether the wrappers do what the configuration says."""
        return self.state in (ListState.RENDERED, ListState.UNNEEDED)

    def sentence(self) -> str:
        """Return it as a fragment of a sentence."""
        match self.state:
            case ListState.RENDERED:
                return f"{self.path} says what the configuration means"
            case ListState.DIFFERS:
                return (
                    f"root has not rendered this configuration yet: {self.path} differs in"
                    f" {len(self.what)} lines, and the wrappers go by it"
                )
            case ListState.MISSING:
                return f"{self.path} {' '.join(self.what)}: the wrappers refuse everything"
            case ListState.UNNEEDED:
                return "with runner direct nothing runs as root, and no list of root's is asked"


def root_list_state(config: Config) -> RootList:
    """Return how root's list beside the configured wrappers stands to `config`.

    Anybody may ask: the file is for everybody to read.
    """
    path = config.execution.wrapper_dir / Path(layout.ALLOWED).name
    if config.execution.runner is RunnerKind.DIRECT:
        return RootList(state=ListState.UNNEEDED, path=path)
    try:
        found = _read(path)
    except (OSError, ValueError) as error:
        fault = str(error) if isinstance(error, ValueError) else f"cannot be read ({_why(error)})"
        return RootList(state=ListState.MISSING, path=path, what=(fault,))
    changed = tuple(differences(found, allowed_list(config)))
    state = ListState.DIFFERS if changed else ListState.RENDERED
    return RootList(state=state, path=path, what=changed)


def differences(found: bytes, wanted: bytes) -> Iterator[str]:
    """Yield the lines that go, with `-` in front, and those that come, with `+`."""
    before, after = (
        text.decode("utf-8", errors="replace").splitlines() for text in (found, wanted)
    )
    for line in unified_diff(before, after, lineterm="", n=0):
        if not line.startswith(("---", "+++", "@@")):
            yield line


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _read(path: Path) -> bytes:
    """Return the list, if the wrappers would read it.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not root's alone.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as stream:  # noqa: PTH123 - a descriptor
        status = os.fstat(stream.fileno())
        is_roots = status.st_uid == 0 and not status.st_mode & 0o022
        if not stat.S_ISREG(status.st_mode) or not is_roots:
            message = "is not a plain file that only root can write"
            raise ValueError(message)
        return stream.read(_MAX_BYTES)


# -- the list -------------------------------------------------------------------------------------


def allowed_list(config: Config) -> bytes:
    """Return root's list as `config` means it."""
    lines = [f"version {VERSION}", *_names(config), *_decisions(config)]
    return (_HEAD + "".join(f"{line}\n" for line in lines)).encode("ascii")


def _names(config: Config) -> Iterator[str]:
    for adapter in CATALOGUE.adapters:
        section = config.section(adapter.section)
        for name in () if section is None else adapter.names(section):
            if adapter.run_as is RunAs.ROOT:
                yield f"names {adapter.name} {name}"
            else:
                users = _users(config, adapter, name)
                yield from (f"names {adapter.name} {user} {name}" for user in users)


def _users(config: Config, adapter: Adapter, resource: str) -> list[str]:
    """Return the unix users of those whom a rule could allow something on `resource`."""
    rules = Rules(config.rules)
    found = {
        identity.unix_user
        for spec in adapter.specs
        for identity in _callers(config, spec)
        if identity.unix_user is not None and _could(rules, identity, spec, resource)
    }
    return sorted(found)


def _could(rules: Rules, identity: IdentityEntry, spec: OperationSpec, resource: str) -> bool:
    for rule in rules.deciding(identity.cn, spec):
        patterns = rule.resources
        if patterns is None or any(re.fullmatch(one, resource, re.ASCII) for one in patterns):
            return rule.verdict is not VerdictKind.DENY
    return False


def _callers(config: Config, spec: OperationSpec) -> list[IdentityEntry]:
    """Return who may ask for the operation, as far as rules do not say."""
    return [
        identity
        for identity in config.identities
        if Role.CALLER in identity.roles
        and (spec.effect is Effect.READ or identity.autonomy is not Autonomy.READ_ONLY)
    ]


def _decisions(config: Config) -> Iterator[str]:
    """Yield a line for each rule and pattern: what it could decide, for any caller."""
    rules = Rules(config.rules)
    specs = [spec for spec in CATALOGUE if getattr(config, spec.adapter, None) is not None]
    deciding: dict[int, list[str]] = {id(rule): [] for rule in config.rules}
    for spec in specs:
        callers = _callers(config, spec)
        live = {id(rule) for one in callers for rule in rules.deciding(one.cn, spec)}
        for rule in config.rules:
            if id(rule) in live:
                deciding[id(rule)].append(spec.name)
    for rule in config.rules:
        if deciding[id(rule)] and not _is_for_some_only(rule):
            yield from _rule_lines(rule, _in_short(deciding[id(rule)]))


def _is_for_some_only(rule: Rule) -> bool:
    """Return whether it denies to some what others may: root does not know who asks."""
    return rule.verdict is VerdictKind.DENY and rule.identities is not None


def _rule_lines(rule: Rule, operations: str) -> Iterator[str]:
    decision = "never" if rule.verdict is VerdictKind.DENY else "allowed"
    if rule.resources is None:
        yield f"{decision} {operations}"
    else:
        yield from (f"{decision} {operations} {text}" for text in extended(rule.resources))


def _in_short(operations: Iterable[str]) -> str:
    """Return names with commas between; `zfs.*` for all of an adapter."""
    by_adapter: dict[str, list[str]] = {}
    for name in operations:
        by_adapter.setdefault(name.partition(".")[0], []).append(name)
    whole: dict[str, int] = {}
    for spec in CATALOGUE:
        whole[spec.adapter] = whole.get(spec.adapter, 0) + 1
    return ",".join(
        f"{adapter}.*" if len(names) == whole[adapter] else ",".join(names)
        for adapter, names in by_adapter.items()
    )
