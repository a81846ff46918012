"""What a configuration has to give before an agent serves it: read, checked and made, nothing open.

One way for the start, for a reload and for `serve --check`: what one of them takes, all take.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from host_agent.agent.build import (
    TlsFiles,
    make_context,
    make_revocation,
    make_runner,
    make_wrapper_digests,
    read_configuration,
    read_tls_files,
    refuse_moved,
)
from host_agent.agent.build_channels import make_bridge_secrets, make_channels, make_plugin
from host_agent.clock import Clock
from host_agent.config import Config, RunnerKind
from host_agent.errors import ConfigurationError
from host_agent.execution.runner import Runner
from host_agent.execution.wrappers import WrapperDigests
from host_agent.http.tls import TlsContext
from host_agent.identity.revocation import Revocation
from host_agent.notify.channel import Channel
from host_agent.operations import CATALOGUE
from host_agent.pipeline import Snapshot
from host_agent.pipeline.plugin import Plugin

IMPORTED_LATE = ("httpcore",)
"""What a running agent needs and no module names at its head: whatever is configured uses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One configuration with all that is made of it. Nothing of it is bound, open or started."""

    snapshot: Snapshot
    revocation: Revocation
    tls_files: TlsFiles
    context: TlsContext
    runner: Runner
    wrappers: WrapperDigests
    channels: Mapping[str, Channel]
    plugin: Plugin | None
    bridge_secrets: Mapping[str, tuple[bytes, ...]]

    @property
    def config(self) -> Config:
        return self.snapshot.config


def prepare(
    path: Path,
    clock: Clock,
    *,
    serving: Config | None = None,
    previous: Revocation | None = None,
) -> Prepared:
    """Return what the configuration at `path` gives. Reads files and blocks.

    `serving` and `previous` are what a running agent has: what only a start can move may not have
    moved, and no older revocation list comes back.

    Raises:
        ConfigurationError: with every fault of the configuration, or the first one beyond it.
    """
    config = read_configuration(path)
    if serving is not None:
        refuse_moved(serving, config)
    now = clock.wall()
    return Prepared(
        snapshot=Snapshot.of(config),
        revocation=make_revocation(config, previous, now),
        tls_files=read_tls_files(config, now),
        context=make_context(config),
        runner=make_runner(config),
        wrappers=make_wrapper_digests(config),
        channels=make_channels(config, clock.wall),
        plugin=make_plugin(config, clock.wall),
        bridge_secrets=make_bridge_secrets(config),
    )


def require_places(config: Config) -> None:
    """Return if this user may use every place that a start opens: what it reads, runs or writes.

    Only for a check beforehand: a start finds out by opening them.

    Raises:
        ConfigurationError: with every place that it may not use.
    """
    faults = [
        f"{key}: {path} may not be {word} by this user"
        for key, path, right, word in _places(config)
        if path.exists() and not os.access(path, right, effective_ids=True)
    ]
    if faults:
        raise ConfigurationError(faults)


def _places(config: Config) -> Iterator[tuple[str, Path, int, str]]:
    """Yield key, path, rights and the word for them of what `prepare` does not read itself."""
    execution, audit, store = config.execution, config.audit, config.store.path
    yield "store.url", _there(store.parent), os.W_OK | os.X_OK, "written"
    yield "store.url", store, os.R_OK | os.W_OK, "written"
    if not audit.append_only:
        yield "audit.path", _there(audit.path.parent), os.W_OK | os.X_OK, "written"
    yield "audit.path", audit.path, os.R_OK | os.W_OK, "appended to"
    right = os.R_OK | (os.X_OK if execution.runner is RunnerKind.DIRECT else 0)
    names = {wrapper for spec in CATALOGUE for wrapper in spec.wrappers}
    for name in sorted(names):
        yield "execution.wrapper_dir", execution.wrapper_dir / name, right, "used"
    plugin = config.approvals.plugin or ""
    if plugin.startswith("command:"):
        yield "approvals.plugin", Path(plugin.removeprefix("command:")), os.X_OK, "run"


def _there(directory: Path) -> Path:
    """Return `directory`, or what is there of the way to it: the agent makes the rest."""
    return next((one for one in (directory, *directory.parents) if one.exists()), directory)


def import_everything() -> None:
    """Import what a running agent imports later than at its start, whatever is configured.

    Raises:
        ImportError: something is missing.
    """
    for name in IMPORTED_LATE:
        import_module(name)
