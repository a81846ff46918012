"""The examination: all checks, in the order in which one explains the next."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from host_agent.config import Config, check_permissions, load
from host_agent.errors import ConfigurationError
from host_agent.host import preflight
from host_agent.host.doctor.audit_log import keeping_checks
from host_agent.host.doctor.certificates import certificate_checks
from host_agent.host.doctor.channels import channel_checks
from host_agent.host.doctor.host import (
    list_checks,
    permission_checks,
    root_list_check,
    service_check,
    shipped_check,
    sudoers_check,
    tool_checks,
    wrapper_checks,
)
from host_agent.host.doctor.listener import listening_checks
from host_agent.host.doctor.starting import start_checks, try_start
from host_agent.host.doctor.state import state_checks
from host_agent.host.doctor.sudo import granted_checks
from host_agent.host.doctor.values import Check, ok, problem, warning
from host_agent.host.install import layout
from host_agent.host.install.datasets import datasets_of
from host_agent.host.install.rendering import audit_keeping, own_paths, protected_list
from host_agent.host.install.source import read_source
from host_agent.host.install.values import Tools
from host_agent.notify.channel import Channel
from host_agent.operations.exec.adapter import commands_file
from host_agent.operations.exec.section import ExecSection
from host_agent.sudoers.values import AuditReport

_MOUNTS = Path("/proc/self/mountinfo")


def examine(
    path: Path,
    *,
    user: str,
    uid: int,
    tools: Tools,
    now: datetime,
    channels: Callable[[Config], Mapping[str, Channel]],
    granted: Callable[[Config], AuditReport],
) -> Iterator[Check]:
    """Yield every check of the agent whose configuration is at `path` and that runs as `user`.

    `channels` makes the configured channels, to be asked whether they answer; `granted` audits what
    sudo grants.
    """
    start = try_start(path, user, uid, tools)
    try:
        config = load(path, uid=uid)
    except ConfigurationError as error:
        for fault in error.faults:
            yield problem("configuration", f"{fault}.", "host-agent config check shows the same")
        yield from start_checks(start, error.faults)
        return
    told = f"{len(config.identities)} identities and {len(config.rules)} rules."
    yield ok("configuration", f"{path} can be read: {told}")
    for sentence in preflight.warnings(config, uid=uid, now=now):
        yield warning(
            "configuration", f"{sentence}.", "docs/reference/configuration.md has the key"
        )
    known = check_permissions(config, uid=uid)
    yield from start_checks(start, known)
    yield from permission_checks(known)
    yield from certificate_checks(config, now, lambda *keys: start.fault_of(*keys, known=known))
    yield from state_checks(config, now)
    yield from keeping_checks(config)
    yield from tool_checks(config, tools)
    yield root_list_check(config)
    yield from list_checks(config, _lists(config))
    yield from sudoers_check(config, user)
    yield from granted_checks(config, lambda: granted(config))
    yield shipped_check(config, read_source().wrappers)
    yield from wrapper_checks(config, user, tools)
    yield from channel_checks(config, channels)
    yield from service_check(tools)
    yield from listening_checks(config)


def _lists(config: Config) -> Mapping[str, bytes]:
    """Return root's lists as the configuration means them, by path."""
    folder = config.execution.wrapper_dir
    mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
    protected = protected_list(config, datasets_of(own_paths(config), mounts))
    lists = {f"{folder}/{Path(layout.PROTECTED).name}": protected}
    if (commands := config.section(ExecSection)) is not None:
        lists[f"{folder}/{Path(layout.COMMANDS).name}"] = commands_file(commands).encode("ascii")
    if config.audit.append_only:
        lists[f"{folder}/{Path(layout.AUDIT).name}"] = audit_keeping(config)
    return lists
