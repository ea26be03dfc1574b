"""A Lambda function with a Powertools batch processor, as it would run in AWS: orders from a Kafka topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord

_processor = BatchProcessor(event_type=EventType.Kafka)


class NegativeAmountError(Exception):
    """An order that nobody can have placed."""


def take(record: KafkaEventRecord) -> None:
    """Stand for the work."""
    order = record.json_value
    if order["amount"] < 0:
        raise NegativeAmountError(order["id"])
    print(f"order {order['id']} taken")


def handler(event: dict[str, Any], context: Any) -> Any:
    """Take the orders of one batch; only those that fail come again."""
    return process_partial_response(event=event, record_handler=take, processor=_processor, context=context)
