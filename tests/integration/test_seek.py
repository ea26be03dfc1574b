"""Moving a mapping that reads Kafka: a real node, the real command, the consumer group, on both brokers."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.support.mendable import Mendable, RedriveCommand, redrive
from tests.support.node_process import NodeProcess, eventually, kafka_document, url_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.elasticmq import ElasticMQ
    from tests.support.kafka_admin import KafkaAdmin
    from tests.support.kafka_fixtures import KafkaBroker


async def produce(broker: KafkaBroker, topic: str, first: int, count: int) -> None:
    """Write numbered records to partition 0."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for n in range(first, first + count):
            await producer.send_and_wait(topic, b"%d" % n, partition=0)


async def committed(broker: KafkaBroker, topic: str) -> int | None:
    """Return the group's offset of partition 0."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=f"{topic}-orders", enable_auto_commit=False
    )
    await consumer.start()
    try:
        offset: int | None = await consumer.committed(TopicPartition(topic, 0))
        return offset
    finally:
        await consumer.stop()


def numbers(function: Mendable) -> list[int]:
    """Return the records that the function took."""
    return [int(base64.b64decode(value)) for value in function.taken]


@asynccontextmanager
async def reading(
    broker: KafkaBroker, redis_url: str, folder: Path, topic: str
) -> AsyncIterator[tuple[NodeProcess, Mendable]]:
    """Run a node that has delivered the ten records of a topic."""
    await produce(broker, topic, 0, 10)
    async with Mendable().serving() as function:
        function.mend()
        document = kafka_document(
            broker.bootstrap_servers, topic, redis_url=redis_url, functions=url_target(function.url), BatchSize=5
        )
        async with NodeProcess(folder, document) as node:
            await node.start()
            await function.until(10)
            yield node, function


async def test_back_and_forth_on_a_running_mapping(kafka: KafkaBroker, redis_url: str, tmp_path: Path) -> None:
    """A position back is delivered again, and the group follows; passing over records has to be meant."""
    topic = kafka.new_topic(1)
    async with reading(kafka, redis_url, tmp_path, topic) as (node, function):
        status, told = await redrive(node, "orders", "--to", f"{topic}-0=4", command="seek")
        assert (status, told["done"], told["shards"][0]["now"]) == (0, True, "4")
        await function.until(16)
        assert numbers(function)[10:] == [4, 5, 6, 7, 8, 9]
        await node.logged("mapping.seek", to=f"{topic}-0=4")
        await node.logged("mapping.sought", mapping="orders")

        function.breaks_on = lambda _values: True
        await produce(kafka, topic, 10, 10)
        status, out, err = await RedriveCommand(node, "orders", "--to", "latest", command="seek").ended()
        assert (status, out) == (1, "")
        assert f"10 records of {topic}-0" in err
        assert "--force" in err
        status, _, err = await RedriveCommand(node, "orders", "--to", f"{topic}-0=99", command="seek").ended()
        assert (status, f"{topic}-0 has the offsets 0 to 20, not 99" in err) == (1, True)
        status, told = await redrive(node, "orders", "--to", f"{topic}-0=15", "--force", command="seek")
        assert (status, told["skipped_records"]) == (0, 5)
        function.mend()
        await function.until(21)
        assert numbers(function)[16:] == [15, 16, 17, 18, 19]

        async def followed() -> bool:
            return await committed(kafka, topic) == 20

        await eventually(followed, "the group follows")
        # Ten once, six again and five: delivered twice counts twice, and the account balances.
        ledger = (await node.mapping())["ledger"]
        assert (ledger["delivered"], ledger["balanced"]) == (21, True)
        assert (await node.mapping())["seeking"] is False


async def test_a_position_back_outlasts_the_death_of_its_holder(
    kafka: KafkaBroker, redis_url: str, tmp_path: Path
) -> None:
    """What the group has from before does not count, though the function took nothing since; it goes back as well."""
    topic = kafka.new_topic(1)
    async with reading(kafka, redis_url, tmp_path, topic) as (node, function):

        async def group(offset: int) -> None:
            async def there() -> bool:
                return await committed(kafka, topic) == offset

            await eventually(there, f"the group is at {offset}")

        await group(10)
        function.breaks_on = lambda _values: True
        status, _ = await redrive(node, "orders", "--to", "trim_horizon", command="seek")
        assert status == 0
        await group(0)
        node.kill()
        function.mend()
        async with NodeProcess(tmp_path, node.config.read_text(), name="again") as again:
            await again.start()
            await function.until(20)
            assert numbers(function)[10:] == list(range(10))


async def test_a_stopped_mapping_goes_to_a_time(real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path) -> None:
    """Brokers look the time up; a dry run moves nothing; enabled, it goes on from there."""
    topic = real_kafka.new_topic(1)
    async with reading(real_kafka, redis_url, tmp_path, topic) as (node, function):
        await asyncio.sleep(0.01)  # times have milliseconds
        since = time.time()
        await produce(real_kafka, topic, 10, 5)
        await function.until(15)
        assert (await RedriveCommand(node, "disable", "orders", command="mappings").ended())[0] == 0

        async def stopped() -> bool:
            return bool((await node.mapping())["state"] == "Disabled")

        await eventually(stopped, "it stops")
        status, told = await redrive(node, "orders", "--to", f"{since:.3f}", "--dry-run", command="seek")
        assert (status, told["done"], told["shards"][0]["was"], told["shards"][0]["now"]) == (0, False, "15", "10")
        status, told = await redrive(node, "orders", "--to", f"{since:.3f}", command="seek")
        assert (status, told["done"]) == (0, True)
        (shard,) = (await node.mapping())["shards"]
        assert (shard["checkpoint"], shard["owner"], shard["state"]) == ("10", None, "stopped")
        assert (await RedriveCommand(node, "enable", "orders", command="mappings").ended())[0] == 0
        await function.until(20)
        assert numbers(function)[15:] == [10, 11, 12, 13, 14]


async def test_a_queue_cannot_be_moved(elasticmq: ElasticMQ, redis_url: str, tmp_path: Path) -> None:
    """It has no positions; what to do instead is said."""
    from tests.support.sqs_servers import RealQueue  # noqa: PLC0415 - only this test has a queue

    queue = await asyncio.to_thread(RealQueue, elasticmq.endpoint_url)
    document = {
        "redis": {"url": redis_url},
        "leasing": {"ttl": 3},
        "aws": {"region": "us-east-1", "endpoint_url": elasticmq.endpoint_url},
        "functions": url_target("http://127.0.0.1:9/"),
        "event_source_mappings": [{"Name": "orders", "EventSourceArn": queue.arn, "FunctionName": "f"}],
    }
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    async with NodeProcess(tmp_path, document, env=keys) as node:
        await node.start()
        status, _, err = await RedriveCommand(node, "orders", "--to", "latest", command="seek").ended()
    assert status == 1
    assert "reads a queue, which has no positions" in err
