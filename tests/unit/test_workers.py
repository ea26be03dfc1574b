"""Workers hold their mapping's runtime exactly as long as they need it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, cast

import pytest

from model.errors import NotFoundError, RefusedError
from model.ids import TRACKER, FencingToken, Position, ShardKey
from model.lease import Member
from model.mapping import MappingRecord, MappingState
from model.progress import ShardProgress, ShardReport, ShardState
from node.runtimes import Catalogue, Runtimes
from node.workers import PumpWorker, TrackerWorker
from pollers.checkpointer import Checkpointer
from pollers.counters import Counters
from pollers.pump_parts import PumpParts
from pollers.retrying import RetryPolicy
from statemgr.memory_store import MemoryStore
from tests.support.pump_fakes import (
    MAPPING,
    NODE,
    SHARD,
    FakeEnvelope,
    FakeLease,
    FakeSource,
    FakeTarget,
    Raw,
    open_gate,
)

if TYPE_CHECKING:
    from leasing.held import HeldLease
    from model.mapping import EventSourceMapping

pytestmark = pytest.mark.looptime

DOCUMENT = (
    b'{"Name":"orders","UUID":"4f6e3f0e-0000-4000-8000-000000000001","FunctionName":"f","Topics":["orders"],'
    b'"SelfManagedEventSource":{"Endpoints":{"KAFKA_BOOTSTRAP_SERVERS":["127.0.0.1:9"]}},'
    b'"StartingPosition":"TRIM_HORIZON","BatchSize":%d}'
)


class Rig:
    """A store with one mapping, and runtimes made of fakes."""

    def __init__(self) -> None:
        self.store = MemoryStore(asyncio.get_running_loop().time)
        self.catalogue = Catalogue(self.store)
        self.checkpointer = Checkpointer(self.store)
        self.sources: list[FakeSource] = []
        self.closed: list[FakeSource] = []
        self.targets: list[FakeTarget] = []
        self.refuse = False
        self.counters = Counters()
        self.runtimes = Runtimes(self.catalogue, self.make)

    def make(self, mapping: EventSourceMapping) -> PumpParts:
        """Make parts out of fakes."""
        if self.refuse:
            raise RefusedError("this node knows no function f")
        rig = self

        class Source(FakeSource):
            async def close(self) -> None:
                rig.closed.append(self)

        self.sources.append(Source({SHARD.shard: [Raw(n) for n in range(7)]}))
        self.targets.append(FakeTarget())
        return PumpParts(
            mapping=mapping,
            source=self.sources[-1],
            envelope=FakeEnvelope(),
            filter=None,
            target=self.targets[-1],
            gate=open_gate(),
            policy=RetryPolicy(),
            counters=self.counters,
            checkpointer=self.checkpointer,
            random=Random(1),
        )

    async def put(self, batch_size: int) -> dict[str, bool]:
        """Store the mapping with a batch size, and have the catalogue read it."""
        record = MappingRecord(MAPPING, "orders", DOCUMENT % batch_size, 0, MappingState.ENABLED)
        await self.store.put_mapping(record)
        return cast("dict[str, bool]", await self.catalogue.read())

    def lease(self) -> HeldLease:
        """Hold the shard."""
        return cast("HeldLease", FakeLease(token=FencingToken(1)))


async def test_a_runtime_is_shared_and_closed_by_its_last_user() -> None:
    """One source per mapping and node, gone when nobody needs it."""
    rig = Rig()
    await rig.put(3)
    async with rig.runtimes.using(MAPPING) as one, rig.runtimes.using(MAPPING) as two:
        assert one is two
    assert rig.closed == rig.sources
    async with rig.runtimes.using(MAPPING) as three:
        assert three is not one
    with pytest.raises(NotFoundError):
        async with rig.runtimes.using(SHARD.mapping.replace("4", "5")):  # type: ignore[arg-type]
            pass


async def test_a_changed_document_gets_a_runtime_of_its_own() -> None:
    """What is under way finishes under the old document."""
    rig = Rig()
    assert await rig.put(3) == {MAPPING: True}
    async with rig.runtimes.using(MAPPING) as old:
        assert await rig.put(4) == {MAPPING: True}
        assert await rig.put(4) == {}
        async with rig.runtimes.using(MAPPING) as new:
            assert (old.mapping.batch_size, new.mapping.batch_size) == (3, 4)
        assert len(rig.closed) == 1
        rig.runtimes.renew()
        async with rig.runtimes.using(MAPPING) as renewed:
            assert renewed is not new


async def test_a_pump_worker_pumps_until_drained_and_lets_the_source_go() -> None:
    """The lease's worker opens the mapping's source, delivers, and closes it again."""
    rig = Rig()
    await rig.put(3)
    worker = PumpWorker(rig.lease(), rig.catalogue, rig.runtimes, rig.store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        working = tasks.create_task(worker.run())
        await asyncio.sleep(10)
        assert rig.targets[0].delivered() == list(range(7))
        worker.mapping_changed(document=False)
        await asyncio.sleep(1)
        assert not working.done()
        worker.mapping_changed(document=True)
        await working
        saving.cancel()
    assert rig.closed == rig.sources
    progress = await rig.store.load([SHARD])
    assert progress[SHARD].position == "7"


async def test_a_closed_shard_that_is_read_out_keeps_its_lease() -> None:
    """Only the tracker decides when a shard is no longer wanted."""
    rig = Rig()
    await rig.put(3)
    worker = PumpWorker(rig.lease(), rig.catalogue, rig.runtimes, rig.store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        working = tasks.create_task(worker.run())
        await asyncio.sleep(1)
        rig.sources[0].readers[0].at_end = True
        rig.sources[0].readers[0].arrived.set()
        await asyncio.sleep(100)
        assert not working.done()
        assert (await rig.store.load([SHARD]))[SHARD].report.state is ShardState.DRAINED
        assert rig.counters.probes[SHARD]().report.state is ShardState.DRAINED, "a node that rests would not be ready"
        _, (record,) = await rig.store.mappings()
        assert record.drained == 1, "the tracker was not told"
        worker.drain()
        await working
        saving.cancel()
    assert not rig.counters.probes


async def test_a_store_that_lost_the_end_of_a_shard_is_told_again() -> None:
    """Its children wait for that, and its lease may have outlived the fail-over."""
    rig = Rig()
    await rig.put(3)
    worker = PumpWorker(rig.lease(), rig.catalogue, rig.runtimes, rig.store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        working = tasks.create_task(worker.run())
        await asyncio.sleep(1)
        before = rig.store.progress.stored[SHARD]
        rig.sources[0].readers[0].at_end = True
        rig.sources[0].readers[0].arrived.set()
        await asyncio.sleep(1)
        rig.store.progress.stored[SHARD] = before
        await asyncio.sleep(20)
        assert (await rig.store.load([SHARD]))[SHARD].report.state is ShardState.DRAINED
        _, (record,) = await rig.store.mappings()
        assert record.drained == 2
        worker.drain()
        await working
        saving.cancel()


async def test_a_shard_that_was_read_to_its_end_stays_so_whoever_takes_it_next() -> None:
    """A holder that has to leave at once must not make it look as if there were something left to read."""
    rig = Rig()
    await rig.put(3)
    ended = ShardProgress(Position("7"), FencingToken(1), NODE, report=ShardReport(ShardState.DRAINED))
    rig.store.progress.stored[SHARD] = ended
    lease = cast("HeldLease", FakeLease(token=FencingToken(2), progress=ended))
    worker = PumpWorker(lease, rig.catalogue, rig.runtimes, rig.store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        working = tasks.create_task(worker.run())
        await asyncio.sleep(1)
        _, (record,) = await rig.store.mappings()
        assert record.drained == 1, "the tracker was not told"
        assert rig.counters.probes[SHARD]().report.state is ShardState.DRAINED, "a node that rests would not be ready"
        worker.drain()
        await working
        saving.cancel()
    assert not rig.counters.probes
    assert (await rig.store.load([SHARD]))[SHARD].report.state is ShardState.DRAINED
    assert not rig.sources[0].readers


async def test_the_end_of_a_shard_that_the_store_lost_is_found_again() -> None:
    """By whoever took the shard when the store still knew."""
    rig = Rig()
    await rig.put(3)
    lost = ShardProgress(Position("5"), FencingToken(1), NODE)
    rig.store.progress.stored[SHARD] = lost
    lease = FakeLease(token=FencingToken(2), progress=replace(lost, report=ShardReport(ShardState.DRAINED)))
    worker = PumpWorker(cast("HeldLease", lease), rig.catalogue, rig.runtimes, rig.store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        working = tasks.create_task(worker.run())
        await asyncio.sleep(30)
        assert rig.targets[0].delivered() == [5, 6]
        rig.sources[0].readers[0].at_end = True
        rig.sources[0].readers[0].arrived.set()
        await asyncio.sleep(1)
        assert (await rig.store.load([SHARD]))[SHARD].report.state is ShardState.DRAINED
        worker.drain()
        await working
        saving.cancel()


async def test_a_mapping_this_node_cannot_work_on_is_reported_and_given_back_after_a_while() -> None:
    """A missing function shows in the status, and does not spin."""
    rig = Rig()
    rig.refuse = True
    await rig.put(3)
    worker = PumpWorker(rig.lease(), rig.catalogue, rig.runtimes, rig.store)
    began_at = asyncio.get_running_loop().time()
    await worker.run()
    assert asyncio.get_running_loop().time() - began_at == pytest.approx(30, abs=1)
    report = (await rig.store.load([SHARD]))[SHARD].report
    assert (report.state, report.last_error) == (ShardState.FAILED, "this node knows no function f")


async def test_a_tracker_worker_discovers_through_the_mappings_source() -> None:
    """The tracker makes the source's shards wanted."""
    rig = Rig()
    await rig.put(3)
    await rig.store.join(Member(NODE), ttl_s=1e9)
    key = ShardKey(MAPPING, TRACKER)
    granted = await rig.store.acquire(NODE, [key], floor=FencingToken(0), ttl_s=1e9)
    lease = cast("HeldLease", FakeLease(key=key, token=granted[key][0].token))
    worker = TrackerWorker(lease, rig.catalogue, rig.runtimes, rig.store)
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.run())
        await asyncio.sleep(1)
        worker.mapping_changed(document=True)
        await asyncio.sleep(1)
        worker.drain()
        await working
    assert SHARD in {wanted.key for wanted in (await rig.store.snapshot()).wanted}
    assert rig.closed == rig.sources


async def test_a_wish_to_try_what_is_parked_reaches_the_pump() -> None:
    """At its start, and with each change of the mapping's record; the document is what it was, so nothing drains."""
    rig = Rig()
    await rig.put(3)
    await rig.store.try_parked(MAPPING)
    await rig.catalogue.read()
    worker = PumpWorker(rig.lease(), rig.catalogue, rig.runtimes, rig.store)
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        running = tasks.create_task(worker.run())
        for number in (1, 2):
            await _reported(rig, number)
            await rig.store.try_parked(MAPPING)
            assert await rig.catalogue.read() == {MAPPING: False}
            worker.mapping_changed(document=False)
        worker.drain()
        await running
        saving.cancel()


async def _reported(rig: Rig, tries: int) -> None:
    async with asyncio.timeout(60):
        while True:
            progress = (await rig.store.load([SHARD])).get(SHARD)
            if progress is not None and progress.report.parked_tries == tries:
                return
            await asyncio.sleep(0.01)
