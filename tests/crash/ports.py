"""The agent with a fuse in it: its store, audit log and runner pass through delegates.

No line of the agent knows of this. What has no port of its own (the audit file's writes and
rotation, the store's commit) is reached by replacing one attribute, in the agent's process only.
"""

import asyncio
import os
from pathlib import Path
from sqlite3 import Connection
from typing import Any, cast

from host_agent.agent.agent import Agent
from host_agent.audit import file as audit_file
from host_agent.audit.file import AuditFile
from host_agent.audit.record import Event
from host_agent.clock import Clock
from host_agent.execution.runner import Runner
from host_agent.operations.catalogue import Invocation, Output, RunAs
from host_agent.pipeline.context import AuditPort
from host_agent.requests.model import Request, State
from host_agent.store.admission import Inserted
from host_agent.store.store import RequestStore
from tests.crash.points import TORN, Fuse

KINDS = {"status": "read", "log": "read", "diff": "read", "state": "probe"}


class FusedStore:
    """A request store that can die before and after each step of a request."""

    def __init__(self, store: RequestStore, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def insert(self, request: Request, **more: Any) -> Inserted:
        self._fuse.reach("store.insert.before")
        inserted = await self._store.insert(request, **more)
        self._fuse.reach("store.insert.after")
        return inserted

    async def transition(self, request: Request, **more: Any) -> bool:
        step = "voice" if request.state is State.PENDING else request.state.value
        self._fuse.reach(f"store.{step}.before")
        moved = await self._store.transition(request, **more)
        self._fuse.reach(f"store.{step}.after")
        return moved


class FusedAudit:
    """An audit log that can die before and after each record of an operation or a request."""

    def __init__(self, audit: AuditPort, fuse: Fuse) -> None:
        self._audit = audit
        self._fuse = fuse

    def __getattr__(self, name: str) -> object:
        return getattr(self._audit, name)

    async def append(self, event: Event, **fields: Any) -> int:
        name = event.value.rpartition(".")[2]
        self._fuse.reach(f"audit.{name}.before")
        sequence = await self._audit.append(event, **fields)
        self._fuse.reach(f"audit.{name}.after")
        return sequence


class FusedRunner:
    """A runner that can die before a wrapper starts, while it runs, and when it has ended."""

    def __init__(self, runner: Runner, fuse: Fuse) -> None:
        self._runner = runner
        self._fuse = fuse

    def user_of(self, run_as: RunAs, unix_user: str | None) -> str | None:
        return self._runner.user_of(run_as, unix_user)

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        verb = invocation.arguments[0]
        kind = "inspect" if verb.startswith("inspect-") else KINDS.get(verb, "change")
        self._fuse.reach(f"run.{kind}.before")
        run = asyncio.ensure_future(
            self._runner.run(invocation, unix_user=unix_user, deadline=deadline)
        )
        await asyncio.sleep(0)  # its first step, which starts the process
        self._fuse.reach(f"run.{kind}.spawned")
        output = await run
        self._fuse.reach(f"run.{kind}.after")
        return output


class FusedAgent(Agent):
    """The agent, with the fuse put in when its rooms stand and before it recovers."""

    def __init__(self, config_path: Path, *, clock: Clock, fuse: Fuse) -> None:
        super().__init__(config_path, clock=clock)
        self._fuse = fuse

    async def _open_door(self, *with_what: Any) -> None:
        fuse, context, approved = self._fuse, self.context, self.pipeline.lifecycle
        _fuse_commits(context.store, fuse)
        context.store = cast("RequestStore", FusedStore(context.store, fuse))
        context.audit = cast("AuditPort", FusedAudit(context.audit, fuse))
        context.runner = FusedRunner(context.runner, fuse)
        live, recover = context.store.live, approved.recover

        async def listed() -> list[Request]:
            found = await live()
            fuse.reach("recover.listed")
            return found

        async def recovered() -> None:
            fuse.reach("recover.before")
            context.store.live = listed  # type: ignore[method-assign]
            await recover()
            context.store.live = live  # type: ignore[method-assign]
            fuse.reach("recover.after")

        approved.recover = recovered  # type: ignore[method-assign]
        await super()._open_door(*with_what)


def _fuse_commits(store: RequestStore, fuse: Fuse) -> None:
    """Let the store die right before SQLite commits a group, and right after."""
    connection = store._write_to._connection
    if connection is None:
        message = "the store is not open"
        raise TypeError(message)
    store._write_to._connection = cast("Connection", _FusedConnection(connection, fuse))
    committed = store._files.committed

    def noted(commits: int) -> None:
        fuse.reach("store.commit.after")
        committed(commits)

    store._files.committed = noted  # type: ignore[method-assign]


class _FusedConnection:
    """SQLite's connection, whose commit can die before it has begun."""

    def __init__(self, connection: Connection, fuse: Fuse) -> None:
        self._connection = connection
        self._fuse = fuse

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def commit(self) -> None:
        self._fuse.reach("store.commit.before")
        self._connection.commit()


def fuse_audit_files(fuse: Fuse) -> None:
    """Let every audit file of this process die in its writes and its rotation."""
    audit_file.os = cast("Any", _TornSystem(fuse))  # type: ignore[attr-defined]
    put_aside, create = AuditFile._put_aside, AuditFile._create

    def put_aside_and_reach(file: AuditFile, cause: str, time: str) -> str | None:
        name = put_aside(file, cause, time)
        fuse.reach("audit.rotate.aside")
        return name

    def create_and_reach(file: AuditFile) -> None:
        create(file)
        fuse.reach("audit.rotate.created")

    AuditFile._put_aside = put_aside_and_reach  # type: ignore[method-assign, assignment]
    AuditFile._create = create_and_reach  # type: ignore[method-assign, assignment]


class _TornSystem:
    """The module `os` as the audit file sees it, whose `write` can die half-way."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, descriptor: int, data: memoryview) -> int:
        if len(data) > 2 and self._fuse.is_due(TORN):
            # Two bytes, because the first may be the newline that ends an earlier torn line: that
            # line alone, ended, cannot be told from an edited one, and is a finding until a start.
            cut = min(max(2, round(len(data) * self._fuse.part)), len(data) - 1)
            os.write(descriptor, data[:cut])
            self._fuse.blow()
        written = os.write(descriptor, data)
        self._fuse.reach("audit.write.whole")
        return written
