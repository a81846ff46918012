"""Values made from a configuration: checked files, revocation, runner.

What `agent` does the same way at its start and at a reload. Nothing here keeps anything.
"""

import asyncio
import errno
import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from host_agent.clock import SystemClock
from host_agent.config import Config, RunnerKind, load
from host_agent.errors import (
    ConfigurationError,
    HostAgentError,
    InvalidIdentityError,
    RestartNeededError,
)
from host_agent.execution.runner import Runner, SudoRunner, UnsafeDirectRunner
from host_agent.execution.wrappers import WrapperDigests
from host_agent.host import preflight
from host_agent.http.tls import TlsContext
from host_agent.identity.certificate import PeerCertificate, parse_peer_certificate
from host_agent.identity.files import read_linked
from host_agent.identity.revocation import Revocation
from host_agent.operations.catalogue import Invocation, RunAs
from host_agent.pki.door import server_context
from host_agent.pki.verification import authorities_end, check_server_pair
from host_agent.sudoers.render import AUDIT_ROTATOR

ROTATION_SECONDS = 60.0
ROTATION = Invocation(
    wrapper=AUDIT_ROTATOR, arguments=(), run_as=RunAs.ROOT, timeout_seconds=ROTATION_SECONDS
)
_log = logging.getLogger("host_agent.agent")


def read_configuration(path: Path) -> Config:
    """Return the configuration at `path`, with every file that it names looked at.

    Warnings go to the log.

    Raises:
        ConfigurationError: every fault, each one naming its key or its file.
    """
    config, uid, now = load(path), os.geteuid(), SystemClock().now()
    faults = preflight.faults(config, uid=uid, now=now)
    if faults:
        raise ConfigurationError(faults)
    for warning in preflight.warnings(config, uid=uid, now=now):
        _log.warning("%s", warning)
    return config


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
    execution = config.execution
    kind = SudoRunner if execution.runner is RunnerKind.SUDO else UnsafeDirectRunner
    return kind(execution.wrapper_dir, execution.timeout_seconds, execution.max_output_bytes)


def make_rotation(
    config: Config, runner: Runner, loop: asyncio.AbstractEventLoop
) -> Callable[[], str] | None:
    """Return what has root's wrapper begin a new audit file; None where the agent does it itself.

    What is returned blocks, belongs to another thread than `loop`'s, and raises OSError.
    """
    if not config.audit.append_only:
        return None

    def rotate() -> str:
        running = asyncio.run_coroutine_threadsafe(runner.run(ROTATION, unix_user=None), loop)
        try:
            output = running.result(2 * ROTATION_SECONDS)
        except HostAgentError as error:
            raise OSError(errno.EACCES, error.detail) from error
        except (TimeoutError, CancelledError) as error:
            running.cancel()
            raise OSError(errno.ETIMEDOUT, "the wrapper does not answer") from error
        if output.exit_code != 0 or output.timed_out:
            said = output.stderr.strip().partition("\n")[0] or "the wrapper failed"
            raise OSError(errno.EIO, said)
        return output.stdout.strip()

    return rotate


def refuse_moved(old: Config, new: Config) -> None:
    """Refuse a reload that moves what only a start can move.

    Raises:
        RestartNeededError: naming each key.
    """
    faults = [
        f"{key}: takes effect at a start only; {RestartNeededError.remedy}"
        for key, before, after in (
            ("server.bind", old.server.bind, new.server.bind),
            ("store.url", old.store.url, new.store.url),
            ("audit.path", old.audit.path, new.audit.path),
            ("audit.append_only", old.audit.append_only, new.audit.append_only),
            ("metrics.bind", old.metrics.bind, new.metrics.bind),
        )
        if before != after
    ]
    if faults:
        raise RestartNeededError(faults)


def make_wrapper_digests(config: Config) -> WrapperDigests:
    """Return what hashes the configured wrappers."""
    execution = config.execution
    is_direct = execution.runner is RunnerKind.DIRECT
    return WrapperDigests(execution.wrapper_dir, group_may_write=is_direct)


def make_context(config: Config) -> TlsContext:
    """Return the TLS context of the configured files."""
    server = config.server
    return server_context(server.certificate, server.private_key, server.client_ca)


def peer_of(der: bytes) -> PeerCertificate | InvalidIdentityError:
    """Return the identity that a verified certificate claims, or why it can claim none."""
    try:
        return parse_peer_certificate(der)
    except InvalidIdentityError as error:
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files that a TLS context is made of: a hash, to notice a change, and when they end.

    `certificate_sha256` and `authority_sha256` are hashes of those two files in hexadecimal digits.
    """

    sha256: bytes
    certificate_sha256: str
    authority_sha256: str
    certificate_ends: datetime
    authority_ends: datetime


def read_tls_files(config: Config, now: datetime) -> TlsFiles:
    """Return what the TLS files are now.

    Raises:
        ConfigurationError: one cannot be read, or they are not good any more.
    """
    server = config.server
    try:
        certificate, key = read_linked(server.certificate), read_linked(server.private_key)
        authorities = read_linked(server.client_ca)
        return TlsFiles(
            sha256=hashlib.sha256(b"\0".join((certificate, key, authorities))).digest(),
            certificate_sha256=hashlib.sha256(certificate).hexdigest(),
            authority_sha256=hashlib.sha256(authorities).hexdigest(),
            certificate_ends=check_server_pair(certificate, key, now),
            authority_ends=authorities_end(authorities),
        )
    except ValueError as error:
        raise ConfigurationError([f"server: {error}"]) from error
