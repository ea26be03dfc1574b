"""The Redis store when Redis is away, slow, full, read-only or restarted, and when callers give up midway."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import traceback
from typing import TYPE_CHECKING

import pytest
import redis

from model.async_event import NewEvent, Response, Settled, Standing, partition_key
from model.errors import StoreUnavailableError
from model.function_config import FunctionPart
from model.lease import Member
from node.embedded_redis import EmbeddedRedis
from statemgr.redis_store import wakes
from statemgr.redis_store.store import RedisStore
from tests.support.fleet_values import ANN, BOB, LONG_S, listen, mapping_record, shard, source, take, track, update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

TIMEOUT_S = 0.5


@contextlib.contextmanager
def paused(server: EmbeddedRedis) -> Iterator[None]:
    """Stop the server's process for a while, as a machine that hangs would."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def configure(server: EmbeddedRedis, *command: str) -> object:
    """Run an administrator's command."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return client.execute_command(*command)


@pytest.fixture
async def store(own_redis: EmbeddedRedis) -> AsyncIterator[RedisStore]:
    """Return a store with a short time-out on a server that the test may mistreat."""
    async with contextlib.aclosing(RedisStore.from_url(own_redis.url, timeout_s=TIMEOUT_S)) as store:
        yield store


async def test_every_call_reports_a_server_that_is_gone(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """With the server stopped each method raises the one error, with its cause, and works again after a restart."""
    tracker = await track(store)
    lease = await take(store, ANN, shard(0))
    own_redis.kill()
    calls = [
        store.join(Member(ANN), ttl_s=LONG_S),
        store.tick(Member(ANN), ttl_s=LONG_S),
        store.leave(ANN),
        store.snapshot(),
        store.acquire(ANN, [shard(1)], floor=lease.token, ttl_s=LONG_S),
        store.release([lease]),
        store.load([shard(0)]),
        store.save([update(lease, "1")]),
        store.load_mapping(lease.key.mapping),
        store.put_mapping(mapping_record()),
        store.mappings(),
        store.mapping(lease.key.mapping),
        store.set_wanted(lease.key.mapping, [], tracker=tracker),
        store.remove_mapping(lease.key.mapping, tracker=tracker),
        store.functions.functions(),
        store.functions.put_part("f", FunctionPart.CONCURRENCY, b"7"),
        store.functions.forget_function("f"),
        store.concurrency.count("holder", [], ttl_s=LONG_S, account=1000, holders=1, rank=0),
        store.concurrency.stop_counting("holder", []),
        store.ping(),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError) as caught:
            await call
        assert caught.value.__cause__ is not None
    own_redis.restart()
    await store.ping()
    await store.save([update(lease, "1")])


async def test_a_hanging_server_does_not_hold_a_call_past_its_time_out(
    own_redis: EmbeddedRedis, store: RedisStore
) -> None:
    """A call on a server that does not answer ends after the time-out, and so do many at once."""
    await store.join(Member(ANN), ttl_s=LONG_S)
    loop = asyncio.get_running_loop()

    async def call() -> None:
        with pytest.raises(StoreUnavailableError, match="no answer in time"):
            await store.load([shard(0)])

    with paused(own_redis):
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(100):  # more than may be under way at once
                tasks.create_task(call())
            with pytest.raises(StoreUnavailableError):
                await store.tick(Member(ANN), ttl_s=LONG_S)
        assert loop.time() - began < TIMEOUT_S * 4
    assert (await store.tick(Member(ANN), ttl_s=LONG_S)).member


async def test_a_cancelled_call_does_not_spoil_the_next(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """Answers never reach the wrong caller, wherever in a call its caller gave up."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    for moment in range(40):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(moment * 0.00005):
                await store.mappings()
        assert (await store.tick(Member(BOB), ttl_s=LONG_S)).member
    with paused(own_redis), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.mappings()
    assert (await store.tick(Member(BOB), ttl_s=LONG_S)).member
    assert {member.node for member in (await store.snapshot()).members} == {ANN, BOB}


async def test_scripts_are_sent_again_to_a_server_that_forgot_them(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """A flushed script cache goes unnoticed."""
    await store.join(Member(ANN), ttl_s=LONG_S)
    configure(own_redis, "SCRIPT", "FLUSH")
    assert (await store.tick(Member(ANN), ttl_s=LONG_S)).member


async def test_an_emptied_server_ends_memberships(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """After FLUSHALL nobody is a member, and the incarnation tells why."""
    before = await store.join(Member(ANN), ttl_s=LONG_S)
    configure(own_redis, "FLUSHALL")
    after = await store.tick(Member(ANN), ttl_s=LONG_S)
    assert not after.member
    assert after.incarnation != before.incarnation


async def test_a_full_server_is_unavailable(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """When Redis refuses writes for want of memory, nothing is half done."""
    tracker = await track(store)
    version = (await store.snapshot()).version
    configure(own_redis, "CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailableError, match="OOM"):
        await store.ping()
    with pytest.raises(StoreUnavailableError, match="OOM"):
        await store.set_wanted(tracker.key.mapping, [source(n) for n in range(4)], tracker=tracker)
    configure(own_redis, "CONFIG", "SET", "maxmemory", "0")
    snapshot = await store.snapshot()
    assert (snapshot.version, len(snapshot.wanted)) == (version, 4)


async def test_a_nearly_full_server_keeps_no_answers_of_functions(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """Room that asynchronous invocations could do without is the fleet's; their attempts count all the same."""
    await store.events.append(NewEvent("f", "f", "r", "t", b"{}"), (3, 3))
    await store.join(Member(ANN), ttl_s=LONG_S)
    lease = await take(store, ANN, partition_key(3))
    found = await store.events.take(lease, limits={}, each=1, most=1, max_bytes=1)
    assert found is not None
    (one,) = found.events
    standing = Standing(1, last=Response(200, "$LATEST", "Unhandled", b'"no"'))
    configure(own_redis, "CONFIG", "SET", "maxmemory", "1mb")  # less than is in use
    assert await store.events.settle(lease, [Settled("f", one.id, one.event.size, 0, standing)])
    found = await store.events.take(lease, limits={}, each=1, most=1, max_bytes=1)
    assert found is not None
    assert [one.standing for one in found.events] == [standing.lean()]


async def test_a_read_only_replica_is_unavailable(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """A server that was demoted does not count as reachable."""
    await store.join(Member(ANN), ttl_s=LONG_S)
    configure(own_redis, "REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError, match="read only replica"):
        await store.ping()
    with pytest.raises(StoreUnavailableError):
        await store.tick(Member(ANN), ttl_s=LONG_S)
    configure(own_redis, "REPLICAOF", "NO", "ONE")
    await store.ping()


async def test_listening_survives_a_restart(own_redis: EmbeddedRedis, store: RedisStore) -> None:
    """After the server is back the listener is woken once, since it may have missed something, and hears again."""
    async with asyncio.timeout(20), listen(store) as heard:
        await anext(heard)
        own_redis.restart()
        await anext(heard)
        await store.join(Member(ANN), ttl_s=LONG_S)
        await anext(heard)


async def test_a_listener_notices_a_silent_connection(
    own_redis: EmbeddedRedis, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet server that answers is fine; one that does not is left, and the listener comes back with a wake."""
    monkeypatch.setattr(wakes, "_CHECK_S", 0.05)
    async with asyncio.timeout(20), listen(store) as heard:
        await anext(heard)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_next(heard))
            await asyncio.sleep(0.3)  # several checks long
            assert not waiting.done()
            with paused(own_redis):
                await asyncio.sleep(TIMEOUT_S + 0.3)  # longer than a check may take
                assert not waiting.done()
        await store.join(Member(ANN), ttl_s=LONG_S)
        await anext(heard)


async def _next(heard: AsyncIterator[None]) -> None:
    await anext(heard)


async def test_many_changes_are_one_wake(store: RedisStore) -> None:
    """What was published while the listener was busy wakes it once."""
    async with asyncio.timeout(10), listen(store) as heard:
        await anext(heard)
        for n in range(20):
            await store.join(Member(ANN, draining=bool(n % 2)), ttl_s=LONG_S)
        # Redis may answer the last join before it writes that join's message to the listener;
        # the answer to anything asked afterwards comes when both have been written.
        await store.ping()
        await anext(heard)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(heard)


async def test_a_secret_never_shows(own_redis: EmbeddedRedis) -> None:
    """User and password are in no error, no cause and no repr, whether wrong, or right and the server gone."""
    user, password = "planted-user", "planted-pass"
    port = own_redis.port
    configure(own_redis, "ACL", "SETUSER", user, "on", f">{password}", "+@all", "~*", "&*")
    texts = []
    for secret in ("planted-wrong", password):
        store = RedisStore.from_url(f"redis://{user}:{secret}@127.0.0.1:{port}/0", timeout_s=TIMEOUT_S)
        async with contextlib.aclosing(store):
            if secret == password:
                await store.ping()
                own_redis.kill()
            with pytest.raises(StoreUnavailableError) as caught:
                await store.ping()
            texts += [repr(store), "".join(traceback.format_exception(caught.value))]
    with pytest.raises(ValueError, match="one host") as bad:
        RedisStore.from_url(f"redis://{user}:{password}@a,b/0")
    texts.append("".join(traceback.format_exception(bad.value)))
    assert "planted" not in "".join(text.replace('"planted-wrong", password', "") for text in texts)


async def test_an_acl_user_needs_no_more_than_the_fleets_keys(own_redis: EmbeddedRedis) -> None:
    """The rights named in the documentation are enough, and another namespace stays closed."""
    rules = [
        "on",
        ">pw",
        "resetchannels",
        "~esmd:{team}:*",
        "&esmd:{team}:*",
        "+@read",
        "+@write",
        "+@pubsub",
        "+@scripting",
        "+@fast",
    ]
    configure(own_redis, "ACL", "SETUSER", "esmd", *rules, "+time")
    url = f"redis://esmd:pw@127.0.0.1:{own_redis.port}/0"
    async with contextlib.aclosing(RedisStore.from_url(url, namespace="team", timeout_s=TIMEOUT_S)) as store:
        await track(store)
        lease = await take(store, ANN, shard(0))
        await store.save([update(lease, "1")])
        await store.release([lease])
        async with asyncio.timeout(5), listen(store) as heard:
            await anext(heard)
    async with contextlib.aclosing(RedisStore.from_url(url, namespace="other", timeout_s=TIMEOUT_S)) as store:
        with pytest.raises(StoreUnavailableError, match="permission"):
            await store.join(Member(ANN), ttl_s=LONG_S)


async def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    """The store works on a server that listens on no port at all."""
    async with EmbeddedRedis(tmp_path) as server, contextlib.aclosing(RedisStore.from_url(server.url)) as store:
        await track(store)
        assert (await store.snapshot()).members[0].node == ANN
