"""What a large fleet asks of its Redis when nothing changes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from leasing.service import LeasingService
from model.ids import TRACKER, MappingId, NodeId, ShardKey
from model.lease import Member
from statemgr.redis_store.store import RedisStore
from tests.support.figures import measured
from tests.support.fleet_values import mapping_record, source, take, update
from tests.support.node_process import eventually

if TYPE_CHECKING:
    from leasing.held import HeldLease
    from node.embedded_redis import EmbeddedRedis

NODES = 20
MAPPINGS = 10
SHARDS = 1_000  # of each
TTL_S = 10.0
SAVED_AGAIN_S = 60.0
MEASURED_S = 7.0  # two heartbeats
MOST_COMMANDS_PER_S = 2_000


class Host:
    """Holds shards and does nothing with them."""

    def __init__(self) -> None:
        self.held: set[ShardKey] = set()
        self.leases: dict[ShardKey, HeldLease] = {}

    def start(self, lease: HeldLease) -> None:
        """See `ShardHost.start`."""
        self.held.add(lease.key)
        self.leases[lease.key] = lease

    async def drain(self, key: ShardKey) -> None:
        """See `ShardHost.drain`."""
        self.held.discard(key)

    def lost(self, key: ShardKey) -> None:
        """See `ShardHost.lost`."""
        self.held.discard(key)


@pytest.mark.slow
async def test_ten_thousand_shards_on_twenty_nodes_cost_few_commands(
    own_redis: EmbeddedRedis,
) -> None:
    """A heartbeat a node keeps all its leases: what is asked of Redis grows with nodes, not with shards."""
    async with AsyncExitStack() as stack:
        admin = RedisStore.from_url(own_redis.url, timeout_s=30)
        stack.push_async_callback(admin.aclose)
        await admin.join(Member(NodeId("admin"), frozenset()), ttl_s=60)
        for number in range(MAPPINGS):
            mapping = MappingId(f"m{number}")
            await admin.put_mapping(mapping_record(mapping, name=mapping))
            tracker = await take(admin, NodeId("admin"), ShardKey(mapping, TRACKER))
            await admin.set_wanted(mapping, [source(n, mapping) for n in range(SHARDS)], tracker=tracker)
        trackers = {ShardKey(MappingId(f"m{number}"), TRACKER) for number in range(MAPPINGS)}
        await admin.leave(NodeId("admin"))
        stores = [RedisStore.from_url(own_redis.url, timeout_s=30) for _ in range(NODES)]
        for store in stores:
            stack.push_async_callback(store.aclose)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        hosts = [Host() for _ in range(NODES)]
        running = []
        for number, (store, host) in enumerate(zip(stores, hosts, strict=True)):
            service = LeasingService(store, host, name=f"node-{number}", ttl_s=TTL_S)
            running.append(tasks.create_task(service.run()))

        async def spread() -> bool:
            return sorted(len(host.held - trackers) for host in hosts) == [SHARDS * MAPPINGS // NODES] * NODES

        await eventually(spread, "everything held, evenly", limit_s=120)
        async with Redis.from_url(own_redis.url) as redis:
            before = (await redis.info("stats"))["total_commands_processed"]
            await asyncio.sleep(MEASURED_S)
            after = (await redis.info("stats"))["total_commands_processed"]
            leasing_per_s = (after - before) / MEASURED_S
            for store, host in zip(stores, hosts, strict=True):  # what idle shards save again once a minute
                await store.save([update(host.leases[key].lease) for key in sorted(host.held)])
            saving_per_s = ((await redis.info("stats"))["total_commands_processed"] - after) / SAVED_AGAIN_S
        per_s = leasing_per_s + saving_per_s
        measured(leasing_per_s=round(leasing_per_s), saving_per_s=round(saving_per_s))
        assert await spread()
        assert per_s < MOST_COMMANDS_PER_S
        for task in running:
            task.cancel()
