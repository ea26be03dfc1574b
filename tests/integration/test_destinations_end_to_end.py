"""From a source, past a function that fails, to the on-failure destination: the node's parts put together."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from config.load import load
from invocation.client import Targets
from model.ids import FencingToken, ShardId, ShardKey
from model.outcome import FunctionFailed
from node.embedded_kafka import FETCH_MAX_WAIT_MS
from node.parts import Parts
from pollers.checkpointer import Checkpointer
from pollers.counters import Meters
from pollers.destinations.aws_clients import AwsClients
from pollers.pump import Pump
from pollers.pump_parts import PumpParts
from pollers.sources.kafka import KafkaSource
from tests.integration.test_kafka_destination import read
from tests.support.aws_servers import aws_client
from tests.support.kafka_source import Secrets
from tests.support.kinesis_streams import Stream
from tests.support.mapping_rig import MappingRig, SavedProgress
from tests.support.pump_fakes import FakeLease
from tests.support.scripted_http import ScriptedServer, answer
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticmq import ElasticMQ
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.moto_server import MotoServer

CONFIGURATION = """
aws: {{region: us-east-1, account_id: "000000000000", endpoint_url: "{endpoint_url}"}}
functions:
  billing: {{url: "{url}"}}
event_source_mappings:
  - Name: orders
    SelfManagedEventSource: {{Endpoints: {{KAFKA_BOOTSTRAP_SERVERS: ["{servers}"]}}}}
    Topics: [{topic}]
    FunctionName: billing
    StartingPosition: TRIM_HORIZON
    BatchSize: 2
    MaximumRetryAttempts: 1
    DestinationConfig: {{OnFailure: {{Destination: "{destination}"}}}}
"""


async def run(path: Path, saves: SavedProgress, *, until: str) -> Any:
    """Pump partition 0 of the configured mapping until its checkpoint is there; returns the ledger."""
    settings = load([path], environ={})
    [mapping] = settings.mappings
    key = ShardKey(mapping.id, ShardId(f"{mapping.source.topic}-0"))  # type: ignore[union-attr]  # it is Kafka
    checkpointer = Checkpointer(saves)
    aws = AwsClients(region=settings.aws.region, endpoint_url=settings.aws.endpoint_url)
    async with Targets(Secrets()) as targets, aws, asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        parts = Parts(
            settings, tasks=tasks, resolver=Secrets(), targets=targets, aws=aws, meters=Meters(),
            checkpointer=checkpointer,
        )(mapping)  # fmt: skip
        assert isinstance(parts, PumpParts)
        assert isinstance(parts.source, KafkaSource)
        parts.source._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # the embedded broker's
        background = tasks.create_task(checkpointer.run())
        pump = Pump(parts, FakeLease(key, FencingToken(7), progress=saves.progress))  # type: ignore[arg-type]
        working = tasks.create_task(pump.run())
        await saves.until(lambda progress: progress.position == until)
        pump.drain()
        await working
        await parts.close()
        background.cancel()
    return saves.progress.ledger


async def produce(servers: str, topic: str, *values: bytes) -> None:
    """Write records under the key `k`."""
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"k")


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the SDK credentials."""
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


async def test_a_failing_batch_ends_in_the_queue_and_the_rest_is_delivered(
    embedded_kafka: EmbeddedBroker, elasticmq: ElasticMQ, tmp_path: Path
) -> None:
    """The queue is missing first: the batch waits; created, it gets the document, and the ledger balances."""
    topic, queue = embedded_kafka.new_topic(1), unique_name("failed")
    await produce(embedded_kafka.bootstrap_servers, topic, b"one", b"two", b"three", b"four")
    sqs, saves = aws_client("sqs", elasticmq.endpoint_url), SavedProgress()
    async with ScriptedServer(answer(200)) as function:
        function.then(answer(500), answer(500))
        path = tmp_path / "esmd.yaml"
        path.write_text(
            CONFIGURATION.format(
                endpoint_url=elasticmq.endpoint_url,
                url=function.url,
                servers=embedded_kafka.bootstrap_servers,
                topic=topic,
                destination=f"arn:aws:sqs:us-east-1:000000000000:{queue}",
            )
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(run(path, saves, until="4"))
            await saves.until(lambda progress: "does not exist" in (progress.report.last_error or ""))
            assert saves.progress.position == "0"
            url = (await asyncio.to_thread(sqs.create_queue, QueueName=queue))["QueueUrl"]
    ledger = running.result()
    assert (ledger.delivered, ledger.destination, ledger.dropped, ledger.balanced) == (2, 2, 0, True)
    assert len(function.complete) == 3
    [message] = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2)["Messages"]
    document = json.loads(message["Body"])
    assert document["requestContext"]["functionArn"] == "arn:aws:lambda:us-east-1:000000000000:function:billing"
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["requestContext"]["approximateInvokeCount"] == 2
    info = document["KafkaBatchInfo"]
    assert (info["batchSize"], info["bootstrapServers"]) == (2, embedded_kafka.bootstrap_servers)
    assert info["payloadSize"] == len(function.complete[0].body)
    assert info["recordsInfo"][f"{topic}-0"]["lastRecordOffset"] == "1"


async def test_failed_records_end_in_a_topic_of_the_same_cluster(
    embedded_kafka: EmbeddedBroker, tmp_path: Path
) -> None:
    """Each message holds what the function was called with, for that record."""
    topic, failed = embedded_kafka.new_topic(1), embedded_kafka.new_topic(1)
    await produce(embedded_kafka.bootstrap_servers, topic, b"one", b"two")
    async with ScriptedServer(answer(500)) as function:
        path = tmp_path / "esmd.yaml"
        path.write_text(
            CONFIGURATION.format(
                endpoint_url="http://127.0.0.1:9",
                url=function.url,
                servers=embedded_kafka.bootstrap_servers,
                topic=topic,
                destination=f"kafka://{failed}",
            )
        )
        ledger = await run(path, SavedProgress(), until="2")
    assert (ledger.destination, ledger.balanced) == (2, True)
    messages = await read(embedded_kafka, failed, 2)
    invoked = json.loads(function.complete[0].body)["records"][f"{topic}-0"]
    payloads = [json.loads(message.value)["payload"] for message in messages]
    assert [payload["records"][f"{topic}-0"] for payload in payloads] == [[record] for record in invoked]
    assert [message.key for message in messages] == [b"k", b"k"]


@pytest.mark.parametrize("service", ["sqs", "s3"])
async def test_failed_kinesis_records_are_told_of_key_by_key(
    moto_server: MotoServer, tmp_path: Path, service: str
) -> None:
    """The document is the specification's, made of the stream's own numbers; an object holds the event besides."""
    stream, name = await asyncio.to_thread(Stream, moto_server.endpoint_url), unique_name("failed")
    placed = await asyncio.to_thread(stream.put, [("k", b"one"), ("k", b"two")])
    made = aws_client(service, moto_server.endpoint_url)
    if service == "sqs":
        queue = (await asyncio.to_thread(made.create_queue, QueueName=name))["QueueUrl"]
        destination = f"arn:aws:sqs:us-east-1:123456789012:{name}"
    else:
        await asyncio.to_thread(made.create_bucket, Bucket=name)
        destination = f"arn:aws:s3:::{name}"
    mapping = {
        "Name": "clicks", "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON", "BatchSize": 2,
        "MaximumBatchingWindowInSeconds": 1, "MaximumRetryAttempts": 1,
        "DestinationConfig": {"OnFailure": {"Destination": destination}},
    }  # fmt: skip
    rig = MappingRig(tmp_path, mapping, endpoint_url=moto_server.endpoint_url)
    rig.function.answer = lambda _event: FunctionFailed("Boom")
    shard, last = placed[-1]
    async with rig.running(shard):
        await rig.saves.until(lambda progress: progress.position == last)
    assert rig.saves.progress.ledger.destination == 2
    if service == "sqs":
        [message] = made.receive_message(QueueUrl=queue, WaitTimeSeconds=2)["Messages"]
        document = json.loads(message["Body"])
    else:
        [entry] = made.list_objects_v2(Bucket=name)["Contents"]
        document = json.loads(made.get_object(Bucket=name, Key=entry["Key"])["Body"].read())
        assert json.loads(document.pop("payload")) == rig.function.events[0]
        when = datetime.fromisoformat(document["timestamp"])
        assert entry["Key"].startswith(f"aws/lambda/{rig.mapping.id}/{shard}/{when:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}-")
    arrivals = [record["kinesis"]["approximateArrivalTimestamp"] for record in rig.function.calls[0]]
    UUID(document["requestContext"].pop("requestId"))
    assert abs(datetime.now(UTC) - datetime.fromisoformat(document.pop("timestamp"))) < timedelta(minutes=1)
    first, second = (datetime.fromtimestamp(s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z" for s in arrivals)
    assert document == {
        "requestContext": {
            "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:f",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 2,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "KinesisBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": placed[0][1],
            "endSequenceNumber": last,
            "approximateArrivalOfFirstRecord": first,
            "approximateArrivalOfLastRecord": second,
            "batchSize": 2,
            "streamArn": stream.arn,
        },
    }
