"""Partial batch responses: every row of the specification's table, in the identifiers of every source."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from model.ids import ShardId
from model.mapping import KafkaSource, KinesisSource, SqsSource
from model.outcome import Delivered, FunctionFailed, PartlyFailed
from model.record import Places
from pollers.partial import read_response
from pollers.sources.kafka_envelope import KafkaEnvelope
from pollers.sources.kinesis_envelope import KinesisEnvelope
from pollers.sources.sqs_envelope import SqsEnvelope
from tests.support.response_table import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pollers.ports import Envelope

ARN = "arn:aws:{}:us-east-1:000000000000:{}"
POSITIONS = [101, 102, 103]


class Source(NamedTuple):
    """Three records of a source, their identifiers, and one of a record that is elsewhere."""

    envelope: Envelope | SqsEnvelope
    raws: list[Any]
    identifiers: list[Any]
    other: Any

    def item_ids(self) -> list[Hashable]:
        """Return what the records are known by."""
        if isinstance(self.envelope, SqsEnvelope):
            return [record.item_id for record in self.envelope.encode(self.raws, POSITIONS)]
        return list(self.envelope.encode(ShardId("t-3"), self.raws, Places(POSITIONS)).item_ids)


SOURCES = {
    "kinesis": Source(
        KinesisEnvelope(KinesisSource(ARN.format("kinesis", "stream/s"))),
        [
            SimpleNamespace(
                SequenceNumber=str(n), PartitionKey="k", ApproximateArrivalTimestamp=1.0, EncryptionType=None,
                Data=msgspec.Raw(b'"eA=="'), shard="shardId-0",
            )
            for n in POSITIONS
        ],
        [str(n) for n in POSITIONS],
        "104",
    ),
    "sqs": Source(
        SqsEnvelope(SqsSource(ARN.format("sqs", "q"), fifo=False)),
        [
            SimpleNamespace(
                MessageId=f"m{n}", ReceiptHandle="r", Body=msgspec.Raw(b'"x"'), Attributes={}, MessageAttributes={},
                MD5OfBody="", MD5OfMessageAttributes=None,
            )
            for n in POSITIONS
        ],
        [f"m{n}" for n in POSITIONS],
        "m104",
    ),
    "kafka": Source(
        KafkaEnvelope(KafkaSource("t", "g", bootstrap_servers=("h:1",))),
        [
            SimpleNamespace(
                topic="t", partition=3, offset=n, timestamp=1, timestamp_type=0, key=None, value=b"x", headers=()
            )
            for n in POSITIONS
        ],
        [{"partition": "t-3", "offset": n} for n in POSITIONS],
        {"partition": "t-4", "offset": 101},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.result)
def test_each_row(row: Row, name: str) -> None:
    """Nothing named is success, what is named failed, and anything else spoils the batch without being an error."""
    source = SOURCES[name]
    item_ids = source.item_ids()
    outcome = row.answer(source.identifiers, source.other)
    if isinstance(outcome, Delivered):
        outcome = read_response(outcome, item_ids, source.envelope.parse_item_id)
        if row.spoilt:
            assert isinstance(outcome, FunctionFailed)
            assert (outcome.function_error, outcome.status) == (None, 200)
        elif row.reported:
            assert isinstance(outcome, PartlyFailed)
            assert outcome.failed == {item_ids[at] for at in row.reported}
        else:
            assert isinstance(outcome, Delivered)
    else:
        assert row.spoilt


@pytest.mark.parametrize("name", SOURCES)
def test_every_record_is_named_by_its_identifier(name: str) -> None:
    """And by no other record's."""
    source = SOURCES[name]
    parsed = [source.envelope.parse_item_id(identifier) for identifier in source.identifiers]
    assert parsed == source.item_ids()
    assert source.envelope.parse_item_id(source.other) not in parsed
