r"""async-kinesis's consumer with its checkpoints in Redis: gathers a batch, posts it, checkpoints.

    python -m benchmarks.peers.async_kinesis.loop --endpoint URL --stream ARN --redis URL --url URL --batch 100 \
        [--keep click]

It hands out the data of records one by one, without their sequence numbers, shards or keys, so the event has none.
Checkpoints are written by hand after a POST: its own would pass records that are still being gathered.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from kinesis import Consumer, RedisCheckPointer, StringProcessor

from benchmarks.command_line import KINESIS, reader
from benchmarks.peers.by_hand import kept

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}
_IDLE_S = 0.2  # without a record: what was gathered is posted


def event(arn: str, texts: list[str]) -> bytes:
    """Make the event of one batch."""
    region = arn.split(":")[3]
    shown = [
        {
            "kinesis": {"kinesisSchemaVersion": "1.0", "data": base64.b64encode(text.encode()).decode()},
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventName": "aws:kinesis:record",
            "awsRegion": region,
            "eventSourceARN": arn,
        }
        for text in texts
    ]
    return json.dumps({"Records": shown}).encode()


async def run(arguments: argparse.Namespace) -> None:
    """Gather, make, post, checkpoint; for ever."""
    redis, keep = urlsplit(arguments.redis), arguments.keep
    os.environ["REDIS_HOST"], os.environ["REDIS_PORT"] = redis.hostname or "", str(redis.port)
    checkpoints = RedisCheckPointer(name=f"peer-{uuid.uuid4().hex}", auto_checkpoint=False)
    async with (
        aiohttp.ClientSession(headers=_HEADERS, raise_for_status=True) as session,
        Consumer(
            stream_name=arguments.stream,
            endpoint_url=arguments.endpoint,
            processor=StringProcessor(),
            checkpointer=checkpoints,
            idle_timeout=_IDLE_S,
        ) as consumer,
    ):
        texts: list[str] = []
        while True:
            async for text in consumer:  # ends when nothing has come for a while
                if keep is None or kept(text, keep):
                    texts.append(text)
                if len(texts) >= arguments.batch:
                    break
            if texts:
                async with session.post(arguments.url, data=event(arguments.stream, texts)) as response:
                    await response.read()
                texts = []
            await checkpoints.manual_checkpoint()


def main() -> None:
    """Run as a program."""
    parser = reader("Delivers a stream's records with async-kinesis.", KINESIS, filters=True)
    parser.add_argument("--redis", required=True, help="URL of the server for checkpoints")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
