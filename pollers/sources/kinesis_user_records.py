"""What a stream consumer's mapping delivers: the records that users wrote, aggregates taken apart. Pure.

The records of an aggregate share its sequence number, so positions here are the sequence number with the place in the
aggregate behind it. A restart can only read an aggregate as a whole: it is a *run*, and the checkpoint, which stays a
sequence number, passes it when all of it is finished (`pollers.positions`). How aggregates look is `kpl`'s business.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import msgspec

from model.ids import Position
from model.record import Derived
from pollers.ports import Chunk
from pollers.sources.kinesis_api import KinesisRecord
from pollers.sources.kpl import BASE64_START, deaggregate, is_stray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pollers.sources.kpl import HashKeyRange

PLACE_BITS: Final = 24
"""More places than an aggregate can have: the smallest record in it takes 8 bytes, and all of it at most 10 MiB."""

_START = b'"' + BASE64_START
_decode_data = msgspec.json.Decoder(bytes).decode


def checkpoint(position: int) -> Position:
    """Return the sequence number of the record at a position, or of the aggregate that holds it."""
    return Position(str(position >> PLACE_BITS))


class UserRecords:
    """Chunks of one shard on their way to the pump, at most one aggregate of them taken apart at a time."""

    def __init__(self) -> None:
        self._chunk = Chunk([], [], 0)
        self._next = 0  # of its records, the first not taken
        self._parts: list[tuple[KinesisRecord, bool]] = []  # of the aggregate before it; and whether it is a stray
        self._part = 0  # of these, the first not taken
        self.has_aggregates = False

    def __len__(self) -> int:
        """Count what was not taken, as far as it is known: an aggregate counts as one before it is taken apart."""
        return len(self._chunk.raws) - self._next + len(self._parts) - self._part

    @property
    def size(self) -> int:
        """Bytes of the chunk, until the last of it was taken."""
        return self._chunk.size

    @property
    def oldest_s(self) -> float:
        """When the first record that was not taken arrived, epoch seconds. There must be one."""
        first = self._parts[self._part][0] if self._parts else self._chunk.raws[self._next]
        arrival_s: float = first.ApproximateArrivalTimestamp
        return arrival_s

    def add(self, chunk: Chunk) -> None:
        """Take a chunk as Kinesis gave it, when nothing is left of the one before."""
        self._chunk, self._next = chunk, 0
        self.has_aggregates = any(map(_looks_aggregated, chunk.raws))

    def take(self, max_records: int, shard: HashKeyRange) -> Chunk:
        """Return the next records, those at most. `shard` decides what is a stray."""
        if not self.has_aggregates:
            return self._take_plain(max_records)
        positions: list[int] = []
        taken = Chunk([], positions, 0, [], set())
        while len(taken.raws) < max_records and len(self):
            if not self._parts:
                self._take_apart(taken, positions, shard)
            if self._parts:
                self._take_parts(taken, positions, max_records - len(taken.raws))
        self._forget_if_taken()
        return taken

    def _take_plain(self, max_records: int) -> Chunk:
        chunk, first = self._chunk, self._next
        self._next = min(len(chunk.raws), first + max_records)
        raws = chunk.raws[first : self._next]
        size = int(chunk.size * len(raws) / len(chunk.raws)) if raws else 0
        self._forget_if_taken()
        return Chunk(raws, Derived(_position, [raw.SequenceNumber for raw in raws]), size)

    def _take_apart(self, taken: Chunk, positions: list[int], shard: HashKeyRange) -> None:
        """Move the next record over, or what was packed into it among the parts."""
        raw = self._chunk.raws[self._next]
        position = _position(raw.SequenceNumber)
        self._next += 1
        records = deaggregate(_decode_data(raw.Data)) if _looks_aggregated(raw) else None
        if records is None:
            taken.raws.append(raw)
            positions.append(position)
            taken.size += _size(raw)
            return
        self._parts = [(_part(raw, record.partition_key, record.data), is_stray(record, shard)) for record in records]
        self._part = 0
        if len(records) > 1:
            taken.runs = [*taken.runs, (position, position + len(records) - 1)]

    def _take_parts(self, taken: Chunk, positions: list[int], most: int) -> None:
        base = _position(self._chunk.raws[self._next - 1].SequenceNumber)
        first, self._part = self._part, min(len(self._parts), self._part + most)
        parts: Sequence[tuple[KinesisRecord, bool]] = self._parts[first : self._part]
        places = range(base + first, base + self._part)
        taken.raws += [part for part, _ in parts]
        positions += places
        taken.size += sum([_size(part) for part, _ in parts])
        taken.strays |= {place for place, (_, stray) in zip(places, parts, strict=True) if stray}
        if self._part == len(self._parts):
            self._parts, self._part = [], 0

    def _forget_if_taken(self) -> None:
        if not len(self):
            self._chunk, self._next = Chunk([], [], 0), 0


def _position(sequence_number: str) -> int:
    """Return the position of a record that is no part of another, or of the first part of an aggregate."""
    return int(sequence_number) << PLACE_BITS


def _looks_aggregated(raw: Any) -> bool:
    return bool(memoryview(raw.Data)[: len(_START)] == _START)


def _part(raw: Any, partition_key: str, data: bytes) -> KinesisRecord:
    """Make a record of what was packed: it shares everything with the aggregate but key and data."""
    return KinesisRecord(
        raw.SequenceNumber,
        msgspec.Raw(b'"%b"' % b64encode(data)),
        partition_key,
        raw.ApproximateArrivalTimestamp,
        raw.EncryptionType,
    )


def _size(raw: Any) -> int:
    return len(memoryview(raw.Data))
