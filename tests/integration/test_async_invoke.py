"""Asynchronous invocations of a real node on a real Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer
from botocore.exceptions import ClientError
from redis.asyncio import Redis

from model.async_event import NewEvent
from node.embedded_redis import EmbeddedRedis
from statemgr.event_queue import QueueFullError
from statemgr.redis_store.store import RedisStore
from tests.support.async_rig import SINK_ARN, TRIED_ONCE, caller, functions
from tests.support.aws_servers import aws_client
from tests.support.lambda_client import lambda_calls
from tests.support.node_process import NodeProcess, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from tests.support.async_rig import Functions

MB = 1024 * 1024
QUEUES = "arn:aws:sqs:us-east-1:000000000000"


@pytest.fixture
def redis() -> Iterator[EmbeddedRedis]:
    """Return a Redis of the test's own."""
    with EmbeddedRedis(port=0) as server:
        yield server


@pytest.fixture
async def served() -> AsyncIterator[Functions]:
    """Return functions over HTTP."""
    async with functions() as serving:
        yield serving


@asynccontextmanager
async def running(
    folder: Path, redis: EmbeddedRedis, functions: Mapping[str, Any], **more: Any
) -> AsyncIterator[NodeProcess]:
    """Run a node with functions; drain it at the end."""
    document = {"redis": {"url": redis.url}, "leasing": {"ttl": 3}, "functions": functions, **more}
    async with NodeProcess(folder, document) as node:
        await node.start()
        yield node
        assert await node.stop() == 0


@pytest.fixture
async def node(tmp_path: Path, redis: EmbeddedRedis, served: Functions) -> AsyncIterator[NodeProcess]:
    """Run a node with these functions."""
    async with running(tmp_path, redis, served.section()) as node:
        yield node


@pytest.fixture
async def client(node: NodeProcess) -> AsyncIterator[Any]:
    """Give AWS's own client of the node."""
    async with lambda_calls(f"http://{node.address}") as client:
        yield client


async def depth(node: NodeProcess) -> int:
    """Return how many events the fleet has."""
    return int((await node.status())["async_invoke"]["events"])


async def test_boto3_invokes_asynchronously(node: NodeProcess, client: Any, served: Functions) -> None:
    """AWS's own client gets 202 with a request id, and the function runs once under that id."""
    answer = await asyncio.to_thread(
        client.invoke, FunctionName="work:live", InvocationType="Event", Payload=b'{"n": 1}'
    )
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    assert "FunctionError" not in answer
    request_id = answer["ResponseMetadata"]["RequestId"]
    await eventually(lambda: request_id in served.took, "the function runs")
    await eventually(lambda: _empty(node), "nothing is left in the queue")
    assert served.work == {request_id: 1}
    metrics = await node.metrics()
    assert metrics['esm_async_events_received_total{function="work"}'] == 1
    assert metrics['esm_async_invocations_total{function="work",result="ok"}'] == 1
    assert metrics['esm_async_events_over_total{condition="Success",function="work"}'] == 1
    assert (await node.status())["mappings"] == []
    assert (await asyncio.to_thread(client.list_event_source_mappings))["EventSourceMappings"] == []


async def _empty(node: NodeProcess) -> bool:
    return await depth(node) == 0


async def test_events_beyond_a_megabyte_are_refused(client: Any) -> None:
    """An asynchronous event may have 1 MB and no byte more."""

    def send(size: int) -> Any:
        return client.invoke(FunctionName="slow", InvocationType="Event", Payload=b'"' + b"x" * (size - 2) + b'"')

    assert (await asyncio.to_thread(send, MB))["StatusCode"] == 202
    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(send, MB + 1)
    assert caught.value.response["Error"]["Code"] == "RequestTooLargeException"


async def test_results_go_to_destinations(tmp_path: Path, redis: EmbeddedRedis, served: Functions) -> None:
    """Another function is told of what succeeded and of what failed, with the documents of AWS."""
    ends = {"OnSuccess": {"Destination": SINK_ARN}, "OnFailure": {"Destination": SINK_ARN}}
    settings = {"MaximumRetryAttempts": 0, "DestinationConfig": ends}
    async with running(tmp_path, redis, served.section(event_invoke=settings)) as node, caller() as calling:
        assert await calling.invoke(node.address, "work", {"n": 1})
        assert await calling.invoke(node.address, "work", {"fail": True})
        good, bad = calling.accepted
        await eventually(lambda: len(served.sink) == 2, lambda: f"the sink has both: {served.sink}\n{node.tail()}")
    arn = "arn:aws:lambda:us-east-1:000000000000:function:work:$LATEST"
    context = {"requestId": good, "functionArn": arn, "condition": "Success", "approximateInvokeCount": 1}
    assert served.sink[good]["requestContext"] == context
    assert served.sink[good]["responsePayload"] == {"took": {"n": 1}}
    assert served.sink[bad]["requestContext"]["condition"] == "RetriesExhausted"
    assert served.sink[bad]["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    assert served.sink[bad]["requestPayload"] == {"fail": True}


async def test_a_function_without_concurrency_is_not_tried(
    tmp_path: Path, redis: EmbeddedRedis, served: Functions
) -> None:
    """With a reserved concurrency of 0 the event goes straight to the destination; boto3 says so while it runs."""
    async with running(tmp_path, redis, served.section(event_invoke=TRIED_ONCE)) as node, caller() as calling:
        async with lambda_calls(f"http://{node.address}") as client:
            await asyncio.to_thread(
                client.put_function_concurrency, FunctionName="work", ReservedConcurrentExecutions=0
            )
        reserved = 'esm_function_reserved_concurrency{function="work"}'

        async def known() -> bool:
            return reserved in await node.metrics()

        await eventually(known, "the node knows of it")
        assert await calling.invoke(node.address, "work", {"n": 1})
        await eventually(lambda: served.sink, "the sink is told")
    (document,) = served.sink.values()
    assert document["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert document["requestContext"]["approximateInvokeCount"] == 0
    assert not document.keys() & {"responseContext", "responsePayload"}
    assert not served.work


async def test_a_throttled_function_gets_its_events_later(node: NodeProcess, served: Functions) -> None:
    """A throttle counts as no retry, and the same event comes again under the same id."""
    served.throttling = True
    async with caller() as calling:
        assert await calling.invoke(node.address, "work", {"n": 1})
    (request_id,) = calling.accepted
    await eventually(lambda: served.work[request_id] >= 2, "it was tried again")
    served.throttling = False
    await eventually(lambda: request_id in served.took, "the function took it")
    await eventually(lambda: _empty(node), "nothing is left in the queue")


async def test_a_slow_function_keeps_nobody_waiting(node: NodeProcess, served: Functions) -> None:
    """Others are served at once while one holds hundreds of events and answers none."""
    served.held = asyncio.Event()
    async with caller() as calling:
        for _ in range(300):
            assert await calling.invoke(node.address, "slow", {})
        await eventually(lambda: served.slow >= 64, "it has its share")
        assert await calling.invoke(node.address, "work", {"n": 1})
        request_id = list(calling.accepted)[-1]
        await eventually(lambda: request_id in served.took, "the other function runs", limit_s=5)
        served.held.set()
        await eventually(lambda: served.slow == 300, "the slow one is through")


async def test_a_drained_node_hands_over_what_waits(
    tmp_path: Path, redis: EmbeddedRedis, node: NodeProcess, served: Functions
) -> None:
    """The other node goes on at once, and no event is delivered twice."""
    document = {"redis": {"url": redis.url}, "leasing": {"ttl": 3}, "functions": served.section()}
    async with NodeProcess(tmp_path, document, name="other") as other, caller() as calling:
        await other.start()
        for number in range(400):
            assert await calling.invoke(node.address, "work", {"n": number})
            if number == 200:
                other.signal(signal.SIGTERM)
        assert await other.ended() == 0
        assert any(line["shard"].startswith("async-invoke/") for line in other.find("lease.acquired"))
        await eventually(lambda: set(calling.accepted) <= served.took, lambda: f"all are delivered\n{node.tail()}")
        assert set(served.work.values()) == {1}


async def test_what_redis_does_not_take_is_refused(node: NodeProcess, redis: EmbeddedRedis, served: Functions) -> None:
    """Without Redis an event is answered with an error of the service, and none that was accepted is lost by it."""
    async with caller() as calling:
        assert await calling.invoke(node.address, "work", {"n": 1})
        redis.kill()
        assert not await calling.invoke(node.address, "work", {"n": 2})
        assert calling.refused == {"500": 1}
        redis.start()
        await eventually(lambda: set(calling.accepted) <= served.took, lambda: f"it runs:\n{node.tail()}")
        await eventually(lambda: calling.invoke(node.address, "work", {"n": 3}), "events are accepted again")
        await eventually(lambda: set(calling.accepted) <= served.took, "all run")


@pytest.mark.parametrize("failed", ["kafka://failed", "arn:aws:s3:::failures"])
async def test_results_reach_services_of_aws_and_kafka(
    tmp_path: Path, redis: EmbeddedRedis, served: Functions, failed: str
) -> None:
    """A queue has the success, a topic of Kafka or a bucket the failure, and a queue the dead letter, unchanged."""
    ends = {"OnSuccess": {"Destination": f"{QUEUES}:good"}, "OnFailure": {"Destination": failed}}
    settings = {"MaximumRetryAttempts": 0, "DestinationConfig": ends}
    section = served.section(event_invoke=settings, dead_letter=f"{QUEUES}:dead")
    servers = {"aws": {}, "kafka": {"topics": {"failed": 1}}}
    async with running(tmp_path, redis, section, embedded=servers) as node, caller() as calling:
        endpoint = (await node.logged("embedded.aws"))["endpoint_url"]
        with closing(aws_client("sqs", endpoint)) as sqs, closing(aws_client("s3", endpoint)) as s3:
            urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("good", "dead")}
            s3.create_bucket(Bucket="failures")
            assert await calling.invoke(node.address, "work", {"n": 1})
            assert await calling.invoke(node.address, "work", {"fail": 1})
            good, bad = calling.accepted
            message = await received(sqs, urls["good"])
            assert json.loads(message["Body"])["requestContext"]["requestId"] == good
            letter = await received(sqs, urls["dead"])
            assert letter["Body"] == '{"fail": 1}'
            told = {name: one["StringValue"] for name, one in letter["MessageAttributes"].items()}
            assert told == {"RequestID": bad, "ErrorCode": "200", "ErrorMessage": "as asked"}
            if failed.startswith("kafka"):
                record = await first_record((await node.logged("embedded.kafka"))["servers"], "failed")
            else:
                listed = s3.list_objects_v2(Bucket="failures")["Contents"]
                assert listed[0]["Key"].startswith("aws/lambda/async/work/20")
                record = s3.get_object(Bucket="failures", Key=listed[0]["Key"])["Body"].read()
        document = json.loads(record)
        assert (document["requestContext"]["requestId"], document["requestPayload"]) == (bad, {"fail": 1})


async def received(sqs: Any, url: str) -> Any:
    """Wait for a message."""

    def receive() -> Any:
        return sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"]).get("Messages")

    (message,) = await eventually(lambda: asyncio.to_thread(receive), "a message")
    return message


async def first_record(servers: str, topic: str) -> bytes:
    """Wait for a record."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        value: bytes = (await consumer.getone()).value
        return value


async def test_a_full_redis_refuses_events_and_gives_out_those_it_has(tmp_path: Path, served: Functions) -> None:
    """The last of Redis's memory is not for events: they are throttled, and what is there is delivered all the same."""
    with EmbeddedRedis(port=0) as redis:
        served.held = asyncio.Event()
        async with running(tmp_path, redis, served.section()) as node, caller() as calling:
            for _ in range(200):
                assert await calling.invoke(node.address, "slow", {"x": "y" * 10_000})
            await eventually(lambda: served.slow == 128, "its share is under way")
            store = RedisStore.from_url(redis.url)
            try:
                await limit_memory(redis.url, "1mb")
                assert not await calling.invoke(node.address, "slow", {})
                assert calling.refused == {"429": 1}
                with pytest.raises(QueueFullError):
                    await store.events.append(NewEvent("slow", "slow", "r", "t", b"{}"), (0, 1))
                served.held.set()
                await eventually(lambda: served.slow == 200, lambda: f"all are delivered\n{node.tail()}")
                depth = await eventually(lambda: _drained(store), "they are done")
                assert depth.size == 0
            finally:
                await limit_memory(redis.url, "0")
                await store.aclose()


async def _drained(store: RedisStore) -> Any:
    depth = await store.events.depth()
    return depth if depth.events == 0 else None


async def limit_memory(url: str, most: str) -> None:
    """Set the memory that Redis may use."""
    async with Redis.from_url(url) as client:
        await client.config_set("maxmemory", most)


async def test_the_command_line_invokes_and_shows_what_waits(node: NodeProcess, served: Functions) -> None:
    """`esmd invoke --async` returns at once, and `esmd status` says how much waits."""
    served.held = asyncio.Event()
    url = f"http://{node.address}"
    invoked = await esmd("invoke", "slow", "--async", "--url", url)
    assert invoked == (0, "")
    status, text = await esmd("status", "--url", url)
    assert status == 0
    assert "asynchronous invocations: 1 events, 402 bytes" in text
    served.held.set()
    await eventually(lambda: _empty(node), "nothing is left in the queue")


async def esmd(*arguments: str) -> tuple[int, str]:
    """Run the command with an empty event; return its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "node", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate(b"{}")
    assert process.returncode is not None
    return process.returncode, printed.decode()
