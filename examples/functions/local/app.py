"""A Lambda function with Powertools batch processors, as it would run in AWS: for every source, and a schedule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
    from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

_topic = BatchProcessor(event_type=EventType.Kafka)
_stream = BatchProcessor(event_type=EventType.KinesisDataStreams)
_queue = BatchProcessor(event_type=EventType.SQS)


_NAMES = ("id", "order_id", "mail_id", "visitor")  # by what orders, mails and clicks are known


class NegativeAmountError(Exception):
    """An order that nobody can have placed."""


def take(document: dict[str, Any]) -> None:
    """Stand for the work."""
    name = next((document[key] for key in _NAMES if key in document), "something")
    if document.get("amount", 0) < 0:
        raise NegativeAmountError(name)
    print(f"{name} taken")


def _from_topic(record: KafkaEventRecord) -> None:
    take(record.json_value)


def _from_stream(record: KinesisStreamRecord) -> None:
    take(record.kinesis.data_as_json())


def _from_queue(record: SQSRecord) -> None:
    take(json.loads(record.body))


def handler(event: dict[str, Any], context: Any) -> Any:
    """Take the documents of one batch; only those that fail come again."""
    if event.get("source") == "aws.events":
        print(f"it is {event['time']}")
        return None
    if "records" in event:
        work, processor = _from_topic, _topic
    elif event["Records"][0]["eventSource"] == "aws:kinesis":
        work, processor = _from_stream, _stream
    else:
        work, processor = _from_queue, _queue
    return process_partial_response(event=event, record_handler=work, processor=processor, context=context)
