"""A backlog of SQS, served as fast as Python can: an HTTP server that knows five calls and one queue that never ends.

    python -m benchmarks.sqs_backlog --messages N

Prints its URL. A receive answers at once with as many messages as it asked for, in every byte that a reader looks at
those of SQS, made before the first call; deletes and changed visibilities are accepted. ElasticMQ needs more time for
ten messages than any reader, so that readers would wait for it. After N messages the first ones come again.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import random
import time
from typing import TYPE_CHECKING

import msgspec
import uvloop

from benchmarks.load_kafka import value
from benchmarks.sink import serve

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE = "backlog"
ARN = f"arn:aws:sqs:us-east-1:000000000000:{QUEUE}"

_VISIBILITY_S = 120
_RECEIPT_BYTES = 300  # 400 characters, as SQS's have


class Backlog:
    """`benchmarks.sink.Takes`: the queue."""

    def __init__(self, messages: int) -> None:
        now_us = time.time_ns() // 1000
        made = random.Random(1)
        self._messages = [_message(number, now_us, made.randbytes) for number in range(messages)]
        self._next = 0

    def take(self, head: bytes, body: bytes) -> bytes:
        """Answer a call."""
        at = head.lower().find(b"\r\nx-amz-target: amazonsqs.")
        answer = self._answer(head[at + 26 :].split(b"\r\n", 1)[0].decode(), body)
        return b"HTTP/1.1 %b\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n%b" % (
            b"200 OK" if answer else b"400 Bad Request", len(answer), answer,
        )  # fmt: skip

    def _answer(self, operation: str, body: bytes) -> bytes:
        match operation:
            case "ReceiveMessage":
                return self._page(msgspec.json.decode(body)["MaxNumberOfMessages"])
            case "DeleteMessageBatch" | "ChangeMessageVisibilityBatch":
                entries = msgspec.json.decode(body)["Entries"]
                return msgspec.json.encode({"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []})
            case "GetQueueUrl":
                return msgspec.json.encode({"QueueUrl": f"https://sqs.us-east-1.amazonaws.com/000000000000/{QUEUE}"})
            case "GetQueueAttributes":
                shown = {
                    "VisibilityTimeout": str(_VISIBILITY_S), "ApproximateNumberOfMessages": str(len(self._messages)),
                    "ApproximateNumberOfMessagesNotVisible": "0", "ApproximateNumberOfMessagesDelayed": "0",
                }  # fmt: skip
                return msgspec.json.encode({"Attributes": shown})
            case _:
                return b""

    def _page(self, most: int) -> bytes:
        first = self._next
        found = self._messages[first : first + most]
        self._next = 0 if first + most >= len(self._messages) else first + most
        return b'{"Messages":[%b]}' % b",".join(found)


def _message(number: int, now_us: int, random_bytes: Callable[[int], bytes]) -> bytes:
    body = value(number, now_us)
    now_ms = str(now_us // 1000)
    return msgspec.json.encode(
        {
            "MessageId": f"{number:08x}-5d10-4b6c-9d1f-0123456789ab",
            "ReceiptHandle": base64.b64encode(random_bytes(_RECEIPT_BYTES)).decode(),
            "MD5OfBody": hashlib.md5(body, usedforsecurity=False).hexdigest(),
            "Body": body.decode(),
            "Attributes": {
                "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                "ApproximateFirstReceiveTimestamp": now_ms,
                "ApproximateReceiveCount": "1",
                "SentTimestamp": now_ms,
            },
        }
    )


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Serves a backlog of SQS messages.")
    parser.add_argument("--messages", type=int, required=True)
    uvloop.run(serve(Backlog(parser.parse_args().messages), 0))


if __name__ == "__main__":
    main()
