"""Read failure documents back: which records they are about, and the records themselves where they hold them. Pure.

The documents of AWS (spec section 4.4) and ours, which add the event to those for queues. A document of another
function or another source is not for this mapping: queues and topics may be shared. Queues that subscribed to an SNS
topic hold its notifications, with the documents in them.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from model.ids import ShardId
from model.mapping import KafkaSource, KinesisSource
from model.record import Record
from pollers.sources.kinesis_user_records import PLACE_BITS

if TYPE_CHECKING:
    from collections.abc import Iterable

_OFFSET_BITS = 63
_LATEST = ":$LATEST"


@dataclass(frozen=True, slots=True)
class Span:
    """Records of one shard that a document names by the first and the last of them."""

    shard: ShardId
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class FailedRecords:
    """What one document is about. `records` is None when it only names them."""

    request_id: str
    condition: str
    at_ms: int  # epoch, when they were given up
    count: int
    spans: tuple[Span, ...]
    records: tuple[tuple[ShardId, Record], ...] | None


@dataclass(frozen=True, slots=True)
class NotForUs:
    """Something else than a document of this mapping. `foreign`: it is surely another one's, and never ours."""

    why: str
    foreign: bool = True


class _Context(msgspec.Struct):
    requestId: str = ""  # noqa: N815  # AWS's names, also below
    functionArn: str = ""  # noqa: N815
    condition: str = ""


class _KinesisInfo(msgspec.Struct):
    shardId: str  # noqa: N815
    startSequenceNumber: str  # noqa: N815
    endSequenceNumber: str  # noqa: N815
    batchSize: int  # noqa: N815
    streamArn: str  # noqa: N815


class _Offsets(msgspec.Struct):
    firstRecordOffset: str  # noqa: N815
    lastRecordOffset: str  # noqa: N815


class _KafkaInfo(msgspec.Struct):
    batchSize: int  # noqa: N815
    eventSourceArn: str | None = None  # noqa: N815
    recordsInfo: dict[str, _Offsets] = {}  # noqa: N815


class _Document(msgspec.Struct):
    requestContext: _Context  # noqa: N815
    timestamp: str
    KinesisBatchInfo: _KinesisInfo | None = None
    KafkaBatchInfo: _KafkaInfo | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")


class _Notification(msgspec.Struct):
    Type: str = ""
    Message: str = ""


class _KinesisPart(msgspec.Struct):
    sequenceNumber: str  # noqa: N815
    partitionKey: str  # noqa: N815
    approximateArrivalTimestamp: float = 0.0  # noqa: N815


class _KinesisRecord(msgspec.Struct):
    kinesis: _KinesisPart


class _KinesisEvent(msgspec.Struct):
    Records: list[msgspec.Raw]


class _KafkaRecord(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    timestamp: int = -1
    key: str | None = None


class _KafkaEvent(msgspec.Struct):
    records: dict[str, list[msgspec.Raw]]


_document = msgspec.json.Decoder(_Document).decode
_notification = msgspec.json.Decoder(_Notification).decode
_kinesis_event = msgspec.json.Decoder(_KinesisEvent).decode
_kinesis_record = msgspec.json.Decoder(_KinesisRecord).decode
_kafka_event = msgspec.json.Decoder(_KafkaEvent).decode
_kafka_record = msgspec.json.Decoder(_KafkaRecord).decode


class DocumentReader:
    """Reads the documents of one mapping. `function_arn` may have a qualifier."""

    def __init__(self, source: KinesisSource | KafkaSource, function_arn: str) -> None:
        self._source = source
        self._function_arn = function_arn.removesuffix(_LATEST)

    def read(self, body: bytes) -> FailedRecords | NotForUs:
        """Return what a document says. Never raises, whatever the body is."""
        try:
            document = _document(_published(body) or body)
            at_ms = _epoch_ms(document.timestamp)
            return self._not_for_us(document) or self._failed(document, at_ms)
        except (ValueError, KeyError):  # msgspec's errors are ValueErrors too
            return NotForUs("no failure document")

    def _not_for_us(self, document: _Document) -> NotForUs | None:
        if isinstance(self._source, KinesisSource):
            stream = document.KinesisBatchInfo
            ours = stream is not None and stream.streamArn == self._source.arn
        else:
            ours = _of_topic(document, self._source)
        if not ours:
            return NotForUs("of another event source")
        function_arn = document.requestContext.functionArn
        if function_arn.removesuffix(_LATEST) != self._function_arn:
            # The mapping may have had this function when the records failed, or may get it again.
            return NotForUs(f"of another function, {function_arn}", foreign=False)
        return None

    def _failed(self, document: _Document, at_ms: int) -> FailedRecords:
        spans, count = _spans(document)
        event = _event_of(document.payload)
        records: tuple[tuple[ShardId, Record], ...] | None = None
        if event is not None:
            if isinstance(self._source, KinesisSource):
                aggregates = self._source.consumer_arn is not None
                records = tuple(_kinesis_records(event, spans[0].shard, aggregates=aggregates))
            else:
                records = tuple(_kafka_records(event))
            count = len(records)
        return FailedRecords(
            request_id=document.requestContext.requestId,
            condition=document.requestContext.condition,
            at_ms=at_ms,
            count=count,
            spans=spans,
            records=records,
        )


def _published(body: bytes) -> bytes | None:
    """Return what an SNS topic published, from the form in which its queues get it; None: it is no such thing."""
    notification = _notification(body)
    return notification.Message.encode() if notification.Type == "Notification" else None


def _of_topic(document: _Document, topic: KafkaSource) -> bool:
    info = document.KafkaBatchInfo
    if info is None or info.eventSourceArn != topic.arn:
        return False
    event = _event_of(document.payload)
    shards: Iterable[str] = info.recordsInfo or (() if event is None else _kafka_event(event).records)
    return any(True for _ in shards) and all(shard.rpartition("-")[0] == topic.topic for shard in shards)


def _spans(document: _Document) -> tuple[tuple[Span, ...], int]:
    """Return which records a document names, and how many it says there are."""
    stream, topic = document.KinesisBatchInfo, document.KafkaBatchInfo
    if stream is not None:
        span = Span(ShardId(stream.shardId), int(stream.startSequenceNumber), int(stream.endSequenceNumber))
        return (span,), stream.batchSize
    if topic is None:
        raise ValueError("it names no records")
    spans = [
        Span(ShardId(shard), int(offsets.firstRecordOffset), int(offsets.lastRecordOffset))
        for shard, offsets in topic.recordsInfo.items()
    ]
    return tuple(spans), topic.batchSize


def _event_of(payload: msgspec.Raw) -> bytes | None:
    """Return the event in a document: a JSON text in those for queues and buckets, an object in those for topics."""
    text = bytes(payload)
    if text.startswith(b'"'):
        return msgspec.json.decode(text, type=str).encode()
    return text if text.startswith(b"{") else None


def _kinesis_records(event: bytes, shard: ShardId, *, aggregates: bool) -> Iterable[tuple[ShardId, Record]]:
    """Read records of a shard. Those of one aggregate share its sequence number, so it takes their places besides."""
    places: dict[str, int] = {}
    for fragment in _kinesis_event(event).Records:
        found = _kinesis_record(fragment).kinesis
        sequence, arrival_ms = found.sequenceNumber, int(found.approximateArrivalTimestamp * 1000 + 0.5)
        position = int(sequence)
        if aggregates:
            place = places[sequence] = places.get(sequence, -1) + 1
            position = (position << PLACE_BITS) + place
        yield shard, Record(position, arrival_ms, bytes(fragment), found.partitionKey, sequence)


def _kafka_records(event: bytes) -> Iterable[tuple[ShardId, Record]]:
    for shard, fragments in _kafka_event(event).records.items():
        for fragment in fragments:
            found = _kafka_record(fragment)
            key = None if found.key is None else b64decode(found.key, validate=True)
            item_id: Any = (found.partition << _OFFSET_BITS) + found.offset
            yield ShardId(shard), Record(found.offset, found.timestamp, bytes(fragment), key, item_id)


def _epoch_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
