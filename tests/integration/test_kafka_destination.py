"""A Kafka topic as on-failure destination, on the embedded broker and on Apache Kafka."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from model.errors import RefusedError, UnavailableError
from pollers.destinations import kafka_producer
from pollers.destinations.kafka import KafkaDestination
from pollers.destinations.kafka_producer import RoundRobin
from tests.support.failures import failure, topic_documents
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pollers.failure_document import Failure
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kafka_admin import KafkaAdmin
    from tests.support.kafka_fixtures import KafkaBroker


async def no_options() -> dict[str, Any]:
    """Connect without authentication."""
    return {}


@pytest.fixture
async def destination_of() -> AsyncIterator[Callable[[KafkaBroker, str], KafkaDestination[Failure]]]:
    """Make destinations, and close them in the end; then none of their tasks is left."""
    made: list[KafkaDestination[Failure]] = []
    before = asyncio.all_tasks()

    def make(broker: KafkaBroker, topic: str) -> KafkaDestination[Failure]:
        made.append(
            KafkaDestination(
                f"kafka://{topic}",
                topic_documents(),
                bootstrap_servers=[broker.bootstrap_servers],
                connect_options=no_options,
            )
        )
        return made[-1]

    yield make
    for destination in made:
        await destination.close()
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert [task for task in left if not task.done()] == []


async def read(broker: KafkaBroker, topic: str, count: int, *, partitions: int = 1) -> list[Any]:
    """Read the first messages of a topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, fetch_max_wait_ms=broker.fetch_max_wait_ms, enable_auto_commit=False
    )
    try:
        await consumer.start()
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)
        async with asyncio.timeout(20):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_each_failed_record_becomes_a_message_under_its_key(kafka: KafkaBroker, destination_of: Any) -> None:
    """The values are the documents, in order, with the record's key."""
    topic = kafka.new_topic(1)
    given_up = failure(b"one", b"two", b"three")
    await destination_of(kafka, topic).deliver(given_up)
    messages = await read(kafka, topic, 3)
    assert [message.value for message in messages] == [m.value for m in topic_documents().messages(given_up)]
    assert {message.key for message in messages} == {b"k"}


async def test_records_without_a_key_go_round_robin(kafka: KafkaBroker, destination_of: Any) -> None:
    """Four records, four partitions, one each; keys keep to one partition."""
    topic = kafka.new_topic(4)
    destination = destination_of(kafka, topic)
    await destination.deliver(failure(b"1", b"2", b"3", b"4", key=None))
    assert sorted([m.partition for m in await read(kafka, topic, 4, partitions=4)]) == [0, 1, 2, 3]
    await destination.deliver(failure(b"1", b"2", b"3", b"4", key=b"one"))
    keyed = [m for m in await read(kafka, topic, 8, partitions=4) if m.key is not None]
    assert len({m.partition for m in keyed}) == 1


async def test_one_producer_serves_many_deliveries_at_once(kafka: KafkaBroker, destination_of: Any) -> None:
    """The shards of a mapping share a connection, also when they all come at the same time."""
    topic = kafka.new_topic(1)
    destination = destination_of(kafka, topic)
    async with asyncio.TaskGroup() as tasks:
        for n in range(10):
            tasks.create_task(destination.deliver(failure(b"%d" % n)))
    values = {json.loads(m.value)["payload"]["records"]["orders-0"][0]["value"] for m in await read(kafka, topic, 10)}
    assert len(values) == 10


async def test_a_missing_topic_is_refused_until_it_is_created(
    real_kafka: KafkaAdmin, destination_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to do, and nothing has to be restarted afterwards."""
    monkeypatch.setattr(kafka_producer, "_REQUEST_TIMEOUT_MS", 1000)
    topic = unique_name("later")
    destination = destination_of(real_kafka, topic)
    with pytest.raises(RefusedError, match=f"Kafka topic {topic}: no such topic"):
        await destination.deliver(failure(b"one"))
    real_kafka.create_topic(topic, 1)
    await destination.deliver(failure(b"one"))
    assert len(await read(real_kafka, topic, 1)) == 1


async def test_brokers_that_are_away_are_unavailable_until_they_are_back(
    embedded_kafka: EmbeddedBroker, destination_of: Any
) -> None:
    """A delivery under way ends at its deadline, the next one cannot connect, and after that all is well."""
    topic = embedded_kafka.new_topic(1)
    destination = destination_of(embedded_kafka, topic)
    await destination.deliver(failure(b"one"))
    embedded_kafka.go_down()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await destination.deliver(failure(b"two"))
        with pytest.raises(UnavailableError, match=f"Kafka topic {topic} on {embedded_kafka.bootstrap_servers}"):
            await destination.deliver(failure(b"two"))
    finally:
        embedded_kafka.come_up()
    await destination.deliver(failure(b"two"))
    values = [
        json.loads(m.value)["payload"]["records"]["orders-0"][0]["value"] for m in await read(embedded_kafka, topic, 2)
    ]
    assert values == ["b25l", "dHdv"]


async def test_a_failed_delivery_fails_those_that_share_its_producer(
    embedded_kafka: EmbeddedBroker, destination_of: Any
) -> None:
    """Nobody waits for ever for a producer that another delivery ended; the error is worth another try."""
    destination = destination_of(embedded_kafka, embedded_kafka.new_topic(1))
    await destination.deliver(failure(b"one"))
    embedded_kafka.go_down()
    try:
        async with asyncio.timeout(10):
            async with asyncio.TaskGroup() as tasks:
                short = tasks.create_task(outcome_of(destination, within_s=0.5))
                long = tasks.create_task(outcome_of(destination, within_s=60))
        assert isinstance(short.result(), TimeoutError)
        assert isinstance(long.result(), UnavailableError)
    finally:
        embedded_kafka.come_up()


async def outcome_of(destination: KafkaDestination[Failure], *, within_s: float) -> Exception | None:
    """Try a delivery; returns its error."""
    try:
        async with asyncio.timeout(within_s):
            await destination.deliver(failure(b"two"))
    except (TimeoutError, UnavailableError) as exc:
        return exc
    return None


async def test_a_message_too_large_for_its_topic_goes_without_the_content(
    real_kafka: KafkaAdmin, destination_of: Any
) -> None:
    """The others keep theirs, and the shard is not held by a record that no retry can make smaller."""
    topic = real_kafka.new_topic(1, config={"max.message.bytes": "20000"})
    destination = destination_of(real_kafka, topic)
    await destination.deliver(failure(b"one", b"x" * 30_000, b"three"))
    found = {
        int(d["KafkaBatchInfo"]["recordInfo"]["offset"]): d["payload"]
        for d in [json.loads(m.value) for m in await read(real_kafka, topic, 3)]
    }
    assert found[1] is None
    assert found[0]["records"]["orders-0"][0]["value"] == "b25l"
    assert found[2]["records"]["orders-0"][0]["value"] == "dGhyZWU="


async def test_a_cluster_without_known_servers_is_refused() -> None:
    """There is nobody to ask, and the error says so."""
    destination = KafkaDestination("kafka://t", topic_documents(), bootstrap_servers=(), connect_options=no_options)
    with pytest.raises(RefusedError, match="bootstrap servers are not known"):
        await destination.deliver(failure(b"one"))
    await destination.close()


def test_the_partition_of_a_key_is_kafkas() -> None:
    """As with Kafka's own clients, so that records of a key stay together across producers."""
    choose = RoundRobin()
    assert [choose(b"k", [0, 1, 2], [0, 1, 2]) for _ in range(3)] == [choose(b"k", [0, 1, 2], [2])] * 3
    assert [choose(None, [0, 1, 2], [2, 0]) for _ in range(4)] == [0, 2, 0, 2]
    assert choose(None, [0, 1], []) in (0, 1)
