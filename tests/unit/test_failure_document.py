"""On-failure documents, held against the specification's examples key by key."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from model.ids import MappingId, ShardId, ShardKey
from model.mapping import KafkaSource, KinesisSource
from model.outcome import Delivered, FunctionFailed, Outcome, PartlyFailed, Throttled
from model.record import Batch, Places, Record, Records
from pollers.attempts import Work
from pollers.failure_document import Failure, FailureDocuments, TopicDocuments, timestamp
from pollers.retrying import Condition, Discard
from pollers.sources.kafka_batch_info import KafkaBatchInfo
from pollers.sources.kafka_envelope import KafkaEnvelope
from pollers.sources.kinesis_batch_info import KinesisBatchInfo
from pollers.sources.kinesis_user_records import PLACE_BITS
from tests.support.pump_fakes import FakeEnvelope

if TYPE_CHECKING:
    from collections.abc import Sequence

MAPPING = MappingId("4f6e3f0e-0000-4000-8000-000000000001")
ARN = "arn:aws:lambda:us-east-1:123456789012:function:name"
AT_MS = 1573691886021.0  # 2019-11-14T00:38:06.021Z
OBJECT = UUID("11111111-2222-4333-8444-555555555555")
UNHANDLED = FunctionFailed("Boom")
TOPIC = KafkaSource("orders", "group", ("b-1:9092", "b-2:9092"))
MSK = KafkaSource("orders", "group", ("b-1:9092",), arn="arn:aws:kafka:us-east-1:123456789012:cluster/vpc/uuid")
STREAM = KinesisSource("arn:aws:kinesis:us-east-1:123456789012:stream/mystream")
KINESIS_SHARD = ShardKey(MAPPING, ShardId("shardId-000000000001"))
KAFKA_SHARD = ShardKey(MAPPING, ShardId("orders-2"))


def failure(
    shard: ShardKey,
    records: Sequence[Record],
    condition: Condition = Condition.RETRY_ATTEMPTS_EXHAUSTED,
    *,
    invocations: int = 2,
    outcome: Outcome | None = UNHANDLED,
) -> Failure:
    """Make a failure of the moment in the specification's example."""
    return Failure(
        shard=shard,
        records=Records.of(records),
        condition=condition,
        invocations=invocations,
        outcome=outcome,
        at_ms=AT_MS,
        id=OBJECT,
    )


def kinesis_records() -> list[Record]:
    """Make two records with real sequence numbers, the last as a stream consumer has it: of an aggregate."""
    first, last = (
        "49590338271490256608559692538361571095921575989136588898",
        "49590338271490256608559692540925702759324208523137515618",
    )
    return [
        Record(int(first), 1573691884835, b"0", "a", first),
        Record((int(last) << PLACE_BITS) + 3, 1573691885580, b"1", "b", last),
    ]


def kafka_records(
    *offsets: int, source: KafkaSource = TOPIC, partition: int = 2, key: bytes | None = b"k"
) -> list[Record]:
    """Make records as the Kafka source does; offset n arrived n ms after 2019-11-14T00:38:04.835Z."""
    raws = [
        SimpleNamespace(
            topic="orders", partition=partition, timestamp=1573691884835 + offset, timestamp_type=0,
            headers=(), key=key, value=b"v%d" % offset,
        )
        for offset in offsets
    ]  # fmt: skip
    return list(KafkaEnvelope(source).encode(ShardId(f"orders-{partition}"), raws, Places(offsets)))


def kinesis_documents() -> FailureDocuments:
    """Make the documents of a Kinesis mapping, around an event that is a list of sequence numbers."""
    return FailureDocuments(function_arn=ARN, envelope=FakeEnvelope(), batch_info=KinesisBatchInfo(STREAM))


def kafka_documents(source: KafkaSource = TOPIC) -> FailureDocuments:
    """Make the documents of a Kafka mapping."""
    return FailureDocuments(function_arn=ARN, envelope=KafkaEnvelope(source), batch_info=KafkaBatchInfo(source))


def topic_documents(source: KafkaSource = MSK, function_arn: str = ARN) -> TopicDocuments:
    """Make the messages of a Kafka mapping."""
    return TopicDocuments(function_arn=function_arn, envelope=KafkaEnvelope(source), record_info=KafkaBatchInfo(source))


def read(document: bytes) -> dict[str, Any]:
    """Parse a document; its request id, checked to be a UUID, becomes a placeholder."""
    parsed: dict[str, Any] = json.loads(document)
    UUID(parsed["requestContext"]["requestId"])
    parsed["requestContext"]["requestId"] = "<uuid>"
    return parsed


KINESIS_DOCUMENT = {
    "requestContext": {
        "requestId": "<uuid>",
        "functionArn": ARN,
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 2,
    },
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "version": "1.0",
    "timestamp": "2019-11-14T00:38:06.021Z",
    "KinesisBatchInfo": {
        "shardId": "shardId-000000000001",
        "startSequenceNumber": "49590338271490256608559692538361571095921575989136588898",
        "endSequenceNumber": "49590338271490256608559692540925702759324208523137515618",
        "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
        "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
        "batchSize": 2,
        "streamArn": "arn:aws:kinesis:us-east-1:123456789012:stream/mystream",
    },
}


def test_the_kinesis_document_is_the_specifications() -> None:
    """Every key and value of the example, in its order."""
    document = read(kinesis_documents().message(failure(KINESIS_SHARD, kinesis_records())))
    assert document == KINESIS_DOCUMENT
    assert list(document) == list(KINESIS_DOCUMENT)


def test_the_object_for_s3_has_the_complete_event_as_a_json_text() -> None:
    """The same document, and `payload`: an escaped JSON string that parses to the event."""
    records = kafka_records(7, 9)
    document = read(kafka_documents().object_body(failure(KAFKA_SHARD, records)))
    payload = document.pop("payload")
    assert isinstance(payload, str)
    assert payload.encode() == KafkaEnvelope(TOPIC).event(Records.of(records))
    assert document == read(kafka_documents().message(failure(KAFKA_SHARD, records)))


def test_the_objects_key_is_the_specifications() -> None:
    """aws/lambda/<ESM-UUID>/<shardId>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<random UUID>; Kafka: topic-partition."""
    kinesis = kinesis_documents().object_key(failure(KINESIS_SHARD, kinesis_records()))
    assert kinesis == f"aws/lambda/{MAPPING}/shardId-000000000001/2019/11/14/2019-11-14T00.38.06-{OBJECT}"
    kafka = kafka_documents().object_key(failure(KAFKA_SHARD, kafka_records(1)))
    assert kafka == f"aws/lambda/{MAPPING}/orders-2/2019/11/14/2019-11-14T00.38.06-{OBJECT}"


def test_the_kafka_document_is_the_specifications() -> None:
    """Records by topic and partition, offsets as strings, the event's size; the ARN of an MSK cluster."""
    records = kafka_records(7, 9, source=MSK)
    document = read(kafka_documents(MSK).message(failure(KAFKA_SHARD, records, invocations=1)))
    assert document == {
        "requestContext": {
            "requestId": "<uuid>",
            "functionArn": ARN,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 1,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2019-11-14T00:38:06.021Z",
        "KafkaBatchInfo": {
            "batchSize": 2,
            "eventSourceArn": MSK.arn,
            "bootstrapServers": "b-1:9092",
            "payloadSize": len(KafkaEnvelope(MSK).event(Records.of(records))),
            "recordsInfo": {
                "orders-2": {
                    "firstRecordOffset": "7",
                    "lastRecordOffset": "9",
                    "firstRecordTimestamp": "2019-11-14T00:38:04.842Z",
                    "lastRecordTimestamp": "2019-11-14T00:38:04.844Z",
                }
            },
        },
    }


def test_a_self_managed_cluster_has_servers_and_no_arn() -> None:
    """The key is absent rather than null; all servers are told."""
    info = KafkaBatchInfo(TOPIC).of_batch(ShardId("orders-2"), kafka_records(1), 10)
    assert info["bootstrapServers"] == "b-1:9092,b-2:9092"
    assert "eventSourceArn" not in info


def test_each_partition_has_its_own_records_info() -> None:
    """An event may hold several partitions."""
    records = [*kafka_records(1, 2), *kafka_records(5, partition=11)]
    infos: Any = KafkaBatchInfo(TOPIC).of_batch(ShardId("orders-2"), records, 10)["recordsInfo"]
    assert {name: info["lastRecordOffset"] for name, info in infos.items()} == {"orders-2": "2", "orders-11": "5"}


def test_a_message_for_a_kafka_topic_is_the_specifications() -> None:
    """One per record, under its key: RetriesExhausted, $LATEST, recordInfo, and a one-record event as an object."""
    records = kafka_records(7, 9, source=MSK)
    messages = topic_documents().messages(failure(KAFKA_SHARD, records))
    assert [message.key for message in messages] == [b"k", b"k"]
    event = KafkaEnvelope(MSK).event(Records.of(records[1:]))
    assert read(messages[1].value) == {
        "requestContext": {
            "requestId": "<uuid>",
            "functionArn": f"{ARN}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 2,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2019-11-14T00:38:06.021Z",
        "KafkaBatchInfo": {
            "batchSize": 1,
            "eventSourceArn": MSK.arn,
            "bootstrapServers": "b-1:9092",
            "payloadSize": len(event),
            "recordInfo": {"offset": "9", "timestamp": "2019-11-14T00:38:04.844Z"},
        },
        "payload": json.loads(event),
    }
    assert len(json.loads(event)["records"]["orders-2"]) == 1


def test_a_message_without_payload_still_tells_where_the_record_is() -> None:
    """For a topic that takes no message of that size: topic, partition and offset, in both forms."""
    [message] = topic_documents().messages(failure(KAFKA_SHARD, kafka_records(7, source=MSK, key=None)))
    document = read(message.without_payload)
    assert message.key is None
    assert document["payload"] is None
    assert document["KafkaBatchInfo"]["recordInfo"]["offset"] == "7"
    assert document["KafkaBatchInfo"]["recordsInfo"]["orders-2"]["firstRecordOffset"] == "7"


def test_a_qualifier_of_the_mapping_stays() -> None:
    """In a Kafka topic $LATEST stands only where the mapping has no qualifier."""
    [message] = topic_documents(function_arn=f"{ARN}:live").messages(failure(KAFKA_SHARD, kafka_records(7)))
    assert read(message.value)["requestContext"]["functionArn"] == f"{ARN}:live"


@pytest.mark.parametrize(
    ("condition", "invocations", "outcome", "count", "response"),
    [
        ("RETRY_ATTEMPTS_EXHAUSTED", 3, UNHANDLED, 3, {"statusCode": 200, "functionError": "Unhandled"}),
        ("RETRY_ATTEMPTS_EXHAUSTED", 1, PartlyFailed(frozenset({1})), 1, {"statusCode": 200, "functionError": None}),
        (
            "RETRY_ATTEMPTS_EXHAUSTED",
            1,
            FunctionFailed("invalid partial batch response", function_error=None),
            1,
            {"statusCode": 200, "functionError": None},
        ),
        ("RECORD_AGE_EXCEEDED", 0, None, 1, ...),
        ("RECORD_AGE_EXCEEDED", 0, Throttled("busy"), 1, ...),
        ("RECORD_AGE_EXCEEDED", 8, UNHANDLED, 8, ...),
        ("MAXIMUM_PAYLOAD_SIZE_EXCEEDED", 0, None, 1, None),
    ],
)
def test_conditions_decide_about_the_response(
    condition: str, invocations: int, outcome: Outcome | None, count: int, response: Any
) -> None:
    """Absent for expired records (shown as invoked once even if never), null for oversized ones."""
    given_up = failure(KAFKA_SHARD, kafka_records(1), Condition[condition], invocations=invocations, outcome=outcome)
    for document in (
        read(kafka_documents().message(given_up)),
        read(topic_documents().messages(given_up)[0].value),
    ):
        assert document["requestContext"]["approximateInvokeCount"] == count
        if response is ...:
            assert "responseContext" not in document
        elif response is None:
            assert document["responseContext"] is None
        else:
            assert document["responseContext"] == {"executedVersion": "$LATEST", **response}


def test_other_conditions_are_spelled_alike_everywhere() -> None:
    """Only RetryAttemptsExhausted has another name in Kafka topics."""
    aged = failure(KAFKA_SHARD, kafka_records(1), Condition.RECORD_AGE_EXCEEDED)
    assert read(topic_documents().messages(aged)[0].value)["requestContext"]["condition"] == "RecordAgeExceeded"


def test_what_the_function_answered_is_shown() -> None:
    """Status and executed version come from the last answer."""
    outcome = FunctionFailed("Boom", function_error="Handled", status=500, executed_version="7")
    document = read(kafka_documents().message(failure(KAFKA_SHARD, kafka_records(1), outcome=outcome)))
    assert document["responseContext"] == {"statusCode": 500, "executedVersion": "7", "functionError": "Handled"}


@pytest.mark.parametrize("shorter", [1, 400])
def test_the_payload_goes_along_while_the_whole_fits(shorter: int) -> None:
    """Ours: with a limit there is a document with the event only if that is no larger, to the byte."""
    documents, given_up = kafka_documents(), failure(KAFKA_SHARD, kafka_records(7, 9))
    whole = documents.object_body(given_up)
    assert documents.message_with_payload(given_up, max_bytes=len(whole)) == whole
    assert documents.message_with_payload(given_up, max_bytes=len(whole) - shorter) is None


def test_a_request_id_is_the_same_for_the_same_records_only() -> None:
    """Consumers can deduplicate what a crash made arrive twice; a recreated topic's records are others."""
    ids = {
        read_id(failure(KAFKA_SHARD, records))
        for records in (kafka_records(7, 9), kafka_records(7, 9), kafka_records(7), kafka_records(9))
    }
    later = kafka_records(7, 9)
    later[0].arrival_ms += 1
    assert len(ids | {read_id(failure(KAFKA_SHARD, later))}) == 4


def read_id(given_up: Failure) -> str:
    """Return a document's request id."""
    found: str = json.loads(kafka_documents().message(given_up))["requestContext"]["requestId"]
    return found


def test_a_failure_is_made_of_what_the_retry_rules_decided() -> None:
    """Records, condition, invocations and the last outcome are the discard's."""
    records = Records.of(kafka_records(1, 2))
    first = records[:1]
    work = Work(Batch(records, 10), failures=3, invocations=4, last=Delivered())
    made = Failure.of(KAFKA_SHARD, Discard(first, Condition.RECORD_AGE_EXCEEDED, work), at_ms=AT_MS)
    assert (made.shard, made.records, made.condition) == (KAFKA_SHARD, first, Condition.RECORD_AGE_EXCEEDED)
    assert (made.invocations, made.outcome, made.at_ms) == (4, Delivered(), AT_MS)


def test_characters_that_queues_refuse_are_escaped() -> None:
    """U+FFFE and U+FFFF may not stand in a message of SQS; escaped, the document says the same."""
    records = kinesis_records()
    records[0].fragment = '"\ufffe\uffff"'.encode()
    document = kinesis_documents().object_body(failure(KINESIS_SHARD, records))
    assert "\ufffe" not in document.decode()
    assert "\uffff" not in document.decode()
    assert json.loads(json.loads(document)["payload"])[0] == "\ufffe\uffff"


@pytest.mark.parametrize(
    ("at_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1573691886999.9, "2019-11-14T00:38:06.999Z"),
        (2**63, "9999-12-31T23:59:59.999Z"),
        (-(2**63), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_any_number_a_producer_wrote_is_a_timestamp(at_ms: float, shown: str) -> None:
    """A record's timestamp may be nonsense; it must not keep its document from being written."""
    assert timestamp(at_ms) == shown
