"""The sources of a simulated world, each with what is written to it and with the judge of its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from model.ids import TRACKER
from model.mapping_rules import parse_mapping
from model.progress import Ledger
from tests.simulation.plan import QUEUE, STREAM, TOPIC
from tests.simulation.queue_judge import QueueJudge
from tests.simulation.stream_judge import StreamJudge
from tests.simulation.stream_way import StreamWay
from tests.support.fake_sqs import FakeQueue
from tests.support.simulated_fan_out import CONSUMER, SimulatedFanOut
from tests.support.simulated_kafka import KAFKA, BrokersWay, SimulatedTopic
from tests.support.simulated_kinesis import SimulatedStream, Trouble
from tests.support.simulated_sqs import SimulatedSqs, SqsWay

if TYPE_CHECKING:
    from random import Random

    from model.ids import MappingId
    from tests.simulation.judge import Judge
    from tests.simulation.plan import Plan
    from tests.support.simulated_redis import SimulatedRedis


class StreamSource:
    """The Kinesis stream of a world."""

    service = "kinesis"

    def __init__(
        self, plan: Plan, document: dict[str, Any], judge: Judge, redis: SimulatedRedis, random: Random
    ) -> None:
        self.stream = SimulatedStream(random, shards=plan.shards, retention_s=plan.retention_s, trouble=Trouble())
        self.judge = StreamJudge(judge, redis, parse_mapping(document))
        self.judge.parents = lambda name: self.stream.all[name].parents
        judge.records[STREAM] = self.judge
        self._fan_out = SimulatedFanOut(self.stream, random)
        self._packs = document["EventSourceArn"] == CONSUMER
        self._judge = judge
        self._redis = redis
        self._random = random

    def write(self, key: str) -> None:
        """Write a key's next record."""
        self._put(key)

    def end_burst(self, keys: list[str]) -> None:
        """Where aggregates are taken apart, write one."""
        if self._packs:
            self._put(*self._random.choices(keys, k=self._random.randint(1, 6)))

    def _put(self, *keys: str) -> None:
        shard = self.stream.put_packed(keys) if len(keys) > 1 else self.stream.put(keys[0])
        written = len(self.judge.shard(shard.id).records)
        for place, (key, _) in enumerate(shard.carried[written:]):
            self.judge.wrote(key, shard.id, shard.numbers[-1], place)

    def way(self) -> StreamWay:
        """Make a node's way to it."""
        return StreamWay(self._fan_out)

    def heal(self) -> None:
        """Have every call answered in order."""
        self.stream.trouble = Trouble(0, 0, 0, 0, 0, 0, 0)

    def missing(self) -> list[str]:
        """Return what is missing from calm: just the open shards are wanted, all records are done, and saved."""
        missing = self.judge.unsaved()
        wanted = {key.shard for key in self._redis._wanted if key.mapping == STREAM and key.shard != TRACKER}
        open_shards = {shard.id for shard in self.stream.open_shards()}
        if wanted != open_shards:
            missing.append(f"the shards {sorted(open_shards)} are open, and {sorted(wanted)} are wanted")
        owed = self.judge.owed
        if owed:
            missing.append(f"{len(owed)} records are owed: {' '.join(map(str, owed[:5]))}")
        return missing

    def check_account(self, *, rolled_back: bool) -> None:
        """See that the ledgers say what happened to every record (invariant 1), if nothing made them begin anew."""
        if not self.judge.taken["before the start"] and not self.judge.moved_back:
            _check_account(self.judge, self._judge, self._redis, STREAM)


def _check_account(records: StreamJudge, judge: Judge, redis: SimulatedRedis, mapping: MappingId) -> None:
    total, taken = Ledger(), records.taken
    for key, progress in redis.progress.stored.items():
        if key.mapping == mapping:
            total = total.plus(progress.ledger)
    told = (total.polled, total.delivered + total.destination, total.filtered)
    if told != (records.written, taken["delivered"] + taken["destination"], taken["filtered"]):
        judge.wrong(f"ledger: {total} is told, {records.written} were written: {dict(taken)}")


class TopicSource:
    """The Kafka topic of a world."""

    service = KAFKA

    def __init__(
        self, plan: Plan, document: dict[str, Any], judge: Judge, redis: SimulatedRedis, random: Random
    ) -> None:
        self.usual_fails = plan.topic_fails
        self.brokers = SimulatedTopic(document["Topics"][0], random, partitions=plan.shards)
        self.brokers.fails = self.usual_fails
        self.judge = StreamJudge(judge, redis, parse_mapping(document))
        self.brokers.on_commit = lambda partition, offset: self.judge.mirrored(self._shard(partition), offset)
        judge.records[TOPIC] = self.judge
        self._judge = judge
        self._redis = redis

    def _shard(self, partition: int) -> str:
        return f"{self.brokers.name}-{partition}"

    def write(self, key: str) -> None:
        """Write a key's next record."""
        partition = crc32(key.encode()) % len(self.brokers.logs)
        number = len(self.judge.lines[key].records) if key in self.judge.lines else 0
        offset = self.brokers.append(partition, key.encode(), f"{key}:{number}".encode())
        self.judge.wrote(key, self._shard(partition), offset, 0)

    def end_burst(self, keys: list[str]) -> None:
        """Do nothing."""

    def way(self) -> BrokersWay:
        """Make a node's way to it."""
        return BrokersWay(self.brokers)

    def heal(self) -> None:
        """Have every request answered in order."""
        self.usual_fails = self.brokers.fails = 0.0

    def missing(self) -> list[str]:
        """Return what is missing from calm: all records are done, saved, and known to the consumer group."""
        missing = self.judge.unsaved()
        owed = self.judge.owed
        if owed:
            missing.append(f"{len(owed)} records are owed: {' '.join(map(str, owed[:5]))}")
        for partition, log in enumerate(self.brokers.logs):
            committed = self.brokers.committed.get(partition, 0)
            if committed != len(log):
                missing.append(f"{committed} of the {len(log)} records of partition {partition} are committed")
        return missing

    def check_account(self, *, rolled_back: bool) -> None:
        """See that the ledgers are right: where the group knew more than the store, nobody counted what was between."""
        if not rolled_back and not self.judge.moved_back:
            _check_account(self.judge, self._judge, self._redis, TOPIC)


class QueueSource:
    """The SQS queue of a world."""

    service = "sqs"

    def __init__(
        self, plan: Plan, document: dict[str, Any], judge: Judge, redis: SimulatedRedis, random: Random
    ) -> None:
        fifo = document["EventSourceArn"].endswith(".fifo")
        self.queue = FakeQueue(visibility_s=plan.visibility_s, fifo=fifo)
        self.usual_fails = plan.queue_fails
        self.sqs = SimulatedSqs(self.queue, random)
        self.sqs.fails = self.usual_fails
        self.judge = QueueJudge(judge, self.queue)
        self.sqs.on_delete = self.judge.deleting
        judge.records[QUEUE] = self.judge

    def write(self, key: str) -> None:
        """Send a group's next message."""
        self.sqs.send(self.judge.wrote(key), group=key if self.queue.fifo else None)

    def end_burst(self, keys: list[str]) -> None:
        """Do nothing."""

    def way(self) -> SqsWay:
        """Make a node's way to it."""
        return SqsWay(self.sqs)

    def heal(self) -> None:
        """Have every call answered in order."""
        self.usual_fails = self.sqs.fails = 0.0

    def missing(self) -> list[str]:
        """Return what is missing from calm: all messages are done, and deleted."""
        owed = self.judge.owed
        if owed:
            return [f"{len(owed)} messages are owed: {' '.join(map(str, owed[:5]))}"]
        return [f"{self.queue.bodies()} are in the queue"] if self.queue.stored else []

    def check_account(self, *, rolled_back: bool) -> None:
        """Do nothing: a message counts where it was received last, also by a node that died before it said so."""


Source = StreamSource | TopicSource | QueueSource


def make_sources(plan: Plan, judge: Judge, redis: SimulatedRedis, random: Random) -> dict[str, Source]:
    """Make the sources that a world has, by their services' names."""
    sources: dict[str, Source] = {}
    stream, topic, queue = plan.document(STREAM), plan.document(TOPIC), plan.document(QUEUE)
    if stream is not None:
        sources[StreamSource.service] = StreamSource(plan, stream, judge, redis, random)
    if topic is not None:
        sources[TopicSource.service] = TopicSource(plan, topic, judge, redis, random)
    if queue is not None:
        sources[QueueSource.service] = QueueSource(plan, queue, judge, redis, random)
    return sources
