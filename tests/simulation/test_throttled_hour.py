"""A function with a tenth of the room it needs answers 429 for an hour: nothing is lost, and the room is used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pollers.pump import Pump
from pollers.retrying import RetryPolicy
from tests.support.fake_sqs import FakeQueue
from tests.support.limited import AtOnce, Limited, PerSecond
from tests.support.pump_fakes import Raw
from tests.support.queue_rig import QueueRig, sqs_mapping
from tests.unit.test_handing_over import DestinationRig

if TYPE_CHECKING:
    from collections.abc import Callable

    from pollers.checkpointer import Checkpointer
    from tests.support.limited import Room

pytestmark = pytest.mark.looptime

HOUR_S = 3600.0
# Twenty lanes, or slots, and invocations of five seconds need room for twenty at once, which are four a second.
LANES = 20
ROOMS: dict[str, Callable[[], Room]] = {
    "at-once": lambda: AtOnce(2, seconds=5.0),
    "per-second": lambda: PerSecond(0.4, burst=2, seconds=5.0),
    "per-second-quick": lambda: PerSecond(0.4, burst=4, seconds=0.5),
}


@pytest.fixture(params=ROOMS)
def room(request: pytest.FixtureRequest) -> Room:
    """Make a room that nobody has used."""
    return ROOMS[request.param]()


async def until(true: Callable[[], bool]) -> None:
    """Let virtual time pass until something holds."""
    async with asyncio.timeout(HOUR_S):
        while not true():  # noqa: ASYNC110 - in virtual time looking again costs nothing
            await asyncio.sleep(10)


class LimitedRig(DestinationRig):
    """A stream with twenty lanes, no retries and a destination, and a function with little room."""

    def __init__(self, count: int, room: Room) -> None:
        raws = [Raw(n, key=b"k%d" % (n % 501)) for n in range(count)]
        super().__init__(raws=raws, batch_size=5, lanes=LANES, policy=RetryPolicy(maximum_retry_attempts=0))
        self.target.answer = type(self.target)().answer
        self.limited = Limited(self.target, room, until=HOUR_S)

    def pump(self, checkpointer: Checkpointer) -> Pump:
        """Make the pump."""
        parts = replace(super().pump(checkpointer)._parts, target=self.limited)
        return Pump(parts, self.lease)  # type: ignore[arg-type]  # a fake lease


async def test_a_stream_loses_nothing_and_uses_the_room(room: Room) -> None:
    """With MaximumRetryAttempts 0 and a destination: nothing failed, nothing given up, the order per key kept."""
    count = 10_000
    rig = LimitedRig(count, room)
    async with rig.running():
        await asyncio.sleep(HOUR_S)
        in_the_hour = len(rig.limited.taken_at)
        report = rig.gate.report()
        assert rig.counters.probes[rig.lease.key]().ledger.in_flight > 0
        assert len(rig.target.delivered()) < count
        await until(lambda: rig.saved(count))
    assert 0.8 * room.capacity(HOUR_S) <= in_the_hour <= room.capacity(HOUR_S)
    assert rig.limited.throttled > 100
    assert rig.limited.throttled <= 0.5 * in_the_hour
    assert report.limit in (1, 2, 3)
    assert rig.account == (count, 0, 0, 0)
    assert rig.destination.taken == []
    assert (rig.counters.failed_invoke, rig.counters.dropped) == (0, 0)
    assert rig.counters.throttles == rig.limited.throttled
    assert rig.counters.circuit_transitions == {}
    delivered = rig.target.delivered()
    assert sorted(delivered) == list(range(count))
    last: dict[int, int] = {}
    for position in delivered:
        assert last.get(position % 501, -1) < position
        last[position % 501] = position


async def test_a_queue_dead_letters_nothing_and_uses_the_room(room: Room) -> None:
    """With maxReceiveCount 2: every message is received once, none is dead-lettered, and none counts as failed."""
    count = 2_000
    rig = QueueRig(FakeQueue(visibility_s=30, max_receives=2), sqs_mapping(BatchSize=1))
    rig.concurrency = 4 * LANES  # of sixteen pollers, of which four are here
    rig.function.seconds = lambda _bodies: 0.0
    limited = Limited(rig.function, room, until=HOUR_S)
    pumps = [rig.pump(index) for index in range(4)]
    for pump in pumps:
        pump._parts = replace(pump._parts, target=limited)
    bodies = [f"b{n}" for n in range(count)]
    rig.queue.send(*bodies)
    async with rig.running(*pumps):
        await asyncio.sleep(HOUR_S)
        in_the_hour = len(limited.taken_at)
        assert sum(pump._limit.share for pump in pumps) == LANES
        assert sum(pump.held for pump in pumps) <= 3 * len(pumps)
        assert len(rig.function.done) < count
        await until(lambda: not rig.queue.stored)
    assert 0.8 * room.capacity(HOUR_S) <= in_the_hour <= room.capacity(HOUR_S)
    assert limited.throttled > 100
    assert limited.throttled <= 0.5 * in_the_hour
    assert sorted(rig.function.done) == sorted(bodies)
    assert rig.queue.stored == {}
    assert rig.queue.dead == []
    assert set(rig.function.receives) == {1}
    assert rig.counters.failed_invoke == 0
    assert rig.counters.circuit_transitions == {}
    stored = (await rig.store.load([pump.key for pump in pumps])).values()
    assert all(one.ledger.balanced for one in stored)
    assert sum(one.ledger.delivered for one in stored) == sum(one.ledger.polled for one in stored) == count
