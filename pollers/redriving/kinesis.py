"""Records of a Kinesis stream read again by their sequence numbers, as long as the stream keeps them.

For a mapping on a stream consumer aggregates are taken apart, as its reader does it. A document names the sequence
number of an aggregate, which all its records share, so all of them are delivered again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from model.errors import SourceUnavailableError
from model.ids import Position, position_key
from model.record import NO_RECORDS, Places, pick
from model.shard import at_ms
from pollers.ports import Chunk
from pollers.redriving.archive import Reread
from pollers.redriving.ranges import NOTHING, Piece
from pollers.sources.kinesis_api import MAX_RECORDS, NotInStreamError
from pollers.sources.kinesis_user_records import UserRecords

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from model.ids import ShardId
    from model.record import Records
    from pollers.ports import Envelope, Filter
    from pollers.redriving.documents import Span
    from pollers.redriving.ranges import Limits
    from pollers.sources.kinesis_api import KinesisApi, KinesisRecord
    from pollers.sources.kpl import HashKeyRange

_ALL = 1 << 40
_LIMIT = 1000
_PACE_S = 0.25  # a shard answers five calls a second, to all its consumers together


class KinesisRereading:
    """`pollers.redriving.archive.Rereading` of one stream. `key_range` is given where aggregates are taken apart."""

    def __init__(
        self,
        api: KinesisApi,
        envelope: Envelope,
        keep: Filter | None,
        *,
        key_range: Callable[[ShardId], Awaitable[HashKeyRange]] | None = None,
    ) -> None:
        self._api = api
        self._envelope = envelope
        self._filter = keep
        self._key_range = key_range

    async def read(self, span: Span) -> Reread:
        """Read a range of sequence numbers of one shard."""
        raws: list[Any] = []
        try:
            iterator: str | None = await self._api.iterator_at(span.shard, str(span.first))
        except NotInStreamError:
            return Reread(NO_RECORDS, whole=False)
        while iterator is not None:
            page = await self._api.get_records(iterator, limit=_LIMIT)
            raws += [raw for raw in page.Records if span.first <= int(raw.SequenceNumber) <= span.last]
            past = bool(page.Records) and int(page.Records[-1].SequenceNumber) >= span.last
            if past or (not page.Records and not page.MillisBehindLatest):
                break
            iterator = page.NextShardIterator
            await asyncio.sleep(_PACE_S)
        found = [int(raw.SequenceNumber) for raw in raws]
        whole = bool(found) and (found[0], found[-1]) == (span.first, span.last)
        records, _ = await self.records(raws, found, span.shard)
        return Reread(records, whole)

    async def records(self, raws: Sequence[Any], positions: Sequence[int], shard: ShardId) -> tuple[Records, int]:
        """Return the records as the mapping makes them, and how many of them it filters out."""
        filtered = 0
        if self._key_range is not None and raws:
            users = UserRecords()
            users.add(Chunk(list(raws), list(positions), 0))
            chunk = users.take(_ALL, await self._key_range(shard))
            ours = [place not in chunk.strays for place in chunk.positions]
            raws, positions = pick(chunk.raws, ours), pick(chunk.positions, ours)
        if self._filter is not None and raws:
            keep = self._filter.keep(raws)
            filtered = keep.count(False)
            raws, positions = pick(raws, keep), pick(positions, keep)
        return (self._envelope.encode(shard, raws, Places(positions)) if raws else NO_RECORDS), filtered

    async def close(self) -> None:
        """Nothing of its own to close."""


class KinesisRange:
    """`pollers.redriving.ranges.RangeReader` of shards, parents first. Times are epoch milliseconds.

    How many records there are is not known; how far it is, is told in seconds of each shard's time.
    """

    def __init__(
        self, api: KinesisApi, forms: KinesisRereading, shards: Sequence[Limits], *, from_ms: int, to_ms: int
    ) -> None:
        self._api = api
        self._forms = forms
        self._shards = list(shards)
        self._from_ms = from_ms
        self._to_ms = to_ms
        self._at = 0  # which shard
        self._iterator: str | None = None
        self._after: Position | None = None  # last record read of it
        self._reached_ms = from_ms
        self._due_at = 0.0

    async def total(self) -> tuple[int, str]:
        """Return the length of the range, for all shards."""
        return self._seconds(self._to_ms) * len(self._shards), "seconds"

    def done(self) -> int:
        """Tell the seconds gone through, of all shards."""
        whole = self._seconds(self._to_ms) * self._at
        return whole if self._at == len(self._shards) else whole + self._seconds(self._reached_ms)

    def _seconds(self, at_ms: int) -> int:
        return (at_ms - self._from_ms) // 1000

    async def read(self, most: int) -> Piece | None:
        """Read on in the present shard."""
        if self._at == len(self._shards):
            return None
        shard, until = self._shards[self._at]
        if until == NOTHING:
            self._next_shard()
            return Piece(shard, NO_RECORDS)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._due_at - loop.time()))
        self._due_at = loop.time() + _PACE_S
        try:
            if self._iterator is None:
                self._iterator = await self._api.iterator(shard, self._after, at_ms(self._from_ms))
            page = await self._api.get_records(self._iterator, limit=min(most, MAX_RECORDS))
        except SourceUnavailableError:
            self._iterator = None  # it may have expired: the next one begins after the last record
            raise
        raws = [raw for raw in page.Records if self._within(raw, until)]
        positions = [int(raw.SequenceNumber) for raw in raws]
        records, filtered = await self._forms.records(raws, positions, shard)
        # No await from here on: what was read is handed out.
        if page.Records:
            self._after = Position(page.Records[-1].SequenceNumber)
            self._reached_ms = min(self._to_ms, max(self._reached_ms, _arrival_ms(page.Records[-1])))
        self._iterator = page.NextShardIterator
        tip = not page.Records and not page.MillisBehindLatest
        if tip or self._iterator is None or len(raws) < len(page.Records):
            self._next_shard()
        return Piece(shard, records, filtered)

    def _within(self, raw: KinesisRecord, until: Position | None) -> bool:
        past = until is not None and position_key(Position(raw.SequenceNumber)) > position_key(until)
        return not past and _arrival_ms(raw) < self._to_ms

    def _next_shard(self) -> None:
        self._at += 1
        self._iterator = self._after = None
        self._reached_ms = self._from_ms

    async def close(self) -> None:
        """Nothing of its own to close."""


def _arrival_ms(raw: KinesisRecord) -> int:
    return int(raw.ApproximateArrivalTimestamp * 1000)
