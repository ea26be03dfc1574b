"""Which node should hold which shard. Pure: every node computes the same answer from the same snapshot.

What holds, in this order of importance; each kind of shard is dealt to the nodes with its role on its own:

1. Draining nodes and nodes without the role get nothing. No nodes: nothing is assigned.
2. Nodes differ by at most one shard.
3. Only what must move does: from a balanced fleet, a joining node is given at most ceil(shards / nodes), and a leaving
   node's shards are the only ones that move when it leaves.
4. By load, nodes are within `tolerance` of the average, as far as rules 2 and 3 and the size of single shards allow.
   Shards that have to move anyway are dealt by weight. Others are exchanged only while nothing else has to move, only
   when some node is out of tolerance, and at most ceil(shards / nodes) per snapshot.
5. A mapping's shards are spread over zones, and over the nodes in them, where that costs no move.

A lease makes a wrong or outdated view harmless, so this may be computed by anyone at any time.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from model.lease import Role, ShardKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from model.ids import MappingId, NodeId, ShardKey
    from model.lease import FleetSnapshot, WantedShard

ROLE_OF_KIND: Mapping[ShardKind, Role] = {ShardKind.TRACKER: Role.STATEMGR, ShardKind.SOURCE: Role.POLLERS}

_LOOK_AHEAD = 3  # equally loaded nodes considered for the sake of spreading a mapping
_WORTHWHILE = 0.01  # part of a node's share that an exchange must even out, where it costs moves


def assign(snapshot: FleetSnapshot, *, tolerance: float = 0.10) -> dict[ShardKey, NodeId]:
    """Name the node that should hold each wanted shard. A shard reserved for a successor counts as held by it."""
    assignment: dict[ShardKey, NodeId] = {}
    for kind, role in ROLE_OF_KIND.items():
        nodes = sorted(member.node for member in snapshot.members if role in member.roles and not member.draining)
        shards = sorted((shard for shard in snapshot.wanted if shard.kind is kind), key=lambda shard: shard.key)
        if nodes and shards:
            _deal_kind(nodes, shards, snapshot, tolerance, assignment)
    return assignment


class _Seat:
    """One node and what it is given."""

    __slots__ = ("crowd", "load", "node", "quota", "shards", "zone_crowd")

    def __init__(self, node: NodeId, zone_crowd: defaultdict[MappingId, int]) -> None:
        self.node = node
        self.zone_crowd = zone_crowd  # as `crowd`, of all nodes of the zone together
        self.shards: list[WantedShard] = []
        self.load = 0.0
        self.quota = 0
        self.crowd: defaultdict[MappingId, int] = defaultdict(int)  # shards here, per mapping

    def add(self, shard: WantedShard) -> None:
        self.shards.append(shard)
        self.load += _weight(shard)
        self.crowd[shard.key.mapping] += 1
        self.zone_crowd[shard.key.mapping] += 1

    def remove(self, shard: WantedShard) -> None:
        self.shards.remove(shard)
        self.load -= _weight(shard)
        self.crowd[shard.key.mapping] -= 1
        self.zone_crowd[shard.key.mapping] -= 1

    def crowding(self, mapping: MappingId) -> tuple[int, int]:
        """Return what a further shard of the mapping would have beside it: in the zone, and on the node."""
        return self.zone_crowd.get(mapping, 0), self.crowd.get(mapping, 0)


def _weight(shard: WantedShard) -> float:
    return shard.weight if 0 <= shard.weight < math.inf else 1.0


def _deal_kind(
    nodes: Sequence[NodeId],
    shards: Sequence[WantedShard],
    snapshot: FleetSnapshot,
    tolerance: float,
    assignment: dict[ShardKey, NodeId],
) -> None:
    seats = _seats(nodes, {member.node: member.zone for member in snapshot.members})
    holdings, reserved = snapshot.holdings, snapshot.reserved
    pool: list[WantedShard] = []
    for shard in shards:
        holding = holdings.get(shard.key)
        owner = reserved.get(shard.key) if holding is None else holding.node
        seat = None if owner is None else seats.get(owner)
        if seat is None:
            pool.append(shard)
        else:
            seat.add(shard)
    _set_quotas(seats.values(), len(shards))
    share = sum(map(_weight, shards)) / len(nodes)
    for seat in seats.values():
        pool.extend(_take_excess(seat, share))
    _deal(pool, seats.values())
    if share > 0:
        limit = None if pool else math.ceil(len(shards) / len(nodes))
        _even_out(list(seats.values()), {shard.key for shard in pool}, share, tolerance, limit)
    for node, seat in seats.items():
        for shard in seat.shards:
            assignment[shard.key] = node


def _seats(nodes: Sequence[NodeId], zone_of: Mapping[NodeId, str]) -> dict[NodeId, _Seat]:
    """Make the nodes' seats, in an order in which zones take turns: among equals the first is chosen."""
    crowds: defaultdict[str, defaultdict[MappingId, int]] = defaultdict(lambda: defaultdict(int))
    rows: Counter[str] = Counter()
    ranked = []
    for node in nodes:
        ranked.append((rows[zone_of[node]], zone_of[node], node))
        rows[zone_of[node]] += 1
    return {node: _Seat(node, crowds[zone]) for _, zone, node in sorted(ranked)}


def _set_quotas(seats: Iterable[_Seat], count: int) -> None:
    """Share out by count. Who has most already may keep the odd one, so that fewest move."""
    ranked = sorted(seats, key=lambda seat: (-len(seat.shards), seat.load))
    least, odd = divmod(count, len(ranked))
    for index, seat in enumerate(ranked):
        seat.quota = least + (index < odd)


def _take_excess(seat: _Seat, share: float) -> list[WantedShard]:
    """Take what is above the quota off a node: such shards that its load comes near `share`.

    Among equals, of each mapping the same part, so that what is given is as mixed as what is kept.
    """
    excess = len(seat.shards) - seat.quota
    if excess <= 0:
        return []
    nth: defaultdict[MappingId, int] = defaultdict(int)
    ranked = []
    for shard in seat.shards:  # in the order of their keys
        nth[shard.key.mapping] += 1
        part = (nth[shard.key.mapping] - 0.5) / seat.crowd[shard.key.mapping]
        ranked.append((_weight(shard), -part, shard.key, shard))
    ranked.sort(key=lambda entry: entry[:3])
    # Of all runs of `excess` neighbours by weight, the one whose sum is nearest to what is to be shed.
    to_shed = seat.load - share
    run = best_run = sum(entry[0] for entry in ranked[:excess])
    best = 0
    for start in range(1, len(ranked) - excess + 1):
        run += ranked[start + excess - 1][0] - ranked[start - 1][0]
        if abs(run - to_shed) < abs(best_run - to_shed) - 1e-9 * (1 + share):
            best, best_run = start, run
    given = [entry[3] for entry in islice(ranked, best, best + excess)]
    kept = [entry[3] for entry in ranked[:best]] + [entry[3] for entry in ranked[best + excess :]]
    for mapping, count in seat.crowd.items():
        seat.zone_crowd[mapping] -= count
    seat.shards, seat.load = [], 0.0
    seat.crowd.clear()
    for shard in sorted(kept, key=lambda shard: shard.key):
        seat.add(shard)
    return given


def _deal(pool: list[WantedShard], seats: Iterable[_Seat]) -> None:
    """Give each shard, heaviest first, to the least loaded node that has room."""
    heap = [(seat.load, len(seat.shards), index, seat) for index, seat in enumerate(seats)]
    heap = [entry for entry in heap if entry[1] < entry[3].quota]
    heapq.heapify(heap)
    pool.sort(key=lambda shard: (-_weight(shard), shard.key))
    for shard in pool:
        _, _, index, seat = _least_crowded(heap, shard.key.mapping)
        seat.add(shard)
        if len(seat.shards) < seat.quota:
            heapq.heappush(heap, (seat.load, len(seat.shards), index, seat))


def _least_crowded(heap: list[tuple[float, int, int, _Seat]], mapping: MappingId) -> tuple[float, int, int, _Seat]:
    """Pop the least loaded node; among a few as little loaded, the one least crowded by the mapping."""
    chosen = heapq.heappop(heap)
    aside: list[tuple[float, int, int, _Seat]] = []
    while any(chosen[3].crowding(mapping)) and heap and len(aside) < _LOOK_AHEAD and heap[0][:2] == chosen[:2]:
        other = heapq.heappop(heap)
        if other[3].crowding(mapping) < chosen[3].crowding(mapping):
            chosen, other = other, chosen
        aside.append(other)
    for entry in aside:
        heapq.heappush(heap, entry)
    return chosen


def _even_out(seats: list[_Seat], pool: set[ShardKey], share: float, tolerance: float, limit: int | None) -> None:
    """Exchange shards between the most and the least loaded node until all are near the average.

    With a `limit` nothing else has to move: then each exchange costs moves, of which it allows so many, and it begins
    only out of tolerance. Without one, only shards of the `pool` are exchanged; they move anyway.
    """
    least = min(len(seat.shards) for seat in seats)
    near = share * tolerance / 2
    begin = near if limit is None else share * tolerance
    gain = 1e-9 * share if limit is None else _WORTHWHILE * share
    moved = 0
    for _ in range(2 * len(seats)):
        high = max(seats, key=lambda seat: seat.load)
        low = min(seats, key=lambda seat: seat.load)
        if max(high.load - share, share - low.load) <= (near if moved else begin):
            return
        there, back = _best_exchange(
            high, low, least, gain, (lambda _: True) if limit is not None else pool.__contains__
        )
        if there is None:
            return
        moved += 1 + (back is not None)
        if limit is not None and moved > limit:
            return
        high.remove(there)
        low.add(there)
        if back is not None:
            low.remove(back)
            high.add(back)


def _best_exchange(
    high: _Seat, low: _Seat, least: int, gain: float, movable: Callable[[ShardKey], bool]
) -> tuple[WantedShard | None, WantedShard | None]:
    """Find what to move from `high` to `low`, perhaps against one back, to bring their loads closest together."""
    half = (high.load - low.load) / 2

    def rank(shard: WantedShard) -> tuple[float, ShardKey]:
        return (_weight(shard), shard.key)

    offered = sorted((shard for shard in high.shards if movable(shard.key)), key=rank)
    returned = sorted((shard for shard in low.shards if movable(shard.key)), key=rank)
    weights = [_weight(shard) for shard in returned]
    best: tuple[WantedShard | None, WantedShard | None] = (None, None)
    best_miss = half - gain  # a difference of d between the two brings the loads nearer by min(d, 2 * half - d)
    if len(high.shards) > least >= len(low.shards):
        for shard in offered:
            if abs(half - _weight(shard)) < best_miss:
                best, best_miss = (shard, None), abs(half - _weight(shard))
    for shard in offered:
        at = bisect_left(weights, _weight(shard) - half)
        for index in (at - 1, at):
            if 0 <= index < len(weights) and abs(half - _weight(shard) + weights[index]) < best_miss:
                best, best_miss = (shard, returned[index]), abs(half - _weight(shard) + weights[index])
    return best
