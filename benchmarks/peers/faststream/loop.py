r"""FastStream: a batch subscriber that posts what it is given.

    python -m benchmarks.peers.faststream.loop --on aiokafka --servers HOST:PORT --topic TOPIC --url URL --batch 100 \
        [--keep click]

FastStream commits when the subscriber returns, and goes back when it raises. Its log of each message is turned off.
It parses every record before it calls, by orjson where that is installed, so a filter looks at what it has parsed.
"""

from __future__ import annotations

import importlib
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import aiohttp
import uvloop
from faststream import AckPolicy, Context, FastStream

from benchmarks.command_line import KAFKA, reader

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}
_CLIENTS = {
    "aiokafka": ("faststream.kafka", "aiokafka"),
    "confluent-kafka": ("faststream.confluent", "confluent_kafka"),
}


async def run(arguments: argparse.Namespace) -> None:
    """Subscribe and serve; for ever."""
    package, peer = _CLIENTS[arguments.on]
    broker = importlib.import_module(package).KafkaBroker(arguments.servers, logger=None)
    event = importlib.import_module(f"benchmarks.peers.{peer}.event").event
    keep = arguments.keep
    async with aiohttp.ClientSession(headers=_HEADERS, raise_for_status=True) as session:

        @broker.subscriber(  # type: ignore[untyped-decorator]
            arguments.topic,
            group_id=f"peer-{uuid.uuid4().hex}",
            auto_offset_reset="earliest",
            batch=True,
            max_records=arguments.batch,
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        async def deliver(message: Annotated[Any, Context()]) -> None:
            records = message.raw_message
            if keep is not None:
                parsed = await message.decode()  # made already, and kept with the message
                pairs = zip(records, parsed, strict=True)
                records = [record for record, one in pairs if isinstance(one, dict) and one.get("type") == keep]
            if not records:
                return
            async with session.post(arguments.url, data=event(arguments.servers, records)) as response:
                await response.read()

        await FastStream(broker, logger=None).run()


def main() -> None:
    """Run as a program."""
    parser = reader("Delivers a topic's records with FastStream.", KAFKA, filters=True)
    parser.add_argument("--on", choices=_CLIENTS, required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
