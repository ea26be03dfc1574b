"""A partition of the asynchronous queue at work, in memory and in fast-forwarded time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from leasing.held import Reason
from model.async_event import Condition, NewEvent, partition_key
from model.errors import LeaseLostError, RefusedError, StoreUnavailableError, UnavailableError
from model.function_config import EventInvokeConfig, FunctionConfig
from model.lease import Member
from pollers.async_lines import MOST, MOST_OF_A_LINE
from pollers.async_pump import AsyncPump, Share
from tests.support.async_world import AWAY, FAILED, THROTTLED, World, now, pumping
from tests.support.fleet_values import ANN, BOB, LONG_S, take

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from invocation.classify import Answer
    from model.async_event import QueuedEvent, Settled
    from model.lease import Lease
    from pollers.async_delivery import Came
    from statemgr.event_queue import EventKey, Taken

pytestmark = pytest.mark.looptime


async def test_an_event_is_delivered_once_and_done() -> None:
    """Nothing is left of it, and the drained pump has nothing under way."""
    world = World()
    await world.append()
    async with pumping(world, await world.lease()):
        await world.until(lambda: bool(world.calls))
    assert [request_id for _, _, request_id in world.calls] == ["r-1"]
    assert await world.left() == 0
    counters = world.meters.of("f")
    assert (counters.results[Condition.SUCCESS], counters.dropped, counters.ages.count) == (1, 0, 1)


async def test_the_retries_of_a_failing_function() -> None:
    """After one minute, after two more, under one request id; then destination and dead-letter queue have it."""
    world = World(answers=[FAILED] * 3)
    world.config = FunctionConfig(event_invoke=EventInvokeConfig(on_failure="Q"), dead_letter="D")
    await world.append()
    async with pumping(world, await world.lease()):
        await world.until(lambda: bool(world.buried))
    assert [at for at, _, _ in world.calls] == [0, 60, 180]
    assert {request_id for _, _, request_id in world.calls} == {"r-1"}
    assert world.told == [(180, "Q", Condition.RETRIES_EXHAUSTED)]
    assert world.buried == ["D"]
    assert await world.left() == 0
    assert world.meters.of("f").dropped == 0


async def test_the_state_of_retries_outlasts_its_holder() -> None:
    """A new holder goes on where the last one was: two attempts are not made three again."""
    world = World(answers=[FAILED] * 3)
    await world.append()
    lease = await world.lease()
    async with pumping(world, lease):
        await world.until(lambda: len(world.calls) == 2)
    await world.store.release([lease.lease])
    async with pumping(world, await world.lease()):
        await world.until(lambda: len(world.calls) == 3)
    assert [at for at, _, _ in world.calls] == [0, 60, 180]
    assert world.meters.of("f").results[Condition.RETRIES_EXHAUSTED] == 1
    assert world.meters.of("f").dropped == 1  # nobody was to be told


async def test_throttles_and_errors_of_the_system_back_off() -> None:
    """One second, then twice as long each time; they are no attempts."""
    world = World(answers=[THROTTLED, AWAY, THROTTLED, FAILED])
    await world.append()
    async with pumping(world, await world.lease()):
        await world.until(lambda: len(world.calls) == 5)
    assert [at for at, _, _ in world.calls] == [0, 1, 3, 7, 67]
    assert world.meters.of("f").results[Condition.SUCCESS] == 1


async def test_an_event_grows_too_old() -> None:
    """A function that has no room until then: the destination is told at the event's age, not at the next attempt."""
    world = World(answers=[THROTTLED] * 100)
    world.config = FunctionConfig(event_invoke=EventInvokeConfig(maximum_event_age_s=100, on_failure="Q"))
    await world.append()
    async with pumping(world, await world.lease()):
        await world.until(lambda: bool(world.told))
    assert world.told == [(100, "Q", Condition.EVENT_AGE_EXCEEDED)]
    assert len(world.calls) == 7


async def test_a_destination_that_refuses_is_tried_again() -> None:
    """The function is not invoked again for that, and each failure is counted."""
    world = World(refusing=[UnavailableError("away"), RefusedError("no such queue"), KeyError("ours")])
    world.config = FunctionConfig(event_invoke=EventInvokeConfig(on_success="Q"))
    await world.append()
    async with pumping(world, await world.lease()):
        await world.until(lambda: bool(world.told))
    assert world.told == [(7, "Q", Condition.SUCCESS)]
    assert len(world.calls) == 1
    assert world.meters.of("f").destination_errors == 3
    assert await world.left() == 0


async def test_what_no_destination_takes_is_dropped_in_the_end() -> None:
    """After six hours, counted as dropped."""
    world = World(refusing=[RefusedError("no such queue")] * 1000)
    world.config = FunctionConfig(event_invoke=EventInvokeConfig(on_success="Q"))
    await world.append()
    async with pumping(world, await world.lease()):
        await world.until(lambda: world.meters.of("f").dropped > 0, step_s=60)
    assert 21_600 <= now() < 22_300
    assert await world.left() == 0


async def test_a_slow_function_leaves_room_for_others() -> None:
    """It has its share of the partition under way and no more; the others pass it by."""
    world = World(held={"slow": asyncio.Event()})
    for at in range(2 * MOST_OF_A_LINE):
        await world.append("slow", f"s-{at}")
    await world.append("quick", "q-1")
    async with pumping(world, await world.lease()):
        await world.until(lambda: any(line == "quick" for _, line, _ in world.calls))
        assert now() < 1
        assert world.running == MOST_OF_A_LINE
        world.held["slow"].set()
        await world.until(lambda: len(world.calls) == 2 * MOST_OF_A_LINE + 1)
    assert await world.left() == 0


async def test_a_partition_has_no_more_under_way_than_its_room() -> None:
    """However many functions have events there."""
    lines = [f"f{at}" for at in range(8)]
    world = World(held={line: asyncio.Event() for line in lines})
    for line in lines:
        for at in range(MOST_OF_A_LINE):
            await world.append(line, f"{line}-{at}")
    async with pumping(world, await world.lease()):
        await asyncio.sleep(10)
        assert world.running == MOST
        for event in world.held.values():
            event.set()
        await world.until(lambda: len(world.calls) == 8 * MOST_OF_A_LINE)


async def test_what_a_node_has_under_way_is_bounded_in_bytes() -> None:
    """The bytes are shared by its partitions; what is settled makes room for the next."""
    world = World(held={"f": asyncio.Event()})
    for at in range(6):
        await world.append("f", f"r-{at}", b'"' + b"x" * (1024 * 1024 - 2) + b'"')
    async with pumping(world, await world.lease(), Share(size=3 * 1024 * 1024)):
        await asyncio.sleep(10)
        assert world.running == 3
        world.held["f"].set()
        await world.until(lambda: len(world.calls) == 6)
    assert await world.left() == 0


async def test_a_throttled_function_is_not_stormed() -> None:
    """With a backlog, it is asked a few times a second at most, not once for every event."""
    world = World(answers=[THROTTLED] * 10_000)
    for at in range(500):
        await world.append("f", f"r-{at}")
    async with pumping(world, await world.lease()):
        await asyncio.sleep(60)
        assert len(world.calls) < 64 + 60 * 3
        world.answers.clear()
        await world.until(lambda: world.meters.of("f").results[Condition.SUCCESS] == 500)
    assert await world.left() == 0


async def test_a_lost_lease_stops_everything() -> None:
    """What is under way is cancelled, and the next holder delivers it; the node's share is whole again."""
    world, share = World(held={"f": asyncio.Event()}), Share(events=2)
    await world.append()
    lease = await world.lease()

    async def overtake() -> None:
        await world.until(lambda: world.running == 1)
        await world.store.leave(ANN)
        await world.store.join(Member(BOB), ttl_s=LONG_S)
        await take(world.store, BOB, partition_key(3))

    pump = AsyncPump(world.store.events, lease, world.delivery(), share, random=Random(1))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(overtake())
        with pytest.raises(LeaseLostError, match="refused"):
            await pump.run()
    assert world.running == 0
    assert share.reserve(5, 10, lambda: None) == (2, 10)
    assert world.meters.of("f").results[Condition.SUCCESS] == 0


async def test_no_step_is_taken_after_the_lease_has_ended() -> None:
    """A lease that ended in the meantime is found out before the function is invoked."""
    world = World()
    await world.append()
    lease = await world.lease()
    lease.end(Reason.TAKEN)
    with pytest.raises(LeaseLostError):
        await AsyncPump(world.store.events, lease, world.delivery(), Share(), random=Random(1)).run()
    assert world.calls == []


class Flaky:
    """The queue in memory, some of whose answers get lost: what was asked for has happened or not."""

    def __init__(self, world: World, lost: Sequence[str]) -> None:
        self._queue = world.store.events
        self._lost = list(lost)

    async def _answer(self, what: str, call: Callable[[], Awaitable[object]]) -> object:
        if self._lost and self._lost[0].endswith(what):
            fault = self._lost.pop(0)
            if fault.startswith("after"):
                await call()
            raise StoreUnavailableError(fault)
        return await call()

    async def take(self, lease: Lease, **terms: object) -> Taken | None:
        """Take, and maybe nobody hears of it."""
        return await self._answer("take", lambda: self._queue.take(lease, **terms))  # type: ignore[arg-type,return-value]

    async def settle(self, lease: Lease, settled: Sequence[Settled], *, max_bytes: int) -> bool:
        """Settle, and maybe nobody hears of it."""
        return bool(await self._answer("settle", lambda: self._queue.settle(lease, settled, max_bytes=max_bytes)))

    async def resume(self, lease: Lease, held: Sequence[EventKey] = ()) -> bool:
        """Resume, and maybe nobody hears of it."""
        return bool(await self._answer("resume", lambda: self._queue.resume(lease, held)))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["resume", "take", "settle"])
async def test_answers_of_the_store_that_get_lost(what: str, when: str) -> None:
    """Whatever happened or did not: each event is delivered, and in the end nothing is left."""
    world = World()
    for at in range(3):
        await world.append(request_id=f"r-{at}")
    lease = await world.lease()
    queue = Flaky(world, [f"{when} {what}"] * 2)
    pump = AsyncPump(queue, lease, world.delivery(), Share(), random=Random(1))  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(pump.run())
        await world.until(lambda: len({request_id for _, _, request_id in world.calls}) == 3)
        pump.drain()
        await running
    assert await world.left() == 0
    assert len(world.calls) == 3


class Unreadable(World):
    """What holds for functions cannot be read at first."""

    async def function_config(self, function: str) -> FunctionConfig:
        """Fail for two seconds."""
        if now() < 2:
            raise UnavailableError(function)
        return self.config


async def test_nothing_is_invoked_before_its_configuration_is_known() -> None:
    """The event comes again each second until then; that is no attempt."""
    world = Unreadable()
    await world.append()
    async with pumping(world, await world.lease()):
        await world.until(lambda: bool(world.calls))
    assert [at for at, _, _ in world.calls] == [2]


@dataclass
class Counting:
    """Delivers nothing and counts the events it is given."""

    came: list[QueuedEvent] = field(default_factory=list)

    async def deliver(self, taken: QueuedEvent) -> Came:
        """Take for ever."""
        self.came.append(taken)
        await asyncio.Event().wait()
        raise AssertionError(taken)


async def test_a_cancelled_pump_gives_its_share_back() -> None:
    """Whoever holds the next partition has all of the node's room."""
    world, share, delivery = World(), Share(events=2), Counting()
    for at in range(2):
        await world.append(request_id=f"r-{at}")
    pump = AsyncPump(world.store.events, await world.lease(), delivery, share, random=Random(1))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(pump.run())
        await world.until(lambda: len(delivery.came) == 2)
        assert share.reserve(1, 10, lambda: None) == (0, 0)
        running.cancel()
    assert share.reserve(9, 10, lambda: None) == (2, 10)


async def test_events_that_are_too_old_do_not_wait_for_the_functions_room() -> None:
    """A backlog behind a function without any room ends when it is old, and not at the pace of attempts."""
    world = World(answers=[THROTTLED] * 10_000)
    world.config = FunctionConfig(event_invoke=EventInvokeConfig(maximum_event_age_s=60))
    for at in range(1000):
        await world.append(request_id=f"r-{at}")
    async with pumping(world, await world.lease()):
        await world.until(lambda: world.meters.of("f").results[Condition.EVENT_AGE_EXCEEDED] == 1000)
    assert 60 <= now() < 70
    assert len(world.calls) < 200


class Faulty(World):
    """Has a fault that one event brings to light."""

    async def invoke(self, event: NewEvent) -> Answer:
        """Fail for the one."""
        if event.request_id == "odd":
            raise ZeroDivisionError
        return await super().invoke(event)


async def test_a_fault_of_ours_stops_one_event_and_no_other() -> None:
    """It is put off again and again, and dropped when it is too old; the log has it."""
    world = Faulty()
    await world.append(request_id="odd")
    with capture_logs() as logs:
        async with pumping(world, await world.lease()):
            await world.append(request_id="even")
            await world.until(lambda: bool(world.calls))
            assert now() < 6
            await world.until(lambda: world.meters.of("f").dropped == 1, step_s=60)
    assert 21_600 <= now() < 22_300
    assert await world.left() == 0
    assert {line["event"] for line in logs} == {"async.event_failed", "async.event_dropped"}
