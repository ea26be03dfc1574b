"""Kafka events, byte for byte what AWS's documents say."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import ShardId
from model.mapping import KafkaSource, SourceKind
from model.record import Places
from pollers.sources.kafka_envelope import KafkaEnvelope, KafkaRecordView
from pollers.sources.kafka_fetcher import KafkaRecord

SHARD = ShardId("mytopic-0")
TOPICS = st.text("abcXYZ019._-", min_size=1, max_size=40)
BYTES = st.none() | st.binary(max_size=60)
HEADERS = st.lists(st.tuples(st.text(max_size=8), BYTES), max_size=6)


def raw(
    offset: int = 15,
    *,
    topic: str = "mytopic",
    partition: int = 0,
    key: bytes | None = b"k",
    value: bytes | None = b"v",
    headers: tuple[tuple[str, bytes | None], ...] = (),
    timestamp: int | None = 1545084650987,
    timestamp_type: int | None = 0,
) -> KafkaRecord:
    """Make a record as the client does."""
    return KafkaRecord(topic, partition, offset, timestamp, timestamp_type, key, value, headers)


def envelope(topic: str = "mytopic", arn: str | None = None) -> KafkaEnvelope:
    """Make the envelope of a mapping with two brokers."""
    return KafkaEnvelope(KafkaSource(topic, "group", ("b-1:9092", "b-2:9092"), arn))


def event_of(made: KafkaEnvelope, raws: list[Any]) -> Any:
    """Encode, assemble and parse."""
    return json.loads(made.event(made.encode(SHARD, raws, Places([one.offset for one in raws]))))


def test_the_documented_event() -> None:
    """A self-managed event has every field of the specification, and no eventSourceArn."""
    assert event_of(envelope(), [raw(headers=(("headerKey", bytes([104, 220, 0, 127, 128])),))]) == {
        "eventSource": "SelfManagedKafka",
        "bootstrapServers": "b-1:9092,b-2:9092",
        "records": {
            "mytopic-0": [
                {
                    "topic": "mytopic",
                    "partition": 0,
                    "offset": 15,
                    "timestamp": 1545084650987,
                    "timestampType": "CREATE_TIME",
                    "key": "aw==",
                    "value": "dg==",
                    "headers": [{"headerKey": [104, -36, 0, 127, -128]}],
                }
            ]
        },
    }


def test_msk_names_its_cluster() -> None:
    """An MSK event has AWS's event source and the cluster's ARN."""
    event = event_of(envelope(arn="arn:aws:kafka:eu-west-1:1:cluster/x/y"), [raw()])
    assert (event["eventSource"], event["eventSourceArn"]) == ("aws:kafka", "arn:aws:kafka:eu-west-1:1:cluster/x/y")


def test_absent_key_and_value_are_left_out() -> None:
    """A keyless record has no key, a tombstone no value; empty ones are there."""
    keyless, tombstone, empty = event_of(
        envelope(), [raw(1, key=None), raw(2, value=None), raw(3, key=b"", value=b"")]
    )["records"]["mytopic-0"]
    assert "key" not in keyless
    assert "value" not in tombstone
    assert (empty["key"], empty["value"]) == ("", "")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(0, "CREATE_TIME"), (1, "LOG_APPEND_TIME"), (None, "NO_TIMESTAMP_TYPE"), (-1, "NO_TIMESTAMP_TYPE")],
)
def test_timestamp_types(kind: int | None, name: str) -> None:
    """The type of timestamp has Kafka's name."""
    assert event_of(envelope(), [raw(timestamp_type=kind)])["records"]["mytopic-0"][0]["timestampType"] == name


def test_a_record_without_timestamp_is_delivered() -> None:
    """Messages of the oldest format have no time; the event says -1."""
    records = envelope().encode(SHARD, [raw(timestamp=None, timestamp_type=None)], Places([15]))
    assert (records[0].arrival_ms, json.loads(records[0].fragment)["timestamp"]) == (-1, -1)


@given(
    topic=TOPICS,
    partition=st.integers(0, 2**31 - 1),
    offsets=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True).map(sorted),
    data=st.data(),
)
def test_events_equal_those_built_naively(topic: str, partition: int, offsets: list[int], data: st.DataObject) -> None:
    """For any records the event is what plain dictionaries give, and its size is foretold within its bound."""
    raws = [
        raw(
            offset,
            topic=topic,
            partition=partition,
            key=data.draw(BYTES),
            value=data.draw(BYTES),
            headers=tuple(data.draw(HEADERS)),
        )
        for offset in offsets
    ]
    naive = []
    for one in raws:
        entry: dict[str, Any] = {"topic": topic, "partition": partition, "offset": one.offset}
        entry |= {"timestamp": one.timestamp, "timestampType": "CREATE_TIME"}
        entry |= {} if one.key is None else {"key": base64.b64encode(one.key).decode()}
        entry |= {} if one.value is None else {"value": base64.b64encode(one.value).decode()}
        entry["headers"] = [{k: [b - 256 if b > 127 else b for b in v or b""]} for k, v in one.headers]
        naive.append(entry)
    made = envelope(topic)
    records = made.encode(SHARD, raws, Places(offsets))
    event = made.event(records)
    assert json.loads(event) == {
        "eventSource": "SelfManagedKafka",
        "bootstrapServers": "b-1:9092,b-2:9092",
        "records": {f"{topic}-{partition}": naive},
    }
    foretold = made.overhead() + sum(len(record.fragment) + 1 for record in records)
    assert 0 <= foretold - len(event) <= 10 - len(str(partition))
    assert [record.position for record in records] == offsets
    assert [record.key for record in records] == [one.key for one in raws]
    for record in records:
        identifier = {"partition": f"{topic}-{partition}", "offset": record.position}
        assert made.parse_item_id(identifier) == record.item_id


@pytest.mark.parametrize(
    "identifier",
    [
        "15",
        15,
        None,
        "",
        {},
        {"partition": "mytopic-0"},
        {"partition": "mytopic-0", "offset": "15"},
        {"partition": "mytopic-0", "offset": True},
        {"partition": "mytopic-0", "offset": -1},
        {"partition": "mytopic-0", "offset": 2**63},
        {"partition": "other-0", "offset": 15},
        {"partition": "mytopic", "offset": 15},
        {"partition": "mytopic-", "offset": 15},
        {"partition": "mytopic-00", "offset": 15},
        {"partition": "mytopic-²", "offset": 15},
        {"partition": "mytopic-99999999999", "offset": 15},
        {"partition": "mytopic-0", "offset": 15, "more": 1},
        {"partition": ["mytopic-0"], "offset": 15},
    ],
)
def test_malformed_item_identifiers(identifier: object) -> None:
    """What is not exactly a partition of this topic and an offset names nothing."""
    assert envelope().parse_item_id(identifier) is None


def test_an_identifier_of_another_partition_is_another() -> None:
    """Equal offsets of two partitions do not name the same record."""
    made = envelope()
    (record,) = made.encode(SHARD, [raw(partition=3)], Places([15]))
    assert made.parse_item_id({"partition": "mytopic-3", "offset": 15}) == record.item_id
    assert made.parse_item_id({"partition": "mytopic-4", "offset": 15}) != record.item_id


def test_filters_see_text() -> None:
    """A pattern can be written on the key and on headers; what is no text shows as base64."""
    view = KafkaRecordView()
    record = raw(key=b"customer", headers=(("a", b"x"), ("a", b"\xff"), ("b", None)))
    assert view.kind is SourceKind.KAFKA
    assert view.payloads([record, raw(value=None)]) == [b"v", None]
    assert view.metadata(record) == {
        "topic": "mytopic",
        "partition": 0,
        "offset": 15,
        "timestamp": 1545084650987,
        "timestampType": "CREATE_TIME",
        "headers": [{"a": "x"}, {"a": "/w=="}, {"b": ""}],
        "key": "customer",
    }
    assert "key" not in view.metadata(raw(key=None))
