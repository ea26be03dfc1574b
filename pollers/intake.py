"""What becomes of records once they are read: counted, filtered, encoded, given to their lane. Nothing is awaited.

So nothing can be cancelled between reading a chunk and having it in the lanes, and nothing is lost there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.record import order_keys, pick
from pollers.lane import lane_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.record import Places
    from pollers.lane import Lane
    from pollers.ports import Chunk
    from pollers.pump_parts import PumpParts
    from pollers.standing import Standing

_FILTERED = 1000  # records judged at once: a chunk of few costs as much for itself as for them


class Intake:
    """Takes up the chunks of one pump."""

    def __init__(self, parts: PumpParts, standing: Standing, shard: ShardId, lanes: Sequence[Lane]) -> None:
        self._parts = parts
        self._standing = standing
        self._shard = shard
        self._lanes = lanes
        self._batch_size = parts.mapping.batch_size

    @property
    def wanted(self) -> int:
        """How many records to read now: as many as make whole batches, where a filter does not decide that."""
        batches = self._batch_size * len(self._lanes)
        return batches + self._lanes[0].missing if self._parts.filter is None else max(2 * batches, _FILTERED)

    def take(self, chunk: Chunk) -> None:
        """Account for, filter, encode and spread one chunk."""
        parts, standing, lanes = self._parts, self._standing, self._lanes
        raws, places, strays = standing.polled(chunk)
        parts.counters.polled += len(raws) + strays
        parts.counters.dropped += strays
        if parts.filter is not None and raws:
            keep = parts.filter.keep(raws)
            passed = keep.count(False)
            if passed:
                standing.positions.pass_over(places, keep)
                standing.ledger.filtered += passed
                parts.counters.filtered_out += passed
                standing.moved()
                raws, places = pick(raws, keep), pick(places, keep)
        if standing.lot.queues and raws:
            raws, places = self._park_behind(raws, places)
        if len(lanes) == 1:
            self._add(lanes[0], raws, places)
            return
        chosen = lane_numbers(order_keys(places, parts.envelope.keys(raws)), len(lanes))
        for number, lane in enumerate(lanes):
            mine = [one == number for one in chosen]
            self._add(lane, pick(raws, mine), pick(places, mine))

    def _park_behind(self, raws: Sequence[object], places: Places) -> tuple[Sequence[object], Places]:
        """Park what belongs to parked keys behind what waits there; return the others."""
        envelope, queues = self._parts.envelope, self._standing.lot.queues
        behind = [key in queues for key in order_keys(places, envelope.keys(raws))]
        if not any(behind):
            return raws, places
        self._standing.parked(envelope.encode(self._shard, pick(raws, behind), pick(places, behind)))
        others = [not it for it in behind]
        return pick(raws, others), pick(places, others)

    def _add(self, lane: Lane, raws: Sequence[object], places: Places) -> None:
        """Encode records in pieces that end where the batches will: cutting one costs as much as encoding it again."""
        encode, shard, load = self._parts.envelope.encode, self._shard, self._standing.load
        start, end = 0, lane.missing
        while start < len(raws):
            whole = start == 0 and end >= len(raws)  # nearly always: nothing is copied
            records = encode(shard, raws, places) if whole else encode(shard, raws[start:end], places[start:end])
            load.size += records.size
            lane.add(records)
            start, end = end, end + self._batch_size
