"""How many files of the package one request enters: never more than the page has."""

import re
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import pytest

import host_agent
from tests.support.site import make_site
from tests.support.visit import Visit, visited

PACKAGE = Path(host_agent.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/explanation/way-of-a-request.md"
TIMES = 4
"""Something else may happen meanwhile: what is entered each of so many times is the request's."""
BY_ITSELF = "agent/"
"""Who looks at things from time to time, request or not: what they call does not count."""


Prepare: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Request: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Tracer:
    """Notes the files of the package that are entered while `seen` is a set."""

    seen: set[str] | None = None
    known: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if self.seen is None or event != "call":
            return
        name = frame.f_code.co_filename
        if name not in self.known:
            path = Path(name)
            is_ours = path.is_relative_to(PACKAGE)
            self.known[name] = str(path.relative_to(PACKAGE)) if is_ours else None
        if (file := self.known[name]) is not None and not self._is_by_itself(frame):
            self.seen.add(file)

    def _is_by_itself(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if (self.known.get(frame.f_code.co_filename) or "").startswith(BY_ITSELF):
                return True
            frame = frame.f_back
        return False

    @contextmanager
    def noting(self) -> Iterator[set[str]]:
        """Note files until the end of the block."""
        seen = self.seen = set()
        try:
            yield seen
        finally:
            self.seen = None


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    """Trace this thread and every later one; the agent has to start after it."""
    tracer, before = Tracer(), sys.getprofile()
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    yield tracer
    sys.setprofile(before)
    threading.setprofile(None)


@pytest.fixture
async def visit(tracer: Tracer, tmp_path: Path) -> AsyncIterator[Visit]:
    async with visited(make_site(tmp_path / "site")) as visit:
        yield visit


def on_the_page(request: str) -> int:
    """Return how many files a request enters at most, as the page has it."""
    found = re.search(rf"^\| {re.escape(request)} \| ([0-9]+) \|", PAGE.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def entered(tracer: Tracer, prepare: Prepare, request: Request) -> set[str]:
    """Return the files that `request` enters, made with what `prepare` returns."""
    found = []
    for _ in range(1 + TIMES):  # the first does what is done once in an agent's life
        prepared = await prepare()
        with tracer.noting() as seen:
            await request(prepared)
        found.append(seen)
    return set.intersection(*found[1:])


async def test_an_allowed_read_enters_no_more_files_than_the_page_has(
    tracer: Tracer, visit: Visit
) -> None:
    async def nothing() -> dict[str, Any]:
        return {}

    async def read(_prepared: dict[str, Any]) -> None:
        assert (await visit.status()).status_code == 200

    seen = await entered(tracer, nothing, read)
    assert {"pipeline/submit.py", "execution/runner.py", "audit/file.py"} <= seen
    assert len(seen) <= on_the_page("an allowed read"), sorted(seen)


async def test_a_decision_and_its_run_enter_no_more_files_than_the_page_has(
    tracer: Tracer, visit: Visit
) -> None:
    async def held() -> dict[str, Any]:
        visit.site.repository.push_elsewhere()
        return await visit.held()

    async def decide(request: dict[str, Any]) -> None:
        assert (await visit.decide(request)).status_code == 200
        assert (await visit.ended(request))["state"] == "succeeded"
        await visit.settle()

    seen = await entered(tracer, held, decide)
    assert {"pipeline/decide.py", "store/store.py", "execution/runner.py"} <= seen
    assert len(seen) <= on_the_page("a decision and its run"), sorted(seen)


async def test_who_is_refused_enters_neither_the_store_nor_the_door_to_the_host(
    tracer: Tracer, visit: Visit
) -> None:
    async def nothing() -> dict[str, Any]:
        return {}

    async def refused(_prepared: dict[str, Any]) -> None:
        answer = await visit.ask("git.pull", visit.site.pull(), by="watcher")
        assert answer.status_code == 403

    seen = await entered(tracer, nothing, refused)
    assert "pipeline/submit.py" in seen
    assert not {file for file in seen if file.startswith(("store/", "execution/"))}
