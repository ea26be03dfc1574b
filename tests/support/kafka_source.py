"""What tests of the Kafka source share: a mapping, a source that ends with its block, and producing by hand."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer

from model.ids import MappingId, ShardId
from model.mapping import EventSourceMapping, KafkaSource, SourceAccess, StartingPosition
from node.embedded_kafka import FETCH_MAX_WAIT_MS
from pollers.sources import kafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from datetime import datetime

    from model.secret import SecretText
    from pollers.ports import ShardReader


class Secrets:
    """A resolver that knows templates by heart."""

    def __init__(self, **known: str) -> None:
        self.known = known

    async def resolve(self, text: SecretText) -> str:
        """Return the text whose reference's name is known."""
        return self.known[text.references()[0][1]]


def kafka_mapping(
    servers: str,
    topic: str,
    *,
    group: str = "group",
    position: StartingPosition | None = StartingPosition.TRIM_HORIZON,
    time: datetime | None = None,
    access: Sequence[SourceAccess] = (),
) -> EventSourceMapping:
    """Make a mapping of a self-managed topic."""
    return EventSourceMapping(
        id=MappingId("00000000-0000-4000-8000-000000000000"),
        name="orders",
        function_name="f",
        source=KafkaSource(
            topic=topic, consumer_group_id=group, bootstrap_servers=tuple(servers.split(",")), access=tuple(access)
        ),
        starting_position=position,
        starting_time=time,
    )


@contextlib.asynccontextmanager
async def kafka_source(
    mapping: EventSourceMapping, secrets: Secrets | None = None, **options: Any
) -> AsyncIterator[kafka.KafkaSource]:
    """Run a source for the length of the block."""
    options.setdefault("fetch_max_wait_ms", FETCH_MAX_WAIT_MS)
    async with asyncio.TaskGroup() as tasks:
        source = kafka.KafkaSource(mapping, secrets or Secrets(), tasks=tasks, **options)
        try:
            yield source
        finally:
            await source.close()


async def produce(servers: str, topic: str, partition: int, values: Iterable[bytes | None], **record: Any) -> None:
    """Append records to a partition and wait until the broker has them."""
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=5, max_request_size=8 * 2**20) as producer:
        # aiokafka sends no record without both key and value.
        keyed = [(value, record if value is not None else {"key": b"", **record}) for value in values]
        sent = [await producer.send(topic, value, partition=partition, **more) for value, more in keyed]
        for acknowledged in sent:
            await acknowledged


async def read_values(reader: ShardReader, count: int, *, at_once: int = 500) -> list[bytes | None]:
    """Read that many records and return their values, checking that positions and records agree."""
    values: list[bytes | None] = []
    while len(values) < count:
        chunk = await reader.read(min(at_once, count - len(values)))
        assert chunk is not None
        assert chunk.positions == [raw.offset for raw in chunk.raws]
        assert 0 < len(chunk.raws) <= at_once
        values += [raw.value for raw in chunk.raws]
    return values


def shard(topic: str, partition: int) -> ShardId:
    """Name a partition as a shard."""
    return ShardId(f"{topic}-{partition}")
