"""The sudoers fragment that the configured operations need, from the catalogue.

One line for every wrapper and user to run it as: an exact path without arguments, so sudo takes any
and the wrapper checks them; no wildcard, alias or `Defaults`, in the part of the syntax that sudo
1.9 and sudo-rs read alike. `use_pty`, sudo's own default, is left as it is.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from host_agent.config import Config
from host_agent.errors import ConfigurationError
from host_agent.identity.registry import Role
from host_agent.operations.catalogue import Catalogue, RunAs
from host_agent.sudoers.findings import Audience

SERVICE_USER = "host-agent"
SUDOERS_READER = "sudoers-read"
"""The wrapper by which the agent itself looks at sudoers; no operation uses it."""
AUDIT_ROTATOR = "audit-rotate"
"""The wrapper by which the agent has an append-only audit log go on in a new file."""

_HEAD = """\
# What the agent may do through sudo: run these wrappers as these users, and nothing else.
# Written by `host-agent sudoers render` from the configuration. Every path is exact; the wrappers
# check their arguments themselves. Install it as /etc/sudoers.d/host-agent, owned by root, mode
# 0440, after `visudo -cf` has passed on it.
"""
_USER = re.compile(r"[a-z_][A-Za-z0-9_.-]*|[A-Z][A-Za-z0-9_.-]*[a-z.-][A-Za-z0-9_.-]*", re.ASCII)
"""A name that sudoers cannot take for an alias or a keyword, which are written in capitals."""
_PATH = re.compile(r"(?:/[A-Za-z0-9._+@-]+)+", re.ASCII)
"""A path that needs no escape and holds no wildcard."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RenderedLine:
    """One line of sudoers: a wrapper, and the user that it may be run as."""

    path: str
    run_as: str


def grants(config: Config, catalogue: Catalogue) -> tuple[RenderedLine, ...]:
    """Return what the agent needs for the adapters that `config` configures, in order.

    Wrappers that do not run as root get a line for every caller's unix user.

    Raises:
        ConfigurationError: a path or name that cannot stand in sudoers as it is.
    """
    found = {_grant(config, SUDOERS_READER, "root")}
    if config.audit.append_only:
        found.add(_grant(config, AUDIT_ROTATOR, "root"))
    users = [
        identity.unix_user
        for identity in config.identities
        if identity.unix_user is not None and Role.CALLER in identity.roles
    ]
    for spec in catalogue:
        if getattr(config, spec.adapter, None) is None:
            continue
        for wrapper in spec.wrappers:
            for user in ("root",) if spec.run_as is RunAs.ROOT else users:
                found.add(_grant(config, wrapper, user))
    return tuple(sorted(found))


def render(needed: Iterable[RenderedLine], user: str = SERVICE_USER) -> str:
    """Return the fragment for the agent's `user`.

    Raises:
        ConfigurationError: `user` cannot stand in sudoers as it is.
    """
    lines = [
        f"{_checked_user(user, '--user')} ALL=({grant.run_as}) NOPASSWD: {grant.path}\n"
        for grant in needed
    ]
    return _HEAD + "".join(lines)


def audience(
    config: Config | None, catalogue: Catalogue, *, user: str, wrapper_dir: str
) -> Audience:
    """Return whose rights an audit asks for, and which wrappers are the agent's own.

    Every wrapper of the catalogue counts, configured or not: what an administrator has not used
    yet is no risk beyond what the wrapper itself allows. Without a configuration the identities'
    users are not known.
    """
    root = {SUDOERS_READER, AUDIT_ROTATOR, *_wrappers(catalogue, RunAs.ROOT)}
    return Audience(
        service_user=user,
        unix_users=None
        if config is None
        else frozenset(i.unix_user for i in config.identities if i.unix_user is not None),
        root_wrappers=frozenset(f"{wrapper_dir}/{name}" for name in root),
        user_wrappers=frozenset(
            f"{wrapper_dir}/{name}" for name in _wrappers(catalogue, RunAs.UNIX_USER)
        ),
    )


def _wrappers(catalogue: Catalogue, run_as: RunAs) -> Iterator[str]:
    for spec in catalogue:
        if spec.run_as is run_as:
            yield from spec.wrappers


def _grant(config: Config, wrapper: str, user: str) -> RenderedLine:
    path = f"{config.execution.wrapper_dir}/{wrapper}"
    if _PATH.fullmatch(path) is None:
        fault = "execution.wrapper_dir: holds a character that sudoers would not take as it is"
        raise ConfigurationError([fault])
    return RenderedLine(path=path, run_as=_checked_user(user, "identities.unix_user"))


def _checked_user(user: str, key: str) -> str:
    if _USER.fullmatch(user) is None:
        fault = f"{key}: sudoers would not take {user} for a user's name"
        raise ConfigurationError([fault])
    return user
