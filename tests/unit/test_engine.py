"""The working part of a node on a store in memory: `node.engine`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from controlplane.mappings import Desired
from model.errors import RefusedError
from model.ids import MappingId, NodeId
from model.mapping import MappingState
from model.mapping_rules import canonical_document
from node.engine import Engine
from pollers.checkpointer import Checkpointer
from statemgr.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from model.mapping import EventSourceMapping
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
async def running(store: MemoryStore) -> AsyncIterator[Engine]:
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
