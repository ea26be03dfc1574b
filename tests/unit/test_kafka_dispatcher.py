"""The dispatching loop over a consumer that is a dictionary of logs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from model.errors import SourceRestartedError, SourceUnavailableError
from pollers.sources.kafka_client import Seen
from pollers.sources.kafka_dispatcher import Dispatcher
from pollers.sources.kafka_inbox import Inbox
from pollers.sources.kafka_reader import KafkaReader
from pollers.sources.kafka_stalls import StallWatch
from tests.unit.test_kafka_envelope import raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from pollers.ports import Chunk
    from pollers.sources.kafka_client import PartitionConsumer

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class FakeConsumer:
    """Partitions as lists of offsets from `first` on; keeps the contract of `PartitionConsumer`."""

    def __init__(self, **ends: int) -> None:
        self.logs = {A: [0, ends.get("a", 0)], B: [0, ends.get("b", 0)]}
        self.positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.moves: list[dict[TopicPartition, int]] = []
        self.wait_ms = 0
        self.value = b"v"
        self.asked: list[int] = []  # how many records each take was for
        self.failure: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None

    def assignment(self) -> set[TopicPartition]:
        """Return what is assigned."""
        return set(self.positions)

    def pause(self, *partitions: TopicPartition) -> None:
        """Take no more of these."""
        self.paused |= set(partitions)

    def move(self, places: Mapping[TopicPartition, int]) -> None:
        """Replace everything."""
        self.moves.append(dict(places))
        self.positions, self.paused = dict(places), set()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Change one place."""
        self.positions[partition] = offset
        self.arrive()

    def longest_wait(self, wait_ms: int) -> None:
        """Note the long poll."""
        self.wait_ms = wait_ms

    def seen(self, partition: TopicPartition) -> Seen | None:
        """Say what the brokers said."""
        return Seen(self.positions.get(partition), self.logs[partition][1], 1)

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Look up the starts."""
        await asyncio.sleep(0)
        return {partition: self.logs[partition][0] for partition in partitions}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Look up the ends."""
        await asyncio.sleep(0)
        return {partition: self.logs[partition][1] for partition in partitions}

    async def take(self, wanted: Collection[TopicPartition], max_records: int) -> dict[TopicPartition, list[Any]]:
        """Take what is wanted."""
        if self.failure is not None:
            raise self.failure
        taken: dict[TopicPartition, list[Any]] = {}
        self.asked.append(max_records)
        for partition, at in self.positions.items():
            first, end = self.logs[partition]
            if partition in wanted and partition not in self.paused:
                if not first <= at <= end:
                    raise OffsetOutOfRangeError({partition: at})
                if upto := min(end, at + max_records) - at:
                    taken[partition] = [
                        raw(offset, partition=partition.partition, value=self.value) for offset in range(at, at + upto)
                    ]
        for partition, raws in taken.items():
            self.positions[partition] = raws[-1].offset + 1
        return taken

    def arrival(self) -> asyncio.Future[None]:
        """Return what `arrive` completes."""
        self._arrival = asyncio.get_running_loop().create_future()
        return self._arrival

    def arrive(self) -> None:
        """Announce that something may be taken."""
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def append(self, partition: TopicPartition, count: int) -> None:
        """Let records arrive."""
        self.logs[partition][1] += count
        self.arrive()


class FakeFeed:
    """The reader's side of the source, without a source."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.begun_again: list[KafkaReader] = []

    def pull(self, reader: KafkaReader, max_records: int) -> Chunk | None:
        """Take from the inbox."""
        return self.dispatcher.pull(reader, max_records)

    def trouble(self) -> None:
        """Have none."""
        return

    def seen(self, partition: TopicPartition) -> Seen | None:
        """Say what the brokers said."""
        return None

    def finished(self, reader: KafkaReader, offset: int) -> None:
        """Do not commit here."""
        raise NotImplementedError

    def restarted(self, reader: KafkaReader) -> None:
        """Take note."""
        self.begun_again.append(reader)

    async def give_up(self, reader: KafkaReader) -> None:
        """Do not close here."""
        raise NotImplementedError


class Bench:
    """A dispatcher with readers, and a way to run it on a consumer."""

    def __init__(self, *, max_bytes: int = 1_000_000) -> None:
        self.dispatcher = Dispatcher(prefetch_max_bytes=max_bytes, fetch_max_wait_ms=500)
        self.feed = FakeFeed(self.dispatcher)

    def open(self, partition: TopicPartition, at: int = 0) -> KafkaReader:
        """Add a reader."""
        reader = KafkaReader(partition, at, Inbox(partition, at), self.feed)
        self.dispatcher.add(reader)
        return reader

    @contextlib.asynccontextmanager
    async def running(self, consumer: FakeConsumer) -> AsyncIterator[None]:
        """Run the loop for the length of the block."""
        async with asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(self.dispatcher.run(cast("PartitionConsumer", consumer)))
            yield
            loop.cancel()


async def offsets(reader: KafkaReader, count: int, at_once: int = 100) -> list[int]:
    """Read that many offsets."""
    found: list[int] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += (await reader.read(min(at_once, count - len(found)))).positions
    return found


async def settle() -> None:
    """Let everything that can run now run."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.looptime
async def test_records_go_to_their_partitions_reader() -> None:
    """Each reader gets the records of its partition, also those that arrive while it waits."""
    bench, consumer = Bench(), FakeConsumer(a=5, b=3)
    async with bench.running(consumer):
        a, b = bench.open(A), bench.open(B, 1)
        assert await offsets(b, 2) == [1, 2]
        assert await offsets(a, 5) == list(range(5))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(offsets(a, 2))
            await settle()
            consumer.append(A, 2)
        assert waiting.result() == [5, 6]


@pytest.mark.looptime
async def test_changes_of_the_assignment_are_made_together() -> None:
    """Readers opened at once cost one move, and one that leaves costs none: it is paused."""
    bench, consumer = Bench(), FakeConsumer(a=5, b=5)
    async with bench.running(consumer):
        await settle()
        a, b = bench.open(A), bench.open(B)
        await settle()
        assert consumer.moves == [{A: 0, B: 0}]
        assert bench.dispatcher.remove(a)
        assert not bench.dispatcher.remove(a)
        await settle()
        assert len(consumer.moves) == 1
        assert consumer.paused == {A}
        assert bench.dispatcher.left(A)
        assert await offsets(b, 5) == list(range(5))


@pytest.mark.looptime
async def test_a_move_takes_the_others_along_where_they_are() -> None:
    """What a partition's inbox already holds is not fetched again when another partition is added."""
    bench, consumer = Bench(), FakeConsumer(a=50, b=5)
    async with bench.running(consumer):
        a = bench.open(A)
        assert await offsets(a, 10, at_once=10) == list(range(10))
        await settle()
        bench.open(B)
        await settle()
        assert consumer.moves[-1] == {A: 50, B: 0}
        assert await offsets(a, 40) == list(range(10, 50))


@pytest.mark.looptime
async def test_a_partition_reopened_elsewhere_is_read_from_there() -> None:
    """A reader that is closed and opened at another place gets that place's records, whatever was fetched before."""
    bench, consumer = Bench(), FakeConsumer(a=50)
    async with bench.running(consumer):
        first = bench.open(A)
        await offsets(first, 10, at_once=10)
        bench.dispatcher.remove(first)
        again = bench.open(A, 5)
        assert not bench.dispatcher.left(A)
        assert await offsets(again, 45) == list(range(5, 50))


@pytest.mark.looptime
async def test_a_new_consumer_goes_on_where_the_inboxes_are() -> None:
    """When a consumer fails its error ends the loop; the next one neither repeats nor skips a record."""
    bench, broken = Bench(), FakeConsumer(a=30)
    reader = bench.open(A)

    async def until_it_fails() -> None:
        async with bench.running(broken):
            assert await offsets(reader, 10, at_once=10) == list(range(10))
            broken.failure = KafkaError("gone")
            broken.arrive()
            await settle()

    with pytest.raises(ExceptionGroup) as caught:
        await until_it_fails()
    assert caught.value.subgroup(KafkaError)
    async with bench.running(FakeConsumer(a=60)):
        assert await offsets(reader, 50) == list(range(10, 60))


@pytest.mark.looptime
async def test_a_full_partition_shortens_the_long_poll() -> None:
    """While a partition is left out of fetches, the brokers may not hold back the others' answers for long."""
    bench, consumer = Bench(max_bytes=40_000), FakeConsumer(a=100)
    async with bench.running(consumer):
        reader = bench.open(A)
        await asyncio.sleep(10)
        assert consumer.wait_ms == 20
        assert await offsets(reader, 100) == list(range(100))
        await settle()
        assert consumer.wait_ms == 500


@pytest.mark.looptime
async def test_openings_in_a_row_do_not_wait_for_long_polls() -> None:
    """For some time after a partition was added, fetches are answered soon, so that the next can be looked up."""
    bench, consumer = Bench(), FakeConsumer()
    async with bench.running(consumer):
        bench.open(A)
        await settle()
        assert consumer.wait_ms == 20
        await asyncio.sleep(4)
        assert consumer.wait_ms == 500
        bench.open(B)
        await settle()
        assert consumer.wait_ms == 20


@pytest.mark.looptime
async def test_lost_records_are_counted_and_reading_goes_on() -> None:
    """Below the log's start reading goes on at the earliest record; beyond its end it begins again there."""
    bench, consumer = Bench(), FakeConsumer(a=20, b=10)
    consumer.logs[A][0] = 15
    async with bench.running(consumer):
        behind, beyond = bench.open(A, 5), bench.open(B, 99)
        assert await offsets(behind, 5) == list(range(15, 20))
        with pytest.raises(SourceRestartedError) as told:
            await beyond.read(10)
        assert told.value.position == "0"
        bench.dispatcher.remove(beyond)
        assert await offsets(bench.open(B, 0), 10) == list(range(10))
    assert (behind.lost, behind.start) == (10, "5")
    assert (beyond.lost, beyond.start) == (0, "0")
    assert bench.feed.begun_again == [beyond]


def test_only_a_partition_that_waits_unanswered_is_silent() -> None:
    """A partition whose reader waits while nothing is answered is silent; an answer clears it."""
    bench, consumer, watch = Bench(), FakeConsumer(), StallWatch(stall_s=5)
    a, b = bench.open(A), bench.open(B)
    consumer.positions = {A: 0, B: 0}
    a.inbox.waiting = True
    assert watch.look([a, b], consumer, now=0) == []
    assert watch.look([a, b], consumer, now=4.9) == []
    assert watch.look([a, b], consumer, now=5) == [a]
    a.stalled = SourceUnavailableError("silent")
    consumer.positions[A] = 1
    assert watch.look([a, b], consumer, now=6) == []
    assert str(a.stalled) == "None"
    assert watch.look([a, b], consumer, now=10.9) == []


@pytest.mark.looptime
async def test_large_records_are_taken_few_at_a_time() -> None:
    """However well records compress, not much more than a megabyte of them is decoded in one go; small ones go fast."""
    bench, consumer = Bench(max_bytes=10**9), FakeConsumer(a=40, b=5000)
    consumer.value = b"x" * 500_000
    async with bench.running(consumer):
        assert await offsets(bench.open(A), 40) == list(range(40))
        assert (consumer.asked[0], set(consumer.asked[1:])) == (16, {2})
        consumer.value = b"x"
        assert await offsets(bench.open(B), 5000) == list(range(5000))
        assert max(consumer.asked) == 1000
