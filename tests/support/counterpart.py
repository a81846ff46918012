"""The other side of the client: an agent's door and API over a real pipeline, in a thread.

For clients that block. What a test has not said otherwise is answered by the API itself. What no
agent of this version says (hostile text, another form, another program, a lost connection) is put
in front of it with `say`, and goes out through the same door.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs

import pytest

from host_agent.__main__ import main
from host_agent.agent.build import peer_of
from host_agent.api.problems import render
from host_agent.http.exchange import Application
from host_agent.http.listener import Listener
from host_agent.identity.certificate import PeerCertificate
from host_agent.pki.door import server_context
from tests.support import answers
from tests.support.api import Api, api
from tests.support.audit_files import HeldClock
from tests.support.certificates import Leaf, Pki
from tests.support.patience import PATIENCE
from tests.support.pipeline import Workbench

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer in place of the API's. `content` instead of `body` for what is not JSON.

    `drops` hangs up instead. `waits_for` holds it back until the test sets it. After `content`,
    each piece of `then` is sent once its event is set.
    """

    status: int = 200
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    drops: bool = False
    waits_for: threading.Event | None = None
    then: tuple[tuple[threading.Event, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One exchange as it reached the API, or what stood in front of it."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any
    peer: str


def refused(
    code: str,
    detail: str = "Not this time.",
    *,
    retry_after_seconds: float | None = None,
    **members: Any,
) -> Answer:
    """Return the answer that tells of the error with `code`, rendered as the API does it."""
    error = answers.error(code, detail, members=members, retry_after_seconds=retry_after_seconds)
    rendered = render(error, "x-1")
    fields = {name.decode(): value.decode() for name, value in rendered.headers}
    return Answer(status=rendered.status, content=rendered.body, headers=fields)


class RunningClock(HeldClock):
    """The machine's own clock, where a workbench has one that is held."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return time.monotonic()


class Counterpart:
    """The door, the API and what a test says in front of it; a context manager."""

    def __init__(
        self, directory: Path, pki: Pki, server: Leaf | None = None, **configured: str
    ) -> None:
        self.pki = pki
        self._configured = configured
        self.seen: list[Seen] = []
        self.port = 0
        self._directory = directory
        self._server = server or pki.server()
        self._said: dict[tuple[str, str], list[Answer]] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._begun, self._fault = threading.Event(), ""
        self._loop: asyncio.AbstractEventLoop
        self._ending: asyncio.Event
        self._api: Api

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def bench(self) -> Workbench:
        """Return the workbench; what touches its loop goes by `do`."""
        return self._api.bench

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(PATIENCE)
        assert self.port, "it does not serve"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    # -- what a test does -------------------------------------------------------------------------

    def say(self, method: str, path: str, *said: Answer) -> None:
        """Answer so in place of the API: one after the other, the last one again and again."""
        with self._lock:
            self._said[(method, path)] = list(said)

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something on the agent's own loop, and return what came of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    @contextlib.contextmanager
    def meanwhile(self, work: Coroutine[Any, Any, object]) -> Iterator[None]:
        """Do something on the agent's own loop while the test waits for a client."""
        doing = asyncio.run_coroutine_threadsafe(work, self._loop)
        yield
        doing.result(PATIENCE)

    def paths(self) -> list[str]:
        """Return the exchanges so far, as method and path."""
        return [f"{seen.method} {seen.path}" for seen in self.seen]

    # -- the other thread -------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        try:
            clock = RunningClock()
            async with api(self._directory, clock=clock, **self._configured) as self._api:
                await self._listen(self._api.app)
        finally:
            self._begun.set()

    async def _listen(self, app: Application) -> None:
        files = self._server.certificate_path, self._server.key_path, self.pki.ca_path
        listener = Listener(
            self._in_front(app),
            bind=("127.0.0.1", 0),
            context=server_context(*files),
            identify=peer_of,
            render=render,
        )
        await listener.start()
        self.port = listener.port
        self._begun.set()
        try:
            await self._ending.wait()
        finally:
            await listener.close(0)

    def _in_front(self, app: Application) -> Application:
        async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401
            events, body = [await receive()], b""
            while events[-1].get("more_body", False):
                events.append(await receive())
            body = b"".join(event.get("body", b"") for event in events)
            said = self._next(_seen(scope, body))
            if said is not None:
                await _send(said, send)
                return

            async def again() -> Any:  # noqa: ANN401
                return events.pop(0) if events else await receive()

            await app(scope, again, send)

        return answer

    def _next(self, seen: Seen) -> Answer | None:
        with self._lock:
            self.seen.append(seen)
            said = self._said.get((seen.method, seen.path), [])
            return said.pop(0) if len(said) > 1 else next(iter(said), None)


def _seen(scope: Mapping[str, Any], body: bytes) -> Seen:
    peer = scope["extensions"]["host_agent"]["peer"]
    return Seen(
        method=scope["method"],
        path=scope["path"],
        query=parse_qs(scope["query_string"].decode()),
        headers={name.decode().lower(): value.decode() for name, value in scope["headers"]},
        body=json.loads(body) if body else None,
        peer=peer.common_name if isinstance(peer, PeerCertificate) else "",
    )


async def _send(said: Answer, send: Any) -> None:  # noqa: ANN401
    if said.waits_for is not None:
        await _set(said.waits_for)
    if said.drops:
        raise ConnectionResetError
    content = json.dumps(said.body).encode() if said.content is None else said.content
    fields = {"content-type": "application/json", **{k.lower(): v for k, v in said.headers.items()}}
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": bool(said.then)})
    for event, piece in said.then:
        await _set(event)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if said.then:
        await send({"type": "http.response.body", "body": b""})


async def _set(event: threading.Event) -> None:
    """Return once the test has set it."""
    async with asyncio.timeout(PATIENCE):
        while not event.is_set():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def running(directory: Path, pki: Pki, **configured: str) -> Iterator[Counterpart]:
    """Run one with the PKI's own server certificate; the keywords are as of `configuration`."""
    with Counterpart(directory, pki, None, **configured) as counterpart:
        yield counterpart


def write_client_toml(home: Path, *, url: str, leaf: Leaf, ca: Path) -> Path:
    """Write `~/.config/host-agent/client.toml` for a home directory."""
    path = home / ".config" / "host-agent" / "client.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'url = "{url}"\ncert = "{leaf.certificate_path}"\nkey = "{leaf.key_path}"\nca = "{ca}"\n'
    )
    return path


class CommandLine:
    """Runs a command line in this process as somebody, and keeps what it printed."""

    def __init__(
        self, home: Path, agent: Counterpart, capsys: pytest.CaptureFixture[str], *, cn: str
    ) -> None:
        self._home, self._agent, self._capsys = home, agent, capsys
        self.out = self.err = ""
        self.become(cn)

    def become(self, cn: str) -> None:
        """Let the next ones be somebody else's."""
        leaf, ca = self._agent.pki.client(cn), self._agent.pki.ca_path
        write_client_toml(self._home, url=self._agent.url, leaf=leaf, ca=ca)

    def __call__(self, *arguments: str) -> int:
        """Run one, and return its exit status."""
        status = main(arguments)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return status


def stream(*pieces: tuple[threading.Event, bytes], first: bytes = b": events\n\n") -> Answer:
    """Return a stream of events: `first` at once, each piece once its event is set."""
    return Answer(content=first, headers={"Content-Type": "text/event-stream"}, then=pieces)


def frame(sequence: int, event: str = "request.held") -> bytes:
    """Return one event as it is sent."""
    return f'id: {sequence}\nevent: {event}\ndata: {{"sequence":{sequence}}}\n\n'.encode()
