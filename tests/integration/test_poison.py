"""One poison record among ten thousand on real servers, with a node killed while its key is parked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.figures import measured
from tests.support.history import OK, check
from tests.support.kafka_load import expected, keyed, load
from tests.support.kinesis_fleet import Producer, kinesis_fleet
from tests.support.kinesis_streams import Stream
from tests.support.node_process import NodeProcess, eventually, kafka_document, owners, url_target
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_fixtures import KafkaBroker
    from tests.support.kinesis_fleet import Fleet
    from tests.support.kinesis_local import KinesisLocal

RECORDS = 10_000
PARTITIONS = 4
KEYS = 50
POISON = 501  # offset in partition 0; 39 records of its key follow


@pytest.mark.slow
async def test_a_poison_record_of_a_topic_holds_up_its_key_alone_across_a_kill(
    embedded_kafka: KafkaBroker, redis_url: str, tmp_path: Path
) -> None:
    """The holder of the parked key is killed; its successor keeps the key parked and in order, and loses nothing."""
    topic = embedded_kafka.new_topic(PARTITIONS)
    records = keyed(topic, PARTITIONS, RECORDS, lambda n: b'{"order":%d}' % n, keys=KEYS)
    await asyncio.to_thread(load, embedded_kafka.bootstrap_servers, records)
    behind = len(range(POISON, RECORDS // PARTITIONS, KEYS))
    with TargetProcess(tmp_path / "target.log", "--latency-ms", "5", "--poison", f"{topic}-0:{POISON}") as target:
        document = kafka_document(
            embedded_kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(target.url),
            ttl_s=3,
            BatchSize=20,
            extensions={"park_failing_keys": True},
        )
        nodes = [NodeProcess(tmp_path, document, name=name) for name in ("one", "other")]
        async with nodes[0], nodes[1]:
            for node in nodes:
                await node.start()
            killed, left = await _holder_first(nodes, "key.parked")
            killed.kill()
            await target.reached(RECORDS - behind)
            await eventually(lambda: _parked(left, behind), f"{behind} records parked")
            parked = await _shards(left)
            assert [(key["records"], shard["id"]) for shard in parked for key in shard["parked_keys"]] == [
                (behind, f"{topic}-0")
            ]
            target.mend()
            await eventually(lambda: _parked(left, 0), "an empty parking lot")
            ledger = (await left.mapping())["ledger"]
            assert await left.stop() == 0
        verdict = check(target.invoked(), dict(expected(topic, PARTITIONS, RECORDS)), by_key=True)
    assert verdict.problems() == []
    assert verdict.delivered == RECORDS
    assert ledger["balanced"]
    measured(duplicates=verdict.duplicates, parked=behind)


async def _holder_first(nodes: list[NodeProcess], event: str) -> tuple[NodeProcess, NodeProcess]:
    """Wait until one of two nodes has said something; return it and the other."""

    def who() -> list[NodeProcess]:
        return [node for node in nodes if node.find(event)]

    first = (await eventually(who, f"{event} of either node"))[0]
    return first, next(node for node in nodes if node is not first)


async def _shards(node: NodeProcess) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = (await node.mapping())["shards"]
    return shards


async def _parked(node: NodeProcess, count: int) -> bool:
    """Tell whether the one node that is left has all shards, and just so many records parked."""
    mapping = await node.mapping()
    alone = [len(shards) for shards in owners(mapping).values()] == [PARTITIONS]
    metrics = await node.metrics()
    parked = metrics.get('esm_parked_event_count{mapping="orders",source="kafka"}', -1)
    return bool(alone and parked == mapping["ledger"]["parked"] == count and mapping["ledger"]["in_flight"] == 0)


async def test_a_poison_record_of_a_stream_holds_up_its_key_alone_across_a_kill(
    kinesis_local: KinesisLocal, tmp_path: Path
) -> None:
    """The same for a stream's partition key, with whole nodes and lanes; then the function is mended."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url, shards=2)
    producer = Producer(stream, keys=20)
    await asyncio.to_thread(producer.write, 25)
    more = ["BatchSize: 50", "ParallelizationFactor: 2", "extensions: {park_failing_keys: true}"]
    async with kinesis_fleet(kinesis_local.endpoint_url, stream, tmp_path, more) as fleet:
        fleet.function.poison = {("key-7", 5)}
        async with fleet.node() as node:
            await _others_delivered(fleet, producer)
            await node.kill()
        await asyncio.to_thread(producer.write, 5)
        async with fleet.node():
            await _others_delivered(fleet, producer)
            assert not [True for key, number in fleet.function.arrivals if key == "key-7" and number >= 5]
            fleet.function.poison.clear()
            verdict = await fleet.delivered(producer)
        assert verdict.problems() == []
        assert sum(progress.ledger.parked for progress in (await fleet.progress()).values()) == 0
        assert all(progress.ledger.balanced for progress in (await fleet.progress()).values())
        measured(duplicates=verdict.duplicates)
        assert any(invoked.outcome != OK for invoked in fleet.function.log)


async def _others_delivered(fleet: Fleet, producer: Producer) -> None:
    """Wait until everything is delivered but the parked key's records from the poison on."""
    wanted = producer.total - (producer.written["key-7"] - 5)
    async with asyncio.timeout(60):
        while len(fleet.function.arrivals) < wanted:
            fleet.function.called.clear()
            await fleet.function.called.wait()
