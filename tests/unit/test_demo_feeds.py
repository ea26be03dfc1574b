"""The demo's stream and queue as calls, and events as its functions look at them."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from node.demo.aws_feeds import ClickFeed, MailFeed
from node.demo.clicks import Clicks
from node.demo.handlers.events import Seen, records
from node.demo.mails import Mail, Mails
from node.demo.producers import QUEUE_ARN, STREAM_ARN

NOW = "2026-01-02T03:04:05.678+00:00"


def test_clicks_go_to_the_stream_by_visitor() -> None:
    """The stream is made with its shards; a record has the click's key and its document."""
    feed, same = ClickFeed(Clicks(3), STREAM_ARN, shards=2), Clicks(3)
    assert feed.creation() == ("Kinesis_20131202.CreateStream", {"StreamName": "clicks", "ShardCount": 2})
    operation, request = feed.put(5, NOW)
    assert (operation, request["StreamARN"]) == ("Kinesis_20131202.PutRecords", STREAM_ARN)
    sent = [(record["PartitionKey"], base64.b64decode(record["Data"])) for record in request["Records"]]
    assert sent == [same.event(NOW) for _ in range(5)]


def test_mails_go_to_the_queue() -> None:
    """The queue is made with its visibility timeout; messages have distinct ids and say what to send to whom."""
    feed = MailFeed(Mails(3), QUEUE_ARN, visibility_s=2)
    made = {"QueueName": "mails", "Attributes": {"VisibilityTimeout": "2"}}
    assert feed.creation() == ("AmazonSQS.CreateQueue", made)
    operation, request = feed.put(10, NOW)
    assert (operation, request["QueueUrl"]) == ("AmazonSQS.SendMessageBatch", "mails")
    assert len({entry["Id"] for entry in request["Entries"]}) == 10
    mails = [msgspec.json.decode(entry["MessageBody"], type=Mail) for entry in request["Entries"]]
    assert [mail.mail_id for mail in mails] == [f"m-{number:07}" for number in range(1, 11)]
    assert {mail.due_time for mail in mails} == {NOW}
    same = Mails(3)
    assert [entry["MessageBody"] for entry in request["Entries"]] == [same.body(NOW) for _ in range(10)]


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        (
            {"records": {"orders-1": [{"topic": "orders", "partition": 1, "offset": 7, "timestamp": 1500}]}},
            Seen(1500, {"partition": "orders-1", "offset": 7}),
        ),
        (
            {"Records": [{"kinesis": {"sequenceNumber": "12", "approximateArrivalTimestamp": 1.5}}]},
            Seen(1500, "12"),
        ),
        (
            {"Records": [{"messageId": "m", "attributes": {"SentTimestamp": "1500", "ApproximateReceiveCount": "3"}}]},
            Seen(1500, "m", 3),
        ),
    ],
    ids=["kafka", "kinesis", "sqs"],
)
def test_functions_see_when_a_record_came_and_how_to_name_it(event: dict[str, Any], seen: Seen) -> None:
    """Whatever the source; a queue also tells how often it has handed a message out."""
    assert records(msgspec.json.encode(event)) == [seen]


def test_a_record_of_nothing_known_is_refused() -> None:
    """Rather than counted as something it is not."""
    with pytest.raises(msgspec.ValidationError):
        records(b'{"Records": [{}]}')
