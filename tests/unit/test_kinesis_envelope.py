"""How Kinesis records look inside the event and to filters (spec section 5.1)."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import ShardId
from model.mapping import KinesisSource, SourceKind
from model.record import Places
from pollers.filtering import compile_filter
from pollers.sources.kinesis_api import KinesisRecord, Page
from pollers.sources.kinesis_envelope import KinesisEnvelope, KinesisRecordView

ARN = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
SEQUENCE = "49590338271490256608559692538361571095921575989136588898"
SHARD = ShardId("shardId-000000000006")


def received(data: bytes = b"Hello", key: str = "1", arrival: float = 1545084650.987, **more: Any) -> KinesisRecord:
    """Make a record as GetRecords gives it, read from its JSON."""
    row = {
        "ApproximateArrivalTimestamp": arrival,
        "Data": base64.b64encode(data).decode(),
        "PartitionKey": key,
        "SequenceNumber": SEQUENCE,
        **more,
    }
    page = msgspec.json.decode(json.dumps({"Records": [row], "MillisBehindLatest": 0}), type=Page)
    (record,) = page.Records
    return record


def event_of(*raws: KinesisRecord, source: KinesisSource | None = None) -> dict[str, Any]:
    """Make the event of records."""
    envelope = KinesisEnvelope(source or KinesisSource(ARN))
    records = envelope.encode(SHARD, raws, Places([int(raw.SequenceNumber) for raw in raws]))
    event: dict[str, Any] = json.loads(envelope.event(records))
    return event


def test_an_event_is_the_specification_s() -> None:
    """Every field, with its name, its type and its order."""
    expected = {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "1",
                    "sequenceNumber": SEQUENCE,
                    "data": "SGVsbG8=",
                    "approximateArrivalTimestamp": 1545084650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{SHARD}:{SEQUENCE}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/esmd",
                "awsRegion": "us-east-2",
                "eventSourceARN": ARN,
            }
        ]
    }
    assert json.dumps(event_of(received())) == json.dumps(expected)


def test_an_encrypted_stream_shows_as_such() -> None:
    """Only real encryption is told."""
    assert event_of(received(EncryptionType="KMS"))["Records"][0]["kinesis"]["encryptionType"] == "KMS"
    assert "encryptionType" not in event_of(received(EncryptionType="NONE"))["Records"][0]["kinesis"]


def test_a_mapping_on_a_consumer_names_the_consumer() -> None:
    """The event's ARN is the one the mapping was made with."""
    consumer = f"{ARN}/consumer/c:1"
    assert event_of(received(), source=KinesisSource(ARN, consumer))["Records"][0]["eventSourceARN"] == consumer


def test_a_time_in_scientific_notation_is_read() -> None:
    """AWS writes 1.545084650987E9."""
    text = b'{"SequenceNumber":"1","Data":"","PartitionKey":"k","ApproximateArrivalTimestamp":1.545084650987E9}'
    record = msgspec.json.decode(text, type=KinesisRecord)
    event = event_of(record)
    assert event["Records"][0]["kinesis"]["approximateArrivalTimestamp"] == 1545084650.987


@given(data=st.binary(max_size=200), key=st.text(min_size=1, max_size=40), arrival_ms=st.integers(0, 4_000_000_000_000))
def test_data_and_keys_pass_unchanged_and_sizes_are_exact(data: bytes, key: str, arrival_ms: int) -> None:
    """Whatever bytes a producer wrote; and the size the batcher counts is that of the event."""
    raws = [received(data, key, arrival_ms / 1000)] * 3
    envelope = KinesisEnvelope(KinesisSource(ARN))
    records = envelope.encode(SHARD, raws, Places([1, 2, 3]))
    event = envelope.event(records)
    (shown, _, _) = json.loads(event)["Records"]
    assert base64.b64decode(shown["kinesis"]["data"]) == data
    assert shown["kinesis"]["partitionKey"] == records[0].key == key
    assert records[0].arrival_ms == arrival_ms
    assert len(event) == envelope.overhead() + sum(len(record.fragment) + 1 for record in records)


@given(keys=st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=5), arrival_ms=st.integers(0, 4 * 10**12))
def test_what_an_event_tells_of_its_records_is_what_came(keys: list[str], arrival_ms: int) -> None:
    """Keys, times and sequence numbers are read back from it; and part of a batch is an event like the whole."""
    raws = [
        received(b"%d" % at, key, (arrival_ms + at) / 1000, SequenceNumber=str(at + 7)) for at, key in enumerate(keys)
    ]
    envelope = KinesisEnvelope(KinesisSource(ARN))
    records = envelope.encode(SHARD, raws, Places(range(len(raws))))
    assert list(records.keys) == keys
    assert list(records.arrivals_ms) == [arrival_ms + at for at in range(len(raws))]
    assert list(records.item_ids) == [raw.SequenceNumber for raw in raws]
    whole, part = (json.loads(envelope.event(some))["Records"] for some in (records, records[1:]))
    assert part == whole[1:]
    assert [one.key for one in records[1:]] == keys[1:]


@pytest.mark.parametrize("identifier", ["", "x", "-1", "1.0", "1" * 129, 1, None, "\u0661"])
def test_what_is_no_sequence_number_is_malformed(identifier: object) -> None:
    """A partial batch response that names no record fails the batch."""
    assert KinesisEnvelope(KinesisSource(ARN)).parse_item_id(identifier) is None


def test_a_sequence_number_names_its_record() -> None:
    """The item of a partial batch response is the sequence number as text."""
    envelope = KinesisEnvelope(KinesisSource(ARN))
    (record,) = envelope.encode(SHARD, [received()], Places([int(SEQUENCE)]))
    assert envelope.parse_item_id(SEQUENCE) == record.item_id


def test_filters_see_data_and_metadata() -> None:
    """The data as the producer wrote it, everything else by the event's names."""
    raws = [received(b'{"page":"/shop/1"}'), received(b'{"page":"/"}'), received(b"no JSON"), received(b"{}", key="2")]
    view = KinesisRecordView()
    assert view.kind is SourceKind.KINESIS
    by_data = compile_filter(['{"data":{"page":[{"prefix":"/shop/"}]}}'], view)
    assert by_data.keep(raws) == [True, False, False, False]
    by_key = compile_filter(['{"partitionKey":["2"]}'], view)
    assert by_key.keep(raws) == [False, False, False, True]
    assert view.metadata(received(EncryptionType="KMS")) == {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": "1",
        "sequenceNumber": SEQUENCE,
        "approximateArrivalTimestamp": 1545084650.987,
        "encryptionType": "KMS",
    }
