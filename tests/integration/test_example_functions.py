"""The example of functions that a node runs itself, as its README tells it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.aws_servers import CREDENTIALS
from tests.support.fast_clock import environment
from tests.support.kafka_load import keyed, load
from tests.support.node_process import ROOT, NodeProcess, eventually
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticmq import ElasticMQ
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kinesis_local import KinesisLocal

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
        ("Name: tidy", f"Name: {unique_name('tidy')}"),
    ]:
        assert shown in text
        text = text.replace(shown, actual)
    orders = keyed(topic, 2, COUNT, lambda n: json.dumps({"id": str(n), "amount": n - 1}).encode())
    await asyncio.to_thread(load, embedded_kafka.bootstrap_servers, orders)
    async with asyncio.timeout(90), NodeProcess(tmp_path, text, arguments=["--redis", redis_url]) as node:
        await node.start(ready=False)

        async def finished() -> bool:
            ledgers = [mapping["ledger"] for mapping in (await node.status())["mappings"]]
            orders, audit, _ = sorted(ledgers, key=lambda ledger: (-ledger["dropped"], -ledger["polled"]))
            return (orders["delivered"], orders["dropped"], audit["delivered"]) == (COUNT - 1, 1, COUNT)

        await eventually(finished, lambda: f"all orders are finished:\n{node.tail()}")
        metrics = await node.metrics()
        sandboxes = psutil.Process(node.pid).children(recursive=True)
        assert any("awslambdaric" in " ".join(process.cmdline()) for process in sandboxes)
        assert await node.stop() == 0
    assert metrics['esm_cold_starts_total{function="local"}'] >= 1
    assert metrics['esm_environments{function="shell",state="idle"}'] >= 1
    assert "19 taken" in node.tail(100_000)
    assert [process for process in sandboxes if process.is_running()] == []


PRODUCE = ROOT / "examples/powertools/produce.py"
PAYMENTS = 10


def mappings(function: str, name: str, servers: str) -> list[dict[str, Any]]:
    """Return a function's mappings, of every kind of source, and of a schedule."""
    start: dict[str, Any] = {"StartingPosition": "TRIM_HORIZON"}
    kafka: dict[str, Any] = {
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [servers]}},
        "Topics": [name],
        **start,
    }
    sources = {
        "kafka": kafka,
        "kinesis": {"EventSourceArn": f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}", **start},
        "sqs": {"EventSourceArn": f"arn:aws:sqs:us-east-1:000000000000:{name}"},
        "schedule": {"schedule": "rate(1 minute)"},
    }
    return [{"Name": f"{name}-{kind}", "FunctionName": function, **source} for kind, source in sources.items()]


def produce(arguments: list[str], env: dict[str, str]) -> None:
    """Write payments to a topic, a stream and a queue."""
    subprocess.run([sys.executable, str(PRODUCE), *arguments], env=env, check=True, timeout=60)


async def test_the_functions_take_the_events_of_every_source(
    embedded_kafka: EmbeddedBroker, kinesis_local: KinesisLocal, elasticmq: ElasticMQ, redis_url: str, tmp_path: Path
) -> None:
    """Powertools in Python and a shell script, each on a topic, a stream, a queue and a schedule."""
    aws = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL_KINESIS": kinesis_local.endpoint_url,
        "AWS_ENDPOINT_URL_SQS": elasticmq.endpoint_url,
    }
    names = {"local": unique_name("local"), "shell": unique_name("shell")}
    servers = embedded_kafka.bootstrap_servers
    for name in names.values():
        embedded_kafka.create_topic(name, 1)
        await asyncio.to_thread(produce, ["--kafka", servers, "--name", name], aws)
    code = ROOT / "examples/functions"
    document = {
        "redis": {"url": redis_url},
        "functions": {
            "local": {"handler": "app.handler", "code": str(code / "local"), "timeout": 30},
            "shell": {"handler": "orders.all", "code": str(code / "shell"), "runtime": "provided", "timeout": 30},
        },
        "event_source_mappings": [one for function, name in names.items() for one in mappings(function, name, servers)],
    }
    clock = environment(tmp_path / "clock", base_s=time.time(), speed=20)
    async with (
        asyncio.timeout(90),
        NodeProcess(tmp_path, document, env={**aws, **clock}, arguments=["--drain-timeout", "2"]) as node,
    ):
        await node.start(ready=False)

        async def finished() -> bool:
            delivered = {one["name"]: one["ledger"]["delivered"] for one in (await node.status())["mappings"]}
            due = {f"{name}-{kind}": PAYMENTS for name in names.values() for kind in ("kafka", "kinesis", "sqs")}
            fired = all(delivered.get(f"{name}-schedule") for name in names.values())
            return fired and due.items() <= delivered.items()

        await eventually(finished, lambda: f"everything is delivered:\n{node.tail()}")
        assert await node.stop() == 0
    words = node.tail(100_000)
    for said in (
        "topic-9 taken",
        "stream-9 taken",
        "queue-9 taken",
        "it is 20",
        "bytes for orders.all",
    ):
        assert said in words
