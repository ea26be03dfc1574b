"""Three Lambda functions with Powertools batch processors, as they would run in AWS."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
    from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

_topic = BatchProcessor(event_type=EventType.Kafka)
_stream = BatchProcessor(event_type=EventType.KinesisDataStreams)
_queue = BatchProcessor(event_type=EventType.SQS)

attempts: Counter[str] = Counter()
"""How often each payment was tried."""


class ProviderAwayError(Exception):
    """The payment provider did not answer."""


def charge(payment: dict[str, Any]) -> None:
    """Stand for the work: of some payments the first attempts fail."""
    attempts[payment["id"]] += 1
    if attempts[payment["id"]] <= payment["failures"]:
        raise ProviderAwayError(payment["id"])


def _from_topic(record: KafkaEventRecord) -> None:
    charge(record.json_value)


def _from_stream(record: KinesisStreamRecord) -> None:
    charge(record.kinesis.data_as_json())


def _from_queue(record: SQSRecord) -> None:
    charge(record.json_body)


def topic_handler(event: dict[str, Any], context: Any) -> Any:
    """Charge payments from a Kafka topic."""
    return process_partial_response(event=event, record_handler=_from_topic, processor=_topic, context=context)


def stream_handler(event: dict[str, Any], context: Any) -> Any:
    """Charge payments from a Kinesis stream."""
    return process_partial_response(event=event, record_handler=_from_stream, processor=_stream, context=context)


def queue_handler(event: dict[str, Any], context: Any) -> Any:
    """Charge payments from an SQS queue."""
    return process_partial_response(event=event, record_handler=_from_queue, processor=_queue, context=context)
