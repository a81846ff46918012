"""Waiters are told once, and nothing is kept of them."""

import asyncio

from host_agent.pipeline.changes import Changes


async def test_everyone_who_waits_for_a_request_is_told() -> None:
    changes = Changes()
    mine, too, other = changes.watch("a"), changes.watch("a"), changes.watch("b")
    changes.tell("a")
    await asyncio.gather(mine, too)
    assert not other.done()
    changes.tell_all()
    await other
    assert changes._waiters == {}


async def test_telling_nobody_is_nothing() -> None:
    changes = Changes()
    changes.tell("a")
    changes.tell_all()
    assert changes._waiters == {}


async def test_who_gave_up_is_forgotten_and_not_told() -> None:
    changes = Changes()
    gone, still = changes.watch("a"), changes.watch("a")
    gone.cancel()
    await asyncio.wait([gone])
    assert changes._waiters == {"a": {still}}
    late = changes.watch("a")
    late.cancel()
    changes.tell("a")  # before its callbacks ran
    await still
    await asyncio.wait([late])
    assert changes._waiters == {}
