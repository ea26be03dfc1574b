"""A record that kills the process that delivers it, every time: with real processes, a real store and SIGKILL."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.figures import measured
from tests.support.kafka_load import keyed, load
from tests.support.node_process import NodeProcess, eventually, kafka_document, url_target
from tests.support.scripted_http import ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.scripted_http import Exchange

RECORDS, DEADLY = 10, 6


@pytest.mark.slow
async def test_a_record_that_kills_its_node_every_time_is_given_up(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """It is isolated from its batch and dropped after few deaths; all others of both partitions are delivered."""
    topic = embedded_kafka.new_topic(2)
    await asyncio.to_thread(load, embedded_kafka.bootstrap_servers, keyed(topic, 2, 2 * RECORDS, lambda n: b"%d" % n))
    calls: list[list[tuple[int, int]]] = []
    deaths = 0

    async def behave(exchange: Exchange) -> None:
        nonlocal deaths
        await exchange.read()
        event = json.loads(exchange.request.body)
        records = [record for shard in event["records"].values() for record in shard]
        calls.append([(record["partition"], record["offset"]) for record in records])
        if (0, DEADLY) in calls[-1]:
            deaths += 1
            node.kill()
        else:
            await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull")

    async with ScriptedServer(behave) as server, asyncio.timeout(120):
        document = kafka_document(
            embedded_kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(server.url),
            BatchSize=4,
            MaximumRetryAttempts=0,
        )
        ledger: dict[str, int] = {}

        async def over() -> bool:
            nonlocal ledger
            if node.running:
                try:
                    ledger = (await node.mapping()).get("ledger", ledger)
                except OSError:  # it has just died
                    return False
            return not node.running or (ledger["polled"] == 2 * RECORDS and ledger["in_flight"] == 0)

        for life in range(12):
            async with NodeProcess(tmp_path, document, name=f"life-{life}") as node:
                node.spawn()
                await eventually(lambda: node.find("http.listening") or not node.running, "a start")
                if node.running:
                    node.address = node.find("http.listening")[0]["address"]
                await eventually(over, "an end")
                if node.running:
                    assert await node.stop() == 0
                    break
    assert (ledger["delivered"], ledger["dropped"], ledger["balanced"]) == (2 * RECORDS - 1, 1, True)
    delivered = {place for call in calls if (0, DEADLY) not in call for place in call}
    assert len(delivered) == 2 * RECORDS - 1
    assert calls.count([(0, DEADLY)]) == 1
    assert deaths <= 5
    measured(deaths=deaths, calls=len(calls))
