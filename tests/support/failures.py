"""Failures of a Kafka mapping, and the documents about them, for tests of destinations."""

from __future__ import annotations

import uuid
from types import SimpleNamespace

from model.ids import MappingId, ShardId, ShardKey
from model.mapping import KafkaSource
from model.outcome import FunctionFailed
from model.record import Places
from pollers.failure_document import Failure, FailureDocuments, TopicDocuments
from pollers.retrying import Condition
from pollers.sources.kafka_batch_info import KafkaBatchInfo
from pollers.sources.kafka_envelope import KafkaEnvelope

FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
MAPPING = MappingId("4f6e3f0e-0000-4000-8000-000000000001")
SOURCE = KafkaSource("orders", "group", ("127.0.0.1:9092",))
ENVELOPE = KafkaEnvelope(SOURCE)


def failure(*values: bytes, key: bytes | None = b"k") -> Failure:
    """Make a failure of records with these values, at the offsets 0, 1 and so on."""
    raws = [
        SimpleNamespace(topic="orders", partition=0, timestamp=at, timestamp_type=0, headers=(), key=key, value=value)
        for at, value in enumerate(values)
    ]
    return Failure(
        shard=ShardKey(MAPPING, ShardId("orders-0")),
        records=ENVELOPE.encode(ShardId("orders-0"), raws, Places(range(len(values)))),
        condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
        invocations=2,
        outcome=FunctionFailed("Boom"),
        at_ms=1573691886021,
        id=uuid.uuid4(),
    )


def documents() -> FailureDocuments:
    """Make the documents for queues, topics and buckets."""
    return FailureDocuments(function_arn=FUNCTION_ARN, envelope=ENVELOPE, batch_info=KafkaBatchInfo(SOURCE))


def topic_documents() -> TopicDocuments:
    """Make the messages for Kafka topics."""
    return TopicDocuments(function_arn=FUNCTION_ARN, envelope=ENVELOPE, record_info=KafkaBatchInfo(SOURCE))
