"""How Kafka records look inside the event and to filters (spec section 5.3).

Pure. A record's JSON is made once, here, by msgspec from a struct whose fields are the event's: of the ways measured
(formatting bytes, f-strings, orjson, msgspec) it is the fastest, since it writes base64 straight into the document.
Batching, partial batch responses and what a filter drops are other people's business. The records of one event come
from one partition, as one pump serves one partition.
"""

from __future__ import annotations

import base64
from functools import partial
from operator import add
from typing import TYPE_CHECKING, Any

import msgspec

from model.mapping import SourceKind
from model.record import Derived, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.mapping import KafkaSource
    from model.record import Places

_TIMESTAMP_TYPES = {0: "CREATE_TIME", 1: "LOG_APPEND_TIME"}
_NO_TIMESTAMP_TYPE = "NO_TIMESTAMP_TYPE"  # what Kafka calls it for messages older than the format with timestamps
_OFFSET_BITS = 63
_MAX_OFFSET = (1 << _OFFSET_BITS) - 1
_MAX_PARTITION_DIGITS = 10  # partitions are 32-bit numbers

Headers = list[dict[str, list[int]]]


class _KafkaRecord(msgspec.Struct, gc=False, omit_defaults=True):
    """One record as the event shows it: key and value are absent when Kafka has none."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestampType: str  # noqa: N815  # AWS's name
    headers: Headers | msgspec.UnsetType
    key: bytes | None = None
    value: bytes | None = None


class KafkaEnvelope:
    """The envelope of one mapping. `item_id` is the partition in front of the offset's 63 bits."""

    def __init__(self, source: KafkaSource) -> None:
        self._prefix = f"{source.topic}-"
        head: dict[str, str] = {"eventSource": "aws:kafka" if source.arn else "SelfManagedKafka"}
        if source.arn:
            head["eventSourceArn"] = source.arn
        head["bootstrapServers"] = ",".join(source.bootstrap_servers)
        shard = msgspec.json.encode(self._prefix)
        self._head = msgspec.json.encode(head)[:-1] + b',"records":{' + shard[:-1]
        self._encode = msgspec.json.Encoder().encode

    def keys(self, raws: Sequence[Any]) -> list[bytes | None]:
        """Return the records' keys."""
        return [raw.key for raw in raws]

    def encode(self, shard: ShardId, raws: Sequence[Any], places: Places) -> Records:  # noqa: ARG002 - raws know
        """Turn records of one partition into records with their JSON made."""
        names, no_headers = _TIMESTAMP_TYPES, _no_headers()
        topic, partition = raws[0].topic, raws[0].partition
        timestamps = [-1 if raw.timestamp is None else raw.timestamp for raw in raws]
        keys = self.keys(raws)
        shown = [
            _KafkaRecord(
                topic,
                partition,
                offset,
                timestamp,
                names.get(raw.timestamp_type, _NO_TIMESTAMP_TYPE),
                event_headers(headers) if (headers := raw.headers) else no_headers,
                key,
                raw.value,
            )
            for raw, offset, timestamp, key in zip(raws, places.positions, timestamps, keys, strict=True)
        ]
        item_ids = Derived(partial(add, partition << _OFFSET_BITS), places.positions)
        return Records(places, timestamps, keys, item_ids, self._encode(shown))

    def event(self, records: Records) -> bytes:
        """Assemble the complete event of records of one partition."""
        return b"".join((self._head, b'%d":' % partition_of(records.item_ids[0]), records.text, b"}}"))

    def overhead(self) -> int:
        """Bytes of an event beyond the sum of (fragment + 1): exact but for short partition numbers, never too few."""
        return len(self._head) + _MAX_PARTITION_DIGITS + len(b'":[]}}') - 1

    def parse_item_id(self, identifier: object) -> int | None:
        """Read `{"partition": "TOPIC-PARTITION", "offset": N}` (spec section 4.3); None if it is not of that form."""
        if not isinstance(identifier, dict) or identifier.keys() != {"partition", "offset"}:
            return None
        shard, offset = identifier["partition"], identifier["offset"]
        if not isinstance(shard, str) or not isinstance(offset, int) or isinstance(offset, bool):
            return None
        number = shard.removeprefix(self._prefix)
        if number == shard or not (number.isascii() and number.isdigit()) or len(number) > _MAX_PARTITION_DIGITS:
            return None
        if (len(number) > 1 and number[0] == "0") or not 0 <= offset <= _MAX_OFFSET:
            return None
        return (int(number) << _OFFSET_BITS) + offset


class KafkaRecordView:
    """What a filter pattern can see of a record: the value as bytes, the rest by the event's names.

    Key and header values are shown as text where they are text, and as base64 elsewhere, so that a pattern can be
    written for them.
    """

    kind = SourceKind.KAFKA

    def payloads(self, raws: Sequence[Any]) -> list[bytes | None]:
        """Return the values; None for a tombstone."""
        return [raw.value for raw in raws]

    def metadata(self, raw: Any) -> dict[str, Any]:
        """Return everything else, for patterns on metadata."""
        shown: dict[str, Any] = {
            "topic": raw.topic,
            "partition": raw.partition,
            "offset": raw.offset,
            "timestamp": -1 if raw.timestamp is None else raw.timestamp,
            "timestampType": _TIMESTAMP_TYPES.get(raw.timestamp_type, _NO_TIMESTAMP_TYPE),
            "headers": [{name: _text(value or b"")} for name, value in raw.headers],
        }
        if raw.key is not None:
            shown["key"] = _text(raw.key)
        return shown


def partition_of(item_id: int) -> int:
    """Return the partition a record of this envelope came from."""
    return item_id >> _OFFSET_BITS


def event_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """Return headers as the event has them: order and duplicates kept, values as signed bytes, null as no bytes."""
    return [{name: list(memoryview(value or b"").cast("b"))} for name, value in headers]


def _no_headers() -> Headers:
    return []


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
