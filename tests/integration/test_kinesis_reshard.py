"""Whole nodes on a stream that splits and merges: nothing is lost, and the order per partition key holds."""

from __future__ import annotations

import asyncio
import os
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from model.progress import ShardState
from tests.support.kinesis_fleet import Producer, kinesis_fleet
from tests.support.kinesis_streams import Stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.kinesis_fleet import Fleet
    from tests.support.kinesis_local import KinesisLocal
    from tests.support.kinesis_streams import Streams

Reshard = "Callable[[Stream], None]"
STORM_S = float(os.environ.get("ESMD_TEST_STORM_S", "20"))
READINGS = pytest.mark.parametrize("fan_out", [False, True], ids=["polling", "fan-out"])


def split(stream: Stream) -> None:
    """Split the first shard."""
    stream.split(stream.open_shards()[0])


def merge(stream: Stream) -> None:
    """Merge the last two shards."""
    stream.merge(*stream.open_shards()[-2:])


def both(stream: Stream) -> None:
    """Split the first shard and merge the last two."""
    split(stream)
    merge(stream)


async def while_writing(producer: Producer, change: Callable[[], Awaitable[None]]) -> None:
    """Keep writing while something happens, and a little longer."""
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await asyncio.to_thread(producer.write, 5)
            await asyncio.sleep(0.05)  # the load, not a wait

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        try:
            await change()
        finally:
            stop.set()
    await asyncio.to_thread(producer.write, 5)


@pytest.mark.parametrize("reshard", [split, merge, both], ids=lambda change: change.__name__)
@pytest.mark.parametrize(("lanes", "fan_out"), [(1, False), (4, False), (4, True)], ids=["1", "4", "4-fan-out"])
async def test_a_reshard_under_load_keeps_every_record_in_its_order(
    kinesis_local: KinesisLocal, tmp_path: Path, reshard: Callable[[Stream], None], *, lanes: int, fan_out: bool
) -> None:
    """A failing function, records written all the while, and a stream that splits, merges or does both."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url, shards=3)
    producer = Producer(stream, keys=12)
    more = [f"ParallelizationFactor: {lanes}", "BatchSize: 10"]
    making = kinesis_fleet(kinesis_local.endpoint_url, stream, tmp_path, more, fan_out=fan_out)
    async with making as fleet, fleet.node():
        fleet.function.fail, fleet.function.seconds = 0.02, 0.02

        async def change() -> None:
            await asyncio.to_thread(producer.write, 20)
            await asyncio.to_thread(reshard, stream)

        await while_writing(producer, change)
        verdict = await fleet.delivered(producer)
    assert verdict.problems() == []
    assert verdict.duplicates == 0


@READINGS
async def test_the_children_are_read_about_a_second_after_the_split(
    closing_streams: Streams, tmp_path: Path, *, fan_out: bool
) -> None:
    """Nobody waits for the next discovery: the end of the parent makes the tracker look at once."""
    stream = await asyncio.to_thread(closing_streams.new)
    producer = Producer(stream, keys=4)
    making = kinesis_fleet(closing_streams.server.endpoint_url, stream, tmp_path, fan_out=fan_out)
    async with making as fleet, fleet.node():
        await asyncio.to_thread(producer.write)
        await fleet.delivered(producer)
        await asyncio.to_thread(split, stream)
        await asyncio.to_thread(producer.write)
        verdict = await fleet.delivered(producer, within_s=8)  # discovery alone would take 15
        assert verdict.problems() == []
        progress = await fleet.progress()
        parent = stream.shards()[0]["ShardId"]
        assert progress[parent].report.state is ShardState.DRAINED


@READINGS
async def test_a_restart_in_the_middle_of_a_reshard_goes_on_where_it_was(
    kinesis_local: KinesisLocal, tmp_path: Path, *, fan_out: bool
) -> None:
    """A node dies while a closed parent is half read: its successor finishes it before it touches the children."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    producer = Producer(stream, keys=6)
    making = kinesis_fleet(kinesis_local.endpoint_url, stream, tmp_path, ["BatchSize: 5"], fan_out=fan_out)
    async with making as fleet:
        fleet.function.seconds = 0.02
        async with fleet.node() as first:
            await asyncio.to_thread(producer.write, 40)
            await asyncio.to_thread(split, stream)
            await asyncio.to_thread(producer.write, 10)
            await reached(fleet, producer.total // 3)
            await first.kill()
        before = await fleet.progress()
        assert before[stream.shards()[0]["ShardId"]].report.state is not ShardState.DRAINED
        async with fleet.node():
            verdict = await fleet.delivered(producer)
    assert verdict.problems() == []
    assert verdict.duplicates <= 2 * 5  # the batch in flight and the one that was not saved


@READINGS
async def test_a_mapping_that_begins_after_reshards_reads_all_generations_in_order(
    closing_streams: Streams, tmp_path: Path, *, fan_out: bool
) -> None:
    """TRIM_HORIZON begins with the oldest parents and works down the lineage."""
    stream = await asyncio.to_thread(closing_streams.new, shards=2)
    producer = Producer(stream, keys=8)
    for change in (split, both, merge):
        await asyncio.to_thread(producer.write, 3)
        await asyncio.to_thread(change, stream)
    await asyncio.to_thread(producer.write, 3)
    making = kinesis_fleet(closing_streams.server.endpoint_url, stream, tmp_path, fan_out=fan_out)
    async with making as fleet, fleet.node():
        verdict = await fleet.delivered(producer)
    assert verdict.problems() == []
    assert verdict.duplicates == 0


async def test_a_stream_that_was_deleted_and_made_anew_is_read_from_its_beginning(
    kinesis_local: KinesisLocal, tmp_path: Path
) -> None:
    """The names of the shards are the old ones, some of which had been read to their end."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    old, new = Producer(stream, keys=4), Producer(stream, keys=4, prefix="new")
    async with kinesis_fleet(kinesis_local.endpoint_url, stream, tmp_path) as fleet:
        async with fleet.node():
            await asyncio.to_thread(old.write)
            await asyncio.to_thread(split, stream)
            await asyncio.to_thread(old.write)
            await fleet.delivered(old)
        await asyncio.to_thread(stream.make_anew)
        await asyncio.to_thread(new.write, 3)
        fleet.function.arrivals.clear()
        fleet.function.log.clear()
        async with fleet.node():
            verdict = await fleet.delivered(new)
    assert verdict.problems() == []


@pytest.mark.slow
async def test_a_storm_of_reshards_and_deaths_loses_nothing(kinesis_local: KinesisLocal, tmp_path: Path) -> None:
    """Random splits and merges, and now and then a node that dies. ESMD_TEST_STORM_S=120 for the long version."""
    random = Random(20)
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url, shards=2)
    producer = Producer(stream, keys=16)
    more = ["ParallelizationFactor: 2", "BatchSize: 10"]
    async with kinesis_fleet(kinesis_local.endpoint_url, stream, tmp_path, more) as fleet:
        fleet.function.fail, fleet.function.seconds = 0.01, 0.03
        until = time.monotonic() + STORM_S
        async with fleet.node():

            async def storm() -> None:
                while time.monotonic() < until:
                    async with fleet.node() as mortal:
                        for _ in range(3):
                            await asyncio.to_thread(disturb, stream, random)
                            await asyncio.sleep(random.uniform(0, 1))
                        if random.random() < 0.5:
                            await mortal.kill()

            await while_writing(producer, storm)
            verdict = await fleet.delivered(producer, within_s=90)
    assert verdict.problems() == []
    assert len(stream.shards()) > STORM_S / 2


def disturb(stream: Stream, random: Random) -> None:
    """Split or merge somewhere, keeping the number of shards small."""
    shards = stream.open_shards()
    if len(shards) < 2 or (len(shards) < 6 and random.random() < 0.5):
        stream.split(random.choice(shards))
    else:
        place = random.randrange(len(shards) - 1)
        stream.merge(shards[place], shards[place + 1])


async def reached(fleet: Fleet, count: int) -> None:
    """Wait until that many records were delivered."""
    async with asyncio.timeout(60):
        while len(fleet.function.arrivals) < count:
            fleet.function.called.clear()
            await fleet.function.called.wait()
