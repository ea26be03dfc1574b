"""The Powertools example as its README tells it: unmodified batch processors on all three sources."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

from tests.support.aws_servers import CREDENTIALS
from tests.support.node_process import ROOT, NodeProcess, eventually
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.elasticmq import ElasticMQ
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kinesis_local import KinesisLocal

EXAMPLE = ROOT / "examples/powertools"
COUNT, FLAKY = 10, 6


async def test_exactly_what_the_batch_processors_report_comes_again(
    embedded_kafka: EmbeddedBroker, kinesis_local: KinesisLocal, elasticmq: ElasticMQ, redis_url: str, tmp_path: Path
) -> None:
    """The record that failed, everywhere; of the stream also those behind it; all others are delivered once."""
    name = unique_name("payments")
    embedded_kafka.create_topic(name, 1)
    aws = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL_KINESIS": kinesis_local.endpoint_url,
        "AWS_ENDPOINT_URL_SQS": elasticmq.endpoint_url,
    }
    produced = ["--kafka", embedded_kafka.bootstrap_servers, "--name", name, "--visibility", "2"]
    await asyncio.to_thread(_run, "produce.py", *produced, env=aws)
    with _served() as url:
        text = (EXAMPLE / "esmd.yaml").read_text()
        for shown, actual in [
            ("http://127.0.0.1:8000", url),
            ("127.0.0.1:9092", embedded_kafka.bootstrap_servers),
            ("payments-", f"{name}-"),
            ("[payments]", f"[{name}]"),
            ("stream/payments", f"stream/{name}"),
            (":payments", f":{name}"),
        ]:
            assert shown in text
            text = text.replace(shown, actual)
        arguments = ["--redis", redis_url, "--drain-timeout", "5"]
        async with asyncio.timeout(90), NodeProcess(tmp_path, text, arguments=arguments, env=aws) as node:
            await node.start(ready=False)
            for source in ("topic", "stream", "queue"):
                await _finished(node, f"{name}-{source}")
            assert await node.stop() == 0
        attempts = json.loads(await asyncio.to_thread(_get, url))
    again = {f"topic-{FLAKY}", f"queue-{FLAKY}", *[f"stream-{n}" for n in range(FLAKY, COUNT)]}
    everything = {f"{source}-{n}" for source in ("topic", "stream", "queue") for n in range(COUNT)}
    assert attempts == {payment: 2 if payment in again else 1 for payment in everything}


def _run(program: str, *arguments: str, env: dict[str, str]) -> None:
    command = [sys.executable, str(EXAMPLE / program), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def _served() -> Iterator[str]:
    """Run the functions; yield their address."""
    command = [sys.executable, str(EXAMPLE / "serve.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as functions:
        try:
            assert functions.stdout is not None
            yield functions.stdout.readline().strip()
        finally:
            functions.kill()


async def _finished(node: NodeProcess, mapping: str) -> None:
    async def over() -> bool:
        ledger = (await node.mapping(mapping)).get("ledger", {})
        return (ledger.get("delivered"), ledger.get("in_flight")) == (COUNT, 0)

    await eventually(over, lambda: f"{mapping} finished:\n{node.tail()}")


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
        body: bytes = answer.read()
        return body
