"""Failure documents in a Kafka topic, and records of the source's topic read again.

How far a redrive got is committed under a consumer group of its own, `esmd-redrive-MAPPING`, which has no members:
`marks` says in which form. Reading ends where the topic ended when the redrive began.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka.errors import KafkaError

from model.errors import SourceRefusedError, SourceUnavailableError
from model.ids import ShardId
from model.record import NO_RECORDS, Places, pick
from pollers.redriving.archive import Found, Reread
from pollers.redriving.marks import Marks
from pollers.redriving.ranges import NOTHING, Piece
from pollers.sources.kafka_client import PartitionConsumer, TopicPartition, limit_client_logging, probe
from pollers.sources.kafka_errors import translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from model.ids import MappingId
    from model.record import Records
    from pollers.ports import Envelope, Filter
    from pollers.redriving.documents import Span
    from pollers.redriving.ranges import Limits
    from pollers.sources.kafka_security import KafkaSecurity

log = structlog.get_logger(__name__)

_CALL_S = 10.0
_CLOSE_S = 5.0
_POLL_MS = 1000
_SILENT = 15  # polls in a row without anything, although there should be something
_MESSAGES = 200  # of one `read`
_FETCH_WAIT_MS = 100  # what is read is there already: nobody waits for more
_FETCH_BYTES = 8 * 1024 * 1024


def group_of(mapping: MappingId) -> str:
    """Return the consumer group that a mapping's redrives commit under."""
    return f"esmd-redrive-{mapping}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAccess:
    """How to get at a cluster. `security` resolves its secrets anew for every connection."""

    servers: Sequence[str]
    group: str
    security: Callable[[], Awaitable[KafkaSecurity]]

    async def open(self, topic: str) -> PartitionConsumer:
        """Connect. Raises `SourceUnavailableError` and `SourceRefusedError`."""
        limit_client_logging()
        what = f"Kafka topic {topic} on {','.join(self.servers)}"
        if not self.servers:
            raise SourceRefusedError(f"{what}: the cluster's bootstrap servers are not known")
        consumer: PartitionConsumer | None = None
        try:
            security = await self.security()
            consumer = PartitionConsumer(
                topic,
                bootstrap_servers=self.servers,
                group_id=self.group,
                security=security,
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                fetch_max_bytes=_FETCH_BYTES,
                hold_max_bytes=_FETCH_BYTES,
                request_timeout_s=_CALL_S,
            )
            async with asyncio.timeout(_CALL_S):
                await probe(self.servers, security, timeout_s=_CALL_S)
                await consumer.start()
                await consumer.partitions()
        except BaseException as exc:
            if consumer is not None:
                await consumer.shut()
            if isinstance(exc, KafkaError | OSError | TimeoutError):
                raise translate(exc, what) from exc
            raise
        return consumer


class _Topic:
    """One topic being read: connects when first needed, and anew after every failure."""

    def __init__(self, access: KafkaAccess, topic: str) -> None:
        self.name = topic
        self._access = access
        self._consumer: PartitionConsumer | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[PartitionConsumer, bool]]:
        """Yield a consumer, and whether it is a new one; its errors are translated, and end it."""
        new = self._consumer is None
        consumer = self._consumer or await self._access.open(self.name)
        self._consumer = consumer
        try:
            yield consumer, new
        except BaseException as exc:
            self._consumer = None
            await consumer.shut()
            if isinstance(exc, KafkaError | OSError | TimeoutError):
                raise translate(exc, f"Kafka topic {self.name}") from exc
            raise

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.shut()


class KafkaArchive:
    """`pollers.redriving.archive.Archive`. `commits` False: only looks."""

    def __init__(self, access: KafkaAccess, topic: str, *, commits: bool = True) -> None:
        self._topic = _Topic(access, topic)
        self._commits = commits
        self._marks: dict[TopicPartition, Marks] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._reached: dict[TopicPartition, int] = {}  # where to read on
        self._uncommitted: set[TopicPartition] = set()
        self._silent = 0

    def __str__(self) -> str:
        return f"Kafka topic {self._topic.name}"

    async def count(self) -> int | None:
        """Count the messages that are not done, up to the topic's present end."""
        async with self._topic.connected() as (consumer, new):
            await self._place(consumer, new=new)
        return sum(marks.to_do(self._ends[partition]) for partition, marks in self._marks.items())

    async def read(self) -> list[Found] | None:
        """Return the next messages that are not done."""
        async with self._topic.connected() as (consumer, new):
            await self._place(consumer, new=new)
            left = [partition for partition, end in self._ends.items() if self._reached[partition] < end]
            if not left:
                return None
            fetched = await consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=_MESSAGES)
            reached = {partition: await consumer.position(partition) for partition in left}
        # No await from here on: what was fetched is not lost sight of.
        self._silent = self._silent + 1 if reached.items() <= self._reached.items() else 0
        self._reached |= reached
        if self._silent >= _SILENT:
            self._silent = 0
            raise SourceUnavailableError(f"{self}: its brokers give no messages")
        messages = [message for _, some in sorted(fetched.items()) for message in some]
        return [found for message in messages if (found := self._found(message)) is not None]

    def _found(self, message: Any) -> Found | None:
        partition = TopicPartition(message.topic, message.partition)
        if message.offset >= self._ends[partition] or not self._marks[partition].take(message.offset):
            return None
        name = f"{message.topic}-{message.partition}@{message.offset}"
        return Found(name, message.value or b"", (partition, message.offset))

    async def remove(self, found: Sequence[Found]) -> None:
        """Commit that messages are done."""
        self._done(found)
        await self._commit()

    def keep(self, found: Sequence[Found], *, foreign: bool = False) -> None:
        """Leave messages open; what is not this mapping's is done for its group, with the next commit."""
        if foreign:
            self._done(found)

    async def watch(self) -> None:
        """Return: a group without members needs no heartbeat."""

    async def close(self) -> None:
        """Commit what is left to commit, if the brokers answer soon."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._commit()
        except (SourceRefusedError, SourceUnavailableError, TimeoutError) as exc:
            log.info("redrive.not_committed", topic=self._topic.name, error=str(exc))
        await self._topic.close()

    def _done(self, found: Sequence[Found]) -> None:
        for one in found:
            partition, offset = one.handle
            self._marks[partition].done(offset)
            self._uncommitted.add(partition)

    async def _commit(self) -> None:
        if not self._uncommitted or not self._commits:
            return
        async with self._topic.connected() as (consumer, new):
            await self._place(consumer, new=new)
            partitions = set(self._uncommitted)
            async with asyncio.timeout(_CALL_S):
                await consumer.commit({partition: self._marks[partition].commit() for partition in partitions})
        self._uncommitted -= partitions

    async def _place(self, consumer: PartitionConsumer, *, new: bool) -> None:
        """Have a new consumer read on from where this redrive is, or where the one before it ended."""
        if not new:
            return
        async with asyncio.timeout(_CALL_S):
            partitions = [TopicPartition(self._topic.name, number) for number in await consumer.partitions()]
            if not self._reached:
                begins = await consumer.beginning_offsets(partitions)
                self._ends = await consumer.end_offsets(partitions)
                for partition in partitions:
                    committed = await consumer.noted(partition)
                    self._marks[partition] = Marks(committed, begin=begins[partition], end=self._ends[partition])
                self._reached = {partition: marks.first for partition, marks in self._marks.items()}
        consumer.move(self._reached)


class KafkaRereading:
    """`pollers.redriving.archive.Rereading` of the source's topic."""

    def __init__(self, access: KafkaAccess, topic: str, envelope: Envelope, keep: Filter | None) -> None:
        self._topic = _Topic(access, topic)
        self._envelope = envelope
        self._filter = keep

    async def read(self, span: Span) -> Reread:
        """Read a range of offsets of one partition."""
        partition = TopicPartition(self._topic.name, int(span.shard.rpartition("-")[2]))
        raws: list[Any] = []
        async with self._topic.connected() as (consumer, _), asyncio.timeout(6 * _CALL_S):
            begin = (await consumer.beginning_offsets([partition]))[partition]
            end = (await consumer.end_offsets([partition]))[partition]
            position, until = max(begin, span.first), min(end, span.last + 1)
            consumer.move({partition: position})
            while position < until:
                fetched = await consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=_MESSAGES)
                raws += [raw for raw in fetched.get(partition, ()) if raw.offset < until]
                position = await consumer.position(partition)
        whole = bool(raws) and (raws[0].offset, raws[-1].offset) == (span.first, span.last)
        return Reread(encoded(self._envelope, self._filter, span.shard, raws)[0], whole)

    async def close(self) -> None:
        """Disconnect."""
        await self._topic.close()


class KafkaRange:
    """`pollers.redriving.ranges.RangeReader` of partitions, one after the other. Times are epoch milliseconds."""

    def __init__(
        self,
        access: KafkaAccess,
        topic: str,
        envelope: Envelope,
        keep: Filter | None,
        partitions: Sequence[Limits],
        *,
        from_ms: int,
        to_ms: int,
    ) -> None:
        self._topic = _Topic(access, topic)
        self._envelope = envelope
        self._filter = keep
        self._limits = list(partitions)
        self._from_ms = from_ms
        self._to_ms = to_ms
        self._bounds: dict[TopicPartition, tuple[int, int]] = {}
        self._reached: dict[TopicPartition, int] = {}
        self._silent = 0

    async def total(self) -> tuple[int, str]:
        """Count the offsets in the range."""
        async with self._topic.connected() as (consumer, _), asyncio.timeout(_CALL_S):
            await self._find(consumer)
        return sum(max(0, end - first) for first, end in self._bounds.values()), "records"

    def done(self) -> int:
        """Count the offsets gone through."""
        return sum(self._reached[partition] - first for partition, (first, _) in self._bounds.items())

    async def read(self, most: int) -> Piece | None:
        """Read on in the first partition that is not done."""
        async with self._topic.connected() as (consumer, new):
            if not self._bounds:
                async with asyncio.timeout(_CALL_S):
                    await self._find(consumer)
            left = [partition for partition, (_, end) in self._bounds.items() if self._reached[partition] < end]
            if not left:
                return None
            partition, (_, end) = left[0], self._bounds[left[0]]
            if new or partition not in consumer.assignment():
                consumer.move({partition: self._reached[partition]})
            fetched = await consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=most)
            reached = await consumer.position(partition)
        # No await from here on: what was fetched is not lost sight of.
        self._silent = self._silent + 1 if reached <= self._reached[partition] else 0
        self._reached[partition] = min(reached, end)
        if self._silent >= _SILENT:
            self._silent = 0
            raise SourceUnavailableError(f"{partition.topic}-{partition.partition}: its brokers give no messages")
        raws = [raw for raw in fetched.get(partition, ()) if raw.offset < end]
        shard = ShardId(f"{partition.topic}-{partition.partition}")
        records, filtered = encoded(self._envelope, self._filter, shard, raws)
        return Piece(shard, records, filtered)

    async def _find(self, consumer: PartitionConsumer) -> None:
        """Look up the range once: where it ends does not move while it is replayed."""
        limits = {TopicPartition(self._topic.name, int(one.shard.rpartition("-")[2])): one for one in self._limits}
        ends = await consumer.end_offsets(list(limits))
        begins = await consumer.offsets_for_times(dict.fromkeys(limits, self._from_ms))
        behinds = await consumer.offsets_for_times(dict.fromkeys(limits, self._to_ms))
        for partition, (_, until) in limits.items():
            first, behind = (
                int(ends[partition] if places[partition] is None else places[partition].offset)
                for places in (begins, behinds)
            )
            capped = behind if until is None else 0 if until == NOTHING else min(behind, int(until))
            self._bounds[partition] = (first, max(first, capped))
            self._reached[partition] = first

    async def close(self) -> None:
        """Disconnect."""
        await self._topic.close()


def encoded(envelope: Envelope, keep: Filter | None, shard: ShardId, raws: Sequence[Any]) -> tuple[Records, int]:
    """Return records as their mapping makes them, and how many of them it filters out."""
    filtered = 0
    if keep is not None and raws:
        chosen = keep.keep(raws)
        filtered = chosen.count(False)
        raws = pick(raws, chosen)
    return (envelope.encode(shard, raws, Places([raw.offset for raw in raws])) if raws else NO_RECORDS), filtered
