"""What the Kafka source relies on of its consumer: aiokafka's on a broker, and the one that simulations use."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from node.embedded_kafka import FETCH_MAX_WAIT_MS
from pollers.sources.kafka_client import PartitionConsumer, TopicPartition
from pollers.sources.kafka_fetcher import KafkaRecord
from pollers.sources.kafka_security import KafkaSecurity
from tests.support.kafka_source import produce
from tests.support.simulated_kafka import BROKERS, BrokersWay, SimulatedConsumer, SimulatedTopic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.support.embedded_broker import EmbeddedBroker

    class Lab(Protocol):
        """Makes a topic of two partitions, and who appends to it: partition, first and last number."""

        def __call__(self) -> AbstractAsyncContextManager[tuple[Any, str, Callable[[int, int, int], Awaitable[None]]]]:
            """Make them: a started consumer, the topic's name, and how to write."""


_MANY = 1000


def options(**more: Any) -> dict[str, Any]:
    """Return what the source sets."""
    security = KafkaSecurity()
    return {
        "group_id": "group", "security": security, "fetch_max_wait_ms": FETCH_MAX_WAIT_MS, "fetch_max_bytes": 2**20,
        "hold_max_bytes": 2**20, "request_timeout_s": 10.0, **more,
    }  # fmt: skip


@asynccontextmanager
async def simulated() -> AsyncIterator[tuple[Any, str, Callable[[int, int, int], Awaitable[None]]]]:
    """Make it in the event loop."""
    topic = SimulatedTopic("events", Random(1), partitions=2)

    async def write(partition: int, first: int, last: int) -> None:
        for number in range(first, last + 1):
            topic.append(partition, b"", b"%d" % number)

    BROKERS.set(BrokersWay(topic))
    consumer = SimulatedConsumer("events", **options(bootstrap_servers=["kafka:9092"]))
    await consumer.start()
    try:
        yield consumer, "events", write
    finally:
        await consumer.shut()


@pytest.fixture(params=[pytest.param("simulated", marks=pytest.mark.looptime(noop_cycles=1)), "embedded"])
def lab(request: pytest.FixtureRequest) -> Lab:
    """Make a consumer of each implementation in turn."""
    if request.param == "simulated":
        return simulated
    broker: EmbeddedBroker = request.getfixturevalue("embedded_kafka")

    @asynccontextmanager
    async def real() -> AsyncIterator[tuple[Any, str, Callable[[int, int, int], Awaitable[None]]]]:
        topic = broker.new_topic(2)

        async def write(partition: int, first: int, last: int) -> None:
            await produce(broker.bootstrap_servers, topic, partition, [b"%d" % n for n in range(first, last + 1)])

        consumer = PartitionConsumer(topic, **options(bootstrap_servers=[broker.bootstrap_servers], group_id=topic))
        await consumer.start()
        try:
            yield consumer, topic, write
        finally:
            await consumer.shut()

    return real


async def take(consumer: Any, count: int, *wanted: TopicPartition, most: int = _MANY) -> dict[int, list[int]]:
    """Take until there are `count` records; return their numbers by partition."""
    found: dict[int, list[int]] = {}
    async with asyncio.timeout(20):
        while sum(map(len, found.values())) < count:
            taken = await consumer.take(wanted, most)
            assert sum(map(len, taken.values())) <= most
            for partition, records in taken.items():
                assert all(isinstance(record, KafkaRecord) for record in records)
                found.setdefault(partition.partition, []).extend(int(record.value) for record in records)
            if not taken:
                await consumer.arrival()
    return found


async def test_records_come_in_order_from_where_the_partition_was_moved(lab: Lab) -> None:
    """No more at once than asked for, of the partitions wanted only; what comes later wakes whoever waits."""
    async with lab() as (consumer, topic, write):
        a, b = TopicPartition(topic, 0), TopicPartition(topic, 1)
        assert await consumer.partitions() == {0, 1}
        await write(0, 0, 9)
        await write(1, 0, 4)
        consumer.move({a: 3, b: 0})
        assert await take(consumer, 4, a, most=2) == {0: [3, 4, 5, 6]}
        assert await take(consumer, 5, b) == {1: [0, 1, 2, 3, 4]}
        assert await take(consumer, 3, a, b) == {0: [7, 8, 9]}
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(take(consumer, 2, a, b))
            await asyncio.sleep(0)
            await write(1, 5, 6)
        assert waiting.result() == {1: [5, 6]}


async def test_what_was_fetched_before_a_move_or_a_seek_is_thrown_away(lab: Lab) -> None:
    """Reading goes on from the place that was named last."""
    async with lab() as (consumer, topic, write):
        a, b = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await write(0, 0, 9)
        await write(1, 0, 9)
        consumer.move({a: 0})
        assert consumer.assignment() == {a}
        assert await take(consumer, 2, a, most=2) == {0: [0, 1]}
        consumer.seek(a, 8)
        assert await take(consumer, 2, a) == {0: [8, 9]}
        consumer.move({a: 5, b: 9})
        found = await take(consumer, 6, a, b)
        assert found == {0: [5, 6, 7, 8, 9], 1: [9]}


async def test_it_tells_what_was_seen_of_a_partition(lab: Lab) -> None:
    """The next offset to be taken, and the end as of the last answer; nothing of one that is not assigned."""
    async with lab() as (consumer, topic, write):
        a, b = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await write(0, 0, 9)
        consumer.move({a: 0})
        await take(consumer, 4, a, most=4)
        seen = consumer.seen(a)
        assert (seen.position, seen.highwater) == (4, 10)
        assert seen.at_ms is not None
        assert consumer.seen(b) is None
        assert await consumer.beginning_offsets([a, b]) == {a: 0, b: 0}
        assert await consumer.end_offsets([a, b]) == {a: 10, b: 0}


async def test_the_group_keeps_what_was_committed_last_whichever_is_further(lab: Lab) -> None:
    """Brokers do not mind a commit that goes back: nothing tells a late one of a former holder from the others."""
    async with lab() as (consumer, topic, write):
        a, b = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await write(0, 0, 9)
        consumer.move({a: 0})
        assert await consumer.committed(a) is None
        await consumer.commit({a: 7})
        await consumer.commit({a: 4})
        assert await consumer.committed(a) == 4
        assert await consumer.committed(b) is None
