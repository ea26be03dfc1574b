"""The example of functions that a node runs itself, as its README tells it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import psutil

from tests.support.kafka_load import keyed, load
from tests.support.node_process import ROOT, NodeProcess, eventually
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.embedded_broker import EmbeddedBroker

EXAMPLE = ROOT / "examples/functions/esmd.yaml"
COUNT = 20


async def test_a_node_runs_the_functions_of_its_mappings(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """Powertools reports the one order that fails, which alone comes again; the shell script takes all."""
    topic = embedded_kafka.new_topic(2, prefix="orders")
    text = EXAMPLE.read_text().partition("embedded:")[0]
    for shown, actual in [
        ("127.0.0.1:9092", embedded_kafka.bootstrap_servers),
        ("[orders]", f"[{topic}]"),
        ("code: examples", f"code: {ROOT}/examples"),
        ("Name: orders", f"Name: {unique_name('orders')}"),
        ("Name: audit", f"Name: {unique_name('audit')}"),
    ]:
        assert shown in text
        text = text.replace(shown, actual)
    orders = keyed(topic, 2, COUNT, lambda n: json.dumps({"id": str(n), "amount": n - 1}).encode())
    await asyncio.to_thread(load, embedded_kafka.bootstrap_servers, orders)
    async with asyncio.timeout(90), NodeProcess(tmp_path, text, arguments=["--redis", redis_url]) as node:
        await node.start(ready=False)

        async def finished() -> bool:
            ledgers = [mapping["ledger"] for mapping in (await node.status())["mappings"]]
            orders, audit = sorted(ledgers, key=lambda ledger: -ledger["dropped"])
            return (orders["delivered"], orders["dropped"], audit["delivered"]) == (COUNT - 1, 1, COUNT)

        await eventually(finished, lambda: f"all orders are finished:\n{node.tail()}")
        metrics = await node.metrics()
        sandboxes = psutil.Process(node.pid).children(recursive=True)
        assert any("awslambdaric" in " ".join(process.cmdline()) for process in sandboxes)
        assert await node.stop() == 0
    assert metrics['esm_cold_starts_total{function="local"}'] >= 1
    assert metrics['esm_environments{function="shell",state="idle"}'] >= 1
    assert "order 19 taken" in node.tail(100_000)
    assert [process for process in sandboxes if process.is_running()] == []
