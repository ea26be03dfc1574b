"""Kafka inside the event loop: brokers with one topic, a node's way to them, and the consumer the product uses.

The consumer stands in for `pollers.sources.kafka_client.PartitionConsumer` and keeps its contract, so that everything
above it is the product's own (`tests/conformance/test_partition_consumer.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError, UnknownError

from pollers.sources import kafka
from pollers.sources.kafka_client import Seen
from pollers.sources.kafka_fetcher import KafkaRecord
from tests.support.virtual_loop import OUTSIDE, true_time
from tests.support.wire import NoAnswerError, RefusedByWireError, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from random import Random

    from aiokafka import TopicPartition

_T = TypeVar("_T")

KAFKA = "kafka"
BROKERS: ContextVar[BrokersWay] = ContextVar("this node's way to the brokers")
_AGAIN_S = 0.2  # the client's `retry_backoff_ms`
_EPOCH_MS = 1_767_225_600_000


class SimulatedTopic:
    """The brokers, with one topic. `fails` of their answers are errors."""

    def __init__(self, name: str, random: Random, *, partitions: int) -> None:
        self.name = name
        self.fails = 0.0
        self.logs: list[list[KafkaRecord]] = [[] for _ in range(partitions)]
        self.committed: dict[int, int] = {}  # by the one consumer group
        self.on_commit: Callable[[int, int], None] = lambda _partition, _offset: None
        self._random = random
        self._polls: list[tuple[float, dict[int, int], Callable[[dict[int, _Part]], None]]] = []

    def append(self, partition: int, key: bytes, value: bytes) -> int:
        """Write a record; return its offset."""
        log = self.logs[partition]
        at_ms = _EPOCH_MS + int(true_time() * 1000)
        log.append(KafkaRecord(self.name, partition, len(log), at_ms, 0, key, value, ()))
        self._look()
        return len(log) - 1

    def answer(self, what: Callable[[], _T], answer: Callable[[_T], None]) -> None:
        """Answer at once, or fail."""
        if self._random.random() < self.fails:
            raise UnknownError("by seed")
        answer(what())

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Note what the group says."""
        for partition, offset in offsets.items():
            self.on_commit(partition, offset)
            self.committed[partition] = offset

    def fetch(self, places: dict[int, int], wait_s: float, answer: Callable[[dict[int, _Part]], None]) -> None:
        """Answer when there is something to read, or the time is over."""
        if self._random.random() < self.fails:
            raise UnknownError("by seed")
        loop = asyncio.get_running_loop()
        self._polls.append((loop.time() + wait_s, places, answer))
        loop.call_later(wait_s, self._look, context=OUTSIDE)
        self._look()

    def _look(self) -> None:
        now = true_time()
        waiting = []
        for poll in self._polls:
            until, places, answer = poll
            if now >= until or any(at < len(self.logs[partition]) for partition, at in places.items()):
                answer(
                    {
                        partition: _Part(at, len(self.logs[partition]), deque(self.logs[partition][at:]))
                        for partition, at in places.items()
                    }
                )
            else:
                waiting.append(poll)
        self._polls = waiting


@dataclass(slots=True)
class _Part:
    """What was fetched of a partition, and not taken."""

    position: int
    highwater: int | None = None
    records: deque[KafkaRecord] = field(default_factory=deque)
    at_ms: int | None = None
    paused: bool = False


class BrokersWay(Wire):
    """One node's way to the brokers."""

    def __init__(self, topic: SimulatedTopic) -> None:
        super().__init__()
        self.topic = topic

    async def ask(self, name: str, what: Callable[[], _T], *, timeout_s: float) -> _T:
        """Have something done there. Raises as aiokafka does."""
        return await self._carry(name, lambda answer: self.topic.answer(what, answer), timeout_s)

    async def fetch(self, places: dict[int, int], wait_s: float, *, timeout_s: float) -> dict[int, _Part]:
        """Poll for records. Raises as aiokafka does."""
        return await self._carry("fetch", lambda answer: self.topic.fetch(places, wait_s, answer), timeout_s)

    async def _carry(self, name: str, serve: Callable[[Callable[[_T], None]], None], timeout_s: float) -> _T:
        try:
            return await self.carry(name, serve, timeout_s=timeout_s)
        except RefusedByWireError as exc:
            raise KafkaConnectionError(str(exc)) from exc
        except NoAnswerError as exc:
            raise RequestTimedOutError(str(exc)) from exc


class SimulatedConsumer:
    """One connection's consumer. It finds its way to the brokers in `BROKERS`."""

    def __init__(self, topic: str, *, fetch_max_wait_ms: int, request_timeout_s: float, **_more: Any) -> None:
        self._name = topic
        self._way = BROKERS.get()
        self._topic = self._way.topic
        self._timeout_s = request_timeout_s
        self._wait_ms = fetch_max_wait_ms
        self._parts: dict[TopicPartition, _Part] = {}
        self._changed = asyncio.Event()  # there may be something to fetch
        self._waiter: asyncio.Future[None] | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `PartitionConsumer`, as the others below."""
        await self.partitions()
        self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    async def partitions(self) -> set[int]:
        """Ask which there are."""
        return await self._ask("metadata", lambda: set(range(len(self._topic.logs))))

    async def committed(self, partition: TopicPartition) -> int | None:
        """Ask the group."""
        return await self._ask("committed", lambda: self._topic.committed.get(partition.partition))

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group."""
        told = {partition.partition: offset for partition, offset in offsets.items()}
        await self._ask("commit", lambda: self._topic.commit(told))

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask where logs begin: at 0."""
        return await self._ask("offsets", lambda: dict.fromkeys(partitions, 0))

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask where they end."""
        return await self._ask("offsets", lambda: {one: len(self._topic.logs[one.partition]) for one in partitions})

    async def _ask(self, name: str, what: Callable[[], _T]) -> _T:
        return await self._way.ask(name, what, timeout_s=self._timeout_s)

    def assignment(self) -> set[TopicPartition]:
        """Return what is assigned."""
        return set(self._parts)

    def pause(self, *partitions: TopicPartition) -> None:
        """Fetch no more of these."""
        for partition in partitions:
            self._parts[partition].paused = True

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go elsewhere; what was fetched there is thrown away."""
        self._parts[partition] = _Part(offset)
        self._changed.set()

    def move(self, places: Mapping[TopicPartition, int]) -> None:
        """Replace the assignment; what was fetched is thrown away."""
        self._parts = {partition: _Part(offset) for partition, offset in places.items()}
        self._changed.set()

    def longest_wait(self, wait_ms: int) -> None:
        """Set it for the fetches to come."""
        self._wait_ms = wait_ms

    async def take(self, wanted: Collection[TopicPartition], max_records: int) -> dict[TopicPartition, list[Any]]:
        """Take what was fetched."""
        taken: dict[TopicPartition, list[Any]] = {}
        left = max_records
        for partition, part in self._parts.items():
            count = min(left, len(part.records))
            if partition in wanted and count and not part.paused:
                taken[partition] = [part.records.popleft() for _ in range(count)]
                part.position += count
                left -= count
                self._changed.set()
        return taken

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done with the next arrival."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def seen(self, partition: TopicPartition) -> Seen | None:
        """Return what the last answer said."""
        part = self._parts.get(partition)
        return None if part is None else Seen(part.position, part.highwater, part.at_ms)

    async def shut(self) -> None:
        """End."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        """Keep one fetch under way for all that has none in hand, for ever: nobody is told when it fails."""
        while True:
            asked = {one: part for one, part in self._parts.items() if not part.records and not part.paused}
            if not asked:
                self._changed.clear()
                await self._changed.wait()
                continue
            places = {one.partition: part.position for one, part in asked.items()}
            try:
                found = await self._way.fetch(places, self._wait_ms / 1000, timeout_s=self._timeout_s)
            except KafkaError:
                await asyncio.sleep(_AGAIN_S)
                continue
            for one, part in asked.items():
                if self._parts.get(one) is part:  # else it was moved meanwhile
                    answer = found[one.partition]
                    part.highwater, part.records = answer.highwater, answer.records
                    part.at_ms = int(asyncio.get_running_loop().time() * 1000)
            if any(part.records for part in asked.values()) and self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)


async def _probe(_servers: object, _security: object, *, timeout_s: float) -> None:
    await BROKERS.get().ask("probe", lambda: None, timeout_s=timeout_s)


@contextmanager
def simulated_brokers(random: Random) -> Iterator[None]:
    """Have sources use `SimulatedConsumer` for the length of the block, and draw their pauses from `random`."""
    with (
        patch.object(kafka, "PartitionConsumer", SimulatedConsumer),
        patch.object(kafka, "probe", _probe),
        patch.object(kafka, "random", random),
    ):
        yield
