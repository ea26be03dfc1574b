"""Two nodes as processes in the middle of a backlog in Kafka, to be disturbed; then judged by what was delivered."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.history import Verdict, check
from tests.support.kafka_load import expected, keyed, load
from tests.support.node_process import NodeProcess, eventually, kafka_document, owners, url_target
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.kafka_fixtures import KafkaBroker

TTL_S = 3
TRUST_S = 2  # of it, a node works
PARTITIONS = 4
BATCH = 20
RECORDS = 5_000
_SOME = 1_000  # delivered before the fault


@dataclass
class Fleet:
    """Two nodes in the middle of their work, and what they call."""

    nodes: tuple[NodeProcess, NodeProcess]
    target: TargetProcess
    topic: str

    async def finished(self, records: int = RECORDS) -> Verdict:
        """Wait until everything was delivered and the account is settled; judge the history."""
        topic = expected(self.topic, PARTITIONS, records)

        def all_there() -> bool:
            self.target.invoked()
            return self.target.delivered() >= records and not check(self.target.invoked(), topic).lost

        await eventually(all_there, "all records delivered", limit_s=120)
        for node in self.nodes:
            assert node.running
            assert not node.find("ledger.imbalance")
            assert not node.find("worker.failed")
        verdict = check(self.target.invoked(), topic)
        assert verdict.problems() == []
        return verdict


@contextlib.asynccontextmanager
async def working_fleet(kafka: KafkaBroker, redis_url: str, folder: Path) -> AsyncIterator[Fleet]:
    """Run two nodes that have delivered some of a backlog, under way with the rest."""
    topic = await asyncio.to_thread(kafka.new_topic, PARTITIONS)
    servers = kafka.bootstrap_servers
    await asyncio.to_thread(load, servers, keyed(topic, PARTITIONS, RECORDS, lambda n: b"%d" % n))
    with TargetProcess(folder / "target.log", "--latency-ms", "50") as target:
        document = kafka_document(
            servers, topic, redis_url=redis_url, functions=url_target(target.url), ttl_s=TTL_S, BatchSize=BATCH
        )
        async with NodeProcess(folder, document, name="a") as a, NodeProcess(folder, document, name="b") as b:
            a.spawn()
            b.spawn()
            for node in (a, b):
                node.address = (await node.logged("http.listening"))["address"]

            async def shared() -> bool:
                return [len(shards) for shards in owners(await a.mapping()).values()] == [2, 2]

            await eventually(shared, "the partitions shared between two nodes")
            await target.reached(target.delivered() + _SOME)
            yield Fleet((a, b), target, topic)
