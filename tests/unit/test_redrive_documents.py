"""Failure documents read back: `pollers.redriving.documents`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import MappingId, ShardId, ShardKey
from model.mapping import KafkaSource, KinesisSource
from model.outcome import FunctionFailed
from model.record import Places
from pollers.failure_document import Failure, FailureDocuments
from pollers.redriving.documents import DocumentReader, FailedRecords, NotForUs, Span
from pollers.retrying import Condition
from pollers.sources.kinesis_api import KinesisRecord
from pollers.sources.kinesis_batch_info import KinesisBatchInfo
from pollers.sources.kinesis_envelope import KinesisEnvelope
from tests.support.failures import FUNCTION_ARN, SOURCE, documents, failure, topic_documents

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM = KinesisSource("arn:aws:kinesis:us-east-1:000000000000:stream/clicks")
SHARD = ShardKey(MappingId("4f6e3f0e-0000-4000-8000-000000000001"), ShardId("shardId-000000000001"))
SEQUENCES = (
    "49590338271490256608559692538361571095",
    "49590338271490256608559692540925702759",
    "4959033827149025660900",
)
READER = DocumentReader(SOURCE, FUNCTION_ARN)
KINESIS_READER = DocumentReader(STREAM, FUNCTION_ARN)


def kinesis_failure(*data: bytes) -> Failure:
    """Make a failure of Kinesis records."""
    raws = [
        KinesisRecord(SEQUENCES[at], msgspec.Raw(msgspec.json.encode(one)), f"key-{at}", 1573691884.835 + at)
        for at, one in enumerate(data)
    ]
    positions = Places([int(raw.SequenceNumber) for raw in raws])
    records = KinesisEnvelope(STREAM).encode(SHARD.shard, raws, positions)
    return Failure(
        shard=SHARD,
        records=records,
        condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
        invocations=2,
        outcome=FunctionFailed("Boom"),
        at_ms=1573691886021,
        id=failure(b"").id,
    )


def kinesis_documents() -> FailureDocuments:
    """Make the documents of the stream."""
    return FailureDocuments(
        function_arn=FUNCTION_ARN, envelope=KinesisEnvelope(STREAM), batch_info=KinesisBatchInfo(STREAM)
    )


def read(reader: DocumentReader, body: bytes) -> FailedRecords:
    """Read a document that is this mapping's."""
    found = reader.read(body)
    assert isinstance(found, FailedRecords), found
    return found


def test_a_document_with_the_event_gives_exactly_the_records_that_failed() -> None:
    """Position, arrival, key, item id and every byte of their JSON: as the source's envelope made them."""
    given_up = failure(b"one", b"\xff\x00")
    found = read(READER, documents().object_body(given_up))
    assert found.records == tuple((given_up.shard.shard, record) for record in given_up.records)
    assert (found.count, found.condition, found.request_id) == (2, "RetryAttemptsExhausted", given_up.request_id)
    assert found.at_ms == 1573691886021
    streamed = kinesis_failure(b"one", "ü\ufffe".encode())
    found = read(KINESIS_READER, kinesis_documents().object_body(streamed))
    assert found.records == tuple((SHARD.shard, record) for record in streamed.records)


def test_records_of_an_aggregate_are_told_apart_although_they_share_its_sequence_number() -> None:
    """For mappings on a stream consumer; their item ids are what the function knows them by."""
    consumer = replace(STREAM, consumer_arn=f"{STREAM.arn}/consumer/c:1")
    streamed = kinesis_failure(b"one", b"two", b"three")
    body = kinesis_documents().object_body(streamed).replace(SEQUENCES[1].encode(), SEQUENCES[0].encode())
    found = read(DocumentReader(consumer, FUNCTION_ARN), body)
    assert found.records is not None
    positions = [record.position for _, record in found.records]
    base = int(SEQUENCES[0]) << 24
    assert positions == [base, base + 1, int(SEQUENCES[2]) << 24]
    assert [record.item_id for _, record in found.records] == [SEQUENCES[0], SEQUENCES[0], SEQUENCES[2]]


def test_records_without_keys_and_values_come_back_too() -> None:
    """A key that is absent stays absent."""
    given_up = failure(b"one", key=None)
    found = read(READER, documents().object_body(given_up))
    assert found.records == ((given_up.shard.shard, given_up.records[0]),)


def test_messages_of_a_topic_hold_a_record_each() -> None:
    """Their payload is a JSON object, and the condition is spelled as AWS spells it there."""
    given_up = failure(b"one", b"two")
    messages = topic_documents().messages(given_up)
    found = [read(READER, message.value) for message in messages]
    assert [one.records for one in found] == [((given_up.shard.shard, record),) for record in given_up.records]
    without = read(READER, messages[1].without_payload)
    assert (without.records, without.spans, without.count) == (None, (Span(ShardId("orders-0"), 1, 1),), 1)


def test_a_document_that_only_names_records_tells_where_they_are() -> None:
    """The first and the last of them, and how many."""
    found = read(READER, documents().message(failure(b"one", b"two", b"three")))
    assert (found.records, found.spans, found.count) == (None, (Span(ShardId("orders-0"), 0, 2),), 3)
    found = read(KINESIS_READER, kinesis_documents().message(kinesis_failure(b"one", b"two")))
    assert found.spans == (Span(SHARD.shard, int(SEQUENCES[0]), int(SEQUENCES[1])),)
    assert found.count == 2


def test_a_queue_that_subscribed_to_a_topic_of_sns_is_read_too() -> None:
    """The notification holds the document as a text."""
    given_up = failure(b"one")
    body = json.dumps({"Type": "Notification", "Message": documents().object_body(given_up).decode()}).encode()
    assert read(READER, body).records == ((given_up.shard.shard, given_up.records[0]),)


def changed(body: bytes, change: Callable[[Any], None]) -> bytes:
    """Return a document with something changed."""
    document = json.loads(body)
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("body", "why", "foreign"),
    [
        (b"", "no failure document", True),
        (b"{}", "no failure document", True),
        (b"\xff", "no failure document", True),
        (b'{"requestContext": {}, "timestamp": "yesterday"}', "no failure document", True),
        (kinesis_documents().message(kinesis_failure(b"one")), "of another event source", True),
        (
            changed(documents().message(failure(b"one")), lambda d: d["requestContext"].update(functionArn="arn:x")),
            "of another function, arn:x",
            False,
        ),
        (
            documents().message(failure(b"one")).replace(b"orders-0", b"others-0"),
            "of another event source",
            True,
        ),
        (
            changed(documents().message(failure(b"one")), lambda d: d["KafkaBatchInfo"].update(recordsInfo={})),
            "of another event source",
            True,
        ),
        (
            changed(documents().object_body(failure(b"one")), lambda d: d.update(payload="[")),
            "no failure document",
            True,
        ),
        (
            changed(
                documents().object_body(failure(b"one")), lambda d: d.update(payload='{"records": {"orders-0": 1}}')
            ),
            "no failure document",
            True,
        ),
    ],
)
def test_what_is_not_this_mappings_is_left_alone(body: bytes, why: str, foreign: bool) -> None:  # noqa: FBT001 - a table
    """Queues are shared. Of another function is not surely foreign: the mapping may have had that one."""
    found = READER.read(body)
    assert isinstance(found, NotForUs)
    assert why in found.why
    assert found.foreign is foreign


def test_the_qualifier_latest_makes_no_difference() -> None:
    """AWS writes it in topics only."""
    qualified = changed(
        documents().message(failure(b"one")),
        lambda d: d["requestContext"].update(functionArn=f"{FUNCTION_ARN}:$LATEST"),
    )
    assert read(READER, qualified).count == 1


def test_msk_documents_are_told_apart_by_their_cluster() -> None:
    """The same topic of another cluster is another source."""
    cluster = KafkaSource("orders", "group", ("b-1:9092",), arn="arn:aws:kafka:us-east-1:1:cluster/vpc/uuid")
    body = documents().message(failure(b"one"))
    assert isinstance(DocumentReader(cluster, FUNCTION_ARN).read(body), NotForUs)
    theirs = changed(body, lambda d: d["KafkaBatchInfo"].update(eventSourceArn=cluster.arn))
    assert isinstance(DocumentReader(cluster, FUNCTION_ARN).read(theirs), FailedRecords)
    assert isinstance(READER.read(theirs), NotForUs)


@given(st.binary() | st.recursive(st.none() | st.text() | st.integers(), lambda x: st.dictionaries(st.text(), x)))
def test_whatever_lies_in_a_queue_is_no_crash(junk: Any) -> None:
    """Bytes and JSON of any kind."""
    body = junk if isinstance(junk, bytes) else json.dumps(junk).encode()
    assert isinstance(READER.read(body), NotForUs)
    whole = json.loads(documents().object_body(failure(b"one")))
    for name in whole:
        damaged = json.dumps({**whole, name: None if isinstance(junk, bytes) else junk}).encode()
        assert isinstance(READER.read(damaged), NotForUs | FailedRecords)
