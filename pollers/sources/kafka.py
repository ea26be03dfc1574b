"""A Kafka topic as a source: one consumer per mapping and node, whatever the number of leased partitions.

Partitions are leased like all shards and assigned by hand, so the consumer group has no members; it only carries the
mirror of the checkpoints. Here the connection is kept: made, watched, and made anew with freshly resolved secrets when
it fails. Moving records is `kafka_dispatcher`'s business, a partition's view `kafka_reader`'s, offsets are
`kafka_offsets`'. Retries, batches and checkpoints are the pump's.

The promise: from its start on, a reader returns every record of its partition once and in order, across lost brokers,
changed assignments and new connections; except those the brokers deleted first, which are counted and logged. Records
of aborted transactions do not exist. While the brokers are away, what was read ahead can still be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiokafka.errors import KafkaError

from model.errors import EsmdError, SourceRefusedError
from model.ids import ShardId
from model.mapping import KafkaSource as KafkaTopic
from model.shard import PUT, SourceShard
from pollers.sources.kafka_client import PartitionConsumer, Seen, TopicPartition, limit_client_logging, probe
from pollers.sources.kafka_dispatcher import Dispatcher
from pollers.sources.kafka_errors import again, translate
from pollers.sources.kafka_inbox import Inbox
from pollers.sources.kafka_offsets import GroupCommits, starting_offset
from pollers.sources.kafka_places import find_place
from pollers.sources.kafka_reader import KafkaReader
from pollers.sources.kafka_security import KafkaSecurity, resolve_security
from pollers.sources.kafka_stalls import StallWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from model.ids import Position, ShardOrigin
    from model.mapping import EventSourceMapping
    from model.progress import ShardProgress
    from model.secret import SecretResolver
    from pollers.ports import Chunk
    from pollers.seeking import Found, Place
    from pollers.sources.kafka_reader import Trouble

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

PREFETCH_MAX_BYTES = 32 * 1024 * 1024
_FETCH_MAX_BYTES = 8 * 1024 * 1024
_LAST_COMMIT_S = 2.0
_PROBE_S = 3.0
_WATCH_S = 1.0
_BEGINNINGS_S = 60.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0


class KafkaSource:
    """The source of one mapping on this node. Its background work is a child of `tasks` and ends with `close`."""

    def __init__(
        self,
        mapping: EventSourceMapping,
        resolver: SecretResolver,
        *,
        tasks: asyncio.TaskGroup,
        bootstrap_servers: Sequence[str] = (),
        prefetch_max_bytes: int = PREFETCH_MAX_BYTES,
        fetch_max_wait_ms: int = 500,
        request_timeout_s: float = 10.0,
        commit_interval_s: float = 1.0,
        stall_s: float = 5.0,
        beginnings_s: float = _BEGINNINGS_S,
        count_committed: Callable[[int], None] = lambda _step: None,
    ) -> None:
        if not isinstance(mapping.source, KafkaTopic):
            raise TypeError(f"{mapping.name} is no Kafka mapping")
        limit_client_logging()
        self._mapping = mapping
        self._topic = mapping.source
        self._servers = tuple(bootstrap_servers) or mapping.source.bootstrap_servers
        self._what = f"Kafka topic {self._topic.topic} on {','.join(self._servers)}"
        self._resolver = resolver
        self._fetch_max_wait_ms = fetch_max_wait_ms
        self._hold_max_bytes = prefetch_max_bytes
        self._request_timeout_s = request_timeout_s
        self._commit_interval_s = commit_interval_s
        self._beginnings_s = beginnings_s
        self._dispatcher = Dispatcher(prefetch_max_bytes=prefetch_max_bytes, fetch_max_wait_ms=fetch_max_wait_ms)
        self._commits = GroupCommits(count_committed)
        self._stalls = StallWatch(stall_s=stall_s)
        self._log = log.bind(mapping=mapping.name, topic=self._topic.topic)
        self._consumer: PartitionConsumer | None = None
        self._trouble: Trouble | None = None
        self._changed = asyncio.Event()
        self._was_connected = False  # as last logged
        self._closed = False
        self._running = tasks.create_task(self._run(), name=f"read Kafka for {mapping.name}")

    # --- what the pollers call ---------------------------------------------------------------------------------------

    async def shards(self) -> Sequence[SourceShard]:
        """Ask the brokers for the topic's partitions."""
        found = await self._asking(PartitionConsumer.partitions)
        return [SourceShard(ShardId(f"{self._topic.topic}-{number}")) for number in sorted(found)]

    async def reader(self, shard: ShardId, start: Position | None, origin: ShardOrigin | None = None) -> KafkaReader:
        """Open a partition at its checkpoint or the group's committed offset, the larger of them, or as configured.

        Of a partition that an operator has moved the group knows nothing: what it has may be from before, or come late
        from a former holder.
        """
        partition = self._partition(shard)

        async def place(consumer: PartitionConsumer) -> tuple[int | None, int]:
            return await self._standing(consumer, partition, start, origin)

        committed, offset = await self._asking(place)
        if self._closed or partition in self._dispatcher.readers:
            raise SourceRefusedError(f"{shard}: {'the source is closed' if self._closed else 'is being read already'}")
        self._commits.opened(partition, committed, begin=offset)
        reader = KafkaReader(partition, offset, Inbox(partition, offset), self)
        self._dispatcher.add(reader)
        return reader

    async def find(self, shard: SourceShard, place: Place, before: ShardProgress) -> Found:
        """Find a place in a partition."""
        partition = self._partition(shard.id)

        async def found(consumer: PartitionConsumer) -> Found:
            _, standing = await self._standing(consumer, partition, before.position, before.origin)
            return await find_place(consumer, partition, place, standing=standing, before=before)

        return await self._asking(found)

    async def _standing(
        self, consumer: PartitionConsumer, partition: TopicPartition, start: Position | None, origin: ShardOrigin | None
    ) -> tuple[int | None, int]:
        """Return what the group has of a partition, as far as it counts, and where reading begins."""
        put = origin == PUT and start is not None
        committed: int | None = None if put else await consumer.committed(partition)
        return committed, await starting_offset(
            consumer,
            partition,
            checkpoint=None if start is None else int(start),
            committed=committed,
            position=self._mapping.starting_position,
            time=self._mapping.starting_time,
        )

    async def close(self) -> None:
        """Commit what is due if the brokers answer soon, and end the background work even if cancelled. Safe twice."""
        consumer = self._consumer
        try:
            if consumer is not None and not self._closed:
                self._closed = True
                await self._commits.flush(consumer, within_s=_LAST_COMMIT_S)
        finally:
            self._closed = True
            self._running.cancel()  # else the node would wait for it for ever
        if not self._running.done():
            await asyncio.wait([self._running])

    # --- what the readers call ---------------------------------------------------------------------------------------

    def pull(self, reader: KafkaReader, max_records: int) -> Chunk | None:
        """Remove records from the reader's inbox."""
        return self._dispatcher.pull(reader, max_records)

    def trouble(self) -> Trouble | None:
        """Return what stands between us and the brokers."""
        return SourceRefusedError(f"{self._what}: closed") if self._closed else self._trouble

    def seen(self, partition: TopicPartition) -> Seen | None:
        """Return what the brokers last said about the partition."""
        return self._consumer.seen(partition) if self._consumer is not None else None

    def finished(self, reader: KafkaReader, offset: int) -> None:
        """Commit a checkpoint with the next round."""
        self._commits.note(reader.partition, reader.mirrored(offset, self.seen(reader.partition)))

    def restarted(self, reader: KafkaReader) -> None:
        """Let commits of the partition go back to where it begins now."""
        self._commits.opened(reader.partition, None, begin=int(reader.start))

    async def give_up(self, reader: KafkaReader) -> None:
        """Stop serving the reader, and commit nothing for its partition once this returns."""
        if not self._dispatcher.remove(reader):
            return
        try:
            if self._consumer is not None:
                await self._commits.flush(self._consumer, within_s=_LAST_COMMIT_S)
        finally:
            if self._dispatcher.left(reader.partition):
                self._commits.forget(reader.partition)

    # --- the connection ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep a consumer connected until cancelled. Supervises: every failure is translated, logged once, retried."""
        failures = 0
        while True:
            try:
                await self._serve()
            except Exception as exc:  # noqa: BLE001  # the supervision point: whatever broke, a new consumer mends it
                failures = 0 if self._consumer is not None else failures
                self._consumer = None
                self._report(translate(exc, self._what), exc)
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failures)
            failures = min(failures + 1, 10)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311  # jitter, no secret

    async def _serve(self) -> None:
        """Connect, and work until something fails."""
        if not self._servers:
            raise SourceRefusedError(f"{self._what}: the cluster's bootstrap servers are not known")
        security = await resolve_security(self._topic, self._resolver)
        consumer = PartitionConsumer(
            self._topic.topic,
            bootstrap_servers=self._servers,
            group_id=self._topic.consumer_group_id,
            security=security,
            fetch_max_wait_ms=self._fetch_max_wait_ms,
            fetch_max_bytes=_FETCH_MAX_BYTES,
            hold_max_bytes=self._hold_max_bytes,
            request_timeout_s=self._request_timeout_s,
        )
        try:
            await probe(self._servers, security, timeout_s=_PROBE_S)  # raises a reason, as `start` does not
            await consumer.start()
            async with asyncio.timeout(self._request_timeout_s):
                await consumer.partitions()
            self._consumer = consumer
            self._report(None)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._dispatcher.run(consumer), name="dispatch Kafka records")
                tasks.create_task(self._commit(consumer), name="commit Kafka offsets")
                tasks.create_task(self._watch(consumer, security), name="watch Kafka")
                tasks.create_task(self._follow_beginnings(consumer), name="follow Kafka's deletions")
        finally:
            await consumer.shut()

    async def _commit(self, consumer: PartitionConsumer) -> None:
        """Commit once per interval."""
        while True:
            await asyncio.sleep(self._commit_interval_s)
            await self._commits.flush(consumer, within_s=self._request_timeout_s)

    async def _watch(self, consumer: PartitionConsumer, security: KafkaSecurity) -> None:
        """Find out why when a partition gets no answers. Not held up by a commit that gets none either."""
        while True:
            await asyncio.sleep(_WATCH_S)
            readers = list(self._dispatcher.readers.values())
            silent = self._stalls.look(readers, consumer, now=asyncio.get_running_loop().time())
            if silent:
                why = await self._diagnose(consumer, security)
                for reader in silent:
                    reader.stalled = why or translate(KafkaError("its partition has no answering leader"), self._what)
                    reader.wake()
                self._report(why)
            elif self._trouble is not None:
                self._report(None)

    async def _follow_beginnings(self, consumer: PartitionConsumer) -> None:
        """Learn now and then where partitions begin, for records that are held until the brokers have deleted them."""
        while True:
            await asyncio.sleep(self._beginnings_s)
            readers = [reader for reader in self._dispatcher.readers.values() if reader.unfinished]
            if not readers:
                continue
            # Without an answer they are simply held on to; what is wrong is `_watch`'s to find out.
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(self._request_timeout_s):
                    first = await consumer.beginning_offsets([reader.partition for reader in readers])
                for reader in readers:
                    reader.first = first[reader.partition]

    async def _diagnose(self, consumer: PartitionConsumer, security: KafkaSecurity) -> Trouble | None:
        """Find out what is wrong with the brokers. Raises what a new connection should look into."""
        try:
            await probe(self._servers, security, timeout_s=_PROBE_S)
            async with asyncio.timeout(_PROBE_S):
                await consumer.partitions()
        except (KafkaError, OSError, TimeoutError) as exc:
            why = translate(exc, self._what)
            if isinstance(why, SourceRefusedError):
                raise why from exc
            return why
        return None

    def _report(self, trouble: Trouble | None, exc: BaseException | None = None) -> None:
        """Take note of a change between connected, unavailable and refused, and wake everyone who waits for it."""
        if trouble is None and not self._was_connected:
            self._log.info("kafka.connected", servers=self._servers)
        elif trouble is not None and str(trouble) != str(self._trouble):
            level = self._log.error if isinstance(trouble, SourceRefusedError) else self._log.warning
            level("kafka.trouble", error=str(trouble), exc_info=None if _expected(exc) else exc)
        self._was_connected = trouble is None
        self._trouble = trouble
        self._changed.set()
        self._changed = asyncio.Event()
        for reader in self._dispatcher.readers.values():
            reader.wake()

    async def _asking(self, question: Callable[[PartitionConsumer], Awaitable[_T]]) -> _T:
        """Ask the connected brokers something, in bounded time and with errors translated."""
        while (consumer := self._consumer) is None:
            trouble = self.trouble()
            if trouble is not None:
                raise again(trouble) from trouble
            await self._changed.wait()
        try:
            async with asyncio.timeout(self._request_timeout_s):
                return await question(consumer)
        except (KafkaError, OSError, TimeoutError) as exc:
            raise translate(exc, self._what) from exc

    def _partition(self, shard: ShardId) -> TopicPartition:
        topic, _, number = shard.rpartition("-")
        if topic != self._topic.topic or not number.isdecimal():
            raise SourceRefusedError(f"{shard} is no partition of the topic {self._topic.topic}")
        return TopicPartition(topic, int(number))


def _expected(exc: BaseException | None) -> bool:
    """Whether an error is of a kind that brokers and networks give, and its traceback tells nothing."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_expected(inner) for inner in exc.exceptions)
    return exc is None or isinstance(exc, KafkaError | OSError | EsmdError)
