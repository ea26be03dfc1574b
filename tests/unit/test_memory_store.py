"""What is particular to the in-memory store; its behaviour as a store is judged by the conformance suite."""

from __future__ import annotations

import asyncio

import pytest

from model.lease import Member
from statemgr.memory_store import MemoryStore
from tests.support.fleet_values import ANN, BOB


@pytest.mark.looptime
async def test_memberships_expire_by_loop_time() -> None:
    """With the loop's clock, hours of membership pass in no time."""
    loop = asyncio.get_running_loop()
    store = MemoryStore(loop.time)
    await store.join(Member(ANN), ttl_s=3600)
    await store.join(Member(BOB), ttl_s=10_000)
    reply = await store.tick(Member(BOB), ttl_s=10_000)
    assert reply.next_expiry_s == pytest.approx(3600)
    await asyncio.sleep(3599)
    assert (await store.tick(Member(BOB), ttl_s=10_000)).next_expiry_s == pytest.approx(1)
    await asyncio.sleep(1)
    assert (await store.tick(Member(BOB), ttl_s=10_000)).next_expiry_s is None
    assert not (await store.tick(Member(ANN), ttl_s=3600)).member


@pytest.mark.looptime
async def test_a_listener_sleeps_until_something_changes() -> None:
    """Two nodes of one test share the store; the first hears what the second does, when it does it."""
    loop = asyncio.get_running_loop()
    store = MemoryStore(loop.time)
    heard: list[float] = []

    async def listen() -> None:
        async for _ in store.wakes():
            heard.append(loop.time())
            if len(heard) == 2:
                return

    began = loop.time()
    async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
        tasks.create_task(listen())
        await asyncio.sleep(42)
        await store.join(Member(ANN), ttl_s=5)
    assert [at - began for at in heard] == pytest.approx([0, 42])
