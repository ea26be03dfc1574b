"""The function of a session with other people's tools, and what Prometheus's parser reads of the node meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from tests.support.scripted_http import ScriptedServer, response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.node_process import NodeProcess
    from tests.support.scripted_http import Exchange


class SessionFunction:
    """A function behind a URL, which remembers what it took. It fails on what `breaks_on`, and waits for `open`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.breaks_on: Callable[[str], bool] = lambda _text: False
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0
        self.server = ScriptedServer(self._answer)

    async def _answer(self, exchange: Exchange) -> None:
        await exchange.read()
        event = json.loads(exchange.request.body)
        groups = [event["Records"]] if "Records" in event else event["records"].values()
        texts = [_text(record) for records in groups for record in records]
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        if any(map(self.breaks_on, texts)):
            await exchange.write(response(500, b'{"errorType":"ValueError","errorMessage":"no such order"}'))
            return
        self.seen += texts
        await exchange.write(response(200, b"{}"))


def _text(record: dict[str, Any]) -> str:
    if "body" in record:
        return str(record["body"])
    return base64.b64decode(record["kinesis"]["data"] if "kinesis" in record else record["value"]).decode()


def produce(servers: str, topic: str, *values: bytes) -> None:
    """Send records with a Kafka client; blocks."""
    producer = Producer({"bootstrap.servers": servers})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


async def samples(
    node: NodeProcess, name: str, by: str = "source", *, headers: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return a metric's values by a label, as Prometheus reads them."""
    status, text = await node.get("/metrics", headers)
    assert status == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels[by]] = found.get(sample.labels[by], 0.0) + sample.value
    return found
