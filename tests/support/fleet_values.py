"""Short ways to write the values that store tests are made of."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from model.ids import TRACKER, FencingToken, MappingId, NodeId, Position, ShardId, ShardKey
from model.lease import Lease, Member, ShardKind, WantedShard
from model.mapping import MappingRecord
from model.progress import Ledger, ProgressUpdate, ShardReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from statemgr.stores import Store

ORDERS = MappingId("0a7c9a52-6a0e-4c3a-9f0e-5b7f3a1c0001")
CLICKS = MappingId("0a7c9a52-6a0e-4c3a-9f0e-5b7f3a1c0002")
ANN, BOB, CAT = NodeId("ann-1"), NodeId("bob-1"), NodeId("cat-1")
LONG_S = 60.0  # a membership that outlives any test
NO_FLOOR = FencingToken(0)


def shard(number: int, mapping: MappingId = ORDERS) -> ShardKey:
    """Return the key of a source shard."""
    return ShardKey(mapping, ShardId(f"orders-{number}"))


def source(number: int, mapping: MappingId = ORDERS, weight: float = 1.0) -> WantedShard:
    """Return a wanted source shard."""
    return WantedShard(shard(number, mapping), ShardKind.SOURCE, weight)


def mapping_record(mapping: MappingId = ORDERS, name: str = "orders", document: bytes = b'{"a": 1}') -> MappingRecord:
    """Return a mapping as the control plane would put it."""
    return MappingRecord(mapping, name, document, revision=0)


def update(
    lease: Lease, position: str | None = None, *, polled: int = 0, state: bytes = b"", report: ShardReport | None = None
) -> ProgressUpdate:
    """Return a fenced write under a lease."""
    ledger = Ledger(polled=polled, delivered=polled)
    at = None if position is None else Position(position)
    return ProgressUpdate(lease.key, lease.token, lease.node, at, ledger, report or ShardReport(), state)


def older(lease: Lease) -> Lease:
    """Return a lease as a predecessor would still hold it."""
    return replace(lease, token=FencingToken(lease.token - 1))


async def take(store: Store, node: NodeId, key: ShardKey, *, ttl_s: float = LONG_S) -> Lease:
    """Acquire one shard that must be free."""
    taken = await store.acquire(node, [key], floor=NO_FLOOR, ttl_s=ttl_s)
    return taken[key][0]


async def track(store: Store, node: NodeId = ANN, record: MappingRecord | None = None, *, shards: int = 3) -> Lease:
    """Put a mapping, join `node`, and as its tracker want some source shards; return the tracker's lease."""
    record = record or mapping_record()
    await store.put_mapping(record)
    await store.join(Member(node), ttl_s=LONG_S)
    tracker = await take(store, node, ShardKey(record.id, TRACKER))
    assert await store.set_wanted(record.id, [source(n, record.id) for n in range(shards)], tracker=tracker)
    return tracker


def listen(store: Store) -> aclosing[AsyncGenerator[None, None]]:
    """Listen for wakes, and stop listening at the end of the block."""
    return aclosing(cast("AsyncGenerator[None, None]", store.wakes()))
