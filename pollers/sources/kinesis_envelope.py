"""How Kinesis records look inside the event and to filters (spec section 5.1). Pure.

A record's JSON is put together from pieces that are the same for all, and from what the answer of GetRecords holds
already as JSON: its data is copied, never decoded. Batching and partial batch responses are other people's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from model.mapping import SourceKind
from model.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.mapping import KinesisSource

_MAX_DIGITS = 128
_SCHEMA_VERSION = "1.0"
_ROLE = "esmd"  # of the ARN that events name as the reader: there is no execution role here


class _Kinesis(msgspec.Struct, gc=False, omit_defaults=True):
    kinesisSchemaVersion: str  # noqa: N815  # AWS's names, also below
    partitionKey: str  # noqa: N815
    sequenceNumber: str  # noqa: N815
    data: msgspec.Raw
    approximateArrivalTimestamp: float  # noqa: N815
    encryptionType: str | None = None  # noqa: N815


class KinesisEnvelope:
    """The envelope of one mapping. `item_id` is the sequence number as text."""

    def __init__(self, source: KinesisSource) -> None:
        _, partition, _, region, account, _ = source.arn.split(":", 5)
        tail = {
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": f"arn:{partition}:iam::{account}:role/{_ROLE}",
            "awsRegion": region,
            "eventSourceARN": source.consumer_arn or source.arn,
        }
        self._middle = b',"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"'
        self._tail = b'",' + msgspec.json.encode(tail)[1:]
        self._encode = msgspec.json.Encoder().encode

    def encode(self, raws: Sequence[Any], positions: Sequence[int]) -> list[Record]:
        """Turn records of one shard into records with their JSON made."""
        encode, middle, tail = self._encode, self._middle, self._tail
        records: list[Record] = []
        append = records.append
        for raw, position in zip(raws, positions, strict=True):
            sequence, key, arrival = raw.SequenceNumber, raw.PartitionKey, raw.ApproximateArrivalTimestamp
            shown = encode(_Kinesis(_SCHEMA_VERSION, key, sequence, raw.Data, arrival, _encryption(raw)))
            event_id = f"{raw.shard}:{sequence}".encode()
            fragment = b'{"kinesis":%b%b%b%b' % (shown, middle, event_id, tail)
            append(Record(position, int(arrival * 1000 + 0.5), fragment, key, sequence))
        return records

    def event(self, records: Sequence[Record]) -> bytes:
        """Assemble the complete event."""
        return b'{"Records":[%b]}' % b",".join([record.fragment for record in records])

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
        if _encryption(raw) is not None:
            shown["encryptionType"] = raw.EncryptionType
        return shown


_decode_all = msgspec.json.Decoder(list[bytes]).decode


def _encryption(raw: Any) -> str | None:
    """Return how the record is encrypted in the stream, None if it is not."""
    encryption: str | None = raw.EncryptionType
    return None if encryption == "NONE" else encryption
