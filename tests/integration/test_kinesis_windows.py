"""Tumbling windows on real streams: processes of the daemon, a function with a state, and its sums.

The function adds up what the records carry. What each window came to by its final call is held against what the stream
itself says it holds: one record lost or counted twice anywhere shows, whoever has handed the state to whom meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support.aws_servers import AwsServer
from tests.support.fan_out_front import fan_out_front
from tests.support.kinesis_fleet import Producer
from tests.support.kinesis_nodes import kinesis_nodes
from tests.support.node_process import eventually
from tests.support.window_target import Sums, Window, WindowTarget, truth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.kinesis_nodes import Nodes
    from tests.support.kinesis_streams import Stream, Streams

SHORT_S = 2
LONG_S = 900  # longer than any test: a window ends because its shard does


@asynccontextmanager
async def source(server: AwsServer, stream: Stream, *, fan_out: bool) -> AsyncIterator[tuple[AwsServer, str]]:
    """Return the server and the ARN by which nodes read a stream; `fan_out`: as its consumer."""
    if not fan_out:
        yield server, stream.arn
    elif server.endpoint_url is None:
        yield server, await asyncio.to_thread(stream.register_consumer)
    else:
        async with fan_out_front(server.endpoint_url) as front:
            yield AwsServer(front.server.url), f"{stream.arn}/consumer/fast:1"


@asynccontextmanager
async def writing(producer: Producer) -> AsyncIterator[None]:
    """Write records of every key all the while."""
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await asyncio.to_thread(producer.write)
            await asyncio.sleep(0.1)  # the load, not a wait

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        try:
            yield
        finally:
            stop.set()


def ended(found: dict[Window, Sums], stream: Stream) -> dict[Window, Sums]:
    """Leave out the last window of each open shard: nothing has ended it yet."""
    still_open = {shard["ShardId"] for shard in stream.open_shards()}
    last = {shard: max(window for window in found if window.shard == shard) for shard in {w.shard for w in found}}
    return {
        window: sums for window, sums in found.items() if window.shard not in still_open or last[window.shard] != window
    }


async def all_ended(target: WindowTarget, stream: Stream, length_s: int, nodes: Nodes) -> dict[Window, Sums]:
    """Wait for the final calls of all windows that are over; return what the windows hold."""
    held = await asyncio.to_thread(lambda: ended(truth(stream, length_s), stream))
    await eventually(
        lambda: target.finals().keys() >= held.keys(),
        lambda: f"final calls of {held.keys() - target.finals().keys()}\n{nodes.tails()}",
    )
    return held


async def test_the_final_calls_add_up_to_what_was_written(
    closing_streams: Streams, redis_url: str, tmp_path: Path
) -> None:
    """Two shards, windows of two seconds, failures now and then: each window comes to exactly what it holds."""
    stream = await asyncio.to_thread(closing_streams.new, shards=2)
    producer = Producer(stream, keys=8)
    async with (
        WindowTarget(fail=0.05).serving() as target,
        kinesis_nodes(
            closing_streams.server,
            stream.arn,
            target.url,
            redis_url,
            tmp_path,
            BatchSize=7,
            TumblingWindowInSeconds=SHORT_S,
        ) as nodes,
    ):
        async with writing(producer):
            await nodes.start()
            await eventually(lambda: len(target.finals()) >= 4, "a few windows")
        before = producer.total
        await asyncio.sleep(SHORT_S)  # the next window begins
        await asyncio.to_thread(producer.write)
        held = await all_ended(target, stream, SHORT_S, nodes)
    assert sum(sums.records for sums in held.values()) == before
    assert target.finals() == held
    assert {window.shard for window in held} == {shard["ShardId"] for shard in stream.open_shards()}
    finals = [call for call in target.calls if call.final]
    assert len(finals) == len(held)
    assert not any(call.numbers for call in finals)
    assert target.failed


@pytest.mark.parametrize("fan_out", [False, True], ids=["polling", "fan-out"])
async def test_a_window_survives_the_nodes_that_worked_on_it(
    closing_streams: Streams, redis_url: str, tmp_path: Path, *, fan_out: bool
) -> None:
    """One node is killed in the middle of a call, the next drains: each hands the state on, and the sum is exact."""
    stream = await asyncio.to_thread(closing_streams.new)
    producer = Producer(stream, keys=4)
    async with (
        WindowTarget(seconds=0.1).serving() as target,
        source(closing_streams.server, stream, fan_out=fan_out) as (server, arn),
        kinesis_nodes(
            server, arn, target.url, redis_url, tmp_path, BatchSize=5, TumblingWindowInSeconds=LONG_S
        ) as nodes,
    ):
        async with writing(producer):
            first = await nodes.start()
            await eventually(lambda: target.counted >= 20 and target.running, "a call in the middle of a window")
            first.kill()
            seen = target.counted
            second = await nodes.start()
            await eventually(lambda: target.counted >= seen + 20, lambda: f"more calls\n{nodes.tails()}")
            third = await nodes.start()
            assert await second.stop() == 0
            seen = target.counted
            await eventually(lambda: target.counted >= seen + 20, lambda: f"more calls\n{nodes.tails()}")
        await asyncio.to_thread(lambda: stream.split(stream.open_shards()[0]))
        held = await all_ended(target, stream, LONG_S, nodes)
        assert third.running
    assert sum(sums.records for sums in held.values()) == producer.total
    assert target.finals() == held
    handed_on = [(before, after) for before, after in pairwise(target.calls) if before.token != after.token]
    assert len(handed_on) >= 2
    states = {call.after for call in target.calls}
    for before, after in handed_on:
        assert not after.fresh
        assert after.before in states
        assert after.token > before.token


async def test_the_end_of_a_shard_ends_its_window_and_children_begin_without_a_state(
    closing_streams: Streams, redis_url: str, tmp_path: Path
) -> None:
    """A split and a merge in the middle of a window: final calls of the parents come before any call of a child."""
    stream = await asyncio.to_thread(closing_streams.new)
    producer = Producer(stream, keys=8)
    async with (
        WindowTarget().serving() as target,
        kinesis_nodes(
            closing_streams.server, stream.arn, target.url, redis_url, tmp_path, TumblingWindowInSeconds=LONG_S
        ) as nodes,
    ):
        await nodes.start()
        for change in (
            lambda: stream.split(stream.open_shards()[0]),
            lambda: stream.merge(*stream.open_shards()),
            lambda: stream.split(stream.open_shards()[0]),
        ):
            await asyncio.to_thread(producer.write, 3)
            await asyncio.to_thread(change)
        held = await all_ended(target, stream, LONG_S, nodes)
    assert sum(sums.records for sums in held.values()) == producer.total
    assert target.finals() == held
    shards = {shard["ShardId"]: shard for shard in stream.shards()}
    began: dict[str, float] = {}
    for call in target.calls:
        if call.window.shard not in began:
            began[call.window.shard] = call.began
            assert call.fresh
    over = {call.window.shard: call.ended for call in target.calls if call.final}
    for name, began_at in began.items():
        for parent in ("ParentShardId", "AdjacentParentShardId"):
            if parent in shards[name]:
                assert over[shards[name][parent]] <= began_at
    assert len(began) == 4
