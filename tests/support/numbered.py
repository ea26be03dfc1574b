"""Records that say what they are: `KEY:NUMBER`, numbers rising by one per key, whatever the source.

So what was delivered is judged per key, whatever shards, partitions and queues did meanwhile: `tests.support.history`
sees each key as a partition of its own.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from tests.support.history import Entry, Partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class _Kinesis(msgspec.Struct):
    partitionKey: str  # noqa: N815 - AWS's name
    data: str


class _Record(msgspec.Struct):
    kinesis: _Kinesis | None = None
    body: str | None = None  # of a message of a queue


class _Value(msgspec.Struct):
    value: str


class _Event(msgspec.Struct):
    Records: list[_Record] = []
    records: dict[str, list[_Value]] = {}  # Kafka's, by partition


_decode_event = msgspec.json.Decoder(_Event).decode


def entries(event: bytes) -> list[Entry]:
    """Return what the records of an event of Kinesis, SQS or Kafka carry."""
    return [Entry(key, 0, int(number)) for key, _, number in (text.partition(":") for text in _texts(event))]


def _texts(event: bytes) -> Iterator[str]:
    decoded = _decode_event(event)
    for record in decoded.Records:
        if record.kinesis is None:
            assert record.body is not None
            yield record.body
        else:
            text = base64.b64decode(record.kinesis.data).decode()
            assert text.startswith(f"{record.kinesis.partitionKey}:")
            yield text
    for batch in decoded.records.values():
        for value in batch:
            yield base64.b64decode(value.value).decode()


class Numbering:
    """Gives each key its next number."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.written = dict.fromkeys(keys, 0)

    def next(self, key: str) -> str:
        """Return the key's next record."""
        number = self.written[key]
        self.written[key] += 1
        return f"{key}:{number}"

    def expected(self) -> dict[Partition, range]:
        """Return what has to arrive."""
        return {Partition(key, 0): range(count) for key, count in self.written.items()}

    @property
    def total(self) -> int:
        """Count the records."""
        return sum(self.written.values())
