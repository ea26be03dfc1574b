"""Where reading a partition starts, and the mirror of checkpoints in the mapping's consumer group.

The store's checkpoint and the group's committed offset say the same thing; whichever is further on is right, so a store
that was lost or rolled back costs nothing (spec section 3.3: a committed offset also beats StartingPosition). The
mirror is lazy, one commit for all partitions, and never decides anything while the store is there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from aiokafka.errors import KafkaError

from model.mapping import StartingPosition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from pollers.sources.kafka_client import PartitionConsumer, TopicPartition

log = structlog.get_logger(__name__)

_AGAIN_S = 60.0  # how often what was committed is committed again


async def starting_offset(
    consumer: PartitionConsumer,
    partition: TopicPartition,
    *,
    checkpoint: int | None,
    committed: int | None,
    position: StartingPosition | None,
    time: datetime | None,
) -> int:
    """Return the first offset to read. LATEST and AT_TIMESTAMP become a fixed place here."""
    noted = [offset for offset in (checkpoint, committed) if offset is not None]
    if noted:
        return max(noted)
    if position is StartingPosition.AT_TIMESTAMP and time is not None:
        found = (await consumer.offsets_for_times({partition: int(time.timestamp() * 1000)}))[partition]
        if found is not None:
            return int(found.offset)
    elif position is not StartingPosition.LATEST:
        return int((await consumer.beginning_offsets([partition]))[partition])
    return int((await consumer.end_offsets([partition]))[partition])


class GroupCommits:
    """Which offsets the consumer group should have, and the one place that commits them.

    Commits of one partition go forward only, as far as this holder knows, and stop when it is forgotten. What was
    committed is committed again once a minute: brokers cannot tell a late commit of a former holder, who was paused or
    cut off, from ours, and they forget the offsets of a partition that nothing was committed for in a week.
    """

    def __init__(self, count: Callable[[int], None] = lambda _step: None) -> None:
        self._count = count  # told by how many offsets each commit moves on (the metric CommittedEventCount)
        self._wanted: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._counted_to: dict[TopicPartition, int] = {}
        self._committing = asyncio.Lock()
        self._failure: str | None = None
        self._again_at = asyncio.get_running_loop().time() + _AGAIN_S

    def opened(self, partition: TopicPartition, committed: int | None, *, begin: int) -> None:
        """Begin with what the group has. Without that, commits count from where reading begins."""
        self.forget(partition)
        self._counted_to[partition] = begin if committed is None else committed
        if committed is not None:
            self._committed[partition] = committed

    def note(self, partition: TopicPartition, offset: int) -> None:
        """Remember what to commit."""
        if offset > max(self._committed.get(partition, -1), self._wanted.get(partition, -1)):
            self._wanted[partition] = offset

    def forget(self, partition: TopicPartition) -> None:
        """Commit nothing more for a partition that is given up."""
        self._wanted.pop(partition, None)
        self._committed.pop(partition, None)
        self._counted_to.pop(partition, None)

    def due(self, partitions: Collection[TopicPartition], *, again: bool = False) -> dict[TopicPartition, int]:
        """Return what is to be committed among these partitions; `again`: with what was committed before."""
        offsets = self._committed | self._wanted if again else self._wanted
        return {partition: offset for partition, offset in offsets.items() if partition in partitions}

    async def flush(self, consumer: PartitionConsumer, *, within_s: float) -> bool:
        """Commit everything that is due, in one request. Never raises but when cancelled; failures stay due."""
        now = asyncio.get_running_loop().time()
        again = now >= self._again_at
        try:
            async with asyncio.timeout(within_s), self._committing:
                # Looked up under the lock: an older flush cannot follow.
                offsets = self.due(consumer.assignment(), again=again)
                if offsets:
                    await consumer.commit(offsets)
        except (KafkaError, OSError, TimeoutError) as exc:
            self._failed(str(exc) or type(exc).__name__)
            return False
        if again:
            self._again_at = now + _AGAIN_S
        if offsets and self._failure is not None:
            self._failure = None
            log.info("kafka.commit_restored")
        for partition, offset in offsets.items():
            if partition not in self._wanted:
                continue  # committed again, or given up meanwhile
            self._committed[partition] = offset
            self._count(max(0, offset - self._counted_to[partition]))  # less: after a move, or before parked records
            self._counted_to[partition] = offset
            if self._wanted[partition] == offset:
                del self._wanted[partition]
        return True

    def _failed(self, why: str) -> None:
        if why != self._failure:
            self._failure = why
            log.warning("kafka.commit_failed", error=why)
