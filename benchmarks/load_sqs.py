"""Load for SQS: messages at a steady rate.

    python -m benchmarks.load_sqs --endpoint URL --queue ARN --messages N --rate PER_SECOND

The bodies are the values of `benchmarks.load_kafka`. Twenty SendMessageBatch requests go out a second, or more where
ten messages each are too few, with the messages that are due; `sent_us` is the moment before the request. Prints
the number sent when all are acknowledged.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import botocore.session

from benchmarks.load_kafka import KEPT_ONE_IN, value

_REQUESTS_PER_S = 20
_MOST = 10  # messages of one request


def client(endpoint: str, region: str) -> Any:
    """Return AWS's own blocking client, of a server that takes any credentials."""
    session = botocore.session.get_session()
    session.set_credentials("test", "test")
    return session.create_client("sqs", endpoint_url=endpoint, region_name=region)


def send(sqs: Any, queue_url: str, messages: int, *, rate: float, kept_one_in: int) -> None:
    """Send, each request after the last one's answer."""
    began = time.monotonic()
    size = min(_MOST, max(1, round(rate / _REQUESTS_PER_S)))
    for first in range(0, messages, size):
        numbers = range(first, min(messages, first + size))
        # Sleep to the moment of the last of them: the rate does not drift, whatever a request takes.
        time.sleep(max(0.0, began + numbers[-1] / rate - time.monotonic()))
        sent_us = time.time_ns() // 1000
        entries = [
            {"Id": str(number), "MessageBody": value(number, sent_us, kept_one_in).decode()} for number in numbers
        ]
        answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
        if answer.get("Failed"):
            raise SystemExit(f"{len(answer['Failed'])} of {len(entries)} messages failed")
    print(messages, flush=True)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Sends messages to a queue.")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--queue", required=True, help="its ARN")
    parser.add_argument("--loops", type=int, help="taken and not needed: of those who read")
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--kept-one-in", type=int, default=KEPT_ONE_IN, help="how many messages are clicks")
    arguments = parser.parse_args()
    _, _, _, region, _, name = arguments.queue.split(":", 5)
    sqs = client(arguments.endpoint, region)
    queue_url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    send(sqs, queue_url, arguments.messages, rate=arguments.rate, kept_one_in=arguments.kept_one_in)


if __name__ == "__main__":
    main()
