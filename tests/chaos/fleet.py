"""What is put through the faults: four nodes, their Redis, Kafka, Kinesis and SQS, and the function they call."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tests.chaos.load import Feed, ToKafka, ToKinesis, ToQueue
from tests.chaos.plan import NODES, TTL_S
from tests.support.aws_servers import CREDENTIALS, AwsServer, Lab
from tests.support.history import OK
from tests.support.kafka_admin import KafkaAdmin
from tests.support.kinesis_streams import Stream
from tests.support.node_process import NodeProcess, eventually, kafka_mapping, url_target
from tests.support.sqs_servers import RealQueue
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from node.embedded_redis import EmbeddedRedis
    from tests.support.elasticmq import ElasticMQ
    from tests.support.kafka import KafkaProcess
    from tests.support.kinesis_local import KinesisLocal

BATCH = 10
_PARTITIONS, _SHARDS, _POLLERS = 8, 3, 4
_TIMEOUT_S = 5
_VISIBILITY_S = 6  # what a killed node had in hand shows again after so long
_WHOLE_S = 60.0  # reached by a defect only
_SETTLE_S = 20.0
_LATENCY_MS = "20"


@dataclass(frozen=True, slots=True)
class Servers:
    """Running servers that may be stopped, killed and started."""

    redis: EmbeddedRedis
    kafka: KafkaProcess
    kinesis: KinesisLocal
    elasticmq: ElasticMQ


@dataclass
class ChaosFleet:
    """The fleet. A node that ends is followed in its place by a new process, with a log of its own."""

    folder: Path
    servers: Servers
    target: TargetProcess
    stream: Stream
    queues: tuple[RealQueue, RealQueue]
    feeds: list[Feed]
    document: dict[str, Any]
    nodes: list[NodeProcess] = field(default_factory=list)  # by place
    started: list[NodeProcess] = field(default_factory=list)  # all of them, also those that have ended
    paused: set[int] = field(default_factory=set)  # places
    _missing: str = ""

    def spawn(self, place: int) -> NodeProcess:
        """Start a node in a place, without waiting for it."""
        environment = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL_KINESIS": self.servers.kinesis.endpoint_url,
            "AWS_ENDPOINT_URL_SQS": self.servers.elasticmq.endpoint_url,
        }
        name = f"node-{place}-{sum(node.name.startswith(f'node-{place}-') for node in self.started)}"
        node = NodeProcess(self.folder, self.document, name=name, env=environment)
        node.data_dir = self.folder / f"node-{place}-data"
        self.started.append(node)
        self.nodes[place : place + 1] = [node]
        node.spawn()
        return node

    async def serving(self, node: NodeProcess) -> None:
        """Wait until a node that was spawned is ready."""
        node.address = (await node.logged("http.listening"))["address"]
        await node.ready()

    async def whole(self) -> None:
        """Wait until every place has a member of the fleet, and every shard an owner."""
        await eventually(self._is_whole, self._why_not, limit_s=_WHOLE_S)

    async def _is_whole(self) -> bool:
        self._missing = await self._what_is_missing()
        return not self._missing

    async def _what_is_missing(self) -> str:
        """Return why the fleet is not whole, empty when it is."""
        if len(self.nodes) < NODES or self.paused or not all(node.running and node.address for node in self.nodes):
            return "not all nodes are running"
        try:
            for node in self.nodes:
                answer, body = await node.get("/readyz")
                if answer != HTTPStatus.OK:
                    return f"{node.name} is not ready: {body!r}; its shards: {await self._shards_of(node)}"
            status = await self.nodes[0].status()
        except (OSError, AssertionError) as exc:
            return f"no answer: {exc!r}"
        if len(status["nodes"]) != NODES or len(status["mappings"]) != len(self.feeds):
            return f"{len(status['nodes'])} nodes, {len(status['mappings'])} mappings"
        shards = [shard for mapping in status["mappings"] for shard in mapping["shards"]]
        unowned = [shard for shard in shards if shard["owner"] is None and shard["state"] not in _UNOWNED]
        return f"without an owner: {unowned}" if unowned else ""

    @staticmethod
    async def _shards_of(node: NodeProcess) -> dict[str, str]:
        """Return what the shards are doing that a node holds, as it says."""
        status = await node.status()
        shards = [shard for mapping in status["mappings"] for shard in mapping["shards"]]
        return {shard["id"]: shard["state"] for shard in shards if shard["owner"] == status["node"]}

    def _why_not(self) -> str:
        tails = "\n".join(f"{node.name}:\n{node.tail(8)}" for node in self.nodes)
        return f"a whole fleet: {self._missing}\n{tails}"

    async def reshard(self) -> None:
        """Split the stream's first shard and merge its last two."""
        stream = self.stream
        await asyncio.to_thread(lambda: stream.split(stream.open_shards()[0]))
        await asyncio.to_thread(lambda: stream.merge(*stream.open_shards()[-2:]))

    async def drained(self, within_s: float) -> bool:
        """Wait until everything written was delivered at least once; whether that was so in time."""
        total = sum(feed.numbering.total for feed in self.feeds)
        seen: set[tuple[str, int]] = set()
        read, deadline = 0, time.monotonic() + within_s
        while len(seen) < total:
            if time.monotonic() > deadline:
                return False
            log = self.target.invoked()
            seen.update(
                (e.topic, e.offset) for i in itertools.islice(log, read, None) if i.outcome == OK for e in i.records
            )
            read = len(log)
            await asyncio.sleep(0.1)
        return True

    async def settled(self) -> dict[str, dict[str, Any]]:
        """Wait until no record is in flight and no message left, for a while at most; return the ledgers."""
        ledgers: dict[str, dict[str, Any]] = {}

        async def quiet() -> bool:
            ledgers.update({m["name"]: m["ledger"] for m in (await self.nodes[0].status())["mappings"]})
            counts = [await asyncio.to_thread(queue.counts) for queue in self.queues]
            return not any(map(sum, counts)) and not any(ledger["in_flight"] for ledger in ledgers.values())

        with contextlib.suppress(AssertionError):
            await eventually(quiet, "nothing in flight", limit_s=_SETTLE_S)
        return ledgers


_UNOWNED = ("drained", "pending")  # shards of a stream that are read to the end, and such whose parents are not


@contextlib.asynccontextmanager
async def chaos_fleet(servers: Servers, folder: Path) -> AsyncIterator[ChaosFleet]:
    """Make topic, stream and queues, start the function and the nodes, and wait until they share the work."""
    kafka = servers.kafka.bootstrap_servers
    kinesis, sqs = AwsServer(servers.kinesis.endpoint_url), AwsServer(servers.elasticmq.endpoint_url)
    with Lab(kinesis, Stream) as streams, Lab(sqs, RealQueue) as queues:
        topic = await asyncio.to_thread(KafkaAdmin(kafka).new_topic, _PARTITIONS)
        stream = await asyncio.to_thread(streams.new, shards=_SHARDS)
        standard = await asyncio.to_thread(queues.new, visibility_s=_VISIBILITY_S)
        fifo = await asyncio.to_thread(queues.new, fifo=True, visibility_s=_VISIBILITY_S)
        async with _running(servers, folder, topic, stream, (standard, fifo)) as fleet:
            yield fleet


@contextlib.asynccontextmanager
async def _running(
    servers: Servers, folder: Path, topic: str, stream: Stream, queues: tuple[RealQueue, RealQueue]
) -> AsyncIterator[ChaosFleet]:
    kafka, (standard, fifo) = servers.kafka.bootstrap_servers, queues
    feeds = [
        Feed("kafka", ToKafka(kafka, topic, _PARTITIONS), keys=24, per_second=40),
        Feed("kinesis", ToKinesis(stream), keys=18, per_second=30),
        Feed("sqs", ToQueue(standard), keys=8, per_second=15, ordered=False),
        Feed("fifo", ToQueue(fifo), keys=12, per_second=15),
    ]
    options = ("--numbered", "--latency-ms", _LATENCY_MS)
    with TargetProcess(folder / "target.log", *options) as target:
        document = _document(servers, target.url, topic, stream, queues)
        fleet = ChaosFleet(folder, servers, target, stream, queues, feeds, document)
        try:
            for place in range(NODES):
                fleet.spawn(place)
            for node in fleet.nodes:
                await fleet.serving(node)
            await fleet.whole()
            yield fleet
        finally:
            for node in fleet.started:
                await node.__aexit__()


def _document(
    servers: Servers, url: str, topic: str, stream: Stream, queues: tuple[RealQueue, RealQueue]
) -> dict[str, Any]:
    kafka = servers.kafka.bootstrap_servers
    common = {"FunctionName": "f", "BatchSize": BATCH}
    pollers = {"ScalingConfig": {"MaximumConcurrency": _POLLERS}}
    return {
        "redis": {"url": servers.redis.url},
        "leasing": {"ttl": TTL_S},
        "drain_timeout": 10,
        "aws": {"region": "us-east-1"},
        "functions": url_target(url, timeout=_TIMEOUT_S),
        "event_source_mappings": [
            # Without Kafka's window of half a second: what is measured is how soon a successor begins.
            kafka_mapping(kafka, topic, name="kafka", BatchSize=BATCH, MaximumBatchingWindowInSeconds=0),
            {"Name": "kinesis", "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON", **common},
            *(
                {"Name": name, "EventSourceArn": queue.arn, **common, **pollers}
                for name, queue in zip(("sqs", "fifo"), queues, strict=True)
            ),
        ],
    }
