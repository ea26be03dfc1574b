"""The Kafka source against the broker inside confluent-kafka."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from model.errors import SourceRefusedError, SourceRestartedError, SourceUnavailableError
from model.ids import Position
from model.mapping import StartingPosition
from model.shard import PUT
from node.embedded_kafka import FETCH_MAX_WAIT_MS, EmbeddedKafka
from pollers.ports import Lag
from pollers.sources.kafka import KafkaSource
from pollers.sources.kafka_client import PartitionConsumer
from pollers.sources.kafka_security import KafkaSecurity
from tests.support.kafka_source import Secrets, kafka_mapping, kafka_source, produce, read_values, shard
from tests.support.node_process import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedKafka]:
    """Start a broker with one topic of four partitions."""
    async with EmbeddedKafka({"audit": 4}) as kafka:
        yield kafka


async def committed(broker: EmbeddedKafka, partition: int, group: str = "group") -> int | None:
    """Ask the broker what the group has."""
    client = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers, group_id=group, enable_auto_commit=False)
    async with client:
        offset: int | None = await client.committed(TopicPartition("audit", partition))
        return offset


def numbers(start: int, end: int) -> list[bytes]:
    """Make distinguishable values."""
    return [b"%06d" % n for n in range(start, end)]


async def test_partitions_are_the_shards(broker: EmbeddedKafka) -> None:
    """Every partition of the topic is a shard named after it."""
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        assert [found.id for found in await source.shards()] == [shard("audit", n) for n in range(4)]


async def test_reads_from_the_beginning_and_goes_on(broker: EmbeddedKafka) -> None:
    """TRIM_HORIZON returns the oldest record first, and records that come later follow."""
    await produce(broker.bootstrap_servers, "audit", 1, numbers(0, 1200))
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        reader = await source.reader(shard("audit", 1), None)
        assert reader.start == "0"
        assert await read_values(reader, 1200) == numbers(0, 1200)
        assert reader.lag() == Lag(0, 0.0)
        await produce(broker.bootstrap_servers, "audit", 1, numbers(1200, 1300))
        assert await read_values(reader, 100) == numbers(1200, 1300)
        assert reader.after(1299) == "1300"


async def test_latest_is_a_place_from_the_moment_the_reader_is_opened(broker: EmbeddedKafka) -> None:
    """LATEST resolves to an offset at once: what comes after opening is read, also by a later reader started there."""
    await produce(broker.bootstrap_servers, "audit", 0, numbers(0, 5))
    mapping = kafka_mapping(broker.bootstrap_servers, "audit", position=StartingPosition.LATEST)
    async with kafka_source(mapping) as source:
        reader = await source.reader(shard("audit", 0), None)
        assert reader.start == "5"
        await reader.close()
        await produce(broker.bootstrap_servers, "audit", 0, numbers(5, 8))
        reader = await source.reader(shard("audit", 0), reader.start)
        assert await read_values(reader, 3) == numbers(5, 8)


async def test_the_further_of_checkpoint_and_commit_wins(broker: EmbeddedKafka) -> None:
    """A rolled-back store costs nothing, nor does a group commit that lags; both beat StartingPosition."""
    await produce(broker.bootstrap_servers, "audit", 0, numbers(0, 50))
    mapping = kafka_mapping(broker.bootstrap_servers, "audit")
    async with kafka_source(mapping) as source:
        reader = await source.reader(shard("audit", 0), None)
        await read_values(reader, 30)
        reader.checkpointed(reader.after(29))
        await reader.close()
        assert await committed(broker, 0) == 30
        for checkpoint, expected in ((None, "30"), (Position("10"), "30"), (Position("40"), "40")):
            reader = await source.reader(shard("audit", 0), checkpoint)
            assert reader.start == expected
            assert await read_values(reader, 10) == numbers(int(expected), int(expected) + 10)
            await reader.close()
    assert await committed(broker, 0) == 30


async def test_of_a_moved_partition_the_group_follows_the_checkpoint_s_mirror(broker: EmbeddedKafka) -> None:
    """Also back: it stays before parked records, though reading goes on behind them, and is not taken up again."""
    await produce(broker.bootstrap_servers, "audit", 2, numbers(0, 10))
    counted: list[int] = []
    mapping = kafka_mapping(broker.bootstrap_servers, "audit")
    async with kafka_source(mapping, count_committed=counted.append) as source:
        reader = await source.reader(shard("audit", 2), Position("8"), PUT)
        assert await read_values(reader, 1) == numbers(8, 9)
        reader.checkpointed(Position("3"))
    assert await committed(broker, 2) == 3
    assert sum(counted) == 0
    async with kafka_source(mapping) as source:
        reader = await source.reader(shard("audit", 2), Position("8"), PUT)
        assert await read_values(reader, 2) == numbers(8, 10)
        reader.checkpointed(Position("10"))
    assert await committed(broker, 2) == 10


async def test_closing_the_source_commits_what_is_due(broker: EmbeddedKafka) -> None:
    """A checkpoint reaches the group when the source closes, and earlier ones do not move it back."""
    await produce(broker.bootstrap_servers, "audit", 2, numbers(0, 20))
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit"), commit_interval_s=60) as source:
        reader = await source.reader(shard("audit", 2), None)
        await read_values(reader, 20)
        reader.checkpointed(Position("15"))
        reader.checkpointed(Position("12"))
    assert await committed(broker, 2) == 15


async def test_commits_happen_while_reading(broker: EmbeddedKafka) -> None:
    """Checkpoints reach the group within the interval without anyone closing."""
    await produce(broker.bootstrap_servers, "audit", 3, numbers(0, 20))
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit"), commit_interval_s=0.05) as source:
        reader = await source.reader(shard("audit", 3), None)
        await read_values(reader, 20)
        reader.checkpointed(Position("20"))
        async with asyncio.timeout(10):
            while await committed(broker, 3) != 20:
                continue


async def test_readers_that_come_and_go_disturb_no_other(broker: EmbeddedKafka) -> None:
    """While partitions are opened, closed and opened again, every reader gets each record once and in order."""
    count = 3000
    for partition in range(4):
        await produce(broker.bootstrap_servers, "audit", partition, numbers(0, count))
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit"), prefetch_max_bytes=400_000) as source:
        steady = await source.reader(shard("audit", 0), None)
        restless: dict[int, list[bytes | None]] = {1: [], 2: [], 3: []}

        async def come_and_go(partition: int) -> None:
            place: Position | None = None
            while len(restless[partition]) < count:
                reader = await source.reader(shard("audit", partition), place)
                restless[partition] += await read_values(reader, 250, at_once=100)
                place = reader.after(len(restless[partition]) - 1)
                await reader.close()

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read_values(steady, count, at_once=37))
            for partition in restless:
                tasks.create_task(come_and_go(partition))
        assert reading.result() == numbers(0, count)
        assert all(values == numbers(0, count) for values in restless.values())


async def test_a_cancelled_read_loses_nothing(broker: EmbeddedKafka) -> None:
    """Records that arrive while reads are being cancelled are returned by the next read."""
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        reader = await source.reader(shard("audit", 0), None)
        values: list[bytes | None] = []

        async def read_impatiently() -> None:
            while len(values) < 600:
                try:
                    async with asyncio.timeout(0.003):
                        values.extend(await read_values(reader, 1))
                except TimeoutError:
                    continue

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read_impatiently())
            for start in range(0, 600, 100):
                await produce(broker.bootstrap_servers, "audit", 0, numbers(start, start + 100))
        assert values == numbers(0, 600)


async def test_a_slow_partition_holds_back_its_own_records_only(broker: EmbeddedKafka) -> None:
    """With one partition unread, what is held stays within bounds and the others go on."""
    bound = 200_000
    big = [b"x" * 1000] * 1000
    for partition in (0, 1):
        await produce(broker.bootstrap_servers, "audit", partition, big)
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit"), prefetch_max_bytes=bound) as source:
        slow = await source.reader(shard("audit", 0), None)
        fast = await source.reader(shard("audit", 1), None)
        held = 0
        for _ in range(200):
            await read_values(fast, 5)
            held = max(held, slow.inbox.size + fast.inbox.size)
        assert 0 < slow.buffered() < 1000
        assert held < bound * 2  # the bound and one helping
        assert await read_values(slow, 1000) == big


async def test_a_broker_that_goes_and_comes_back_costs_nothing(broker: EmbeddedKafka) -> None:
    """While the broker is away what was read ahead is delivered; afterwards reading goes on by itself, complete."""
    await produce(broker.bootstrap_servers, "audit", 0, numbers(0, 100))
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit"), stall_s=0.5) as source:
        reader = await source.reader(shard("audit", 0), None)
        assert await read_values(reader, 10) == numbers(0, 10)
        await broker.go_down()
        assert await read_values(reader, 90) == numbers(10, 100)
        with pytest.raises(SourceUnavailableError):
            await reader.read(1)
        await broker.come_up()
        await produce(broker.bootstrap_servers, "audit", 0, numbers(100, 150))
        values: list[bytes | None] = []
        while len(values) < 50:
            try:
                values += await read_values(reader, 50 - len(values))
            except SourceUnavailableError:
                await asyncio.sleep(0.05)
        assert values == numbers(100, 150)
        reader.checkpointed(Position("150"))
    assert await committed(broker, 0) == 150


async def test_records_deleted_before_they_were_read_are_counted(broker: EmbeddedKafka) -> None:
    """A place that retention has passed goes on at the earliest record, and the loss has a number."""
    for _ in range(8):
        await produce(broker.bootstrap_servers, "audit", 0, [b"x" * 900_000])  # the broker keeps 5 MiB
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        reader = await source.reader(shard("audit", 0), Position("0"))
        chunk = await reader.read(100)
        assert reader.lost == chunk.positions[0] > 0


async def test_while_records_are_held_it_is_known_where_the_partition_begins(broker: EmbeddedKafka) -> None:
    """The brokers' deletions are followed as long as something is unfinished, and they are not asked otherwise."""
    await produce(broker.bootstrap_servers, "audit", 0, [b"held", b"x"])
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit"), beginnings_s=0.05) as source:
        reader = await source.reader(shard("audit", 0), None)
        assert await read_values(reader, 1) == [b"held"]
        assert (reader.unfinished, reader.lag().first) == (True, None)
        for _ in range(8):
            await produce(broker.bootstrap_servers, "audit", 0, [b"x" * 900_000])  # the broker keeps 5 MiB
        await eventually(lambda: reader.lag().first, "the beginning")
        reader.checkpointed(Position("1"))
        assert not reader.unfinished


async def test_a_place_beyond_the_end_begins_again(broker: EmbeddedKafka) -> None:
    """A checkpoint of a topic that was recreated does not skip the new topic's records."""
    await produce(broker.bootstrap_servers, "audit", 0, numbers(0, 5))
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        reader = await source.reader(shard("audit", 0), Position("5000"))
        with pytest.raises(SourceRestartedError) as told:
            await reader.read(5)
        await reader.close()
        reader = await source.reader(shard("audit", 0), told.value.position)
        assert await read_values(reader, 5) == numbers(0, 5)
        assert reader.start == "0"
        reader.checkpointed(Position("5"))
    assert await committed(broker, 0) == 5


async def test_odd_records_pass_unharmed(broker: EmbeddedKafka) -> None:
    """Null keys and values, bytes that are no text, a megabyte and 200 headers arrive as sent."""
    headers = [(f"h{n % 7}", bytes([n])) for n in range(200)]
    odd = [None, b"", b"\xff\xfe", b"x" * 1_000_000]
    await produce(broker.bootstrap_servers, "audit", 0, odd, headers=headers)
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        reader = await source.reader(shard("audit", 0), None)
        assert await read_values(reader, 4) == odd
        await produce(broker.bootstrap_servers, "audit", 0, [b"1"], headers=headers, key=b"\x00")
        chunk = await reader.read(10)
        assert (chunk.raws[0].key, list(chunk.raws[0].headers)) == (b"\x00", headers)


async def test_an_absent_broker_is_unavailable_until_it_comes(broker: EmbeddedKafka) -> None:
    """A source started before its broker says so, and connects by itself when the broker is there."""
    await broker.go_down()
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        with pytest.raises(SourceUnavailableError):
            await source.shards()
        await broker.come_up()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert len(await source.shards()) == 4
                    break
                except SourceUnavailableError:
                    await asyncio.sleep(0.05)


async def test_a_shard_of_another_topic_is_refused(broker: EmbeddedKafka) -> None:
    """A shard that is no partition of the topic, or is read already, is refused."""
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        await source.reader(shard("audit", 0), None)
        for wrong in (shard("other", 0), shard("audit", 0)):
            with pytest.raises(SourceRefusedError):
                await source.reader(wrong, None)


async def test_a_closed_source_leaves_nothing_running(broker: EmbeddedKafka) -> None:
    """Closing ends the background work, twice is fine, and a waiting read is told."""
    async with kafka_source(kafka_mapping(broker.bootstrap_servers, "audit")) as source:
        reader = await source.reader(shard("audit", 0), None)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.read(1))
            await asyncio.sleep(0)
            reading.cancel()
        await source.close()
        await source.close()
        with pytest.raises(SourceRefusedError):
            await reader.read(1)


async def test_a_close_that_is_cancelled_leaves_nothing_running(broker: EmbeddedKafka) -> None:
    """A node that loses its lease cuts closing short, and must still come to an end."""
    await produce(broker.bootstrap_servers, "audit", 0, numbers(0, 1))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        mapping = kafka_mapping(broker.bootstrap_servers, "audit")
        source = KafkaSource(mapping, Secrets(), tasks=tasks, fetch_max_wait_ms=FETCH_MAX_WAIT_MS, commit_interval_s=60)
        reader = await source.reader(shard("audit", 0), None)
        await read_values(reader, 1)
        reader.checkpointed(Position("1"))
        closing = tasks.create_task(source.close())
        await asyncio.sleep(0)  # it commits
        closing.cancel()


async def test_a_fetch_under_way_does_not_cancel_whoever_closes_the_connection(broker: EmbeddedKafka) -> None:
    """The client cancels it and awaits it bare: a source that makes a new connection must not end by that."""
    consumer = PartitionConsumer(
        "audit",
        bootstrap_servers=[broker.bootstrap_servers],
        group_id="group",
        security=KafkaSecurity(),
        fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        fetch_max_bytes=2**20,
        hold_max_bytes=2**20,
        request_timeout_s=5,
    )
    before = asyncio.all_tasks()
    await consumer.start()
    consumer.move({TopicPartition("audit", 0): 0})
    async with asyncio.timeout(10):
        while not consumer._fetcher._pending_tasks:  # noqa: ASYNC110 - aiokafka tells nobody
            await asyncio.sleep(0.001)
    async with asyncio.TaskGroup() as tasks:
        fetches = [tasks.create_task(asyncio.sleep(60)) for _ in range(2)]
        consumer._fetcher._pending_tasks.update(fetches)
        closing = tasks.create_task(consumer.shut())
    assert not closing.cancelled()
    assert all(fetch.cancelled() for fetch in fetches)
    assert asyncio.all_tasks() == before
