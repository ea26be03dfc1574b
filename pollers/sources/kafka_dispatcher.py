"""The one loop that moves records from a mapping's consumer into the inboxes of its partitions.

All partitions share it, so that thousands of them cost no task each. It owns the assignment: readers come and go at
any time, and the loop moves the consumer to what they need in one step, between two takes. It outlives consumers: a
new one is moved to where the inboxes are, so nothing is skipped and nothing is given out twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from pollers.sources.kafka_inbox import Prefetch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pollers.ports import Chunk
    from pollers.sources.kafka_client import PartitionConsumer, TopicPartition
    from pollers.sources.kafka_reader import KafkaReader

log = structlog.get_logger(__name__)

_MAX_TAKE = 1000  # records decoded in one go: about a millisecond of the event loop
_TAKE_BYTES = 1024 * 1024  # decoded in one go, as far as the size of records can be foreseen
_FIRST_TAKE = 16  # records, when nothing is known of their size
_IDLE_S = 1.0  # how long to wait before looking at the client's health again
_SHORT_WAIT_MS = 20  # see `_set_wait`
_SETTLED_S = 2.0
_LOOKUP_S = 5.0


class Dispatcher:
    """Readers, their inboxes, and the loop that fills them from whichever consumer is connected."""

    def __init__(self, *, prefetch_max_bytes: int, fetch_max_wait_ms: int) -> None:
        self.readers: dict[TopicPartition, KafkaReader] = {}
        self.prefetch = Prefetch(max_bytes=prefetch_max_bytes, partition_max_bytes=max(1, prefetch_max_bytes // 8))
        self._leaving: dict[TopicPartition, int] = {}  # given up, still assigned so that they can be committed
        self._wait_ms = fetch_max_wait_ms
        self._moved_at = float("-inf")  # event-loop time
        self._moved = False  # somebody reads from a place the consumer is not at
        self._departed = False
        self._at_once = _FIRST_TAKE  # compressed records take far more memory than what was fetched
        self._waiter: asyncio.Future[None] | None = None

    def add(self, reader: KafkaReader) -> None:
        """Serve a reader from its inbox's place on."""
        self.readers[reader.partition] = reader
        self._leaving.pop(reader.partition, None)
        self.prefetch.add(reader.inbox)
        self._moved = True
        self._kick()

    def remove(self, reader: KafkaReader) -> bool:
        """Stop serving a reader, but keep its partition assigned until `left`. False: it was not served."""
        if self.readers.get(reader.partition) is not reader:
            return False
        del self.readers[reader.partition]
        self._leaving[reader.partition] = reader.inbox.expected
        self.prefetch.remove(reader.inbox)
        self._departed = True
        self._kick()
        return True

    def left(self, partition: TopicPartition) -> bool:
        """Let the partition go. False: someone reads it again."""
        self._leaving.pop(partition, None)
        return partition not in self.readers

    def pull(self, reader: KafkaReader, max_records: int) -> Chunk | None:
        """Give the reader what its inbox holds; see that the loop goes on when that made room."""
        before = len(self.prefetch.wanted)
        chunk = self.prefetch.take(reader.inbox, max_records)
        if len(self.prefetch.wanted) != before:
            self._kick()
        return chunk

    async def run(self, consumer: PartitionConsumer) -> None:
        """Fill the inboxes until the consumer fails; raises its error."""
        self._moved = True
        while True:
            if self._moved or self._departed:
                self._apply(consumer)
            if not consumer.assignment():
                await self._wait(asyncio.get_running_loop().create_future())
                continue
            self._set_wait(consumer)
            try:
                taken = await consumer.take(self.prefetch.wanted, self._at_once)
            except OffsetOutOfRangeError as exc:
                await self._back_in_range(consumer, exc.args[0])
                continue
            if not taken:
                # There must be no await between `take` and `arrival`, or an arrival could be missed.
                await self._wait(consumer.arrival())
                continue
            count = size = 0
            for partition, raws in taken.items():
                reader = self.readers.get(partition)
                if reader is not None:
                    count += len(raws)
                    size += self.prefetch.put(reader.inbox, raws)
                    reader.wake()
            if size:
                self._at_once = max(1, min(_MAX_TAKE, 4 * self._at_once, _TAKE_BYTES * count // size))
            await asyncio.sleep(0)  # let those who got something work

    def _kick(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = waiter
        try:
            await asyncio.wait([waiter], timeout=_IDLE_S)
            if waiter.done():
                waiter.result()  # the client may have put an error there
        finally:
            self._waiter = None
            waiter.cancel()

    def _apply(self, consumer: PartitionConsumer) -> None:
        """Move the consumer to the partitions and places that are needed now."""
        if self._moved and self.readers:
            self._moved_at = asyncio.get_running_loop().time()
            places = {partition: reader.inbox.expected for partition, reader in self.readers.items()}
            consumer.move({**self._leaving, **places})
        # Departures alone need no move, which would throw away what the client has fetched for the others.
        consumer.pause(*(consumer.assignment() - self.readers.keys()))
        self._moved = self._departed = False

    def _set_wait(self, consumer: PartitionConsumer) -> None:
        """Keep the brokers from holding back an answer for long while something else would have to wait for it.

        The client has one fetch per broker under way, and a broker answers a connection's requests in their order. A
        partition that makes room is not part of the fetch under way and has to wait until the idle ones' long poll has
        ended; so have look-ups of offsets for partitions being opened, which come many in a row after a move.
        """
        settled = asyncio.get_running_loop().time() > self._moved_at + _SETTLED_S
        patient = settled and self.prefetch.everyone_wanted()
        consumer.longest_wait(self._wait_ms if patient else min(self._wait_ms, _SHORT_WAIT_MS))

    async def _back_in_range(self, consumer: PartitionConsumer, places: Mapping[TopicPartition, int]) -> None:
        """Go on at the earliest record where the brokers do not have the place asked for; never at the latest."""
        try:
            async with asyncio.timeout(_LOOKUP_S):
                first = await consumer.beginning_offsets(list(places))
                end = await consumer.end_offsets(list(places))
        except (KafkaError, TimeoutError):
            return  # the client asks again, gets the same answer, and we are back here
        if self._moved:
            return  # same
        for partition, at in places.items():
            reader = self.readers.get(partition)
            if reader is None:
                continue
            if first[partition] <= at <= end[partition]:
                consumer.seek(partition, at)
                continue
            begin = first[partition]
            where = {"partition": f"{partition.topic}-{partition.partition}", "offset": at, "earliest": begin}
            if at < begin:
                reader.lost += begin - at
                reader.inbox.expected = begin
                log.error("kafka.records_lost", records=begin - at, why="deleted before they were read", **where)
            else:
                # Recreated or truncated: records in the inbox are of the former log, and were never polled.
                self.prefetch.clear(reader.inbox, begin)
                reader.begin_again(begin)
                log.warning(
                    "kafka.partition_restarted", why="the place lies beyond its end", end=end[partition], **where
                )
            consumer.seek(partition, begin)
