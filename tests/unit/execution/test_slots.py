"""Turns: one change per resource, a cap on all, in the order of asking, nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from host_agent.errors import HostBusyError
from host_agent.execution.slots import Slot, Slots


class Visitor:
    """A task that takes a turn, says that it has it, and keeps it until it is told to leave."""

    def __init__(self, turn: Slot, name: str = "", order: list[str] | None = None) -> None:
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self._turn, self._name, self._order = turn, name, order
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> None:
        async with self._turn:
            if self._order is not None:
                self._order.append(self._name)
            self.inside.set()
            await self.leave.wait()

    async def left(self) -> None:
        self.leave.set()
        await self.task


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def inside(turn: Slot) -> AsyncIterator[Visitor]:
    visitor = Visitor(turn)
    await visitor.inside.wait()
    try:
        yield visitor
    finally:
        await visitor.left()


def assert_idle(slots: Slots) -> None:
    assert slots.running == 0
    assert all(map(slots.is_free, ("/srv/app", "/srv/other")))


async def test_two_changes_of_one_resource_never_run_at_once() -> None:
    slots = Slots(8)
    async with inside(slots.change("/srv/app")):
        second = Visitor(slots.change("/srv/app"))
        await settle()
        assert not second.inside.is_set()
        assert slots.running == 1
    await second.inside.wait()
    await second.left()
    assert_idle(slots)


async def test_changes_of_two_resources_run_side_by_side() -> None:
    slots = Slots(8)
    async with inside(slots.change("/srv/app")), inside(slots.change("/srv/other")):
        assert not any(map(slots.is_free, ("/srv/app", "/srv/other")))
    assert_idle(slots)


async def test_reads_are_never_serialised_by_a_resource() -> None:
    slots = Slots(8)
    async with inside(slots.change("/srv/app")), inside(slots.read()), inside(slots.read()):
        assert slots.running == 3
    assert_idle(slots)


async def test_the_cap_holds_reads_and_changes_together() -> None:
    slots = Slots(2)
    async with inside(slots.change("/srv/app")):
        async with inside(slots.read()):
            third = Visitor(slots.read())
            await settle()
            assert not third.inside.is_set()
        await third.inside.wait()
        await third.left()
    assert_idle(slots)


async def test_a_change_that_waits_for_its_resource_takes_no_place() -> None:
    slots = Slots(2)
    async with inside(slots.change("/srv/app")):
        waiting = Visitor(slots.change("/srv/app"))
        await settle()
        async with inside(slots.read(0)):
            assert slots.running == 2
    await waiting.inside.wait()
    await waiting.left()
    assert_idle(slots)


@pytest.mark.parametrize(
    "ask",
    [lambda slots: slots.change("/srv/app"), lambda slots: slots.read()],
    ids=["change", "read"],
)
async def test_turns_come_in_the_order_of_asking(ask: Callable[[Slots], Slot]) -> None:
    slots, order = Slots(1), list[str]()
    visitors = [Visitor(ask(slots), str(number), order) for number in range(5)]
    for visitor in visitors:
        await visitor.inside.wait()
        await visitor.left()
    assert order == ["0", "1", "2", "3", "4"]
    assert_idle(slots)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.01])
async def test_a_resource_that_stays_busy_is_refused_at_the_timeout(seconds: float) -> None:
    slots = Slots(8)
    async with inside(slots.change("/srv/app")):
        with pytest.raises(HostBusyError) as refusal:
            async with slots.change("/srv/app", seconds):
                pytest.fail("two changes at once")
        assert refusal.value.retry_after_seconds is not None
        assert slots.running == 1
    assert_idle(slots)


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_a_full_host_is_refused_at_the_timeout_and_the_resource_is_free(
    seconds: float,
) -> None:
    slots = Slots(1)
    async with inside(slots.read()):
        with pytest.raises(HostBusyError):
            async with slots.change("/srv/app", seconds):
                pytest.fail("more than the cap at once")
        assert slots.is_free("/srv/app")
    assert_idle(slots)


async def test_a_free_turn_is_had_without_any_time() -> None:
    async with Slots(1).change("/srv/app", 0):
        pass


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    slots = Slots(8)
    async with inside(slots.change("/srv/app")):
        waiting = Visitor(slots.change("/srv/app"))
        await settle()
        waiting.task.cancel()
        await asyncio.gather(waiting.task, return_exceptions=True)
    assert_idle(slots)


async def test_a_waiter_cancelled_as_its_turn_comes_passes_it_on() -> None:
    slots = Slots(8)
    async with slots.change("/srv/app"):
        second, third = (Visitor(slots.change("/srv/app")) for _ in range(2))
        await settle()
    second.task.cancel()  # it has been handed the resource and has not yet run
    await asyncio.gather(second.task, return_exceptions=True)
    assert second.task.cancelled()
    assert not second.inside.is_set()
    await third.inside.wait()
    await third.left()
    assert_idle(slots)


async def test_the_last_waiter_cancelled_as_its_turn_comes_leaves_no_key() -> None:
    slots = Slots(8)
    async with slots.change("/srv/app"):
        second = Visitor(slots.change("/srv/app"))
        await settle()
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    assert not second.inside.is_set()
    assert_idle(slots)


async def test_a_waiter_for_a_place_cancelled_gives_its_resource_back() -> None:
    slots = Slots(1)
    async with inside(slots.read()):
        waiting = Visitor(slots.change("/srv/app"))
        await settle()
        waiting.task.cancel()
        await asyncio.gather(waiting.task, return_exceptions=True)
        assert slots.is_free("/srv/app")
    assert_idle(slots)


async def test_a_turn_is_given_back_when_its_holder_fails() -> None:
    slots = Slots(1)
    with pytest.raises(RuntimeError):
        async with slots.change("/srv/app"):
            raise RuntimeError
    assert_idle(slots)


async def test_a_read_inside_a_change_of_the_same_task_needs_no_second_place() -> None:
    slots = Slots(1)
    async with slots.change("/srv/app", 0):
        async with slots.read(0):
            assert slots.running == 1
        assert slots.running == 1
    assert_idle(slots)


async def test_a_read_of_another_task_does_need_its_own_place() -> None:
    slots = Slots(1)
    async with slots.change("/srv/app"):
        other = Visitor(slots.read())
        await settle()
        assert not other.inside.is_set()
    await other.inside.wait()
    await other.left()
    assert_idle(slots)


async def test_a_larger_cap_lets_those_in_who_wait() -> None:
    slots = Slots(1)
    async with inside(slots.read()):
        waiting = Visitor(slots.read())
        await settle()
        slots.resize(2)
        await waiting.inside.wait()
        assert slots.max_concurrent == 2
        await waiting.left()
    assert_idle(slots)


async def test_a_smaller_cap_puts_nobody_out_and_holds_for_the_next() -> None:
    slots = Slots(2)
    async with inside(slots.read()):
        async with inside(slots.read()):
            slots.resize(1)
            waiting = Visitor(slots.read())
            assert slots.running == 2
        await settle()
        assert not waiting.inside.is_set()
    await waiting.inside.wait()
    await waiting.left()
    assert_idle(slots)


async def test_a_crowd_of_short_changes_leaves_no_keys() -> None:
    slots, most = Slots(3), 0

    async def change(number: int) -> None:
        nonlocal most
        async with slots.change(f"/srv/{number % 7}"):
            most = max(most, slots.running)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(change(number)) for number in range(300)]
    await settle()
    for task in tasks[::5]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert_idle(slots)


async def test_a_change_goes_before_reads_that_wait() -> None:
    """A caller that fills every place with slow reads must not keep an approved change out."""
    slots, order = Slots(1), list[str]()

    async def take(turn: Slot, name: str) -> None:
        async with turn:
            order.append(name)

    async with inside(slots.read()):
        reads = [asyncio.create_task(take(slots.read(), "read")) for _ in range(20)]
        await asyncio.sleep(0)
        change = asyncio.create_task(take(slots.change("/srv/app"), "change"))
        await asyncio.sleep(0)
    await asyncio.gather(change, *reads)
    assert order == ["change", *["read"] * 20]


async def test_a_change_that_gives_up_leaves_its_place_in_the_queue() -> None:
    slots = Slots(1)
    async with inside(slots.read()):
        with pytest.raises(HostBusyError):
            async with slots.change("/srv/app", 0.01):
                pass
        waiting = asyncio.create_task(slots.change("/srv/app").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with slots.read(), slots.change("/srv/app"):
        assert not slots.is_free("/srv/app")
    assert_idle(slots)


# -- callers --------------------------------------------------------------------------------------


async def test_one_caller_with_slow_reads_leaves_a_place_to_others() -> None:
    slots = Slots(3)
    greedy = [Visitor(slots.read(caller="greedy")) for _ in range(5)]
    await settle()
    assert [visitor.inside.is_set() for visitor in greedy] == [True, True, False, False, False]
    async with inside(slots.read(0, caller="modest")):
        assert slots.running == 3
    await settle()
    assert slots.running == 2  # the place stays free
    async with inside(slots.change("/srv/app", 0)):
        assert slots.running == 3
    for visitor in greedy:
        await visitor.left()
    assert_idle(slots)


async def test_callers_who_wait_are_let_in_by_turns() -> None:
    slots, order = Slots(1), list[str]()
    async with inside(slots.read(caller="first")):
        waiting = [
            *(Visitor(slots.read(caller="greedy"), f"greedy {n}", order) for n in range(4)),
            *(Visitor(slots.read(caller="modest"), f"modest {n}", order) for n in range(2)),
            Visitor(slots.read(caller="late"), "late", order),
        ]
        await settle()
        for visitor in waiting:
            visitor.leave.set()
    await asyncio.gather(*(visitor.task for visitor in waiting))
    assert order == [
        *("greedy 0", "modest 0", "late", "greedy 1", "modest 1"),
        *("greedy 2", "greedy 3"),
    ]
    assert_idle(slots)


async def test_a_single_place_is_for_whoever_comes() -> None:
    slots = Slots(1)
    async with inside(slots.read(0, caller="greedy")):
        with pytest.raises(HostBusyError):
            async with slots.read(0, caller="modest"):
                pytest.fail("more than the cap at once")
    assert_idle(slots)


async def test_a_caller_at_its_share_is_refused_at_the_timeout_while_others_are_not() -> None:
    slots = Slots(2)
    async with inside(slots.read(caller="greedy")):
        for seconds in (0.0, 0.01):
            with pytest.raises(HostBusyError):
                async with slots.read(seconds, caller="greedy"):
                    pytest.fail("more than the share at once")
        async with slots.read(0, caller="modest"):
            assert slots.running == 2
    assert_idle(slots)


async def test_a_waiter_cancelled_as_its_place_comes_gives_back_its_callers_share() -> None:
    slots = Slots(2)
    async with slots.read(caller="greedy"):
        second, third = (Visitor(slots.read(caller="greedy")) for _ in range(2))
        await settle()
    second.task.cancel()  # it has been handed the place and has not yet run
    await asyncio.gather(second.task, return_exceptions=True)
    await third.inside.wait()
    await third.left()
    assert_idle(slots)


async def test_a_smaller_cap_makes_every_callers_share_smaller() -> None:
    slots = Slots(4)
    async with inside(slots.read(caller="greedy")):
        slots.resize(2)
        second = Visitor(slots.read(caller="greedy"))
        await settle()
        assert not second.inside.is_set()
        slots.resize(3)
        await second.inside.wait()
        await second.left()
    assert_idle(slots)
