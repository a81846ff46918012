"""A running simulation: the agent on a host in memory, with approvers that answer by a script."""

import asyncio
import contextlib
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from host_agent.agent.agent import Agent
from host_agent.client import AsyncClient
from host_agent.clock import SystemClock
from host_agent.identity.registry import Role
from host_agent.pipeline import Snapshot
from host_agent.simulation.approver import ScriptedApprover
from host_agent.simulation.ground import MARK, Ground, prepare_ground
from host_agent.simulation.host import SimulatedHost
from host_agent.simulation.script import Script


class SkippingClock(SystemClock):
    """The host's clock, of which the time of requests can be skipped; certificates keep to it."""

    _skipped = timedelta(0)

    def now(self) -> datetime:
        """Return the present, with what was skipped."""
        return super().now() + self._skipped

    def skip_to(self, instant: datetime) -> None:
        """Let it be `instant`, unless it is later already."""
        self._skipped += max(instant - self.now(), timedelta(0))


class Simulation:
    """An async context manager: inside it the simulated agent serves; after it nothing is left.

    `policy` is a file with identities, rules and adapters' tables; `port` 0 is any free one, of
    loopback alone.

    Raises on entry:
        ConfigurationError: the policy has a fault, or says something that a simulation does not
            go by: wrappers, a runner, channels.
    """

    def __init__(self, script: Script, *, policy: Path | None = None, port: int = 0) -> None:
        self._script = script
        self._policy = policy
        self._port = port
        self._exits = contextlib.AsyncExitStack()
        self.host = SimulatedHost()
        self.clock = SkippingClock()

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

    async def _start(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="host-agent-simulation."))
        self._exits.callback(shutil.rmtree, directory, ignore_errors=True)
        self.ground: Ground = await asyncio.to_thread(
            prepare_ground,
            directory,
            policy=self._policy,
            port=self._port,
            now=datetime.now(UTC),
        )
        self.host.furnish(self.ground.config)
        self.agent = Agent(self.ground.config_path, runner=self.host, clock=self.clock)
        await self._exits.enter_async_context(self.agent)
        # People and callers read on everything which host it is of.
        self.agent.context.snapshot = Snapshot.of(self.agent.config.named(MARK))
        self.client_settings = self.ground.write_client_settings(self.url)
        for name in self.ground.names(Role.APPROVER):
            client = await self._exits.enter_async_context(self.client(name))
            approver = ScriptedApprover(name, client, self._script, self._expire)
            task = asyncio.create_task(approver.answer_forever(), name=f"approver {name}")
            self._exits.push_async_callback(_ended, task, approver)
            await _first(task, asyncio.create_task(approver.listens.wait()))

    @property
    def url(self) -> str:
        """Where the agent listens: by the name that its certificate has first."""
        return f"https://localhost:{self.agent.address.rpartition(':')[2]}"

    def client(self, name: str) -> AsyncClient:
        """Return a client that is the identity `name`; the caller closes it."""
        return AsyncClient(
            url=self.url,
            cert=self.ground.certificate(name),
            key=self.ground.key(name),
            ca=self.ground.ca,
        )

    async def _expire(self, request_id: str) -> None:
        """Skip the time that a request has left, for everybody."""
        request = await self.agent.context.store.get(request_id)
        if request is not None:
            self.clock.skip_to(request.expires_at)
            await self.agent.pipeline.lifecycle.expire_due()


async def _first(approver: "asyncio.Task[None]", ready: "asyncio.Task[bool]") -> None:
    """Wait until an approver listens; raise what ended it before that."""
    try:
        await asyncio.wait({approver, ready}, return_when=asyncio.FIRST_COMPLETED)
        if approver.done():
            await approver
    finally:
        ready.cancel()


async def _ended(task: "asyncio.Task[None]", approver: ScriptedApprover) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await approver.settle()
