"""A session with other people's tools alone: the AWS CLI, a Kafka client, Prometheus's parser. No command of ours."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from node.embedded_redis import EmbeddedRedis
from tests.support.aws_cli import AwsCli, AwsCliError
from tests.support.node_process import NodeProcess, eventually
from tests.support.session_function import SessionFunction, produce, samples

if TYPE_CHECKING:
    from pathlib import Path

QUEUE = "arn:aws:sqs:us-east-1:000000000000:session"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/session"
CODE = "def handler(event, context):\n    return {'greeting': 'hello ' + event['name']}\n"


@pytest.mark.slow
async def test_mappings_are_made_used_changed_and_deleted(tmp_path: Path) -> None:
    """A queue, a stream and a topic: created, delivered from, seen in the metrics, updated, disabled, deleted."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_text(CODE)
    function = SessionFunction()
    with EmbeddedRedis(port=0) as redis:
        async with function.server as server:
            document = {
                "redis": {"url": redis.url},
                "leasing": {"ttl": 3},
                "functions": {
                    "seen": {"url": server.url, "timeout": 20},
                    "greet": {"handler": "app.handler", "code": str(code), "timeout": 30},
                },
                "embedded": {"aws": {}, "kafka": {"topics": {"session": 2}}},
            }
            async with NodeProcess(tmp_path, document) as node:
                await node.start()
                await _session(node, function, tmp_path)
                assert await node.stop() == 0


async def _session(node: NodeProcess, function: SessionFunction, folder: Path) -> None:
    local_aws = (await node.logged("embedded.aws"))["endpoint_url"]
    kafka = (await node.logged("embedded.kafka"))["servers"]
    aws = AwsCli(folder, {"sqs": local_aws, "kinesis": local_aws, "lambda": f"http://{node.address}"})

    # Sources are made
    queue_url = (await aws("sqs", "create-queue", "--queue-name", "session"))["QueueUrl"]
    await aws("kinesis", "create-stream", "--stream-name", "session", "--shard-count", "2")

    # Mappings are made
    make = ("lambda", "create-event-source-mapping", "--function-name", "seen")
    begin = ("--starting-position", "TRIM_HORIZON")
    endpoints = json.dumps({"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [kafka]}})
    made = [
        await aws(*make, "--event-source-arn", QUEUE, "--batch-size", "5"),
        await aws(*make, "--event-source-arn", STREAM, *begin, "--maximum-batching-window-in-seconds", "0"),
        await aws(*make, "--self-managed-event-source", endpoints, "--topics", "session", *begin),
    ]
    uuids = [one["UUID"] for one in made]
    assert {one["State"] for one in made} == {"Creating"}
    listed = await aws("lambda", "list-event-source-mappings", "--function-name", "seen")
    assert sorted(one["UUID"] for one in listed["EventSourceMappings"]) == sorted(uuids)
    await _all_are(aws, uuids, "Enabled")

    # Records flow
    await aws("sqs", "send-message", "--queue-url", queue_url, "--message-body", "from the queue")
    put = ("put-record", "--stream-name", "session", "--partition-key", "k")
    await aws("kinesis", *put, "--data", "from the stream")
    await asyncio.to_thread(produce, kafka, "session", b"from the topic")
    wanted = Counter(["from the queue", "from the stream", "from the topic"])
    await eventually(lambda: len(function.seen) >= 3, lambda: f"three records; {function.seen}\n{node.tail()}")
    assert Counter(function.seen) == wanted

    # Prometheus sees them
    async def counted() -> bool:
        return sum((await samples(node, "esm_invoked_event_count_total")).values()) == 3

    await eventually(counted, lambda: f"three records counted\n{node.tail()}")
    assert set(await samples(node, "esm_leases_held")) == {"sqs", "kinesis", "kafka"}

    # A function is called
    out = folder / "greeting.json"
    event = '{"name": "world"}'
    called = await aws("lambda", "invoke", "--function-name", "greet", "--payload", event, str(out))
    assert called["StatusCode"] == 200
    assert json.loads(out.read_text()) == {"greeting": "hello world"}
    with pytest.raises(AwsCliError, match="ResourceNotFoundException"):
        await aws("lambda", "invoke", "--function-name", "nobody", "--payload", event, str(out))

    # Changed, disabled, deleted
    queue = ("--uuid", uuids[0])
    changed = await aws("lambda", "update-event-source-mapping", *queue, "--batch-size", "10")
    assert changed["BatchSize"] == 10
    await _all_are(aws, uuids, "Enabled")
    assert (await aws("lambda", "update-event-source-mapping", *queue, "--no-enabled"))["State"] == "Disabling"
    await _all_are(aws, uuids[:1], "Disabled")
    for uuid in uuids:
        assert (await aws("lambda", "delete-event-source-mapping", "--uuid", uuid))["State"] == "Deleting"

    async def gone() -> bool:
        return not (await aws("lambda", "list-event-source-mappings"))["EventSourceMappings"]

    await eventually(gone, lambda: f"no mapping left\n{node.tail()}")


async def _all_are(aws: AwsCli, uuids: list[str], state: str) -> None:
    async def reached() -> bool:
        found = await aws("lambda", "list-event-source-mappings")
        return {one["State"] for one in found["EventSourceMappings"] if one["UUID"] in uuids} == {state}

    await eventually(reached, f"mappings that are {state}")
