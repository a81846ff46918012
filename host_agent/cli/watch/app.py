"""`requests watch` on a terminal: requests as they come and go, read and answered by keys.

The agent's events say when to look again; where there are none, it looks every few seconds. What
is done with a key is in `model`, what is shown in `screen`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from host_agent.cli.terminal import endings, listing, render
from host_agent.cli.watch import keys
from host_agent.cli.watch.model import (
    SHRUNK,
    Act,
    Approve,
    DenialKey,
    Quit,
    WatchState,
    arrived,
    drawn,
    interrupted,
    passed,
    press,
    subject,
)
from host_agent.cli.watch.screen import Drawing, draw
from host_agent.client import (
    AsyncClient,
    CertificateRefusedError,
    ConnectionFailedError,
    InvalidAnswerError,
    ProblemError,
    RequestView,
)
from host_agent.errors import EX_OK

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

MOST = 500
PAGE = 100
SETTLE_SECONDS = 0.25
"""Between two looks at the least, however much happens; also for a key that is a lone Escape."""
QUIET_SECONDS = 30.0
"""Between two looks while events come."""
TICK_SECONDS = 1.0
READ_BYTES = 1024
_LOOKED_AT = ("request.", "events.")
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _now() -> datetime:
    return datetime.now(UTC)


async def watch(client: AsyncClient, *, interval_seconds: float) -> int:
    """Watch until the person quits, close `client`, and return the exit status."""
    async with client:
        return await Watching(client, interval_seconds=interval_seconds).run()


def is_possible() -> bool:
    """Return whether there is a person with a terminal that can be drawn on and typed on."""
    is_there = render.is_terminal(sys.stdout) and render.is_terminal(sys.stdin)
    return is_there and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


class Watching:
    """One watch. `run` returns the exit status; the terminal is then as it was."""

    def __init__(
        self, client: AsyncClient, *, interval_seconds: float, now: Callable[[], datetime] = _now
    ) -> None:
        self._client = client
        self._interval_seconds = interval_seconds
        self._now = now
        self._desk = WatchState()
        self._typed: list[bytes] = []
        self._keys = keys.Keys()
        self._trouble = ""
        self._is_live = False
        self._ended_by: signal.Signals | None = None
        self._woken = asyncio.Event()
        self._stale = asyncio.Event()

    async def run(self) -> int:
        """Watch until the person quits.

        Raises:
            ProblemError: the agent refuses the listing for a reason that waiting does not mend.
            CertificateRefusedError: it does not take this certificate.
        """
        from rich.live import Live

        console, descriptor = render.console(), sys.stdin.fileno()
        tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._follow())]
        for task in tasks:
            task.add_done_callback(lambda _: self._woken.set())
        try:
            with (
                keys.by_key(descriptor),
                self._listening(descriptor),
                Live(
                    console=console,
                    auto_refresh=False,
                    screen=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                ) as live,
            ):
                return await self._serve(console, live, descriptor, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def _listening(self, descriptor: int) -> Iterator[None]:
        """Hear keys, a changed size, and those who want this to end."""
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, self._read, descriptor)
        loop.add_signal_handler(signal.SIGWINCH, self._woken.set)
        for number in _ENDING:
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            loop.remove_reader(descriptor)
            for number in (signal.SIGWINCH, *_ENDING):
                loop.remove_signal_handler(number)

    def _end(self, number: signal.Signals) -> None:
        self._ended_by = number
        self._woken.set()

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, READ_BYTES)
        except OSError:
            data = b""
        if data:
            self._typed.append(data)
            self._woken.set()
        else:  # the terminal is gone
            asyncio.get_running_loop().remove_reader(descriptor)
            self._end(signal.SIGHUP)

    # -- what happens ---------------------------------------------------------------------------

    async def _look(self) -> None:
        """Look at what waits, again and again."""
        while True:
            self._stale.clear()
            await self._look_once()
            self._woken.set()
            seconds = QUIET_SECONDS if self._is_live else self._interval_seconds
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), seconds)
                await asyncio.sleep(SETTLE_SECONDS)

    async def _look_once(self) -> None:
        try:
            views = await self._pending()
        except CertificateRefusedError:
            raise
        except ConnectionFailedError as error:
            self._trouble = render.visible(str(error), limit=300)
        except ProblemError as problem:
            if problem.status not in (429, 503):
                raise
            self._trouble = render.visible(f"{problem.detail} ({problem.code})", limit=300)
        else:
            self._trouble = ""
            self._desk = arrived(self._desk, views)

    async def _pending(self) -> tuple[RequestView, ...]:
        views: list[RequestView] = []
        cursor: str | None = None
        while len(views) < MOST:
            page = await self._client.requests(state="pending", limit=PAGE, cursor=cursor)
            views += page.requests
            cursor = page.next_cursor
            if cursor is None or not page.requests:
                break
        return tuple(listing.ordered(views))

    async def _follow(self) -> None:
        """Look anew when something happens; without events, the interval is all there is."""
        with suppress(ProblemError, ConnectionFailedError, InvalidAnswerError):
            async with aclosing(self._client.events(on_state=self._turned)) as events:
                async for event in events:
                    if event.name.startswith(_LOOKED_AT):
                        self._stale.set()
        self._is_live = False

    def _turned(self, is_open: bool) -> None:  # noqa: FBT001 - the client's callback
        self._is_live = is_open
        self._stale.set()
        self._woken.set()

    # -- keys and the screen --------------------------------------------------------------------

    async def _serve(
        self,
        console: "Console",
        live: "Live",
        descriptor: int,
        tasks: "list[asyncio.Task[None]]",
    ) -> int:
        while True:
            self._woken.clear()
            if tasks[0].done():
                tasks[0].result()
            if self._ended_by is not None:
                return 128 + self._ended_by
            drawing = self._draw(console, live)
            was_asked = self._desk.question is not None
            act = self._press(drawing)
            if isinstance(act, Quit):
                return EX_OK
            if act is not None:
                await self._do(act, console, live)
            if act is not None or (self._desk.question is not None) != was_asked:
                # What was typed before a question is shown is no answer to it.
                self._typed.clear()
                keys.forget_typed(descriptor)
                continue
            if not self._typed:
                await self._wait()

    async def _wait(self) -> None:
        seconds = SETTLE_SECONDS if self._keys.is_unsettled else TICK_SECONDS
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            for key in self._keys.settle():
                self._desk, _ = press(self._desk, key, self._now())

    def _draw(self, console: "Console", live: "Live") -> Drawing:
        from rich.segment import SegmentLines

        now = self._now()
        self._desk = passed(self._desk, now)
        drawing = draw(self._desk, console, now=now, trouble=self._trouble, is_live=self._is_live)
        if drawing.fits:
            self._desk = drawn(self._desk, scroll=drawing.scroll, is_end_shown=drawing.is_end_shown)
        else:
            self._desk = replace(interrupted(self._desk, SHRUNK), is_read=False)
        live.update(SegmentLines(drawing.lines, new_lines=True), refresh=True)
        return drawing

    def _press(self, drawing: Drawing) -> Act | None:
        """Press the keys that were typed, up to the first that does or asks something."""
        typed, self._typed = self._typed, []
        was_asked = self._desk.question is not None
        for key in self._keys.feed(b"".join(typed)):
            if not drawing.fits:
                if key in ("q", keys.END):
                    return Quit()
                continue
            self._desk, act = press(self._desk, key, self._now(), page=drawing.page)
            if act is not None or (self._desk.question is not None) != was_asked:
                return act
        return None

    async def _do(self, act: Approve | DenialKey, console: "Console", live: "Live") -> None:
        self._desk = replace(self._desk, notice=f"sending: {subject(act.view)}")
        self._draw(console, live)
        sending = asyncio.create_task(self._sent(act))
        sending.add_done_callback(lambda _: self._woken.set())
        while not sending.done() and self._ended_by is None:
            self._woken.clear()
            await self._woken.wait()
        if not sending.done():  # whoever ends us does not wait for the agent
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            return
        self._desk = replace(self._desk, notice=sending.result())
        self._stale.set()

    async def _sent(self, act: Approve | DenialKey) -> str:
        """Send one decision; return what became of it, in a line."""
        request_id = act.view.request_id
        try:
            if isinstance(act, Approve):
                view = await self._client.approve(request_id, act.digest)
                if view.state in endings.UNDER_WAY:
                    # The yes is given, whatever can be seen of its run.
                    with suppress(ProblemError, ConnectionFailedError, InvalidAnswerError):
                        view = await self._client.follow(request_id, endings.LOOK_SECONDS)
            else:
                view = await self._client.deny(request_id, act.reason)
        except CertificateRefusedError:
            raise
        except ProblemError as problem:
            return render.visible(f"{problem.detail} ({problem.code})", limit=300)
        except (ConnectionFailedError, InvalidAnswerError) as error:
            return render.visible(str(error), limit=300)
        return endings.line(view)
