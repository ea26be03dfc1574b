"""moto's server as the demo and a node with `embedded.aws` run it: its process, its address, its Kinesis."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from config.load import load
from invocation.aws_json import AwsJson
from invocation.classify import Answer
from invocation.signing import LocalSigner
from invocation.transport import Transport
from model.errors import RefusedError, UnavailableError
from node.embedded_aws import EmbeddedAws
from node.embedded_aws_calls import SHARD_RECORDS
from node.options import ListenAddress, Overrides, RunOptions
from node.signals import Shutdown
from node.wiring import run_node
from pollers.destinations.aws_clients import AwsClients
from tests.support.processes import wait_gone

REGION = "us-east-1"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"


class Kinesis:
    """Calls of one server's Kinesis."""

    def __init__(self, transport: Transport, endpoint_url: str) -> None:
        self._calls = AwsJson(transport, LocalSigner("kinesis", endpoint_url, region=REGION))

    async def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Make a call that succeeds."""
        came = await self._calls.call(
            REGION,
            f"Kinesis_20131202.{operation}",
            json.dumps(request).encode(),
            timeout_s=30,
            max_answer_bytes=32 * 1024 * 1024,
        )
        assert isinstance(came, Answer)
        assert came.status == 200, came.body
        document: dict[str, Any] = json.loads(came.body or b"{}")
        return document

    async def records(self, shard: str) -> list[dict[str, Any]]:
        """Return what a shard holds, up to 10,000 records."""
        at = await self.call("GetShardIterator", StreamARN=STREAM, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        page = await self.call("GetRecords", StreamARN=STREAM, ShardIterator=at["ShardIterator"], Limit=10_000)
        records: list[dict[str, Any]] = page["Records"]
        return records


def entry(number: int) -> dict[str, str]:
    """Make a record to put."""
    return {"Data": base64.b64encode(b"%d" % number).decode(), "PartitionKey": f"k{number}"}


async def test_a_stream_takes_and_gives_records_of_many_callers() -> None:
    """The first call may come at once; ARNs have the account asked for; calls made together lose nothing."""
    async with EmbeddedAws() as aws, Transport() as transport:
        kinesis = Kinesis(transport, aws.endpoint_url)
        await kinesis.call("CreateStream", StreamName="clicks", ShardCount=1)
        async with asyncio.TaskGroup() as tasks:
            for caller in range(8):
                for step in range(5):
                    tasks.create_task(
                        kinesis.call("PutRecords", StreamARN=STREAM, Records=[entry(caller * 100 + step)])
                    )
        records = await kinesis.records("shardId-000000000000")
    assert len({record["Data"] for record in records}) == 40
    assert [record["SequenceNumber"] for record in records] == [str(number) for number in range(1, 41)]


async def test_a_shard_keeps_its_last_records() -> None:
    """What is more than the limit is dropped from the beginning, so that memory stays bounded."""
    async with EmbeddedAws() as aws, Transport() as transport:
        kinesis = Kinesis(transport, aws.endpoint_url)
        await kinesis.call("CreateStream", StreamName="clicks", ShardCount=1)
        for start in range(0, SHARD_RECORDS + 500, 500):
            batch = [entry(number) for number in range(start, start + 500)]
            await kinesis.call("PutRecords", StreamARN=STREAM, Records=batch)
        first = (await kinesis.records("shardId-000000000000"))[0]
        assert first["SequenceNumber"] == "501"


class Sqs:
    """Calls of one server's SQS, on one queue."""

    def __init__(self, transport: Transport, endpoint_url: str) -> None:
        self._calls = AwsJson(transport, LocalSigner("sqs", endpoint_url, region=REGION), version="1.0")
        self.queue = f"{endpoint_url}/000000000000/mails"

    async def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Make a call that succeeds."""
        body = json.dumps(request if "QueueName" in request else {"QueueUrl": self.queue, **request}).encode()
        came = await self._calls.call(
            REGION, f"AmazonSQS.{operation}", body, timeout_s=30, max_answer_bytes=1024 * 1024
        )
        assert isinstance(came, Answer)
        assert came.status == 200, came.body
        document: dict[str, Any] = json.loads(came.body or b"{}")
        return document

    async def send(self, first: int, count: int) -> None:
        """Send numbered messages."""
        entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(first, first + count)]
        await self.call("SendMessageBatch", Entries=entries)


async def test_a_queue_takes_and_gives_messages_of_many_callers() -> None:
    """Sent, received by long polls and deleted all at the same time, every message comes once and none stays."""
    received: list[str] = []
    async with EmbeddedAws() as aws, Transport() as transport:
        sqs = Sqs(transport, aws.endpoint_url)
        await sqs.call("CreateQueue", QueueName="mails")

        async def read() -> None:
            while len(received) < 400:
                answer = await sqs.call("ReceiveMessage", MaxNumberOfMessages=10, WaitTimeSeconds=1)
                if messages := answer.get("Messages", []):
                    received.extend(message["Body"] for message in messages)
                    entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
                    await sqs.call("DeleteMessageBatch", Entries=entries)

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(read())
            for first in range(0, 400, 5):
                tasks.create_task(sqs.send(first, 5))
        assert sorted(map(int, received)) == list(range(400))
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        assert set((await sqs.call("GetQueueAttributes", AttributeNames=names))["Attributes"].values()) == {"0"}


async def test_a_long_poll_answers_when_something_is_sent_and_ends_with_its_client() -> None:
    """One whose client went away takes no message; the next one gets it, for the first time."""
    async with EmbeddedAws() as aws, Transport() as transport:
        sqs = Sqs(transport, aws.endpoint_url)
        await sqs.call("CreateQueue", QueueName="mails")
        async with asyncio.TaskGroup() as tasks:
            doomed = tasks.create_task(sqs.call("ReceiveMessage", WaitTimeSeconds=20))
            assert not (await sqs.call("ReceiveMessage", WaitTimeSeconds=1)).get("Messages")  # the other has begun
            doomed.cancel()
        await sqs.send(0, 1)
        receive = {"WaitTimeSeconds": 20, "MessageSystemAttributeNames": ["All"]}
        [message] = (await sqs.call("ReceiveMessage", **receive))["Messages"]
        assert message["Attributes"]["ApproximateReceiveCount"] == "1"
        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(sqs.call("ReceiveMessage", WaitTimeSeconds=20))
            await sqs.send(1, 1)
        assert [message["Body"] for message in waiting.result()["Messages"]] == ["1"]


async def test_no_credentials_and_no_profile_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Destinations reach it with an environment that has no usable credentials."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    async with EmbeddedAws() as aws, AwsClients(region=REGION, endpoint_url=aws.endpoint_url, embedded=True) as clients:
        await clients.call("s3", "create_bucket", "bucket", Bucket="failed")
        await clients.call("s3", "put_object", "bucket", Bucket="failed", Key="k", Body=b"{}")
        await clients.call("sqs", "create_queue", "queue", QueueName="failed")
        await clients.call("sns", "create_topic", "topic", Name="failed")


async def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without moto the error says what to install, and no process is left."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'moto' else find(name)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    aws = EmbeddedAws()
    with pytest.raises(RefusedError, match=r"No module named 'moto'; install esmd\[embedded\]"):
        await aws.start()
    assert aws.pid is None


async def test_stopping_is_safe_twice_and_after_a_kill() -> None:
    """A server that was killed can be stopped, and a stopped one has no address."""
    aws = EmbeddedAws()
    await aws.stop()
    await aws.start()
    with pytest.raises(RefusedError, match="twice"):
        await aws.start()
    assert aws.pid is not None
    child = psutil.Process(aws.pid)
    os.kill(aws.pid, signal.SIGKILL)
    await aws.stop()
    await aws.stop()
    wait_gone(child)
    with pytest.raises(UnavailableError):
        _ = aws.endpoint_url


async def test_a_node_starts_and_ends_it(tmp_path: Path) -> None:
    """`embedded: {aws: {}}` is all it takes; with the node the process ends."""
    file = tmp_path / "esmd.yaml"
    file.write_text("embedded: {aws: {}}\n")
    overrides = Overrides(listen=ListenAddress("127.0.0.1", 0), data_dir=tmp_path / "data")
    options = RunOptions((file,), overrides, load([file], environ={}, overrides=overrides.sections()))
    shutdown = Shutdown()
    with capture_logs() as logged:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(run_node(options, shutdown))
            while not any(entry["event"] == "node.started" for entry in logged):  # noqa: ASYNC110  # a log, no event
                await asyncio.sleep(0.02)
            [url] = [entry["endpoint_url"] for entry in logged if entry["event"] == "embedded.aws"]
            async with Transport() as transport:
                assert (await Kinesis(transport, url).call("ListStreams"))["StreamNames"] == []
            [server] = [
                child
                for child in psutil.Process().children(recursive=True)
                if "node.embedded_aws" in child.cmdline() and f"--parent={os.getpid()}" in child.cmdline()
            ]
            shutdown.request()
    wait_gone(server)


PARENT = """
import asyncio, os, sys, time
from node.embedded_aws import EmbeddedAws
from node.options import ListenAddress, Overrides, RunOptions
from node.signals import Shutdown
from node.wiring import run_node
from structlog.testing import capture_logs

async def main():
    async with EmbeddedAws() as aws:
        holder = os.fork() if "fork" in sys.argv else None
        if holder == 0:  # inherits the pipe that tells the server of its parent's end
            time.sleep(60)
            os._exit(0)
        print(aws.pid, holder or aws.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("arguments", [[], ["fork"]], ids=["", "whose-pipe-is-still-held"])
def test_no_server_outlives_a_killed_parent(arguments: list[str]) -> None:
    """After `kill -9` of the parent the server ends by itself, even when a sibling holds the pipe to it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", PARENT, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        try:
            server, holder = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        finally:
            parent.kill()
    try:
        wait_gone(server)
    finally:
        if arguments:
            holder.kill()
