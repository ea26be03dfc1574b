"""Whole nodes on a stream consumer of a Kinesis that does enhanced fan-out as AWS does, its shards kinesis-local's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pollers.sources.kpl import hash_key
from tests.support.history import Partition, check
from tests.support.kinesis_fleet import Producer, consumer_fleet
from tests.support.kinesis_streams import Stream
from tests.support.kpl_encoding import User, encode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kinesis_local import KinesisLocal

PARENT = "shardId-000000000000"
MIDDLE = 2**127  # where it is split


async def test_a_hand_over_waits_for_its_turn_and_repeats_nothing(kinesis_local: KinesisLocal, tmp_path: Path) -> None:
    """The successor comes while the predecessor's subscription is not five seconds old."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    producer = Producer(stream, keys=4)
    async with consumer_fleet(kinesis_local.endpoint_url, stream, tmp_path) as (fleet, front):
        await asyncio.to_thread(producer.write, 3)
        async with fleet.node():
            await fleet.delivered(producer)
        await asyncio.to_thread(producer.write, 3)
        async with fleet.node():
            verdict = await fleet.delivered(producer, within_s=15)
    assert verdict.problems() == []
    assert verdict.duplicates == 0
    assert front.subscriptions == 2
    assert "ResourceInUseException" in front.refused


async def test_subscriptions_that_end_all_the_time_lose_and_repeat_nothing(
    kinesis_local: KinesisLocal, tmp_path: Path
) -> None:
    """Renewed for records that come after its end, and after a function that took longer than a subscription lasts."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    producer = Producer(stream, keys=4)
    making = consumer_fleet(kinesis_local.endpoint_url, stream, tmp_path, ["BatchSize: 10"], lives_s=0.5)
    async with making as (fleet, front), fleet.node():
        await asyncio.to_thread(producer.write)
        await fleet.delivered(producer)
        await asyncio.sleep(0.6)  # the subscription ends
        await asyncio.to_thread(producer.write)
        await fleet.delivered(producer)
        fleet.function.held = asyncio.Event()
        await asyncio.to_thread(producer.write, 30)
        await asyncio.sleep(0.6)  # another one ends, read or not
        await asyncio.to_thread(producer.write)
        fleet.function.held.set()
        verdict = await fleet.delivered(producer)
    assert verdict.problems() == []
    assert verdict.duplicates == 0
    assert front.subscriptions >= 3


async def test_aggregates_are_taken_apart_and_what_a_stale_producer_packed_is_dropped(
    kinesis_local: KinesisLocal, tmp_path: Path
) -> None:
    """After a split a producer that has not noticed packs both halves' keys together: each shard keeps its own."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    keys = [f"key-{number}" for number in range(8)]

    def write(*packed: list[tuple[str, int]]) -> None:
        """Write aggregates, each under the key of its first record."""
        stream.put(
            (one[0][0], encode([User(key, None, f"{key}:{number}".encode()) for key, number in one])) for one in packed
        )

    await asyncio.to_thread(write, [(key, 0) for key in keys], [(key, 1) for key in keys])
    await asyncio.to_thread(lambda: stream.split(stream.open_shards()[0]))
    lost = {key for key in keys if (hash_key(key) < MIDDLE) != (hash_key(keys[0]) < MIDDLE)}
    assert 0 < len(lost) < len(keys)
    await asyncio.to_thread(write, [(key, 2) for key in keys])
    expected = {Partition(key, 0): range(2 if key in lost else 3) for key in keys}
    filtered = ['FilterCriteria: {Filters: [{Pattern: \'{"partitionKey": [{"prefix": "key"}]}\'}]}']
    async with consumer_fleet(kinesis_local.endpoint_url, stream, tmp_path, filtered) as (fleet, _):
        async with fleet.node():
            async with asyncio.timeout(60):
                while len(fleet.function.arrivals) < sum(map(len, expected.values())):
                    fleet.function.called.clear()
                    await fleet.function.called.wait()
        progress = await fleet.progress()
    assert check(fleet.function.log, expected).problems() == []
    assert progress[PARENT].ledger.delivered == 2 * len(keys)
    dropped = sum(one.ledger.dropped for one in progress.values())
    assert dropped == len(lost)
    assert all(one.ledger.balanced for one in progress.values())
