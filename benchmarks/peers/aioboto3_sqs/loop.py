r"""The plain way: receive, POST, delete, as aioboto3 users write it.

    python -m benchmarks.peers.aioboto3_sqs.loop --endpoint URL --queue ARN --loops 20 --url URL --batch 10 \
        [--keep click]

Several loops with AWS's client model, the event as dicts through the standard library's `json`, a POST with aiohttp.
Nothing that a node promises, and nothing made fast.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig

from benchmarks.command_line import SQS, reader
from benchmarks.peers.by_hand import kept

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}


def event(arn: str, messages: list[dict[str, Any]]) -> bytes:
    """Make the event of one batch."""
    shown = [
        {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": message.get("MessageAttributes", {}),
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": arn,
            "awsRegion": arn.split(":")[3],
        }
        for message in messages
    ]
    return json.dumps({"Records": shown}).encode()


async def work(sqs: Any, queue_url: str, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> None:
    """Receive, make, post, delete; for ever."""
    keep = arguments.keep
    while True:
        answer = await sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=arguments.batch,
            WaitTimeSeconds=20,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            continue
        wanted = messages
        if keep is not None:
            wanted = [message for message in messages if kept(message["Body"], keep)]
        if wanted:
            async with session.post(arguments.url, data=event(arguments.queue, wanted), headers=_HEADERS) as response:
                await response.read()
        entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
        await sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)


async def run(arguments: argparse.Namespace) -> None:
    """Run the loops."""
    pool = AioConfig(max_pool_connections=arguments.loops)  # the default, ten, would make loops wait for each other
    async with (
        aiohttp.ClientSession() as session,
        aioboto3.Session().client("sqs", endpoint_url=arguments.endpoint, config=pool) as sqs,
    ):
        queue_url = (await sqs.get_queue_url(QueueName=arguments.queue.split(":")[5]))["QueueUrl"]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(arguments.loops):
                tasks.create_task(work(sqs, queue_url, session, arguments))


def main() -> None:
    """Run as a program."""
    parser = reader("Delivers a queue's messages as a simple program does.", SQS, filters=True)
    parser.add_argument("--loops", type=int, required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
