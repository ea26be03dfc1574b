"""Failed records delivered again: from each destination, through a real node and the real command."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.support.aws_servers import CREDENTIALS, aws_client
from tests.support.kinesis_streams import Stream
from tests.support.mendable import Mendable, RedriveCommand, redrive
from tests.support.node_process import NodeProcess, eventually, kafka_document, url_target
from tests.support.servers import unique_name
from tests.support.sqs_servers import RealQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.elasticmq import ElasticMQ
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kinesis_local import KinesisLocal
    from tests.support.moto_server import MotoServer


def value(number: int) -> str:
    """Return the value of a record as events have it."""
    return base64.b64encode(b"value-%d" % number).decode()


async def produce(broker: EmbeddedBroker, topic: str, count: int, *, keys: int = 3) -> None:
    """Write records to partition 0."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for n in range(count):
            await producer.send_and_wait(topic, b"value-%d" % n, key=b"k%d" % (n % keys), partition=0)


@asynccontextmanager
async def failed(
    folder: Path,
    broker: EmbeddedBroker,
    redis_url: str,
    destination: str,
    *,
    count: int,
    endpoint_url: str | None = None,
    **mapping: Any,
) -> AsyncIterator[tuple[NodeProcess, Mendable]]:
    """Run a node whose function has failed on all records of its topic, so that the destination has them."""
    topic = broker.new_topic(1)
    await produce(broker, topic, count)
    async with Mendable().serving() as function:
        document = kafka_document(
            broker.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(function.url),
            MaximumRetryAttempts=0,
            DestinationConfig={"OnFailure": {"Destination": destination}},
            **{"BatchSize": 2, **mapping},
        )
        if endpoint_url is not None:
            document["aws"] = {"region": "us-east-1", "endpoint_url": endpoint_url}
        async with NodeProcess(folder, document, env=CREDENTIALS) as node:
            await node.start()

            async def handed_over() -> bool:
                return bool((await node.mapping())["ledger"]["destination"] == count)

            await eventually(handed_over, lambda: f"{count} records at the destination\n{node.tail()}")
            yield node, function


@asynccontextmanager
async def again(killed: NodeProcess) -> AsyncIterator[NodeProcess]:
    """Run another node with the configuration of one that was killed."""
    async with NodeProcess(killed.config.parent, killed.config.read_text(), name="again", env=CREDENTIALS) as node:
        await node.start()
        yield node


async def no_redrive(node: NodeProcess, count: int = 1) -> None:
    """Wait until the node has ended its redrives."""
    await node.logged("redrive.ended", count=count)


@pytest.mark.parametrize("payload", [True, False], ids=["with the records", "naming them"])
async def test_from_a_queue(
    payload: bool,  # noqa: FBT001 - both kinds of document
    embedded_kafka: EmbeddedBroker,
    elasticmq: ElasticMQ,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """A dry run touches nothing; while the function fails, what fails stays; mended, everything comes once."""
    queue = RealQueue(elasticmq.endpoint_url)
    await asyncio.to_thread(queue.send, ["somebody else's"])
    async with failed(
        tmp_path,
        embedded_kafka,
        redis_url,
        queue.arn,
        count=6,
        endpoint_url=elasticmq.endpoint_url,
        extensions={"destination_payload": payload},
    ) as (node, function):
        status, told = await redrive(node, "orders", "--dry-run")
        assert (status, told["delivered_records"], told["delivered_documents"], told["skipped_documents"]) == (
            0,
            6,
            3,
            1,
        )
        assert function.taken == []
        function.breaks_on = lambda values: value(2) in values
        status, told = await redrive(node, "orders")
        assert status == 1
        assert (told["delivered_records"], told["failed_records"], told["stopped"]) == (4, 2, False)
        assert [kept["records"] for kept in told["kept"]] == [2]
        assert "500" in told["kept"][0]["error"]
        function.mend()
        status, told = await redrive(node, "orders")
        assert (status, told["delivered_records"], told["kept"]) == (0, 2, [])
        assert sorted(function.taken) == sorted(value(n) for n in range(6))
        left = await asyncio.to_thread(queue.client.receive_message, QueueUrl=queue.url, WaitTimeSeconds=2)
        assert [message["Body"] for message in left["Messages"]] == ["somebody else's"]
        name = 'esm_redriven_event_count_total{mapping="orders",source="kafka"}'
        assert (await node.metrics())[name] == 6
        assert function.headers[-1]["x-esmd-batch-id"].endswith("-0:2-3")
        assert int(function.headers[-1]["x-esmd-fencing-token"]) > 0


async def test_a_client_that_goes_away_stops_the_redrive_and_the_next_one_goes_on(
    embedded_kafka: EmbeddedBroker, elasticmq: ElasticMQ, redis_url: str, tmp_path: Path
) -> None:
    """Ctrl-C and kill -9 alike: what was taken is gone from the queue, the rest is there at once."""
    queue = RealQueue(elasticmq.endpoint_url)
    async with failed(
        tmp_path,
        embedded_kafka,
        redis_url,
        queue.arn,
        count=40,
        endpoint_url=elasticmq.endpoint_url,
        extensions={"destination_payload": True},
    ) as (node, function):
        function.mend()
        for number, how in enumerate((signal.SIGINT, signal.SIGKILL), start=1):
            before = len(function.taken)
            command = RedriveCommand(node, "orders", "--rate", "4")
            await function.until(before + 2)
            command.signal(how)
            status, out, err = await command.ended()
            if how is signal.SIGINT:
                assert status == 1
                assert "Stopped before the end" in out
                assert "Run it again" in err
            await no_redrive(node, number)
        assert len(function.taken) < 40
        status, _ = await redrive(node, "orders")
        assert status == 0
        assert sorted(function.taken) == sorted(value(n) for n in range(40))


async def test_from_a_bucket_through_the_death_of_the_node(
    embedded_kafka: EmbeddedBroker, moto_server: MotoServer, redis_url: str, tmp_path: Path
) -> None:
    """Delivered documents are moved; killed in the middle, at most the batch under way comes twice."""
    s3, bucket = aws_client("s3", moto_server.endpoint_url), unique_name("failed")
    s3.create_bucket(Bucket=bucket)

    def keys(prefix: str) -> list[str]:
        return [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]

    async with failed(
        tmp_path,
        embedded_kafka,
        redis_url,
        f"arn:aws:s3:::{bucket}",
        count=10,
        endpoint_url=moto_server.endpoint_url,
    ) as (node, function):
        before = await asyncio.to_thread(keys, "aws/lambda/")
        assert len(before) == 5
        status, told = await redrive(node, "orders", "--dry-run")
        assert (status, told["delivered_records"]) == (0, 10)
        assert await asyncio.to_thread(keys, "") == before
        function.mend()
        command = RedriveCommand(node, "orders", "--rate", "2")
        await function.until(2)
        node.kill()
        status, _, err = await command.ended()
        assert status == 3, err
        async with again(node) as successor:
            status, told = await redrive(successor, "orders")
        assert status == 0, told
        assert set(function.taken) == {value(n) for n in range(10)}
        assert len(function.taken) <= 12
        assert await asyncio.to_thread(keys, "aws/lambda/") == []
        assert await asyncio.to_thread(keys, "esmd-redriven/") == [f"esmd-redriven/{key}" for key in before]


async def test_from_a_topic_through_the_death_of_the_node(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """How far it got is committed for a group of its own; what failed in the middle stays, and only that."""
    destination = embedded_kafka.new_topic(2)
    async with failed(tmp_path, embedded_kafka, redis_url, f"kafka://{destination}", count=10, BatchSize=1) as (
        node,
        function,
    ):
        status, told = await redrive(node, "orders", "--dry-run")
        assert (status, told["delivered_records"], told["delivered_documents"]) == (0, 10, 10)
        function.breaks_on = lambda values: value(4) in values
        command = RedriveCommand(node, "orders", "--rate", "2")
        await function.until(3)
        node.kill()
        await command.ended()
        async with again(node) as successor:
            status, told = await redrive(successor, "orders")
            assert (status, told["failed_records"]) == (1, 1)
            taken = len(function.taken)
            assert taken <= 10  # of nine, the batch under way may have come twice
            function.mend()
            status, told = await redrive(successor, "orders")
            assert (status, told["documents"], told["delivered_records"]) == (0, 1, 1)
            assert function.taken[taken:] == [value(4)]
            assert set(function.taken) == {value(n) for n in range(10)}
            status, told = await redrive(successor, "orders")
            assert (status, told["documents"]) == (0, 0)


async def test_records_of_a_stream_that_documents_name_are_read_again(
    kinesis_local: KinesisLocal, elasticmq: ElasticMQ, redis_url: str, tmp_path: Path
) -> None:
    """By their sequence numbers, filtered as ever; those the stream does not have any more are reported, and stay."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    queue = RealQueue(elasticmq.endpoint_url)
    texts = [json.dumps({"n": n, "keep": n != 1}).encode() for n in range(5)]
    await asyncio.to_thread(stream.put, [("k", text) for text in texts])
    async with Mendable().serving() as function:
        document = {
            "redis": {"url": redis_url},
            "leasing": {"ttl": 3},
            "aws": {"region": "us-east-1"},
            "functions": url_target(function.url),
            "event_source_mappings": [
                {
                    "Name": "clicks",
                    "EventSourceArn": stream.arn,
                    "FunctionName": "f",
                    "StartingPosition": "TRIM_HORIZON",
                    "BatchSize": 10,
                    "MaximumRetryAttempts": 0,
                    "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"keep": [true]}}'}]},
                    "DestinationConfig": {"OnFailure": {"Destination": queue.arn}},
                }
            ],
        }
        env = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL_KINESIS": kinesis_local.endpoint_url,
            "AWS_ENDPOINT_URL_SQS": elasticmq.endpoint_url,
        }
        async with NodeProcess(tmp_path, document, env=env) as node:
            await node.start()

            async def handed_over() -> bool:
                return bool((await node.mapping("clicks"))["ledger"]["destination"] == 4)

            await eventually(handed_over, lambda: f"the records at the destination\n{node.tail()}")
            [message] = (await asyncio.to_thread(queue.client.receive_message, QueueUrl=queue.url))["Messages"]
            lost = json.loads(message["Body"])
            lost["KinesisBatchInfo"]["shardId"] = "shardId-000000000099"
            await asyncio.to_thread(queue.send, [json.dumps(lost)])
            await asyncio.to_thread(
                queue.client.change_message_visibility,
                QueueUrl=queue.url,
                ReceiptHandle=message["ReceiptHandle"],
                VisibilityTimeout=0,
            )
            function.mend()
            status, told = await redrive(node, "clicks")
            assert (status, told["delivered_records"], told["gone_records"]) == (1, 4, 4)
            assert [kept["error"] for kept in told["kept"]] == ["4 records are not in the source any more"]
            assert function.taken == [base64.b64encode(texts[n]).decode() for n in (0, 2, 3, 4)]


async def test_parked_keys_are_tried_at_once_wherever_they_are_held(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """Asked of one node, done by the holder; a dry run tells what is parked; explain tells why."""
    topic = embedded_kafka.new_topic(1)
    await produce(embedded_kafka, topic, 9)
    async with Mendable().serving() as function:
        function.breaks_on = lambda values: any(base64.b64decode(one)[-1] % 3 == 0 for one in values)
        document = kafka_document(
            embedded_kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(function.url),
            extensions={"park_failing_keys": True},
        )
        async with (
            NodeProcess(tmp_path, document, name="holder") as holder,
            NodeProcess(tmp_path, document, name="other", arguments=["--role", "statemgr"]) as other,
        ):
            await holder.start()
            await other.start()

            async def parked() -> bool:
                return bool((await holder.mapping())["ledger"]["parked"] == 3)

            await eventually(parked, lambda: f"three records parked\n{holder.tail()}")
            code, text = await other.get("/esmd/v1/mappings/orders/explain")
            explained = json.loads(text)
            assert code == 200
            assert "is parked with 3 records" in " ".join(explained["summary"]), explained
            status, told = await redrive(other, "orders", "--from", "parked", "--dry-run")
            assert (status, told["delivered_records"]) == (0, 3)
            status, told = await redrive(other, "orders", "--from", "parked")
            assert (status, told["delivered_records"], told["failed_records"]) == (1, 0, 3)
            assert [kept["records"] for kept in told["kept"]] == [3]
            function.mend()
            status, told = await redrive(other, "orders")
            assert (status, told["delivered_records"], told["kept"]) == (0, 3, [])
            assert sorted(function.taken) == sorted(value(n) for n in range(9))


async def test_what_cannot_be_redriven_is_refused_with_the_reason(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """Exit status 1 and one line, before anything is touched; wrong options are status 2."""
    topic = embedded_kafka.new_topic(1)
    document = kafka_document(
        embedded_kafka.bootstrap_servers, topic, redis_url=redis_url, functions=url_target("http://127.0.0.1:9/")
    )
    async with NodeProcess(tmp_path, document) as node:
        await node.start()
        for arguments, status, said in (
            (["orders"], 1, "esmd: orders has no on-failure destination: name one with --from"),
            (["orders", "--from", "arn:aws:sns:us-east-1:1:t"], 1, "an SNS topic keeps nothing"),
            (["nobody"], 1, "no mapping nobody; the fleet has: orders"),
            (["orders", "--from", "parked", "--rate", "1"], 1, "parked keys are tried one after the other"),
            (["orders", "--rate", "0"], 2, "--rate"),
            (["orders", "--since", "yesterday"], 2, "an ISO 8601 time"),
        ):
            code, out, err = await RedriveCommand(node, *arguments).ended()
            assert (code, out) == (status, ""), err
            assert said in err
