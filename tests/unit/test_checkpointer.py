"""What is saved in one round trip, and when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from model.ids import FencingToken, MappingId, NodeId, Position, ShardId, ShardKey
from model.progress import Ledger, ParkedRecords, ProgressUpdate, SaveResult, ShardReport
from pollers.checkpointer import Checkpointer

if TYPE_CHECKING:
    from collections.abc import Sequence

MB = 1024 * 1024


class Store:
    """Remembers how many updates and bytes each round trip had, and when it was."""

    def __init__(self) -> None:
        self.trips: list[tuple[int, int]] = []
        self.trips_at: list[float] = []

    async def save(self, updates: Sequence[ProgressUpdate]) -> list[SaveResult]:
        """Take everything."""
        self.trips.append((len(updates), sum(len(update.state) for update in updates)))
        self.trips_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        return [SaveResult.SAVED] * len(updates)

    async def load_parked(self, key: ShardKey) -> ParkedRecords:
        """Have nothing parked."""
        return ParkedRecords()


@dataclass(slots=True)
class Shard:
    """A shard with a state of so many bytes."""

    number: int
    size: int
    saved_once: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> ShardKey:
        """Its name."""
        return ShardKey(MappingId("m"), ShardId(str(self.number)))

    def to_save(self) -> ProgressUpdate:
        """Return its state."""
        state = b"." * self.size
        return ProgressUpdate(
            self.key, FencingToken(1), NodeId("n"), Position("1"), Ledger(), ShardReport(), state=state
        )

    def saved(self, update: ProgressUpdate, result: SaveResult) -> None:
        """Note it."""
        assert (len(update.state), result) == (self.size, SaveResult.SAVED)
        self.saved_once.set()


async def test_a_round_trip_carries_some_large_states_or_many_small_ones() -> None:
    """Everybody is saved; a trip ends with the state that makes it heavy, also when all is published again."""
    store, shards = Store(), [Shard(n, MB if n < 5 else 10) for n in range(700)]
    checkpointer = Checkpointer(store)
    for shard in shards:
        checkpointer.mark(shard)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(checkpointer.run())
        for shard in shards:
            await shard.saved_once.wait()
        saving.cancel()
    trips = [(2, 2 * MB), (2, 2 * MB), (500, MB + 4990), (196, 1960)]
    assert store.trips == trips
    await checkpointer.republish()
    assert store.trips == trips * 2


@pytest.mark.looptime
async def test_what_moves_within_a_moment_is_saved_together() -> None:
    """The moment begins with the first; nothing is saved while nothing moves."""
    store, shards = Store(), [Shard(n, 10) for n in range(3)]
    checkpointer = Checkpointer(store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(checkpointer.run())
        await asyncio.sleep(10)
        for shard in shards:
            checkpointer.mark(shard)
            checkpointer.mark(shards[0])
            await asyncio.sleep(0.001)
        await asyncio.sleep(10)
        saving.cancel()
    assert store.trips == [(3, 30)]
    assert store.trips_at == [pytest.approx(10.005)]


@pytest.mark.looptime
async def test_nobody_who_waits_for_a_save_waits_for_others_to_gather() -> None:
    """Whoever hurries is saved at once, with those that were marked; the next moment is whole again."""
    store, shards = Store(), [Shard(n, 10) for n in range(2)]
    checkpointer = Checkpointer(store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(checkpointer.run())
        checkpointer.mark(shards[0])
        await asyncio.sleep(0.001)
        checkpointer.mark(shards[1])
        checkpointer.hurry()
        await shards[1].saved_once.wait()
        assert asyncio.get_running_loop().time() == pytest.approx(0.001)
        checkpointer.mark(shards[0])
        await asyncio.sleep(1)
        saving.cancel()
    assert store.trips == [(2, 20), (1, 10)]
    assert store.trips_at == [pytest.approx(0.001), pytest.approx(0.006)]
