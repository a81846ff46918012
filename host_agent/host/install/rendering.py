"""Files that are made from the configuration or from where the program lies: pure."""

import re
from collections.abc import Iterable
from pathlib import Path

import host_agent
from host_agent.config import Config
from host_agent.host.install import layout
from host_agent.host.install.values import InstallationError
from host_agent.operations import CATALOGUE

_HEAD = """\
# What the wrappers never change, whatever the agent asks for. Written by `host-agent install` from
# the configuration; the wrappers have further names built in. One line each: adapter and pattern,
# a POSIX extended regular expression over the whole name. Without this file they change nothing.
"""
_AUDIT_HEAD = """\
# The audit log that the agent appends to, and root keeps. Written by `host-agent install` from the
# configuration, for the wrapper `audit-rotate`.
"""
_EXEC_START = re.compile(r"^ExecStart=\S+( .*)$", re.MULTILINE)
_EXEC_RELOAD = re.compile(r"^ExecReload=\S+( reload.*)$", re.MULTILINE)


def protected_list(config: Config, datasets: Iterable[str]) -> bytes:
    """Return root's list of what is protected: the configured, and what the agent itself needs.

    `datasets` are those that hold the agent's own files.
    """
    own = [f"systemd {re.escape(layout.UNIT_NAME)}"]
    own += [f"zfs {re.escape(dataset)}" for dataset in datasets]
    configured = (
        f"{adapter.name} {pattern}"
        for adapter in CATALOGUE.adapters
        if (section := config.section(adapter.section)) is not None
        for pattern in adapter.protected(section)
    )
    lines = dict.fromkeys((*own, *configured))
    # re.escape writes `\-`, which a POSIX expression does not know.
    return (_HEAD + "".join(f"{line}\n" for line in lines)).replace("\\-", "-").encode("ascii")


def audit_keeping(config: Config) -> bytes:
    """Return root's word on the append-only audit log, for the wrapper that begins its files."""
    audit = config.audit
    lines = f"path {audit.path}\ngroup {layout.USER}\ndays {audit.retain_days}\n"
    return (_AUDIT_HEAD + lines).encode()


def own_paths(config: Config) -> tuple[str, ...]:
    """Return the places that hold what the agent itself needs."""
    program = str(Path(host_agent.__file__).parent)
    own = (layout.STATE_DIR, layout.CONFIGURATION_DIR, layout.WRAPPER_DIR, program)
    return (*own, str(config.store.path), str(config.audit.path))


def unit(template: bytes, program: str) -> bytes:
    """Return the unit that starts and reloads `program` in the place of the template's.

    Raises:
        InstallationError: the template has no line for it.
    """
    text, count = _EXEC_START.subn(rf"ExecStart={program}\1", template.decode("utf-8"))
    if count != 1:
        message = "the unit that came with this package has no ExecStart line"
        raise InstallationError(message)
    text = _EXEC_RELOAD.sub(rf"ExecReload={program}\1", text)
    return text.encode("utf-8")
