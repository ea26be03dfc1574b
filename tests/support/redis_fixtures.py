"""Private Redis servers for tests: one for the whole run, emptied before each use, or one of a test's own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import redis

from node.embedded_redis import EmbeddedRedis
from statemgr.redis_store.store import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[EmbeddedRedis]:
    """Run one server for all tests that do it no harm. Use `redis_url`, which empties it first."""
    with EmbeddedRedis(port=0) as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: EmbeddedRedis) -> str:
    """Return the URL of the shared server, emptied."""
    with redis.Redis.from_url(shared_redis.url) as client:
        client.flushall()
        client.script_flush()
    return shared_redis.url


@pytest.fixture
async def redis_store(redis_url: str) -> AsyncIterator[RedisStore]:
    """Return a store on the shared server, emptied."""
    async with contextlib.aclosing(RedisStore.from_url(redis_url)) as store:
        yield store


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """Run a server for one test, which may stop, kill or pause it."""
    with EmbeddedRedis(port=0) as server:
        yield server
