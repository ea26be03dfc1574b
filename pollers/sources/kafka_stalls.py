"""Which partitions get no answers from their brokers. aiokafka retries for ever and tells no one.

Pure but for asking the client what it saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pollers.sources.kafka_client import Seen, TopicPartition
    from pollers.sources.kafka_reader import KafkaReader


class Witness(Protocol):
    """Who knows when a partition was last answered: the consumer."""

    def seen(self, partition: TopicPartition) -> Seen | None:
        """Return what the brokers last said about the partition."""


class StallWatch:
    """Compares two looks: a partition whose reader waits, and whose last answer stays the same, is silent."""

    def __init__(self, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self._since: dict[TopicPartition, tuple[Seen | None, float]] = {}

    def look(self, readers: Iterable[KafkaReader], witness: Witness, *, now: float) -> list[KafkaReader]:
        """Return the readers that have waited too long, and clear the trouble of those that were answered."""
        silent: list[KafkaReader] = []
        since: dict[TopicPartition, tuple[Seen | None, float]] = {}
        for reader in readers:
            partition = reader.partition
            seen = witness.seen(partition)
            before = self._since.get(partition)
            # `at_ms` is the wall clock of the last answer: whether it changed matters, not what it says.
            if before is None or before[0] != seen or not reader.inbox.waiting:
                since[partition] = (seen, now)
                reader.stalled = None
            else:
                since[partition] = before
                if now - before[1] >= self._stall_s:
                    silent.append(reader)
        self._since = since
        return silent
