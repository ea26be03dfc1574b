"""Find a place in a shard of a stream, and whether unread records lie before it.

A place in time becomes the shard's origin, so that Kinesis itself finds it whenever reading begins. How many records
lie between two places is not known without reading them; the first record of each tells whether there are any.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from model.errors import SourceRefusedError
from model.progress import ShardState
from model.shard import BEGINNING, END, at_ms
from pollers.seeking import AtPosition, AtTime, Beginning, End, Found
from pollers.sources.kinesis_api import NotInStreamError, ThrottledError
from pollers.sources.kinesis_pace import IDLE_S

if TYPE_CHECKING:
    from model.ids import Position, ShardId, ShardOrigin
    from model.progress import ShardProgress
    from pollers.seeking import Place
    from pollers.sources.kinesis_api import KinesisApi, KinesisRecord

_PACE_S = 0.25  # a shard answers five calls a second, to all its consumers together
_PAGES = 20  # without a record, before it counts as not known


async def find_place(
    api: KinesisApi,
    shard: ShardId,
    place: Place,
    *,
    origin: ShardOrigin,
    before: ShardProgress,
    is_open: bool,
    place_bits: int,
) -> Found:
    """Return a place in a shard that is read from `before` on, or without a checkpoint from `origin`.

    `place_bits`: by how much readers shift sequence numbers to make positions of them.
    """
    drained = before.report.state is ShardState.DRAINED or origin == END
    untouched = before.position is None and not drained
    match place:
        case Beginning():
            return Found(None, BEGINNING, 0, stays=untouched and origin == BEGINNING)
        case End():
            target = at_ms(int(api.now_s() * 1000)) if is_open else END
            first, sure = None, True
        case AtTime(ms):
            target = at_ms(ms)
            first, sure = await _first(api, shard, None, target)
        case AtPosition(position):
            target = origin
            try:
                first, sure = await _first(api, shard, position, origin)
            except NotInStreamError as exc:
                raise SourceRefusedError(f"{shard} has no sequence number {position}: {exc}") from exc
    unread, known = (None, True) if drained else await _first(api, shard, before.position, origin)
    skips: int | None = 0
    skips_s = None
    if not known or not sure:
        skips = None
    elif unread is not None and (first is None or int(unread.SequenceNumber) < int(first.SequenceNumber)):
        skips = None
        until_s = api.now_s() if first is None else first.ApproximateArrivalTimestamp
        skips_s = max(0.0, until_s - unread.ApproximateArrivalTimestamp)
    same = (unread is None) == (first is None) and (
        unread is None or first is None or unread.SequenceNumber == first.SequenceNumber
    )
    return Found(
        place.position if isinstance(place, AtPosition) else None,
        BEGINNING if isinstance(place, AtPosition) and target == END else target,
        None if first is None else int(first.SequenceNumber) << place_bits,
        skips,
        skips_s,
        # A shard that nobody has begun keeps its origin in time, not in what is there by now.
        stays=same and known and sure and (not untouched or target == origin),
    )


async def _first(
    api: KinesisApi, shard: ShardId, after: Position | None, origin: ShardOrigin
) -> tuple[KinesisRecord | None, bool]:
    """Return the first record from a place on, None when there is none; and False when that is not sure.

    The mapping's own reader uses up nearly all of a shard's calls while it has a backlog, so being throttled is waited
    out.
    """
    iterator: str | None = ""
    for _ in range(_PAGES):
        if iterator is None:
            return None, True
        try:
            iterator = iterator or await api.iterator(shard, after, origin)
            page = await api.get_records(iterator, limit=1)
        except ThrottledError:
            await asyncio.sleep(IDLE_S)
            continue
        if page.Records:
            return page.Records[0], True
        if not page.MillisBehindLatest:
            return None, True
        iterator = page.NextShardIterator
        await asyncio.sleep(_PACE_S)
    return None, False
