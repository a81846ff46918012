"""The order of checks at the door: of two faults the earlier one is told, and nothing moves."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx

from host_agent.errors import RateLimitedError
from tests.support.audit_files import HeldClock
from tests.support.certificates import wall_clock
from tests.support.site import make_site
from tests.support.visit import Visit, problem, visited

TRAITS = ("approver", "hasty", "reader")
"""What is wrong with an identity: it may not ask, asked too often, or may only read."""


def name_of(traits: frozenset[str]) -> str:
    return "-".join(["asker", *(trait for trait in TRAITS if trait in traits)])


def identities() -> str:
    """Return an identity for every set of traits, and two approvers for all of them."""
    text = ""
    for size in range(len(TRAITS) + 1):
        for traits in map(frozenset, combinations(TRAITS, size)):
            role = "approver" if "approver" in traits else "caller"
            autonomy = "read_only" if "reader" in traits else "supervised"
            text += f'[[identities]]\ncn = "{name_of(traits)}"\nowner = "bob"\n'
            text += f'roles = ["{role}"]\nautonomy = "{autonomy}"\n'
    return f'{text}[[identities]]\ncn = "alice"\nroles = ["approver"]\n'


RULES = """
[[rules]]
name = "a reset has a reason"
operations = ["git.reset"]
verdict = "ask"
require_reason = true
"""


@dataclass
class Asked:
    """One ask in the making; each fault bends it."""

    body: dict[str, Any]
    who: str | None = None
    traits: set[str] = field(default_factory=set)
    content_type: str = "application/json"
    filler: int = 0
    key: str | None = None
    is_without_wrapper: bool = False

    @property
    def cn(self) -> str:
        return self.who or name_of(frozenset(self.traits))

    @property
    def content(self) -> bytes:
        return (json.dumps(self.body) + " " * self.filler).encode()


Bend = Callable[[Asked], object]


def unruled(asked: Asked) -> None:
    """Ask for something that no rule covers, in the repository that is asked for."""
    repository = asked.body["params"]["repository"]
    asked.body["operation"] = "git.pull"
    asked.body["params"] = {"repository": repository, "remote": "origin", "branch": "main"}


FAULTS: tuple[tuple[str, int, Bend], ...] = (
    ("identity:unknown", 403, lambda asked: setattr(asked, "who", "stranger")),
    ("identity:role-required", 403, lambda asked: asked.traits.add("approver")),
    ("rate:limited", 429, lambda asked: asked.traits.add("hasty")),
    ("request:too-large", 413, lambda asked: setattr(asked, "filler", 1 << 20)),
    ("request:not-json", 415, lambda asked: setattr(asked, "content_type", "text/plain")),
    ("request:malformed", 400, lambda asked: asked.body.update(approved=True)),
    ("request:unknown-operation", 404, lambda asked: asked.body.update(operation="git.push")),
    ("request:invalid-parameter", 400, lambda asked: asked.body["params"].update(force=True)),
    ("policy:read-only", 403, lambda asked: asked.traits.add("reader")),
    ("policy:denied", 403, lambda asked: asked.body["params"].update(repository="/srv/other")),
    ("policy:no-rule", 403, unruled),
    ("request:reason-required", 400, lambda asked: asked.body.pop("reason")),
    ("request:idempotency-conflict", 409, lambda asked: setattr(asked, "key", "used")),
    ("adapter:unavailable", 503, lambda asked: setattr(asked, "is_without_wrapper", True)),
    ("host:not-found", 404, lambda asked: asked.body["params"].update(ref="no-such-branch")),
)
"""Contract section 4, "Order of checks": the code, its status, how an ask comes to deserve it."""


@dataclass
class Doorkeeper:
    """Sends bent asks to an agent whose clock is held."""

    visit: Visit
    clock: HeldClock

    async def send(self, faults: tuple[tuple[str, int, Bend], ...]) -> httpx.Response:
        """Send the ask that has all of `faults`; the later ones are put in first."""
        site = self.visit.site
        asked = Asked(
            {
                "operation": "git.reset",
                "params": {"repository": str(site.repository.path), "ref": "main"},
                "reason": "undo",
            }
        )
        for _, _, bend in reversed(faults):
            bend(asked)
        self.clock.advance(seconds=1)  # refusals of one identity are written one by one then
        if "hasty" in asked.traits:
            self.exhaust(asked.cn)
        headers = {"Content-Type": asked.content_type}
        if asked.key is not None:
            headers["Idempotency-Key"] = asked.key
        with without(site.directory / "wrappers" / "git", when=asked.is_without_wrapper):
            client = self.visit.who(asked.cn)
            return await client.post("/host/op", content=asked.content, headers=headers)

    def exhaust(self, cn: str) -> None:
        """Use up what an identity may ask now."""
        with contextlib.suppress(RateLimitedError):
            while True:
                self.visit.agent.context.limits.ask(cn, self.clock.monotonic())


@contextlib.contextmanager
def without(path: Path, *, when: bool) -> Iterator[None]:
    """Take a file away for a while."""
    aside = path.with_suffix(".aside")
    if when:
        path.rename(aside)
    try:
        yield
    finally:
        if when:
            aside.rename(path)


@contextlib.asynccontextmanager
async def at_the_door(directory: Path) -> AsyncIterator[Doorkeeper]:
    site = make_site(directory, rules=RULES, identities=identities())
    site.configure(
        rules=RULES, identities=identities(), extra="[limits]\nasks_per_second = 1\nask_burst = 5"
    )
    clock = HeldClock(wall_clock())
    async with visited(site, clock=clock) as visit:
        for size in range(len(TRAITS) + 1):
            for traits in map(frozenset, combinations(TRAITS, size)):
                await visit.agent.context.store.remember(
                    name_of(traits),
                    "used",
                    body_sha256="of another body",
                    status=200,
                    body={},
                    request_id=None,
                    now=clock.now(),
                )
        yield Doorkeeper(visit, clock)


async def test_every_check_refuses_alone_and_nothing_moves(tmp_path: Path) -> None:
    async with at_the_door(tmp_path / "site") as door:
        await told_in_order(door, [(fault,) for fault in FAULTS])


async def test_of_two_faults_the_earlier_one_is_told(tmp_path: Path) -> None:
    async with at_the_door(tmp_path / "site") as door:
        await told_in_order(door, list(combinations(FAULTS, 2)))


async def test_without_a_fault_it_is_held(tmp_path: Path) -> None:
    """The twin: the ask that the faults bend is a good one."""
    async with at_the_door(tmp_path / "site") as door:
        answer = await door.send(())
        assert answer.status_code == 202
        events = [record["event"] for record in door.visit.since(2)]
        assert events == ["operation.inspected", "request.held"]


async def told_in_order(door: Doorkeeper, cases: list[tuple[tuple[str, int, Bend], ...]]) -> None:
    """Send every case; the first of its faults is told, audited once, and nothing moves."""
    visit = door.visit
    world, wrong = visit.world(), []
    for faults in cases:
        code, status, _ = faults[0]
        before = visit.sequence
        answer = await door.send(faults)
        told = (answer.status_code, problem(answer))
        audited = [
            (record.get("code"), record.get("exchange_id"))
            for record in visit.since(before)
            if record["event"] != "operation.inspected"
        ]
        if told != (status, code) or audited != [(code, answer.headers["x-request-id"])]:
            wrong.append(([fault[0] for fault in faults], told, audited))
    assert wrong == []
    assert visit.world() == world
    assert "operation.started" not in visit.site.events()
