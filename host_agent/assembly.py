"""Values made from a configuration: checked files, revocation, runner.

What `agent` does the same way at its start and at a reload. Nothing here keeps anything.
"""

import logging
import os
from datetime import datetime
from pathlib import Path

from host_agent.clock import SystemClock
from host_agent.config import Config, RunnerKind, Server, check_permissions, load
from host_agent.errors import ConfigurationError
from host_agent.execution.runner import Runner, SudoRunner, UnsafeDirectRunner
from host_agent.identity.files import read_plain
from host_agent.identity.revocation import Revocation
from host_agent.identity.verification import check_authorities, check_server_pair

_log = logging.getLogger("host_agent.agent")


def read_configuration(path: Path) -> Config:
    """Return the configuration at `path`, with every file that it names looked at.

    Raises:
        ConfigurationError: every fault, each one naming its key or its file.
    """
    config = load(path)
    faults = check_permissions(config, uid=os.geteuid()) or file_faults(config)
    if faults:
        raise ConfigurationError(faults)
    return config


def file_faults(config: Config) -> list[str]:
    """Return what is wrong with the certificates that `config` names.

    A CA that strict verification refuses is a warning: nobody gets in by it, which is safe.
    """
    server, now = config.server, SystemClock().now()
    faults: list[str] = []
    try:
        check_server_pair(read_plain(server.certificate), read_plain(server.private_key), None, now)
    except (OSError, ValueError) as error:
        faults.append(f"server.certificate: {error}")
    try:
        faults += _authority_faults(server, now)
    except (OSError, ValueError) as error:
        faults.append(f"server.client_ca: {error}")
    return faults


def _authority_faults(server: Server, now: datetime) -> list[str]:
    authorities = read_plain(server.client_ca)
    refused = check_authorities(authorities, None, now)
    for finding in refused:
        _log.warning("server.client_ca: %s; its clients cannot get in", finding)
    if refused or server.crl is None:
        return []
    findings = check_authorities(authorities, read_plain(server.crl), now)
    return [f"server.crl: {finding}" for finding in findings]


def make_revocation(config: Config, previous: Revocation | None, now: datetime) -> Revocation:
    """Return the revocation list in service, no older than `previous` had it.

    Raises:
        ConfigurationError: it cannot serve.
    """
    revocation = Revocation(config.server.crl, config.server.client_ca, previous=previous)
    try:
        revocation.load(now)
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"server.crl: {error}"]) from error
    return revocation


def make_runner(config: Config) -> Runner:
    """Return the configured runner."""
    execution = config.execution
    kind = SudoRunner if execution.runner is RunnerKind.SUDO else UnsafeDirectRunner
    return kind(execution.wrapper_dir, execution.timeout_seconds, execution.max_output_bytes)


def refuse_moved(old: Config, new: Config) -> None:
    """Refuse a reload that moves what only a start can move."""
    faults = [
        f"{key}: cannot change while the agent runs; restart it"
        for key, before, after in (
            ("server.bind", old.server.bind, new.server.bind),
            ("store.url", old.store.url, new.store.url),
            ("audit.path", old.audit.path, new.audit.path),
            ("metrics.bind", old.metrics.bind, new.metrics.bind),
        )
        if before != after
    ]
    if faults:
        raise ConfigurationError(faults)
