"""The composition root: a configuration file in, a running agent out.

The only module that names concrete classes. `Agent` is an async context manager: inside it the
agent serves; on the way out it drains, writes its last record and leaves nothing running.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from host_agent import __version__
from host_agent.agent.build import make_rotation, peer_of
from host_agent.agent.lock import AgentLock
from host_agent.agent.messaging import Messaging
from host_agent.agent.prepared import Prepared, prepare
from host_agent.agent.renewals import Renewals
from host_agent.agent.watch import Watch
from host_agent.api.app import create_app
from host_agent.api.monitoring import MonitoringListener, create_metrics_app
from host_agent.api.openapi import document_bytes
from host_agent.api.problems import render
from host_agent.api.route import Services
from host_agent.api.wire.host import Readiness, Serving, SudoersReport
from host_agent.audit.log import AuditLog
from host_agent.audit.record import Event
from host_agent.clock import Clock, SystemClock
from host_agent.config import Config
from host_agent.errors import (
    AuditUnavailableError,
    ConfigurationError,
    HostAgentError,
    RestartNeededError,
    StoreUnavailableError,
)
from host_agent.execution.runner import Runner, ToolRunner
from host_agent.execution.slots import Slots
from host_agent.host.install.root_list import RENDER, root_list_state
from host_agent.http.listener import Listener
from host_agent.identity.certificate import PeerCertificate
from host_agent.identity.revocation import Revocation
from host_agent.metrics import Metrics
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Catalogue
from host_agent.pipeline import Context, Pipeline
from host_agent.pipeline.contacts import Contacts
from host_agent.pipeline.context import refresh_contacts
from host_agent.pipeline.events import Events
from host_agent.pipeline.sudoers import Privileges
from host_agent.policy.limits import Limits
from host_agent.store.store import RequestStore

_log = logging.getLogger("host_agent.agent")


class Agent:
    """A running agent.

    `runner` and `clock` replace the configured runner and the host's clock, for tests and
    benchmarks. Everything else comes from the configuration file.

    Raises on entry:
        ConfigurationError: every fault of the configuration and of the files it names.
        StoreUnavailableError, AuditUnavailableError: they cannot be opened.
    """

    def __init__(
        self,
        config_path: Path,
        *,
        runner: Runner | None = None,
        clock: Clock | None = None,
        catalogue: Catalogue = CATALOGUE,
    ) -> None:
        self._config_path = config_path
        self._given_runner = runner
        self._given_clock = clock
        self._catalogue = catalogue
        self._exits = contextlib.AsyncExitStack()
        self._reloading = asyncio.Lock()
        self._reload_faults: tuple[str, ...] = ()
        self._needs_restart = False

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    # -- start ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        clock = self._given_clock or SystemClock()
        prepared = prepare(self._config_path, clock)
        config = prepared.config
        self.metrics = Metrics(spec.name for spec in self._catalogue)
        self._events = Events(self.metrics.event_sent)
        self._lock = AgentLock(config.store.path.parent)
        self._exits.callback(self._lock.release)
        self._lock.take()
        self._tls_files = prepared.tls_files
        runner = self._given_runner or prepared.runner
        audit = await self._open_audit(config, clock, runner)
        store = await self._open_store(config, clock)
        self.context = Context(
            snapshot=prepared.snapshot,
            clock=clock,
            catalogue=self._catalogue,
            revocation=prepared.revocation,
            limits=Limits(config.limits),
            store=store,
            runner=runner,
            wrappers=prepared.wrappers,
            slots=Slots(config.execution.max_concurrent),
            audit=audit,
            metrics=self.metrics,
            plugin=prepared.plugin,
            bridge_secrets=prepared.bridge_secrets,
        )
        self.pipeline = Pipeline(self.context, self._events)
        self._messaging = Messaging(self.context, self.pipeline)
        self.watch = Watch(self.pipeline, audit)
        self._privileges = Privileges(self.context, ToolRunner())
        await self._say_started(config)
        self._exits.push_async_callback(self._say_stopped)
        self._tell_ends()
        await self._open_door(prepared)

    async def _open_audit(self, config: Config, clock: Clock, runner: Runner) -> AuditLog:
        audit = AuditLog(
            config.audit.path,
            max_bytes=config.audit.max_bytes,
            retain_days=config.audit.retain_days,
            clock=clock,
            on_records=self.metrics.audit_recorded,
            on_failure=self.metrics.audit_write_failed,
            on_appended=self._events.publish,
            rotate=make_rotation(config, runner, asyncio.get_running_loop()),
        )
        self.metrics.audit_follows(lambda: audit.sequence)
        await audit.open()
        self._events.fill(await audit.recent())
        self._audit = audit
        self._exits.push_async_callback(audit.close)
        return audit

    async def _open_store(self, config: Config, clock: Clock) -> RequestStore:
        store = RequestStore(config.store.path)
        await store.open()
        self._exits.push_async_callback(store.close)
        if isinstance(clock, SystemClock):
            recorded = self._audit.newest_time
            known = (
                await store.newest_time(),
                None if recorded is None else datetime.fromisoformat(recorded),
            )
            for newest in filter(None, known):
                clock.raise_floor(newest)
        return store

    async def _say_started(self, config: Config) -> None:
        await self.context.audit.append(Event.AGENT_STARTED, version=__version__, host=config.host)
        await self._say_loaded(config)

    async def _say_loaded(self, config: Config) -> None:
        await self.context.audit.append(
            Event.CONFIG_LOADED,
            detail=_size(config),
            runner=config.execution.runner.value,
        )
        self.metrics.reload_accepted()
        _log.info("the configuration serves: %s", _size(config))

    async def _say_stopped(self) -> None:
        await self.pipeline.record_suppressed(everything=True)
        with contextlib.suppress(AuditUnavailableError):
            await self.context.audit.append(Event.AGENT_STOPPED, version=__version__)

    async def _open_door(self, prepared: Prepared) -> None:
        """Serve: background work first, then both listeners; recovery before the first request."""
        config = prepared.config
        self._exits.push_async_callback(self._messaging.close)
        self._exits.push_async_callback(self._finish_work)
        await refresh_contacts(self.context)
        await self.pipeline.lifecycle.recover()
        await self.pipeline.end_unwelcome()
        for work in (
            self.pipeline.lifecycle.expire_forever,
            self.watch.watch_forever,
            self.watch.purge_forever,
            # A runner that was handed in has no host behind it to look at unasked.
            *(() if self._given_runner else (self._privileges.keep_forever,)),
        ):
            await self._exits.enter_async_context(_background(work))
        await self._messaging.start(prepared.channels)
        self._listener = Listener(
            create_app(
                Services(
                    pipeline=self.pipeline,
                    ready=self.ready,
                    sudoers=self.sudoers,
                    renew=Renewals(self.context).ask,
                    document=partial(document_bytes, self._catalogue),
                )
            ),
            bind=config.server.address,
            context=prepared.context,
            identify=peer_of,
            render=render,
            max_connections=config.server.max_connections,
            on_tls_rejection=self.metrics.tls_rejected,
            on_refusal=self._refused_by_server,
        )
        await self._listener.start()
        self._exits.push_async_callback(self._close_door)
        self._monitoring = MonitoringListener(
            create_metrics_app(ready=self.ready, scrape=self.scrape), bind=config.metrics.address
        )
        await self._monitoring.start()
        self._exits.push_async_callback(self._monitoring.close)

    async def _refused_by_server(
        self, error: HostAgentError, exchange_id: str, peer: object
    ) -> None:
        """Count and record what the server refused before the application saw it."""
        certificate = peer if isinstance(peer, PeerCertificate) else None
        await self.pipeline.record_refusal(error, exchange_id=exchange_id, certificate=certificate)

    # -- stop -------------------------------------------------------------------------------------

    async def _close_door(self) -> None:
        """Take nothing new, end long polls, let running answers go out."""
        self.context.is_draining = True
        self.context.changes.tell_all()
        self._events.wake_all()
        await self._listener.close(self.config.server.drain_seconds)

    async def _finish_work(self) -> None:
        left = await self.context.tasks.drain(self.config.server.drain_seconds)
        if left:
            _log.error("%d operations were still running and are now unknown", left)

    # -- what is served ---------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """Return the configuration that serves now."""
        return self.context.snapshot.config

    @property
    def address(self) -> str:
        """Return the URL of the API."""
        host = self.config.server.address[0]
        shown = f"[{host}]" if ":" in host else host
        return f"https://{shown}:{self._listener.port}"

    @property
    def serves(self) -> str:
        """Return in words what serves now."""
        return f"serves: {_size(self.config)}"

    @property
    def standing(self) -> str:
        """Return in one line what serves and what is wrong, for whoever looks at the service."""
        troubles = [f"last reload rejected: {fault}" for fault in self._reload_faults[:1]]
        if self._revocation.complaint is not None:
            troubles.append(self._revocation.complaint)
        if not self.context.audit.healthy:
            troubles.append("the audit log cannot be written")
        return "; ".join((self.serves, *troubles))

    @property
    def metrics_address(self) -> str:
        """Return the URL of the plain listener."""
        host = self.config.metrics.address[0]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._monitoring.port}"

    @property
    def catalogue(self) -> Catalogue:
        """Return what can be asked."""
        return self._catalogue

    async def scrape(self) -> bytes:
        """Return the metrics in the Prometheus text format, gauges up to date."""
        with contextlib.suppress(StoreUnavailableError):
            await self.pipeline.refresh_gauges()
        return self.metrics.render()

    async def ready(self) -> Readiness:
        """Return the state of each part."""
        now = self.context.clock.wall()
        try:
            await self.context.store.ping()
            store = "ok"
        except StoreUnavailableError as error:
            store = error.detail
        ends = self._revocation.next_update
        fault = next(iter(self._reload_faults), None)
        told: dict[str, object] = {}
        if self._needs_restart:
            told["restart_needed"] = True
        if self._revocation.complaint is not None:
            told["crl_file"] = self._revocation.complaint
        return Readiness(
            store=store,
            audit="ok" if self.context.audit.healthy else "cannot be written",
            crl="ok" if ends is None or now < ends else "past its nextUpdate",
            certificate="ok" if now < self._tls_files.certificate_ends else "expired",
            configuration=f"the last reload was rejected: {fault}" if fault else "ok",
            serving=self._serving(),
            sudoers=self._privileges.state,
            root_list=await asyncio.to_thread(_root_list, self.config),
            audit_sequence=self.context.audit.sequence,
            audit_head=self.context.audit.head,
            **told,
        )

    def _serving(self) -> Serving:
        """Return what tells the files that serve from those that lie there now."""
        return Serving(
            configuration_sha256=self.config.fingerprint,
            certificate_sha256=self._tls_files.certificate_sha256,
            client_ca_sha256=self._tls_files.authority_sha256,
            crl_sha256=self._revocation.accepted_sha256,
            crl_numbers=tuple(one.number for one in self._revocation.current),
        )

    async def sudoers(self) -> SudoersReport:
        """Return what sudo grants that is not known to be safe, and when that was looked at."""
        return await self._privileges.report()

    # -- reload -----------------------------------------------------------------------------------

    async def reload(self) -> bool:
        """Read the configuration anew; keep the old one, and say so, when the new one is broken.

        Running operations keep the configuration that they began with. Bind addresses, the store
        and the audit path are taken at the next start.
        """
        async with self._reloading:
            try:
                await self._reload()
            except (ConfigurationError, HostAgentError) as error:
                await self._reject(error)
                return False
            except Exception as defect:  # noqa: BLE001 - or it would be the last reload
                _log.exception("the reload failed")
                await self._reject(ConfigurationError([f"a defect, {type(defect).__name__}"]))
                return False
            self._reload_faults, self._needs_restart = (), False
            return True

    @property
    def reload_faults(self) -> tuple[str, ...]:
        """Return why the last reload was rejected; nothing where it was not."""
        return self._reload_faults

    async def _reload(self) -> None:
        prepared = await asyncio.to_thread(
            prepare,
            self._config_path,
            self.context.clock,
            serving=self.config,
            previous=self._revocation,
        )
        config = prepared.config
        self._audit.reopen()
        async with self.context.contacts_lock:  # who is disabled meanwhile is not brought back
            contacts = Contacts.of(config, await self.context.store.contacts())
            # What is not written down does not serve.
            await self._say_loaded(config)
            # Nothing below fails: the new configuration serves whole or not at all.
            self.context.snapshot = prepared.snapshot
            self.context.contacts = contacts
        self.context.revocation = prepared.revocation
        self.context.runner = self._given_runner or prepared.runner
        self.context.plugin = prepared.plugin
        self.context.bridge_secrets = prepared.bridge_secrets
        self.context.wrappers = prepared.wrappers
        self.context.slots.resize(config.execution.max_concurrent)
        self.context.limits.reconfigure(config.limits)
        if prepared.tls_files != self._tls_files:
            # Connections that the old files let in end; with the same files they stay.
            self._tls_files = prepared.tls_files
            self._listener.swap_context(prepared.context)
        self._listener.limit_connections(config.server.max_connections)
        self._tell_ends()
        self._privileges.forget()
        await self._messaging.renew(prepared.channels)
        await self.watch.end_unwelcome()
        # Streams and long polls look around at once, whoever they belong to.
        self._events.wake_all()
        self.context.changes.tell_all()

    async def _reject(self, error: ConfigurationError | HostAgentError) -> None:
        faults = error.faults if isinstance(error, ConfigurationError) else [error.detail]
        self._reload_faults = tuple(faults)
        self._needs_restart = isinstance(error, RestartNeededError)
        self.metrics.reload_rejected()
        for fault in faults:
            _log.error("the new configuration is not used: %s", fault)
        with contextlib.suppress(AuditUnavailableError):
            await self.context.audit.append(Event.CONFIG_REJECTED, faults=faults[:20])

    @property
    def _revocation(self) -> Revocation:
        revocation = self.context.revocation
        if not isinstance(revocation, Revocation):
            message = "the agent was given another revocation"
            raise TypeError(message)
        return revocation

    def _tell_ends(self) -> None:
        """Tell when what lets people in comes to its end."""
        self.metrics.certificate_expires("server", self._tls_files.certificate_ends)
        self.metrics.certificate_expires("client_ca", self._tls_files.authority_ends)
        self.metrics.crl_expires(self._revocation.next_update)
        self.metrics.crl_file(is_used=self._revocation.complaint is None)


def _size(config: Config) -> str:
    return f"{len(config.identities)} identities, {len(config.rules)} rules"


def _root_list(config: Config) -> str:
    """Return `ok`, or why the wrappers do not do what the configuration says."""
    found = root_list_state(config)
    return "ok" if found.is_good else f"{found.sentence()}; {RENDER}"


@contextlib.asynccontextmanager
async def _background(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
