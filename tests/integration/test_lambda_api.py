"""The Lambda API of real nodes, used with boto3 alone: mappings made, changed, paused and deleted, events delivered."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from aiokafka import AIOKafkaProducer
from botocore.exceptions import ClientError

from tests.support.aws_servers import CREDENTIALS, aws_client
from tests.support.lambda_client import lambda_calls
from tests.support.lambda_rig import QUEUE
from tests.support.mendable import Mendable
from tests.support.node_process import ROOT, NodeProcess, eventually
from tests.support.sqs_target import SqsTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.embedded_broker import EmbeddedBroker


class Mappings:
    """What the tests do with boto3's client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def call(self, operation: str, **parameters: Any) -> Any:
        """Call an operation, which blocks."""
        return await asyncio.to_thread(getattr(self._client, f"{operation}_event_source_mapping"), **parameters)

    async def state(self, uuid: str) -> str | None:
        """Return a mapping's state; None when it is gone."""
        try:
            return str((await self.call("get", UUID=uuid))["State"])
        except self._client.exceptions.ResourceNotFoundException:
            return None

    async def reaches(self, uuid: str, state: str | None, node: NodeProcess) -> None:
        """Wait for a state."""

        async def there() -> bool:
            return await self.state(uuid) == state

        await eventually(there, lambda: f"{uuid} is {state}\n{node.tail()}")


@asynccontextmanager
async def started(node: NodeProcess) -> AsyncIterator[Mappings]:
    """Start a node; yield what boto3 does with it."""
    await node.start()
    async with lambda_calls(f"http://{node.address}") as client:
        yield Mappings(client)


def progress_keys(redis_url: str, uuid: str) -> list[bytes]:
    """Return the keys that Redis has of a mapping's progress and parked records."""
    with redis.Redis.from_url(redis_url) as client:
        return [*client.scan_iter(f"*:progress:{uuid}*"), *client.scan_iter(f"*:parked:{uuid}*")]


async def test_the_life_of_a_mapping_on_a_queue(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, delivering, changed, there after SIGHUP and a killed node, disabled, enabled, deleted and forgotten."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    async with SqsTarget().serving() as target:
        settings = {
            "redis": {"url": redis_url},
            "leasing": {"ttl": 3},
            "functions": {"f": {"url": target.url, "timeout": 20}},
            "embedded": {"aws": {}},
        }

        async def deliver(client: Any, url: str, *bodies: str) -> None:
            for body in bodies:
                await asyncio.to_thread(client.send_message, QueueUrl=url, MessageBody=body)
            await eventually(lambda: set(bodies) <= set(target.done()), lambda: f"{bodies}\n{node.tail()}")

        async with NodeProcess(tmp_path, settings) as node, started(node) as mappings:
            sqs, url = await queue_of(node)
            with pytest.raises(ClientError, match="The specified queue does not exist"):
                await mappings.call("create", EventSourceArn=f"{QUEUE}-not", FunctionName="f")
            made = await mappings.call("create", EventSourceArn=QUEUE, FunctionName="f", BatchSize=1)
            uuid = made["UUID"]
            assert made["State"] == "Creating"
            await mappings.reaches(uuid, "Enabled", node)
            await deliver(sqs, url, "a", "b")
            changed = await mappings.call("update", UUID=uuid, BatchSize=5, MaximumBatchingWindowInSeconds=1)
            assert changed["State"] == "Updating"
            await mappings.reaches(uuid, "Enabled", node)
            node.signal(signal.SIGHUP)
            await node.logged("reload.done", changes=[])
            await deliver(sqs, url, "c", "d", "e")
            node.kill()
        async with NodeProcess(tmp_path, settings, name="again") as node, started(node) as mappings:
            sqs, url = await queue_of(node)  # this node has a queue of its own, under the same ARN
            assert (await mappings.call("get", UUID=uuid))["BatchSize"] == 5
            assert (await mappings.call("update", UUID=uuid, Enabled=False))["State"] == "Disabling"
            await mappings.reaches(uuid, "Disabled", node)
            assert progress_keys(redis_url, uuid)
            assert (await mappings.call("update", UUID=uuid, Enabled=True))["State"] == "Enabling"
            await mappings.reaches(uuid, "Enabled", node)
            await deliver(sqs, url, "f", "g")
            assert (await mappings.call("delete", UUID=uuid))["State"] == "Deleting"
            await mappings.reaches(uuid, None, node)
            assert not progress_keys(redis_url, uuid)
            changes = node.find("mapping.changed", uuid=uuid)
            assert [line["change"] for line in changes] == ["change", "change", "remove"]
            assert changes[0]["by"].startswith("api 127.0.0.1 Boto3/")
    assert Counter(target.done()) == Counter("abcdefg")


async def queue_of(node: NodeProcess) -> tuple[Any, str]:
    """Make the queue in the services embedded in a node; return a client and the queue's URL."""
    endpoint = (await node.logged("embedded.aws"))["endpoint_url"]
    client = await asyncio.to_thread(aws_client, "sqs", endpoint)
    url = (await asyncio.to_thread(client.create_queue, QueueName=QUEUE.rpartition(":")[2]))["QueueUrl"]
    return client, str(url)


async def test_a_topic_read_by_a_mapping_made_with_boto3(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """Beside a mapping of the node's file: delivered, then deleted; and a changed one outlasts files read again."""
    servers, topic = embedded_kafka.bootstrap_servers, await asyncio.to_thread(embedded_kafka.new_topic, 2)
    source = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [servers]}}, "Topics": [topic]}
    target = Mendable()
    target.mend()
    async with target.serving():
        settings = {
            "redis": {"url": redis_url},
            "leasing": {"ttl": 3},
            "functions": {"f": {"url": target.url, "timeout": 20}, "g": {"url": target.url, "timeout": 20}},
            "event_source_mappings": [{"Name": "filed", **source, "FunctionName": "g", "Enabled": False}],
        }
        async with NodeProcess(tmp_path, settings) as node, started(node) as mappings:
            made = await mappings.call("create", FunctionName="f", **source)
            await mappings.reaches(made["UUID"], "Enabled", node)
            async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
                for n in range(20):
                    await producer.send_and_wait(topic, str(n).encode(), partition=n % 2)
            await target.until(20)
            await mappings.reaches("filed", "Disabled", node)
            await mappings.call("update", UUID="filed", BatchSize=7)
            await mappings.reaches("filed", "Disabled", node)
            node.signal(signal.SIGHUP)
            await node.logged("reload.done", changes=[])
            assert (await mappings.call("get", UUID="filed"))["BatchSize"] == 7
            assert (await mappings.call("delete", UUID=made["UUID"]))["State"] == "Deleting"
            await mappings.reaches(made["UUID"], None, node)
            assert not progress_keys(redis_url, made["UUID"])
            assert [mapping["name"] for mapping in (await node.status())["mappings"]] == ["filed"]
            values = [base64.b64decode(value).decode() for value in target.taken]
            assert sorted(values, key=int) == [str(n) for n in range(20)]


async def test_an_application_renames_a_mapping_that_reads_on(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """`esmd apply` with `renamed_from`: the same mapping by another name, and every record once."""
    servers, topic = embedded_kafka.bootstrap_servers, await asyncio.to_thread(embedded_kafka.new_topic, 2)
    source = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [servers]}}, "Topics": [topic]}
    target = Mendable()
    target.mend()
    async with target.serving():
        settings: dict[str, Any] = {
            "redis": {"url": redis_url},
            "leasing": {"ttl": 3},
            "functions": {"f": {"url": target.url, "timeout": 20}},
            "event_source_mappings": [{"Name": "orders", **source, "FunctionName": "f"}],
        }
        async with (
            NodeProcess(tmp_path, settings) as node,
            started(node) as mappings,
            AIOKafkaProducer(bootstrap_servers=servers) as producer,
        ):
            for n in range(20):
                await producer.send_and_wait(topic, str(n).encode(), partition=n % 2)
            await target.until(20)
            uuid = (await mappings.call("get", UUID="orders"))["UUID"]
            await mappings.reaches(uuid, "Enabled", node)
            renamed = {"Name": "sales", **source, "FunctionName": "f", "extensions": {"renamed_from": "orders"}}
            settings["event_source_mappings"] = [renamed]
            node.write(settings)
            answer = await esmd("apply", str(node.config), "--json", "--url", f"http://{node.address}")
            assert [(one["name"], one["renamed_from"], one["position"]) for one in answer["changes"]] == [
                ("sales", "orders", "kept")
            ]
            await mappings.reaches("sales", "Enabled", node)
            assert (await mappings.call("get", UUID="sales"))["UUID"] == uuid
            assert await mappings.state("orders") is None
            for n in range(20, 40):
                await producer.send_and_wait(topic, str(n).encode(), partition=n % 2)
            await target.until(40)
            node.signal(signal.SIGHUP)
            await node.logged("reload.done", changes=[])
            assert [mapping["name"] for mapping in (await node.status())["mappings"]] == ["sales"]
    values = [int(base64.b64decode(value)) for value in target.taken]
    assert sorted(values) == list(range(40))


async def esmd(*arguments: str) -> Any:
    """Run a command that must succeed; return the document it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "node", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)
