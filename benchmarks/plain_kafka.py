"""The plain way: a loop of consume, POST and commit as confluent-kafka users write it.

    python -m benchmarks.plain_kafka --servers HOST:PORT --topic TOPIC --url URL --batch 100 [--keep click]

librdkafka reads, the event is made of dicts by the standard library's `json`, urllib3 posts it, offsets are committed
in the background. One batch in flight. A failed POST ends it; nothing of what a node promises beyond that.
"""

from __future__ import annotations

import argparse
import base64
import json
import uuid
from typing import TYPE_CHECKING, Any

import urllib3
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEADERS = {"Content-Type": "application/json"}
_OK = 200


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def event(servers: str, messages: Iterable[Any]) -> bytes:
    """Make the event of one batch."""
    records: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        kind, timestamp = message.timestamp()
        records.setdefault(f"{message.topic()}-{message.partition()}", []).append(
            {
                "topic": message.topic(),
                "partition": message.partition(),
                "offset": message.offset(),
                "timestamp": timestamp,
                "timestampType": "CREATE_TIME" if kind == TIMESTAMP_CREATE_TIME else "LOG_APPEND_TIME",
                "key": _text(message.key()),
                "value": _text(message.value()),
                "headers": [{name: list(value)} for name, value in message.headers() or ()],
            }
        )
    return json.dumps({"eventSource": "SelfManagedKafka", "bootstrapServers": servers, "records": records}).encode()


def run(arguments: argparse.Namespace) -> None:
    """Read, make, post, commit; for ever."""
    http = urllib3.PoolManager()
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
            if arguments.keep is not None:
                kept = arguments.keep
                messages = [message for message in messages if json.loads(message.value() or b"{}").get("type") == kept]
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
    parser = argparse.ArgumentParser(description="Delivers a topic's records as a simple program does.")
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--keep", help="deliver only records of this type")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
