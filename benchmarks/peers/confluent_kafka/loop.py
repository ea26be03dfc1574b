r"""The plain way: a loop of consume, POST and commit as confluent-kafka users write it.

    python -m benchmarks.peers.confluent_kafka.loop --servers HOST:PORT --topic TOPIC --url URL --batch 100 \
        [--keep click]

librdkafka reads, the event is made of dicts by the standard library's `json`, urllib3 posts it, offsets are committed
in the background. One batch in flight. A failed POST ends it; nothing of what a node promises beyond that.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import urllib3
from confluent_kafka import Consumer

from benchmarks.command_line import KAFKA, reader
from benchmarks.peers.by_hand import kept
from benchmarks.peers.confluent_kafka.event import event

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}
_OK = 200


def run(arguments: argparse.Namespace) -> None:
    """Read, make, post, commit; for ever."""
    http, keep = urllib3.PoolManager(), arguments.keep
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.servers,
            "group.id": f"plain-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([arguments.topic], on_assign=lambda *_: print("ready", flush=True))
    try:
        while True:
            messages = [message for message in consumer.consume(arguments.batch, timeout=0.5) if not message.error()]
            if keep is not None:
                messages = [message for message in messages if kept(message.value(), keep)]
            if not messages:
                continue
            answer = http.request("POST", arguments.url, body=event(arguments.servers, messages), headers=_HEADERS)
            if answer.status != _OK:
                raise SystemExit(f"the function answered {answer.status}")
            consumer.commit(asynchronous=True)
    finally:
        consumer.close()


def main() -> None:
    """Run as a program."""
    run(reader("Delivers a topic's records as a simple program does.", KAFKA, filters=True).parse_args())


if __name__ == "__main__":
    main()
