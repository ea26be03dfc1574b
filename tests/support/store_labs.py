"""What the store conformance suite needs from each implementation: more clients, time that passes, a lost memory."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Protocol

import pytest

from statemgr.memory_store import MemoryStore
from statemgr.redis_store.connect import connect
from statemgr.redis_store.store import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from statemgr.stores import Store


class StoreLab(Protocol):
    """One fleet's store, empty at first, under a test's control."""

    def client(self) -> Store:
        """Return another client of the same fleet; the lab closes it."""

    async def pass_time(self, seconds: float) -> None:
        """Let time pass on the store's own clock."""

    async def wipe(self) -> None:
        """Lose everything the store remembers."""


class MemoryLab:
    """The in-memory store: all clients are one object, time is a number."""

    def __init__(self) -> None:
        self._now = 1_790_000_000.0
        self._store = MemoryStore(lambda: self._now)

    def client(self) -> Store:
        """Return the one store."""
        return self._store

    async def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self._now += seconds

    async def wipe(self) -> None:
        """Forget everything."""
        self._store.wipe()


class RedisLab:
    """The Redis store on a server, under a namespace of its own: each client has its own connections."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._url = url
        self._timeout_s = timeout_s  # generous: these tests judge answers, not speed
        self._namespace = uuid.uuid4().hex
        self._stores: list[RedisStore] = []

    def client(self) -> Store:
        """Return a store with connections of its own."""
        store = RedisStore.from_url(self._url, namespace=self._namespace, timeout_s=self._timeout_s)
        self._stores.append(store)
        return store

    async def pass_time(self, seconds: float) -> None:
        """Wait: the server's clock is the real one."""
        await asyncio.sleep(seconds)

    async def wipe(self) -> None:
        """Delete every key of the fleet, as FLUSHALL would."""
        async with contextlib.aclosing(connect(self._url, timeout_s=self._timeout_s)) as clients:
            pattern = f"esmd:{{{self._namespace}}}:*"
            keys = [key async for key in clients.commands.scan_iter(pattern)]
            if keys:
                await clients.commands.execute_command("DEL", *keys)

    async def aclose(self) -> None:
        """Close all clients."""
        for store in self._stores:
            await store.aclose()


@pytest.fixture(params=["memory", "redis"])
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[StoreLab]:
    """Return each implementation in turn."""
    if request.param == "memory":
        yield MemoryLab()
        return
    async with contextlib.aclosing(RedisLab(request.getfixturevalue("redis_url"))) as lab:
        yield lab


@pytest.fixture
def store(lab: StoreLab) -> Store:
    """Return a first client of the lab's store."""
    return lab.client()
