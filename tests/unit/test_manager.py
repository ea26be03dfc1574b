"""A mapping's tracker: discovery and the states of specification section 7.3."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from model.errors import LeaseLostError, SourceRefusedError, SourceUnavailableError
from model.ids import TRACKER, FencingToken, NodeId, Position, ShardId, ShardKey
from model.lease import Member
from model.mapping import MappingRecord, MappingState
from model.progress import (
    Ledger,
    ProgressUpdate,
    SaveResult,
    ShardReport,
    ShardState,
)
from model.shard import BEGINNING, SourceShard
from statemgr.manager import Step, Tracker, next_step
from statemgr.memory_store import MemoryStore
from tests.support.pump_fakes import MAPPING, FakeLease

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.looptime

NODE = NodeId("node-a")


@pytest.mark.parametrize(
    ("state", "enabled", "step"),
    [
        (MappingState.CREATING, True, Step(discover=True, move_to=MappingState.ENABLED)),
        (MappingState.ENABLING, True, Step(discover=True, move_to=MappingState.ENABLED)),
        (MappingState.UPDATING, True, Step(discover=True, move_to=MappingState.ENABLED)),
        (MappingState.ENABLED, True, Step(discover=True)),
        (MappingState.DISABLED, True, Step(discover=True, move_to=MappingState.ENABLED)),
        (MappingState.CREATING, False, Step(withdraw=True, until_released=True, move_to=MappingState.DISABLED)),
        (MappingState.ENABLED, False, Step(withdraw=True, until_released=True, move_to=MappingState.DISABLED)),
        (MappingState.DISABLING, False, Step(withdraw=True, until_released=True, move_to=MappingState.DISABLED)),
        (MappingState.DISABLED, False, Step(withdraw=True)),
        (MappingState.DELETING, True, Step(withdraw=True, until_released=True, remove=True)),
        (MappingState.DELETING, False, Step(withdraw=True, until_released=True, remove=True)),
    ],
)
def test_each_state_has_its_step(state: MappingState, *, enabled: bool, step: Step) -> None:
    """The table of the state manager."""
    assert next_step(state, enabled=enabled) == step


@pytest.mark.parametrize("state", [state for state in MappingState if state is not MappingState.DELETING])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_wish_to_move_comes_before_all_but_deletion(state: MappingState, *, enabled: bool) -> None:
    """Nothing is read until it is met, whatever else is asked for; a mapping that goes is not moved any more."""
    assert next_step(state, enabled=enabled, seeking=True) == Step(withdraw=True, until_released=True, move=True)
    deleting = next_step(MappingState.DELETING, enabled=enabled, seeking=True)
    assert deleting == Step(withdraw=True, until_released=True, remove=True)


class Rig:
    """A tracker over a memory store with one member that holds the tracker shard."""

    def __init__(self) -> None:
        self.store = MemoryStore(asyncio.get_running_loop().time)
        self.shards: Sequence[str | SourceShard] = ["orders-0", "orders-1"]
        self.looked = 0
        self.errors: deque[Exception] = deque()
        self.enabled = True
        self.lease = FakeLease(key=ShardKey(MAPPING, TRACKER))
        self.record: MappingRecord | None = None

    async def begin(self, state: MappingState = MappingState.CREATING) -> Tracker:
        """Store the mapping, join, take the tracker shard."""
        await self.store.put_mapping(MappingRecord(MAPPING, "orders", b"{}", 0, state))
        await self.store.join(Member(NODE), ttl_s=1e9)
        key = ShardKey(MAPPING, TRACKER)
        granted = await self.store.acquire(NODE, [key], floor=FencingToken(0), ttl_s=1e9)
        lease, progress = granted[key]
        self.lease = FakeLease(key=key, token=lease.token, node=NODE, progress=progress)
        await self.look()
        return Tracker(self.store, self.lease, current=self.current, discover=self.discover, discovery_s=10)

    async def look(self) -> None:
        """Know the record as the store has it."""
        _, records = await self.store.mappings()
        self.record = records[0] if records else None

    def current(self) -> tuple[MappingRecord, bool] | None:
        """Tell the record."""
        return None if self.record is None else (self.record, self.enabled)

    async def discover(self) -> list[SourceShard]:
        """List the shards."""
        if self.errors:
            raise self.errors.popleft()
        self.looked += 1
        return [shard if isinstance(shard, SourceShard) else SourceShard(ShardId(shard)) for shard in self.shards]

    async def wanted(self) -> list[str]:
        """Shards wanted besides the tracker."""
        snapshot = await self.store.snapshot()
        return sorted(w.key.shard for w in snapshot.wanted if w.key.shard != TRACKER)

    async def during(self, tracker: Tracker, *steps: Callable[[], object]) -> None:
        """Run the tracker, and between the steps let time pass."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(tracker.run())
            await asyncio.sleep(1)
            for step in steps:
                await self.look()
                result = step()
                if asyncio.iscoroutine(result):
                    await result
                await self.look()
                tracker.changed()
                await asyncio.sleep(30)
            task.cancel()


async def test_a_new_mapping_becomes_enabled_once_its_shards_are_wanted() -> None:
    """Creating → Enabled, and added partitions are followed."""
    rig = Rig()
    tracker = await rig.begin()

    def grow() -> None:
        rig.shards = ["orders-0", "orders-1", "orders-2"]

    await rig.during(tracker, lambda: None)
    await rig.look()
    assert rig.record is not None
    assert rig.record.state is MappingState.ENABLED
    assert await rig.wanted() == ["orders-0", "orders-1"]
    await rig.during(tracker, grow)
    assert await rig.wanted() == ["orders-0", "orders-1", "orders-2"]


async def test_disabling_waits_until_every_shard_is_released() -> None:
    """Disabled is said only when nobody works on the mapping any more."""
    rig = Rig()
    tracker = await rig.begin()
    await rig.during(tracker, lambda: None)
    key = ShardKey(MAPPING, ShardId("orders-0"))
    granted = await rig.store.acquire(NODE, [key], floor=FencingToken(0), ttl_s=1e9)
    rig.enabled = False
    seen: list[MappingState] = []

    def look() -> None:
        assert rig.record is not None
        seen.append(rig.record.state)

    async def release() -> None:
        look()
        await rig.store.release([granted[key][0]])

    await rig.during(tracker, lambda: None, release, look)
    assert seen == [MappingState.ENABLED, MappingState.DISABLED]
    assert await rig.wanted() == []


async def test_a_deleted_mapping_disappears_with_its_progress() -> None:
    """Deleting → gone, and the tracker ends."""
    rig = Rig()
    tracker = await rig.begin(MappingState.DELETING)
    async with asyncio.timeout(60):
        await tracker.run()
    await rig.look()
    assert rig.record is None
    assert (await rig.store.snapshot()).wanted == ()


async def test_trouble_with_the_source_is_reported_and_overcome() -> None:
    """An unavailable source is asked again soon, a refusing one at the next discovery; the state waits."""
    rig = Rig()
    tracker = await rig.begin()
    rig.errors += [SourceUnavailableError("broker away"), SourceRefusedError("no topic", result="PROBLEM: no topic")]
    reports = []

    async def look() -> None:
        progress = await rig.store.load([rig.lease.key])
        reports.append(progress[rig.lease.key].report)

    await rig.during(tracker, look, look)
    assert (reports[0].state, reports[0].last_result) == (ShardState.FAILED, "PROBLEM: no topic")
    assert reports[1].last_error is None
    await rig.look()
    assert rig.record is not None
    assert rig.record.state is MappingState.ENABLED


async def test_a_stale_tracker_stops() -> None:
    """A tracker whose token was outbid writes nothing and ends."""
    rig = Rig()
    tracker = await rig.begin()
    await rig.store.leave(NODE)
    other = NodeId("node-b")
    await rig.store.join(Member(other), ttl_s=1e9)
    await rig.store.acquire(other, [rig.lease.key], floor=FencingToken(0), ttl_s=1e9)
    with pytest.raises(LeaseLostError):
        await tracker.run()
    assert await rig.wanted() == []


async def test_a_tracker_without_a_trusted_lease_does_nothing() -> None:
    """The lease is checked before each step."""
    rig = Rig()
    tracker = await rig.begin()
    rig.lease.lost = True
    with pytest.raises(LeaseLostError):
        await tracker.run()
    assert await rig.wanted() == []


async def test_a_drained_tracker_ends() -> None:
    """A drain is followed at once, also between discoveries."""
    rig = Rig()
    tracker = await rig.begin()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(tracker.run())
        await asyncio.sleep(1)
        tracker.drain()
        await task


async def test_shards_are_weighed_by_what_their_holders_measured() -> None:
    """The fleet hears of a load that is there to stay, and of none that is about as it was."""
    rig = Rig()
    tracker = await rig.begin()
    told: list[dict[str, float]] = []
    versions: list[int] = []

    async def look() -> None:
        snapshot = await rig.store.snapshot()
        told.append({shard.key.shard: shard.weight for shard in snapshot.wanted if shard.key.shard != TRACKER})
        versions.append(snapshot.version)

    async def measure(load: float) -> None:
        await look()
        key = ShardKey(MAPPING, ShardId("orders-1"))
        granted = await rig.store.acquire(NODE, [key], floor=FencingToken(0), ttl_s=1e9)
        report = ShardReport(ShardState.READING, load=load)
        update = ProgressUpdate(key, granted[key][0].token, NODE, None, Ledger(), report)
        assert await rig.store.save([update]) == [SaveResult.SAVED]

    await rig.during(tracker, lambda: measure(50.0), lambda: measure(60.0), look)
    assert told == [{"orders-0": 1.0, "orders-1": 1.0}, *[{"orders-0": 1.0, "orders-1": 50.0}] * 2]
    assert versions[1] == versions[2]


def descendant(name: str, *parents: str) -> SourceShard:
    """Make a shard of a source with lineage."""
    return SourceShard(ShardId(name), tuple(map(ShardId, parents)), BEGINNING)


async def drained(rig: Rig, name: str, *, position: str | None = "9", state: ShardState = ShardState.DRAINED) -> None:
    """Hold a shard, and save that it was read."""
    key = ShardKey(MAPPING, ShardId(name))
    granted = await rig.store.acquire(NODE, [key], floor=FencingToken(0), ttl_s=1e9)
    lease, progress = granted[key]
    at = None if position is None else Position(position)
    ledger = Ledger(polled=7, delivered=7)
    update = ProgressUpdate(key, lease.token, NODE, at, ledger, ShardReport(state), origin=progress.origin)
    assert await rig.store.save([update]) == [SaveResult.SAVED]


async def test_a_child_is_wanted_once_its_parent_is_drained_and_saved() -> None:
    """Whoever wakes the tracker; and the parent is not wanted any more."""
    rig = Rig()
    tracker = await rig.begin()
    rig.shards = [descendant("p"), descendant("a", "p"), descendant("b", "p")]
    wanted: list[list[str]] = []

    async def look() -> None:
        wanted.append(await rig.wanted())
        await drained(rig, "p")

    await rig.during(tracker, look)
    assert [*wanted, await rig.wanted()] == [["p"], ["a", "b"]]
    progress = await rig.store.load_mapping(MAPPING)
    assert {key.shard: found.origin for key, found in progress.items() if key.shard != TRACKER} == dict.fromkeys(
        ["p", "a", "b"], BEGINNING
    )


async def test_the_account_of_a_retired_shard_stays_in_the_mapping() -> None:
    """What a forgotten shard delivered is still counted, also by the next tracker."""
    rig = Rig()
    tracker = await rig.begin()
    rig.shards = [descendant("p"), descendant("a", "p")]

    async def forget() -> None:
        await drained(rig, "p")

    async def begin() -> None:
        await drained(rig, "a", state=ShardState.READING)
        rig.shards = [descendant("a", "p")]

    await rig.during(tracker, forget, begin)
    progress = await rig.store.load_mapping(MAPPING)
    assert {key.shard for key in progress} == {TRACKER, "a"}
    assert sum(found.ledger.delivered for found in progress.values()) == 14
    rig.lease.progress = progress[rig.lease.key]
    successor = Tracker(rig.store, rig.lease, current=rig.current, discover=rig.discover, discovery_s=10)
    rig.shards = [descendant("b", "a")]
    await drained(rig, "a")
    await rig.during(successor, lambda: None)
    await drained(rig, "b", state=ShardState.READING)
    await rig.during(successor, lambda: None)
    progress = await rig.store.load_mapping(MAPPING)
    assert {key.shard for key in progress} == {TRACKER, "b"}
    assert sum(found.ledger.delivered for found in progress.values()) == 21


async def test_a_listing_that_lags_behind_is_asked_for_again_soon() -> None:
    """A shard is over, and what came of it is not listed yet: a second, not a discovery interval."""
    rig = Rig()
    tracker = await rig.begin()
    rig.shards = [descendant("p")]
    await rig.during(tracker, lambda: drained(rig, "p"))
    looked = rig.looked
    await rig.during(tracker, lambda: None)
    assert rig.looked - looked > 20


async def test_shards_that_were_lost_to_the_retention_are_told_once() -> None:
    """Someone must know that records were deleted before they were read."""
    rig = Rig()
    tracker = await rig.begin()
    rig.shards = [descendant("p"), descendant("a", "p")]

    async def expire() -> None:
        await drained(rig, "p", state=ShardState.READING)
        rig.shards = [descendant("a", "p")]

    with capture_logs() as logged:
        await rig.during(tracker, expire, lambda: None)
    assert await rig.wanted() == ["a"]
    assert [entry["shards"] for entry in logged if entry["event"] == "shards.lost"] == [["p"]]
