"""The demo's stream and queue as calls: how each is made, and how events are put there. Pure.

`node.demo.aws_producer` makes the calls. The embedded services drop what a shard holds beyond 10,000 records, read or
not, and SQS takes longer the more a queue holds: a backlog must stay below `most_behind`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from node.demo.clicks import Clicks
    from node.demo.mails import Mails


class Call(NamedTuple):
    """A call of an AWS service."""

    operation: str  # as X-Amz-Target has it
    request: dict[str, Any]


class ClickFeed:
    """Clicks for a Kinesis stream. `node.demo.aws_producer.Feed`."""

    service, version = "kinesis", "1.1"
    every_s = 0.1
    most_per_call = 250
    most_behind = 2000

    def __init__(self, clicks: Clicks, arn: str, *, shards: int) -> None:
        self._clicks = clicks
        self._shards = shards
        self.arn = arn

    def creation(self) -> Call:
        """Make the stream."""
        request = {"StreamName": self.arn.rpartition("/")[2], "ShardCount": self._shards}
        return Call("Kinesis_20131202.CreateStream", request)

    def put(self, events: int, now_time: str) -> Call:
        """Put the next clicks."""
        made = [self._clicks.event(now_time) for _ in range(events)]
        records = [{"PartitionKey": event.key, "Data": b64encode(event.data).decode()} for event in made]
        return Call("Kinesis_20131202.PutRecords", {"StreamARN": self.arn, "Records": records})


class MailFeed:
    """Mails for an SQS queue. `node.demo.aws_producer.Feed`."""

    service, version = "sqs", "1.0"
    every_s = 0.05
    most_per_call = 10
    most_behind = 300

    def __init__(self, mails: Mails, arn: str, *, visibility_s: int) -> None:
        self._mails = mails
        self._visibility_s = visibility_s
        self._name = arn.rpartition(":")[2]
        self.arn = arn

    def creation(self) -> Call:
        """Make the queue."""
        attributes = {"VisibilityTimeout": str(self._visibility_s)}
        return Call("AmazonSQS.CreateQueue", {"QueueName": self._name, "Attributes": attributes})

    def put(self, events: int, now_time: str) -> Call:
        """Send the next mails' messages."""
        entries = [{"Id": str(number), "MessageBody": self._mails.body(now_time)} for number in range(events)]
        return Call("AmazonSQS.SendMessageBatch", {"QueueUrl": self._name, "Entries": entries})
