"""The Redis store behind Sentinel, on a Cluster and through TLS: the main path once, and what is particular to each."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
import redis

from model.async_event import NewEvent, Settled, partition_key
from model.concurrency import UNRESERVED, Pool, PoolWish
from model.errors import StoreUnavailableError
from model.function_config import FunctionPart
from model.ids import FencingToken, NodeId
from model.lease import Member
from model.progress import SaveResult
from statemgr.redis_store.store import RedisStore
from tests.support.fleet_values import (
    ANN,
    BOB,
    CLICKS,
    LONG_S,
    listen,
    mapping_record,
    older,
    shard,
    source,
    take,
    track,
    update,
)
from tests.support.redis_servers import make_certificate, redis_behind_sentinel, redis_cluster, tls_relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from node.embedded_redis import EmbeddedRedis
    from statemgr.stores import Store

TIMEOUT_S = 5.0


async def walk_the_main_path(store: Store, other: Store) -> None:
    """Use every operation through two clients: mappings, membership, leases, progress, fencing, wakes, functions."""
    async with asyncio.timeout(60), listen(other) as wakes:
        await anext(wakes)
        tracker = await track(store, ANN)
        clicks = await track(store, ANN, mapping_record(CLICKS, "clicks"))
        await anext(wakes)
        assert [record.name for record in (await other.mappings())[1]] == ["clicks", "orders"]
        await other.join(Member(BOB), ttl_s=LONG_S)
        taken = await other.acquire(BOB, [shard(0), shard(1), shard(0, CLICKS)], floor=FencingToken(0), ttl_s=LONG_S)
        leases = [lease for lease, _ in taken.values()]
        assert await store.acquire(ANN, list(taken), floor=FencingToken(0), ttl_s=LONG_S) == {}
        updates = [update(lease, "9" * 128, polled=3) for lease in leases]
        assert await other.save([*updates, update(older(leases[0]), "9" * 128)]) == [*[SaveResult.SAVED] * 3, "stale"]
        assert (await store.load(list(taken))).keys() == taken.keys()
        assert (await store.load_mapping(CLICKS))[shard(0, CLICKS)].ledger.polled == 3
        assert not await other.set_wanted(CLICKS, [], tracker=older(clicks))
        await other.release(leases, successor={shard(0): ANN})
        assert (await store.snapshot()).reserved == {shard(0): ANN}
        await take(store, ANN, shard(0))
        assert await store.set_wanted(tracker.key.mapping, [source(0)], tracker=tracker)
        assert await store.remove_mapping(CLICKS, tracker=clicks)
        await other.leave(BOB)
        assert (await other.tick(Member(ANN), ttl_s=LONG_S)).member
        assert not (await other.tick(Member(BOB), ttl_s=LONG_S)).member
        await use_the_functions(store, other)
        await other.ping()
        await walk_through_the_queue(store, other)


async def walk_through_the_queue(store: Store, other: Store) -> None:
    """Accept an event through one client, and hold its partition through the other."""
    partition = await store.events.append(NewEvent("f", "f", "r-1", "Root=1", b"{}"), (3, 4))
    lease = await take(other, ANN, partition_key(partition))
    assert await other.events.resume(lease)
    for again_s in (0.0, None):
        found = await other.events.take(lease, limits={}, each=1, most=1, max_bytes=1)
        assert found is not None
        (one,) = found.events
        assert await other.events.settle(lease, [Settled("f", one.id, one.event.size, again_s)])
    assert (await store.events.depth()).events == 0


async def use_the_functions(store: Store, other: Store) -> None:
    """Say something of a function, and count on it."""
    billing = Pool("billing")
    await store.functions.put_part(billing, FunctionPart.CONCURRENCY, b"7")
    assert (await other.functions.functions()).reserved() == {billing: 7}
    for client, holder, granted in ((store, "a", 5), (other, "b", 2)):
        wishes = [PoolWish(billing, 0, 0, 5), PoolWish(UNRESERVED, 0, 0, 1)]
        reply = await client.concurrency.count(holder, wishes, ttl_s=LONG_S, account=1000, holders=1, rank=0)
        assert [(grant.limit, grant.held) for grant in reply.grants] == [(7, granted), (993, 1)]
    await store.concurrency.stop_counting("a", [billing, UNRESERVED])
    await other.functions.forget_function(billing)
    assert (await store.functions.functions()).functions == {}


async def until_it_works(call: Callable[[], Awaitable[object]], *, within_s: float = 30) -> None:
    """Call until the store is there again, as every loop of a node does."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                await call()
            except StoreUnavailableError:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_cluster_serves_the_fleet(tmp_path: Path) -> None:
    """On three nodes all keys of the fleet are in one slot, so every script works, from whichever node one begins."""
    async with redis_cluster(tmp_path) as nodes, contextlib.AsyncExitStack() as stack:
        stores = []
        for node in nodes[:2]:
            store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{node.port}", timeout_s=TIMEOUT_S)
            stores.append(await stack.enter_async_context(contextlib.aclosing(store)))
        async with asyncio.TaskGroup() as tasks:  # the very first calls, side by side
            for n in range(12):
                tasks.create_task(stores[0].join(Member(NodeId(f"node-{n}")), ttl_s=LONG_S))
        await walk_the_main_path(stores[0], stores[1])
        owner = next(node for node in nodes if keys_of(node))
        assert [len(keys_of(node)) for node in nodes if node is not owner] == [0, 0]
        owner.kill()
        with pytest.raises(StoreUnavailableError):
            await stores[0].ping()
        owner.restart()
        await until_it_works(stores[0].ping)
        await until_it_works(stores[1].ping)


def keys_of(node: EmbeddedRedis) -> list[bytes]:
    """List the keys one node has."""
    with redis.Redis(port=node.port or 0) as client:
        keys: list[bytes] = client.keys()
        return keys


async def test_a_failover_behind_sentinel_is_survived(tmp_path: Path) -> None:
    """When the primary dies the next one serves the same clients, with the fleet's memory, and wakes them."""
    async with (
        redis_behind_sentinel(tmp_path) as fleet,
        contextlib.aclosing(RedisStore.from_url(fleet.url, timeout_s=TIMEOUT_S)) as store,
        contextlib.aclosing(RedisStore.from_url(fleet.url, timeout_s=TIMEOUT_S)) as other,
    ):
        await walk_the_main_path(store, other)
        async with listen(other) as wakes:
            await anext(wakes)
            with redis.Redis(port=fleet.primary.port or 0) as client:
                client.execute_command("WAIT", "1", "5000")
            fleet.primary.kill()
            await until_it_works(store.ping)
            assert (await store.tick(Member(ANN), ttl_s=LONG_S)).member
            async with asyncio.timeout(30):
                await anext(wakes)


async def test_tls_is_verified(tmp_path: Path, own_redis: EmbeddedRedis) -> None:
    """With its authority known the store works through TLS; an unknown authority is refused, and so is plain text."""
    certificate, key = make_certificate(tmp_path)
    assert own_redis.port is not None
    async with tls_relay(own_redis.port, certificate, key) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        known = f"{url}?ssl_ca_certs={certificate}"
        async with (
            contextlib.aclosing(RedisStore.from_url(known, timeout_s=TIMEOUT_S)) as store,
            contextlib.aclosing(RedisStore.from_url(known, timeout_s=TIMEOUT_S)) as other,
        ):
            await walk_the_main_path(store, other)
        async with contextlib.aclosing(RedisStore.from_url(url, timeout_s=TIMEOUT_S)) as stranger:
            with pytest.raises(StoreUnavailableError, match=r"(?i)certificate"):
                await stranger.ping()
        plain = f"redis://127.0.0.1:{port}/0"
        async with contextlib.aclosing(RedisStore.from_url(plain, timeout_s=0.5)) as unencrypted:
            with pytest.raises(StoreUnavailableError):
                await unencrypted.ping()
