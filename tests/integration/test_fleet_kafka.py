"""A fleet of real processes on Apache Kafka: one killed, one restarted, and the books checked afterwards."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.figures import measured
from tests.support.history import OK, Invoked, check
from tests.support.kafka_load import expected, keyed, load
from tests.support.node_process import ROOT, NodeProcess, eventually, kafka_document, owners, url_target
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.kafka_admin import KafkaAdmin

TTL_S = 3
BATCH = 100
PARTITIONS = 12
RECORDS = 200_000


async def spread(node: NodeProcess, shards: int, nodes: int) -> dict[str, Any]:
    """Wait until all shards are held, by so many nodes, balanced within one; return the mapping's status."""

    async def even() -> dict[str, Any] | None:
        mapping = await node.mapping()
        counts = [len(held) for held in owners(mapping).values()]
        balanced = sum(counts) == shards and len(counts) == nodes and max(counts) - min(counts) <= 1
        return mapping if balanced else None

    mapping: dict[str, Any] = await eventually(even, f"{shards} shards spread over {nodes} nodes")
    return mapping


def repeats(log: Iterable[Invoked]) -> list[tuple[str, int, int]]:
    """Return shard, token of the first delivery and token of the repeat for every repeated delivery."""
    first: dict[tuple[str, int, int], int] = {}
    found = []
    for invoked in log:
        if invoked.outcome == OK:
            for entry in invoked.records:
                place = (entry.topic, entry.partition, entry.offset)
                if place in first:
                    found.append((invoked.shard, first[place], invoked.token))
                first.setdefault(place, invoked.token)
    return found


def seconds(line: dict[str, Any]) -> float:
    """Return the epoch time of a log line."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@pytest.mark.slow
async def test_a_fleet_loses_nothing_when_one_node_is_killed_and_one_restarted(
    real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path
) -> None:
    """200,000 records reach the function in order, repeated only as far as the killed node had them in flight."""
    topic = real_kafka.new_topic(PARTITIONS)
    await asyncio.to_thread(
        load, real_kafka.bootstrap_servers, keyed(topic, PARTITIONS, RECORDS, lambda n: b'{"order":%d}' % n)
    )
    with TargetProcess(tmp_path / "target.log", "--latency-ms", "80") as target:
        document = kafka_document(
            real_kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(target.url),
            ttl_s=TTL_S,
            BatchSize=BATCH,
        )
        nodes = [NodeProcess(tmp_path, document, name=name) for name in ("first", "killed", "restarted", "again")]
        async with nodes[0] as first, nodes[1] as killed, nodes[2] as restarted, nodes[3] as again:
            for node in (first, killed, restarted):
                node.spawn()
            for node in (first, killed, restarted):
                node.address = (await node.logged("http.listening"))["address"]
            await spread(first, PARTITIONS, 3)

            await target.reached(target.delivered() + RECORDS // 10)
            before = await spread(first, PARTITIONS, 3)
            dead = str((await killed.logged("member.joined"))["node"])
            lost_tokens = {s["id"]: s["fencing_token"] for s in before["shards"] if s["owner"] == dead}
            killed_at = killed.kill()
            await spread(first, PARTITIONS, 2)

            await target.reached(RECORDS // 2)
            assert target.delivered() < RECORDS * 4 // 5, "too fast for what comes now to be midway"
            assert await restarted.stop() == 0
            await again.start()
            await spread(first, PARTITIONS, 2)

            await target.reached(RECORDS)
            ledger = await _settled(first)
            await _committed(real_kafka, topic)
            status = await asyncio.to_thread(_status_command, again)
            assert [await again.stop(), await first.stop()] == [0, 0]

            log = list(target.invoked())
            taken = {
                line["shard"].rpartition("/")[2]: seconds(line)
                for node in (restarted, first)
                for line in node.find("lease.acquired")
                if seconds(line) > killed_at
                and line["shard"].rpartition("/")[2] in lost_tokens
                and line["token"] == _next_token(log, line["shard"], lost_tokens[line["shard"].rpartition("/")[2]])
            }
    verdict = check(log, expected(topic, PARTITIONS, RECORDS))
    assert verdict.problems() == []
    assert verdict.delivered == RECORDS
    repeated = repeats(log)
    assert {(shard.rpartition("/")[2], token) for shard, token, _ in repeated} <= set(lost_tokens.items())
    assert verdict.duplicates == len(repeated) <= 2 * BATCH * len(lost_tokens)
    assert taken.keys() == lost_tokens.keys()
    take_over_s = max(taken.values()) - killed_at
    work_s = max(_first_after(log, shard, token) for shard, token in lost_tokens.items()) - killed_at
    measured(duplicates=verdict.duplicates, taken_over_s=round(take_over_s, 2), invoked_s=round(work_s, 2))
    assert take_over_s <= TTL_S + 1
    assert (ledger["delivered"], ledger["polled"], ledger["in_flight"]) == (RECORDS, RECORDS, 0)
    mapping = status["mappings"][0]
    assert mapping["ledger"]["balanced"]
    assert mapping["last_processing_result"] == "OK"
    assert {shard["lag_records"] for shard in mapping["shards"]} == {0}
    assert not [line for node in nodes for line in node.find("ledger.imbalance")]


def _next_token(log: Iterable[Invoked], shard: str, token: int) -> int:
    return min((i.token for i in log if i.shard == shard and i.token > token), default=0)


def _first_after(log: Iterable[Invoked], shard: str, token: int) -> float:
    return min(i.started for i in log if i.shard.rpartition("/")[2] == shard and i.token > token)


async def _settled(node: NodeProcess) -> dict[str, Any]:
    """Wait until nothing is in flight; return the ledger."""

    async def quiet() -> dict[str, Any] | None:
        ledger: dict[str, Any] = (await node.mapping())["ledger"]
        return ledger if not ledger["in_flight"] and ledger["delivered"] >= RECORDS else None

    ledger: dict[str, Any] = await eventually(quiet, "a ledger with nothing in flight")
    return ledger


async def _committed(kafka: KafkaAdmin, topic: str) -> None:
    """Wait until the consumer group's offsets, as Kafka's own tool prints them, are the ends of the partitions."""
    ends = {
        (topic, partition.number): len(offsets) for partition, offsets in expected(topic, PARTITIONS, RECORDS).items()
    }
    for _ in range(5):
        offsets = await asyncio.to_thread(kafka.describe_group, f"{topic}-orders")
        if {(o.topic, o.partition): o.current for o in offsets} == ends:
            break
    assert {(o.topic, o.partition): (o.current, o.end, o.lag) for o in offsets} == {
        place: (end, end, 0) for place, end in ends.items()
    }


def _status_command(node: NodeProcess) -> dict[str, Any]:
    command = [sys.executable, "-m", "node", "status", "--json", "--url", f"http://{node.address}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    document: dict[str, Any] = json.loads(done.stdout)
    return document
