"""Events as the demo's functions look at them, whatever source they come from. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Seen(NamedTuple):
    """What a function looks at of a record."""

    timestamp_ms: float  # when its source took it, epoch milliseconds
    identifier: object  # how a partial batch response names it
    receives: int = 1  # how often a queue has handed it out


class _KafkaRecord(msgspec.Struct):
    partition: int
    offset: int
    topic: str
    timestamp: int


class _Kinesis(msgspec.Struct, rename="camel"):
    sequence_number: str
    approximate_arrival_timestamp: float


class _SqsAttributes(msgspec.Struct, rename="pascal"):
    sent_timestamp: str
    approximate_receive_count: str


class _AwsRecord(msgspec.Struct, rename="camel"):
    kinesis: _Kinesis | None = None
    message_id: str = ""
    attributes: _SqsAttributes | None = None


class _Event(msgspec.Struct):
    records: dict[str, list[_KafkaRecord]] = {}
    Records: list[_AwsRecord] = []


_decode = msgspec.json.Decoder(_Event).decode


def records(event: bytes) -> list[Seen]:
    """Return the records of an event of Kafka, Kinesis or SQS, in order."""
    return _seen(_decode(event))


def records_of(event: dict[str, Any]) -> list[Seen]:
    """Return the same of an event that is read already, as handlers get it."""
    return _seen(msgspec.convert(event, _Event))


def _seen(document: _Event) -> list[Seen]:
    return [
        *[_of_kafka(record) for of_shard in document.records.values() for record in of_shard],
        *[_of_aws(record) for record in document.Records],
    ]


def _of_kafka(record: _KafkaRecord) -> Seen:
    return Seen(record.timestamp, {"partition": f"{record.topic}-{record.partition}", "offset": record.offset})


def _of_aws(record: _AwsRecord) -> Seen:
    if record.kinesis is not None:
        return Seen(record.kinesis.approximate_arrival_timestamp * 1000, record.kinesis.sequence_number)
    if record.attributes is not None:
        sent, receives = record.attributes.sent_timestamp, record.attributes.approximate_receive_count
        return Seen(int(sent), record.message_id, int(receives))
    raise msgspec.ValidationError("a record of neither Kinesis nor SQS")
