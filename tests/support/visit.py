"""People at the door of a whole agent: real TLS, a real repository, wrappers unmodified.

`visited` runs the agent on the test's own loop; `Visitors` speaks to any agent by its URL, also to
one that is a process of its own. `Gate` holds a verb of the wrapper until the test lets it on.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from host_agent.agent.agent import Agent
from host_agent.audit.verify import verify
from host_agent.clock import Clock
from host_agent.execution.runner import Runner
from tests.support.certificates import Leaf
from tests.support.patience import PATIENCE
from tests.support.site import Site

POLL_SECONDS = 0.005


async def until(is_so: Callable[[], object], what: str = "it") -> None:
    """Return once `is_so`; a test that waits for what cannot be awaited.

    Raises:
        TimeoutError: it never was.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not is_so():
        if loop.time() > end:
            message = f"{what} did not happen"
            raise TimeoutError(message)
        await asyncio.sleep(POLL_SECONDS)


@dataclass
class Visitors:
    """The people of a site, each with a connection of their own that is kept open."""

    site: Site
    url: str
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Close every connection."""
        for client in self.clients.values():
            await client.aclose()
        self.clients.clear()

    def who(self, cn: str, leaf: Leaf | None = None) -> httpx.AsyncClient:
        """Return the client of `cn`, always the same one."""
        key = cn if leaf is None else leaf.fingerprint
        if key not in self.clients:
            self.clients[key] = self.site.async_http(self.url, cn, leaf=leaf)
        return self.clients[key]

    # -- what they do -----------------------------------------------------------------------------

    async def ask(
        self,
        operation: str,
        params: Mapping[str, object],
        *,
        by: str = "deployer",
        reason: str | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """Ask for an operation in the typed form."""
        body: dict[str, object] = {"operation": operation, "params": dict(params)}
        if reason is not None:
            body["reason"] = reason
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.who(by).post("/host/op", json=body, headers=headers)

    async def status(self, *, by: str = "deployer", key: str | None = None) -> httpx.Response:
        """Ask for what every rule set here allows."""
        return await self.ask("git.status", self.site.status(), by=by, key=key)

    async def held(self, *, by: str = "deployer", reason: str | None = None) -> dict[str, Any]:
        """Ask for a pull, and return the body of the 202."""
        answer = await self.ask("git.pull", self.site.pull(), by=by, reason=reason)
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def decide(
        self,
        request: Mapping[str, Any],
        decision: str = "approve",
        *,
        by: str = "alice",
        **more: object,
    ) -> httpx.Response:
        """Decide on a request, repeating its digest unless another one is given."""
        body = {"decision": decision, "digest": request["digest"], **more}
        return await self.who(by).post(f"/requests/{request['request_id']}/decision", json=body)

    async def cancel(self, request: Mapping[str, Any], *, by: str = "deployer") -> httpx.Response:
        """Withdraw a request."""
        return await self.who(by).post(f"/requests/{request['request_id']}/cancel")

    async def look(
        self, request: Mapping[str, Any], *, by: str = "deployer", wait: int | None = None
    ) -> httpx.Response:
        """Look at a request."""
        query = "" if wait is None else f"?wait={wait}"
        return await self.who(by).get(f"/requests/{request['request_id']}{query}")

    async def ended(self, request: Mapping[str, Any], *, by: str = "deployer") -> dict[str, Any]:
        """Follow a request to its end, as a caller does."""
        async with asyncio.timeout(PATIENCE):
            while True:
                shown: dict[str, Any] = (await self.look(request, by=by, wait=10)).json()
                if shown["finished_at"] is not None:
                    return shown

    # -- what is left -----------------------------------------------------------------------------

    def world(self) -> tuple[object, ...]:
        """Return what a refusal must not move: the repository, its origin, the store's rows."""
        return self.site.repository.snapshot(), rows(self.site.store_path)

    def since(self, sequence: int) -> list[dict[str, Any]]:
        """Return the audit records after `sequence`."""
        return [record for record in self.site.records() if record["sequence"] > sequence]

    @property
    def sequence(self) -> int:
        """Return the newest sequence on disk."""
        return int(self.site.records()[-1]["sequence"])


@dataclass
class Visit(Visitors):
    """Visitors of an agent on the test's own loop."""

    agent: Agent = field(kw_only=True)

    async def settle(self) -> None:
        """Wait until nothing is under way any more."""
        await until(lambda: not self.agent.context.tasks, "the end of all work")


@contextlib.asynccontextmanager
async def visited(
    site: Site,
    *,
    clock: Clock | None = None,
    runner: Runner | None = None,
    sync_fails: bool = False,
) -> AsyncIterator[Visit]:
    """Run an agent on `site`; on the way out its audit log is verified."""
    async with (
        Agent(site.config_path, clock=clock, runner=runner) as agent,
        Visit(site, agent.address, agent=agent) as visit,
    ):
        yield visit
    require_whole(site, sync_fails=sync_fails)


def require_whole(site: Site, *, sync_fails: bool = False) -> None:
    """Look that the audit log verifies over all its files, but for what a failed sync leaves."""
    found = [
        finding
        for finding in verify(site.audit_files).findings
        if not (sync_fails and "whole records," in finding.message)
    ]
    assert not found, found


def rows(path: Path) -> list[tuple[object, ...]]:
    """Return every row of every request that is stored, read beside the agent."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("SELECT * FROM requests ORDER BY sequence").fetchall()


# -- a wrapper that waits -------------------------------------------------------------------------


class Gate:
    """Holds one verb of the site's wrapper `git` until `open`, or ends it with the test.

    The wrapper itself runs unmodified behind it. Its bytes are others, so its digest is too: put
    the gate there before anything is asked for.
    """

    def __init__(self, site: Site, verb: str) -> None:
        folder = site.directory / "gate"
        folder.mkdir()
        started, onward = folder / "started", folder / "onward"
        for fifo in (started, onward):
            os.mkfifo(fifo)
        wrapper = site.directory / "wrappers" / "git"
        behind = folder / "git"
        wrapper.rename(behind)
        wrapper.write_text(
            "#!/bin/bash\n"
            f'if [[ $1 == {verb} ]]; then\n  exec 7<"{onward}"\n  echo >"{started}"\n'
            f'  read -r _ <&7 || exit 1\n  exec 7<&-\nfi\nexec "{behind}" "$@"\n'
        )
        wrapper.chmod(0o755)
        self._started = os.open(started, os.O_RDWR | os.O_NONBLOCK)
        self._onward = os.open(onward, os.O_RDWR | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._started)
        os.close(self._onward)

    async def reached(self) -> None:
        """Return once the verb has begun; once for each run of it."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._started, readable.set)
        try:
            async with asyncio.timeout(PATIENCE):
                await readable.wait()
        finally:
            loop.remove_reader(self._started)
        os.read(self._started, 1)

    def open(self) -> None:
        """Let one run go on."""
        os.write(self._onward, b"\n")


def problem(answer: httpx.Response) -> str:
    """Return the code of a problem answer, having looked at its shape."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert body["status"] == answer.status_code
    assert body["title"]
    assert body["detail"]
    assert body["exchange_id"] == answer.headers["x-request-id"]
    return str(body["code"])


def objects(data: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a file that holds one a line, and nothing else."""
    return [json.loads(line) for line in data.splitlines()]
