"""How SQS messages look inside the event and to filters (spec section 5.2).

Pure. The body goes from SQS's answer into the event as the JSON text it came in: it is neither decoded nor written
anew, so it is the message text byte for byte, and costs a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from model.mapping import SourceKind
from model.record import Record
from pollers.sources.sqs_api import decoded_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.mapping import SqsSource
    from pollers.sources.sqs_api import Attribute, SqsMessage

_HEAD = b'{"Records":['
_TAIL = b"]}"


class _Attribute(msgspec.Struct, omit_defaults=True, gc=False):
    """A message attribute as the event shows it: lower camel case, the empty lists always there."""

    stringListValues: list[str]  # noqa: N815  # AWS's names, here and below
    binaryListValues: list[str]  # noqa: N815
    dataType: str  # noqa: N815
    stringValue: str | None = None  # noqa: N815
    binaryValue: str | None = None  # noqa: N815


class _Record(msgspec.Struct, gc=False):
    messageId: str  # noqa: N815
    receiptHandle: str  # noqa: N815
    body: msgspec.Raw
    attributes: dict[str, str]
    messageAttributes: dict[str, _Attribute]  # noqa: N815
    md5OfBody: str  # noqa: N815
    md5OfMessageAttributes: str | msgspec.UnsetType | None  # noqa: N815
    eventSource: str  # noqa: N815
    eventSourceARN: str  # noqa: N815
    awsRegion: str  # noqa: N815


class SqsEnvelope:
    """The envelope of one mapping. `item_id` is the messageId; a record's key is its MessageGroupId."""

    def __init__(self, source: SqsSource, *, window: bool = False) -> None:
        self._arn = source.arn
        self._region = source.arn.split(":")[3]
        self._no_digest: msgspec.UnsetType | None = None if window else msgspec.UNSET  # as the live service does
        self._encode = msgspec.json.Encoder().encode

    def encode(self, raws: Sequence[Any], positions: Sequence[int]) -> list[Record]:
        """Turn messages into records with their JSON made."""
        encode, arn, region, no_digest = self._encode, self._arn, self._region, self._no_digest
        none: dict[str, _Attribute] = {}
        records = []
        for raw, position in zip(raws, positions, strict=True):
            message: SqsMessage = raw
            attributes = message.Attributes
            shown = _Record(
                message.MessageId,
                message.ReceiptHandle,
                message.Body,
                attributes,
                event_attributes(message.MessageAttributes) if message.MessageAttributes else none,
                message.MD5OfBody,
                message.MD5OfMessageAttributes or no_digest,
                "aws:sqs",
                arn,
                region,
            )
            sent = attributes.get("SentTimestamp", "")
            arrival_ms = int(sent) if sent.isdecimal() else 0
            group = attributes.get("MessageGroupId")
            records.append(Record(position, arrival_ms, encode(shown), group, message.MessageId))
        return records

    def event(self, records: Sequence[Record]) -> bytes:
        """Assemble the complete event."""
        return _HEAD + b",".join([record.fragment for record in records]) + _TAIL

    def overhead(self) -> int:
        """Bytes of an event beyond the sum of (fragment + 1)."""
        return len(_HEAD) + len(_TAIL) - 1

    def parse_item_id(self, identifier: object) -> str | None:
        """Take a messageId; None if it cannot be one."""
        return identifier if isinstance(identifier, str) and identifier else None


class SqsRecordView:
    """What a filter pattern can see of a message: the body as data, the rest by the event's names."""

    kind = SourceKind.SQS

    def payloads(self, raws: Sequence[Any]) -> list[bytes]:
        """Return the message texts."""
        return [decoded_body(raw) for raw in raws]

    def metadata(self, raw: Any) -> dict[str, Any]:
        """Return everything else, for patterns on metadata."""
        message: SqsMessage = raw
        shown = {name: msgspec.to_builtins(a) for name, a in event_attributes(message.MessageAttributes).items()}
        return {
            "messageId": message.MessageId,
            "attributes": message.Attributes,
            "messageAttributes": shown,
            "md5OfBody": message.MD5OfBody,
        }


def event_attributes(attributes: dict[str, Attribute]) -> dict[str, _Attribute]:
    """Return message attributes as the event has them."""
    return {
        name: _Attribute([], [], given.DataType, given.StringValue, given.BinaryValue)
        for name, given in attributes.items()
    }
