"""A node's memory does not follow the backlog: it is bounded by what it reads ahead."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.figures import measured
from tests.support.history import Partition, check
from tests.support.kafka_load import load
from tests.support.node_process import NodeProcess, eventually, kafka_document, url_target
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.kafka_admin import KafkaAdmin

LIMIT_BYTES = 250_000_000
PARTITIONS = 12
SMALL, SMALL_BYTES = 300_000, 1_400
LARGE, LARGE_BYTES = 600, 1_000_000
_SAMPLE_S = 0.05


def backlog(topic: str) -> Iterator[tuple[str, int, bytes | None, bytes | None]]:
    """Make a gigabyte: many records of a kilobyte or so, and a large one now and then. Half of each compresses well."""
    noise = random.Random(7).randbytes(LARGE_BYTES)
    for number in range(SMALL):
        partition = number % PARTITIONS
        begin = number * 17 % (LARGE_BYTES - SMALL_BYTES)
        yield (
            topic,
            partition,
            b"%d" % (number % 1000),
            noise[begin : begin + SMALL_BYTES // 4].ljust(SMALL_BYTES, b"."),
        )
        if number % (SMALL // LARGE) == 0:
            yield (
                topic,
                number // (SMALL // LARGE) % PARTITIONS,
                None,
                noise[: LARGE_BYTES // 20].ljust(LARGE_BYTES, b"."),
            )


@pytest.fixture(scope="module")
def gigabyte(real_kafka: KafkaAdmin) -> str:
    """Make a topic with the backlog."""
    topic = real_kafka.new_topic(PARTITIONS, config={"max.message.bytes": "2000000"})
    count = load(real_kafka.bootstrap_servers, backlog(topic))
    assert count == SMALL + LARGE
    assert SMALL * SMALL_BYTES + LARGE * LARGE_BYTES > 10**9
    return topic


class Highest:
    """The most memory that was seen."""

    resident_bytes = 0


@contextlib.asynccontextmanager
async def watched(node: NodeProcess) -> AsyncIterator[Highest]:
    """Look at a node's memory all the time while the body runs."""
    highest = Highest()

    async def look() -> None:
        while True:
            highest.resident_bytes = max(highest.resident_bytes, node.resident_bytes())
            await asyncio.sleep(_SAMPLE_S)

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look())
        yield highest
        looking.cancel()


@pytest.mark.slow
async def test_memory_stays_bounded_while_a_gigabyte_is_delivered(
    real_kafka: KafkaAdmin, gigabyte: str, redis_url: str, tmp_path: Path
) -> None:
    """Resident memory stays under 250 MB while 1 GB waits, with a function that first hangs and then is fast."""
    with TargetProcess(tmp_path / "target.log") as target:
        document = kafka_document(
            real_kafka.bootstrap_servers,
            gigabyte,
            redis_url=redis_url,
            functions=url_target(target.url, timeout=300),
            ttl_s=10,
        )
        target.freeze()
        async with NodeProcess(tmp_path, document) as node:
            await node.start()
            async with watched(node) as hanging:
                await full(node)
            async with watched(node) as draining:
                target.thaw()
                await target.reached(SMALL + LARGE, limit_s=200)
            ledger = (await node.mapping())["ledger"]
            assert await node.stop() == 0
        log = target.invoked()
    measured(hanging_mb=hanging.resident_bytes // 10**6, draining_mb=draining.resident_bytes // 10**6)
    assert max(hanging.resident_bytes, draining.resident_bytes) < LIMIT_BYTES
    each = (SMALL + LARGE) // PARTITIONS
    offsets = {Partition(gigabyte, number): range(each) for number in range(PARTITIONS)}
    assert sum(map(len, offsets.values())) == SMALL + LARGE
    verdict = check(log, offsets)
    assert verdict.problems() == []
    assert verdict.duplicates == 0
    assert (ledger["delivered"], ledger["balanced"]) == (SMALL + LARGE, True)


@pytest.mark.slow
async def test_memory_stays_bounded_while_the_function_throttles(
    real_kafka: KafkaAdmin, gigabyte: str, redis_url: str, tmp_path: Path
) -> None:
    """A function that only throttles stops the reading: nothing is polled beyond what fits, and nothing is dropped."""
    with TargetProcess(tmp_path / "target.log", "--throttle", "1") as target:
        document = kafka_document(
            real_kafka.bootstrap_servers,
            gigabyte,
            redis_url=redis_url,
            functions=url_target(target.url),
            ttl_s=10,
            SelfManagedKafkaEventSourceConfig={"ConsumerGroupId": f"{gigabyte}-throttled"},
            MaximumRetryAttempts=0,
        )
        async with NodeProcess(tmp_path, document) as node:
            await node.start()
            async with watched(node) as highest:
                polled = await full(node)
                throttled = (await node.metrics())['esm_throttles_total{mapping="orders",source="kafka"}']
                await eventually(lambda: len(target.invoked()) > throttled + 1, "two more probes")
                ledger = (await node.mapping())["ledger"]
            assert await node.stop() == 0
    measured(throttled_mb=highest.resident_bytes // 10**6, polled=polled)
    assert highest.resident_bytes < LIMIT_BYTES
    assert ledger["polled"] == polled == ledger["in_flight"]
    assert ledger["balanced"]


async def full(node: NodeProcess) -> int:
    """Wait until the node reads no further; return how many records it has polled."""
    seen: list[tuple[Any, int]] = []

    async def settled() -> bool:
        ledger = (await node.mapping())["ledger"]
        seen.append((ledger["polled"], node.resident_bytes() // 2**20))
        await asyncio.sleep(0.25)
        return len(seen) > 8 and ledger["polled"] > 0 and len(set(seen[-8:])) == 1

    await eventually(settled, "a node that reads no further")
    return int(seen[-1][0])
