"""How Kinesis records look inside the event and to filters (spec section 5.1). Pure.

A record's JSON is put together from pieces that are the same for all, and from what the answer of GetRecords holds
already as JSON: its data is copied, never decoded. Batching and partial batch responses are other people's business.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from model.mapping import SourceKind
from model.record import Later, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.mapping import KinesisSource
    from model.record import Places

_MAX_DIGITS = 128
_SCHEMA_VERSION = "1.0"
_UNENCRYPTED = "NONE"
_ROLE = "esmd"  # of the ARN that events name as the reader: there is no execution role here


class _Kinesis(msgspec.Struct, gc=False, omit_defaults=True):
    kinesisSchemaVersion: str  # noqa: N815  # AWS's names, also below
    partitionKey: str  # noqa: N815
    sequenceNumber: str  # noqa: N815
    data: msgspec.Raw
    approximateArrivalTimestamp: float  # noqa: N815
    encryptionType: str | None = None  # noqa: N815


class _Shown(msgspec.Struct, gc=False):
    kinesis: _Kinesis
    eventSource: msgspec.Raw  # noqa: N815 - and the field that follows it, since that is the same for every record
    eventID: str  # noqa: N815
    eventName: msgspec.Raw  # noqa: N815 - and all the fields that follow it


class _Event(msgspec.Struct, gc=False):
    Records: list[_Shown]


class _Told(msgspec.Struct, gc=False):
    kinesis: _Kinesis


class _ToldEvent(msgspec.Struct, gc=False):
    Records: list[_Told]


_BEFORE = len(b'{"Records":')


class KinesisEnvelope:
    """The envelope of one mapping. `item_id` is the sequence number as text."""

    def __init__(self, source: KinesisSource) -> None:
        _, partition, _, region, account, _ = source.arn.split(":", 5)
        same = {
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": f"arn:{partition}:iam::{account}:role/{_ROLE}",
            "awsRegion": region,
            "eventSourceARN": source.consumer_arn or source.arn,
        }
        self._same = _fields({"eventSource": "aws:kinesis", "eventVersion": "1.0"}), _fields(same)
        self._encode = msgspec.json.Encoder().encode

    def keys(self, raws: Sequence[Any]) -> list[str]:
        """Return the partition keys."""
        return [raw.PartitionKey for raw in raws]

    def encode(self, shard: ShardId, raws: Sequence[Any], places: Places) -> Records:
        """Turn records of one shard into records with their JSON made: as an event, which most of them go on in."""
        (source, same), prefix = self._same, f"{shard}:"
        shown = [
            _Shown(
                _Kinesis(
                    _SCHEMA_VERSION,
                    raw.PartitionKey,
                    sequence_number := raw.SequenceNumber,
                    raw.Data,
                    raw.ApproximateArrivalTimestamp,
                    None if (encryption := raw.EncryptionType) == _UNENCRYPTED else encryption,
                ),
                source,
                prefix + sequence_number,
                same,
            )
            for raw in raws
        ]
        event, first, count = self._encode(_Event(shown)), raws[0], len(raws)
        return Records(
            places,
            Later(_milliseconds(first.ApproximateArrivalTimestamp), count, partial(_arrivals_ms, event)),
            Later(first.PartitionKey, count, partial(_keys, event)),
            Later(first.SequenceNumber, count, partial(_sequence_numbers, event)),
            memoryview(event)[_BEFORE:-1],
            event=event,
        )

    def event(self, records: Records) -> bytes:
        """Assemble the complete event."""
        return b"".join((b'{"Records":', records.text, b"}")) if records.event is None else records.event

    def overhead(self) -> int:
        """Bytes of an event beyond the sum of (fragment + 1)."""
        return len(b'{"Records":[]}') - 1

    def parse_item_id(self, identifier: object) -> str | None:
        """Read a sequence number (spec section 4.3); None if it is not one."""
        if not isinstance(identifier, str) or len(identifier) > _MAX_DIGITS:
            return None
        return identifier if identifier.isascii() and identifier.isdigit() else None


class KinesisRecordView:
    """What a filter pattern can see of a record: the decoded data, the rest by the event's names."""

    kind = SourceKind.KINESIS

    def payloads(self, raws: Sequence[Any]) -> list[bytes]:
        """Return what the producers wrote."""
        return _decode_all(b"[%b]" % b",".join([raw.Data for raw in raws]))

    def metadata(self, raw: Any) -> dict[str, Any]:
        """Return everything else, for patterns on metadata."""
        shown: dict[str, Any] = {
            "kinesisSchemaVersion": _SCHEMA_VERSION,
            "partitionKey": raw.PartitionKey,
            "sequenceNumber": raw.SequenceNumber,
            "approximateArrivalTimestamp": raw.ApproximateArrivalTimestamp,
        }
        if raw.EncryptionType not in (None, _UNENCRYPTED):
            shown["encryptionType"] = raw.EncryptionType
        return shown


_told = msgspec.json.Decoder(_ToldEvent).decode


def _arrivals_ms(event: bytes) -> list[int]:
    return [_milliseconds(told.kinesis.approximateArrivalTimestamp) for told in _told(event).Records]


def _keys(event: bytes) -> list[str]:
    return [told.kinesis.partitionKey for told in _told(event).Records]


def _sequence_numbers(event: bytes) -> list[str]:
    return [told.kinesis.sequenceNumber for told in _told(event).Records]


def _fields(fields: dict[str, str]) -> msgspec.Raw:
    """Write fields out, but for the name of the first and the braces."""
    return msgspec.Raw(msgspec.json.encode(fields).partition(b":")[2][:-1])


_decode_all = msgspec.json.Decoder(list[bytes]).decode


def _milliseconds(arrival_s: float) -> int:
    return int(arrival_s * 1000 + 0.5)
