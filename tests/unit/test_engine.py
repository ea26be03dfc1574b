"""The working part of a node on a store in memory: `node.engine`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from controlplane.mappings import Desired
from model.async_event import NewEvent, partition_key
from model.errors import RefusedError
from model.ids import MappingId, NodeId
from model.mapping import MappingRecord, MappingState
from model.mapping_rules import canonical_document, mapping_id
from node.engine import Engine
from pollers.checkpointer import Checkpointer
from statemgr.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from leasing.held import HeldLease
    from model.mapping import EventSourceMapping
    from pollers.fleet import Worker
    from pollers.pump_parts import PumpParts

pytestmark = pytest.mark.looptime

MAPPING = MappingId("4f6e3f0e-0000-4000-8000-000000000001")
DOCUMENT = {
    "UUID": MAPPING,
    "Name": "clicks",
    "EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/clicks",
    "FunctionName": "f",
    "StartingPosition": "LATEST",
}


def no_parts(mapping: EventSourceMapping) -> PumpParts:
    """Refuse: what the shards do is not looked at here."""
    raise RefusedError("no source in a test")


@asynccontextmanager
async def running(
    store: MemoryStore, make_partition_worker: Callable[[HeldLease], Worker] | None = None
) -> AsyncIterator[Engine]:
    """Run an engine whose files ask for one mapping."""
    loop = asyncio.get_running_loop()
    wish = Desired(MAPPING, "clicks", canonical_document(DOCUMENT))
    engine = Engine(
        store,
        Checkpointer(store),
        no_parts,
        name="node",
        ttl_s=5.0,
        hand_over_s=5.0,
        desired=lambda: [wish],
        clock=loop.time,
        new_id=lambda: NodeId(f"node-{loop.time()}"),
        make_partition_worker=make_partition_worker,
    )
    async with asyncio.TaskGroup() as tasks:
        await engine.take_up_files()
        task = tasks.create_task(engine.run())
        yield engine
        await engine.drain(5.0)
        await task


@pytest.mark.parametrize(
    ("before", "after"), [(MappingState.ENABLED, MappingState.ENABLED), (MappingState.CREATING, MappingState.CREATING)]
)
async def test_a_wiped_store_is_told_which_mappings_were_at_work(before: MappingState, after: MappingState) -> None:
    """What had its first look does not begin anew: LATEST would leave out what was written meanwhile."""
    store = MemoryStore(asyncio.get_running_loop().time)
    async with running(store) as engine:
        await asyncio.sleep(10)
        (record,) = (await store.mappings())[1]
        store._mappings[MAPPING] = type(record)(MAPPING, "clicks", record.document, record.revision, before)
        await engine.catalogue.read()
        store.wipe()
        await asyncio.sleep(2)
        (record,) = (await store.mappings())[1]
        assert record.state is after


async def test_a_wiped_store_gets_back_what_the_api_made_and_changed() -> None:
    """Mappings that no file names, and changes that the file has not asked for; but not what was being deleted."""
    store = MemoryStore(asyncio.get_running_loop().time)
    async with running(store):
        (filed,) = (await store.mappings())[1]
        changed = replace(filed, document=canonical_document({**DOCUMENT, "BatchSize": 5}), state=MappingState.UPDATING)
        await store.put_mapping(changed)
        for name, state in (("made", MappingState.CREATING), ("going", MappingState.DELETING)):
            document = {**DOCUMENT, "Name": name, "UUID": mapping_id(name), "FunctionName": name}
            await store.put_mapping(MappingRecord(mapping_id(name), name, canonical_document(document), 0, state))
        await asyncio.sleep(2)
        before = {record.name: record.document for record in (await store.mappings())[1]}
        store.wipe()
        await asyncio.sleep(8)
        after = {record.name: record.document for record in (await store.mappings())[1]}
        assert after == {name: document for name, document in before.items() if name != "going"}
        assert set(after) == {"clicks", "made"}


async def test_what_contradicts_another_mapping_keeps_no_other_away() -> None:
    """A store that was wiped has a mapping under the same name already: it stays, and the rest comes back."""
    store = MemoryStore(asyncio.get_running_loop().time)
    async with running(store):
        document = {**DOCUMENT, "Name": "made", "UUID": mapping_id("made"), "FunctionName": "g"}
        await store.put_mapping(MappingRecord(mapping_id("made"), "made", canonical_document(document), 0))
        await asyncio.sleep(2)
        store.wipe()
        stranger = {**DOCUMENT, "UUID": mapping_id("x")}
        await store.put_mapping(MappingRecord(mapping_id("x"), "clicks", canonical_document(stranger), 0))
        await asyncio.sleep(8)
        assert {(record.name, record.id) for record in (await store.mappings())[1]} == {
            ("clicks", mapping_id("x")),
            ("made", mapping_id("made")),
        }


class PartitionWorker:
    """Works on a partition until drained."""

    def __init__(self, lease: HeldLease, seen: list[str]) -> None:
        self._draining = asyncio.Event()
        seen.append(str(lease.key))

    async def run(self) -> None:
        """Wait for the drain."""
        await self._draining.wait()

    def drain(self) -> None:
        """End."""
        self._draining.set()

    def refresh(self) -> None:
        """Do nothing."""

    def mapping_changed(self, *, document: bool) -> None:
        """Nobody tells a partition of mappings."""
        raise AssertionError(document)


async def test_a_partition_of_the_asynchronous_queue_is_leased_as_a_shard() -> None:
    """From its first event on, and again after the store was wiped and there is another one."""
    store = MemoryStore(asyncio.get_running_loop().time)
    seen: list[str] = []
    async with running(store, lambda lease: PartitionWorker(lease, seen)):
        await asyncio.sleep(10)
        assert seen == []
        await store.events.append(NewEvent("f", "f", "r", "t", b"{}"), (3, 4))
        await asyncio.sleep(10)
        assert seen == [str(partition_key(3))]
        store.wipe()
        await asyncio.sleep(10)
        await store.events.append(NewEvent("f", "f", "r", "t", b"{}"), (4, 3))
        await asyncio.sleep(10)
        assert seen == [str(partition_key(3)), str(partition_key(4))]
    assert (await store.snapshot()).holdings == {}
