"""Records of a Kinesis stream read again by their sequence numbers, as long as the stream keeps them.

For a mapping on a stream consumer aggregates are taken apart, as its reader does it. A document names the sequence
number of an aggregate, which all its records share, so all of them are delivered again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from model.record import NO_RECORDS, Places, pick
from pollers.ports import Chunk
from pollers.redriving.archive import Reread
from pollers.sources.kinesis_api import NotInStreamError
from pollers.sources.kinesis_user_records import UserRecords

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from model.ids import ShardId
    from model.record import Records
    from pollers.ports import Envelope, Filter
    from pollers.redriving.documents import Span
    from pollers.sources.kinesis_api import KinesisApi
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
        return Reread(await self._records(raws, found, span.shard), whole)

    async def _records(self, raws: Sequence[Any], positions: Sequence[int], shard: ShardId) -> Records:
        """Return the records as the mapping makes them."""
        if self._key_range is not None and raws:
            users = UserRecords()
            users.add(Chunk(list(raws), list(positions), 0))
            chunk = users.take(_ALL, await self._key_range(shard))
            ours = [place not in chunk.strays for place in chunk.positions]
            raws, positions = pick(chunk.raws, ours), pick(chunk.positions, ours)
        if self._filter is not None and raws:
            keep = self._filter.keep(raws)
            raws, positions = pick(raws, keep), pick(positions, keep)
        return self._envelope.encode(shard, raws, Places(positions)) if raws else NO_RECORDS

    async def close(self) -> None:
        """Nothing of its own to close."""
