"""The floor: what the same deliveries cost without any semantics.

    python -m benchmarks.floor_sqs --endpoint URL --queue ARN --loops 20 --url URL --batch 10 [--keep click]

Loops that each receive, make, post and delete: the calls signed by botocore, sent with aiohttp, answers parsed by
msgspec with the body left as it came; the event of SQS mappings made in one go; a POST; on uvloop. Nothing is deleted
unless the function answered. No leases, retries, heartbeats, fairness, shared limits, accounts or metrics.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import botocore.session
import msgspec
import orjson
import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from benchmarks.command_line import SQS, reader

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}


class _EventRecord(msgspec.Struct, gc=False):
    messageId: str  # noqa: N815  # AWS's names, also below
    receiptHandle: str  # noqa: N815
    body: msgspec.Raw
    attributes: dict[str, str]
    messageAttributes: dict[str, Any]  # noqa: N815
    md5OfBody: str  # noqa: N815
    eventSource: str  # noqa: N815
    eventSourceARN: str  # noqa: N815
    awsRegion: str  # noqa: N815


class _Message(msgspec.Struct, gc=False):
    MessageId: str
    ReceiptHandle: str
    Body: msgspec.Raw
    MD5OfBody: str
    Attributes: dict[str, str] = {}
    MessageAttributes: dict[str, Any] = {}


class _Received(msgspec.Struct):
    Messages: list[_Message] = []


class Queue:
    """The queue's calls."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, arn: str) -> None:
        _, _, _, self.region, self.account, self.name = arn.split(":", 5)
        self.arn = arn
        self._session = session
        self._endpoint = endpoint
        self._signer = SigV4Auth(botocore.session.get_session().get_credentials(), "sqs", self.region)
        self._encode = msgspec.json.Encoder().encode

    async def call(self, operation: str, request: dict[str, Any]) -> bytes:
        """Make a signed call."""
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{operation}"}
        body = self._encode(request)
        made = AWSRequest("POST", f"{self._endpoint}/", headers=headers, data=body)
        self._signer.add_auth(made)
        async with self._session.post(self._endpoint, data=body, headers=dict(made.headers.items())) as response:
            answer = await response.read()
            if response.status != 200:
                raise SystemExit(f"{operation}: {response.status} {answer[:500]!r}")
            return answer

    def event(self, messages: list[_Message]) -> bytes:
        """Make the event of one batch."""
        region, arn = self.region, self.arn
        shown = [
            _EventRecord(
                message.MessageId,
                message.ReceiptHandle,
                message.Body,
                message.Attributes,
                message.MessageAttributes,
                message.MD5OfBody,
                "aws:sqs",
                arn,
                region,
            )
            for message in messages
        ]
        return self._encode({"Records": shown})


async def work(queue: Queue, queue_url: str, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> None:
    """Receive, make, post, delete; for ever."""
    keep = arguments.keep
    decode_received, decode_text = msgspec.json.Decoder(_Received).decode, msgspec.json.Decoder(str).decode
    receive = {
        "QueueUrl": queue_url,
        "MaxNumberOfMessages": arguments.batch,
        "WaitTimeSeconds": 20,
        "AttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
    }
    while True:
        messages = decode_received(await queue.call("ReceiveMessage", receive)).Messages
        if not messages:
            continue
        wanted = messages
        if keep is not None:
            wanted = [message for message in messages if orjson.loads(decode_text(message.Body))["type"] == keep]
        if wanted:
            async with session.post(arguments.url, data=queue.event(wanted), headers=_HEADERS) as response:
                await response.read()
        entries = [{"Id": str(n), "ReceiptHandle": message.ReceiptHandle} for n, message in enumerate(messages)]
        await queue.call("DeleteMessageBatch", {"QueueUrl": queue_url, "Entries": entries})


async def run(arguments: argparse.Namespace) -> None:
    """Run the loops."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        queue = Queue(session, arguments.endpoint, arguments.queue)
        asked = {"QueueName": queue.name, "QueueOwnerAWSAccountId": queue.account}
        queue_url = msgspec.json.decode(await queue.call("GetQueueUrl", asked))["QueueUrl"]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(arguments.loops):
                tasks.create_task(work(queue, queue_url, session, arguments))


def main() -> None:
    """Run as a program."""
    parser = reader("Delivers a queue's messages without any semantics.", SQS, filters=True)
    parser.add_argument("--loops", type=int, required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
