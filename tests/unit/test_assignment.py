"""Who should hold what."""

from __future__ import annotations

import math
import random
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from leasing.assignment import assign
from model.ids import TRACKER, FencingToken, MappingId, NodeId, ShardId, ShardKey
from model.lease import FleetSnapshot, Holding, Member, Role, ShardKind, WantedShard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

EVEN = st.just(1.0)
UNEVEN = st.floats(0.5, 2.0)


def members(count: int, *, roles: frozenset[Role] = frozenset(Role)) -> tuple[Member, ...]:
    """Make nodes."""
    return tuple(Member(NodeId(f"n{index:03}"), roles) for index in range(count))


def source_shard(mapping: int, number: int, weight: float = 1.0) -> WantedShard:
    """Make a wanted source shard."""
    return WantedShard(ShardKey(MappingId(f"m{mapping}"), ShardId(f"s{number:04}")), ShardKind.SOURCE, weight)


def tracker_shard(mapping: int) -> WantedShard:
    """Make a wanted tracker."""
    return WantedShard(ShardKey(MappingId(f"m{mapping}"), TRACKER), ShardKind.TRACKER)


def shards_of(sizes: Sequence[int], weights: Sequence[float] | None = None) -> tuple[WantedShard, ...]:
    """Make mappings with so many source shards each."""
    keys = [(mapping, number) for mapping, size in enumerate(sizes) for number in range(size)]
    return tuple(
        source_shard(mapping, number, weights[index] if weights else 1.0)
        for index, (mapping, number) in enumerate(keys)
    )


def holding(assignment: Mapping[ShardKey, NodeId]) -> dict[ShardKey, Holding]:
    """Make everyone hold what is assigned."""
    return {key: Holding(node, FencingToken(1)) for key, node in assignment.items()}


def counts(snapshot: FleetSnapshot, assignment: Mapping[ShardKey, NodeId]) -> list[int]:
    """Count shards per node, also of nodes that have none."""
    per_node = Counter(assignment.values())
    return [per_node[member.node] for member in snapshot.members]


def loads(snapshot: FleetSnapshot, assignment: Mapping[ShardKey, NodeId]) -> list[float]:
    """Add up weights per node."""
    per_node: defaultdict[NodeId, float] = defaultdict(float)
    for shard in snapshot.wanted:
        per_node[assignment[shard.key]] += shard.weight
    return [per_node[member.node] for member in snapshot.members]


def moves(before: Mapping[ShardKey, NodeId], after: Mapping[ShardKey, NodeId]) -> set[ShardKey]:
    """Return the shards that changed hands."""
    return {key for key, node in after.items() if before.get(key, node) != node}


@st.composite
def fleets(draw: st.DrawFn, weight: st.SearchStrategy[float] = UNEVEN, max_nodes: int = 8) -> FleetSnapshot:
    """Draw a fleet in which any node may hold anything, and others hold or are meant to get some."""
    nodes = members(draw(st.integers(1, max_nodes)))
    wanted = shards_of(draw(st.lists(st.integers(1, 12), max_size=6)))
    wanted = tuple(replace(shard, weight=draw(weight)) for shard in wanted)
    owners = st.sampled_from([*(member.node for member in nodes), NodeId("gone"), None])
    held = {shard.key: owner for shard in wanted if (owner := draw(owners)) is not None}
    reserved = {shard.key: owner for shard in wanted if (owner := draw(owners)) is not None and shard.key not in held}
    return FleetSnapshot(1, nodes, wanted, holding(held), reserved)


@given(fleets())
def test_counts_differ_by_at_most_one(snapshot: FleetSnapshot) -> None:
    """Every wanted shard is assigned, and no node has two more than another, whoever held them."""
    assignment = assign(snapshot)
    assert set(assignment) == {shard.key for shard in snapshot.wanted}
    per_node = counts(snapshot, assignment)
    assert max(per_node) - min(per_node) <= 1


@given(fleets(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(snapshot: FleetSnapshot, rng: random.Random) -> None:
    """Nodes that read the same facts in another order compute the same."""
    shuffled = replace(
        snapshot,
        version=99,
        members=tuple(rng.sample(snapshot.members, len(snapshot.members))),
        wanted=tuple(rng.sample(snapshot.wanted, len(snapshot.wanted))),
        holdings=dict(rng.sample(list(snapshot.holdings.items()), len(snapshot.holdings))),
    )
    assert assign(shuffled) == assign(snapshot)


@given(fleets(weight=EVEN))
def test_what_is_assigned_stays(snapshot: FleetSnapshot) -> None:
    """Once everyone holds what is assigned, nothing moves any more."""
    assignment = assign(snapshot)
    settled = replace(snapshot, holdings=holding(assignment), reserved={})
    assert assign(settled) == assignment


@given(fleets(), st.randoms(use_true_random=False))
def test_reserved_is_as_good_as_held(snapshot: FleetSnapshot, rng: random.Random) -> None:
    """A shard on its way to its successor counts as the successor's."""
    owners = {key: held.node for key, held in snapshot.holdings.items()} | dict(snapshot.reserved)
    some = {key for key in owners if rng.random() < 0.5}
    other = replace(
        snapshot,
        holdings=holding({key: owners[key] for key in owners if key not in some}),
        reserved={key: owners[key] for key in some},
    )
    assert assign(other) == assign(snapshot)


@given(fleets(max_nodes=7))
def test_a_join_moves_at_most_its_share(snapshot: FleetSnapshot) -> None:
    """From a balanced fleet a new node gets its share, and no shard moves between the others."""
    before = assign(snapshot)
    joined = Member(NodeId("joined"))
    after = assign(replace(snapshot, holdings=holding(before), reserved={}, members=(*snapshot.members, joined)))
    moved = moves(before, after)
    assert len(moved) <= math.ceil(len(snapshot.wanted) / (len(snapshot.members) + 1))
    assert {after[key] for key in moved} <= {joined.node}


@given(fleets(), st.integers(0, 7))
def test_a_leave_moves_only_the_leavers(snapshot: FleetSnapshot, index: int) -> None:
    """From a balanced fleet the leaver's shards are spread over the others, and theirs stay."""
    before = assign(snapshot)
    leaver = snapshot.members[index % len(snapshot.members)].node
    rest = tuple(member for member in snapshot.members if member.node != leaver)
    after = assign(replace(snapshot, holdings=holding(before), reserved={}, members=rest))
    if not rest:
        assert after == {}
        return
    assert all(before[key] == leaver for key in moves(before, after))
    per_node = Counter(after.values())
    gained = [per_node[member.node] - Counter(before.values())[member.node] for member in rest]
    assert max(gained) - min(gained) <= 2  # the dead node's load is not shed on one survivor


@given(fleets(), st.integers(0, 7))
def test_a_draining_node_gives_up_everything(snapshot: FleetSnapshot, index: int) -> None:
    """Draining is to be assigned nothing, like having left."""
    index %= len(snapshot.members)
    draining = tuple(replace(member, draining=at == index) for at, member in enumerate(snapshot.members))
    left = tuple(member for at, member in enumerate(snapshot.members) if at != index)
    assert assign(replace(snapshot, members=draining)) == assign(replace(snapshot, members=left))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.lists(st.integers(1, 6), max_size=5))
def test_each_kind_goes_to_its_role(trackers: int, pollers: int, both: int, sizes: list[int]) -> None:
    """State managers share the trackers, pollers the source shards, each within one."""
    nodes = tuple(
        Member(NodeId(f"{name}{index}"), roles)
        for name, count, roles in (
            ("t", trackers, frozenset({Role.STATEMGR})),
            ("p", pollers, frozenset({Role.POLLERS})),
            ("b", both, frozenset({Role.STATEMGR, Role.POLLERS})),
            ("c", 1, frozenset({Role.CONTROLPLANE, Role.FRONTEND})),
        )
        for index in range(count)
    )
    wanted = shards_of(sizes) + tuple(tracker_shard(mapping) for mapping in range(len(sizes)))
    assignment = assign(FleetSnapshot(1, nodes, wanted))
    assert set(assignment) == {shard.key for shard in wanted}
    for kind, role in ((ShardKind.TRACKER, Role.STATEMGR), (ShardKind.SOURCE, Role.POLLERS)):
        eligible = {member.node for member in nodes if role in member.roles}
        per_node = Counter(assignment[shard.key] for shard in wanted if shard.kind is kind)
        assert set(per_node) <= eligible
        assert max(per_node[node] for node in eligible) - min(per_node[node] for node in eligible) <= 1


def test_nobody_there_means_nothing_assigned() -> None:
    """Without members, or without one that may, shards wait."""
    wanted = shards_of([3])
    assert assign(FleetSnapshot(1, (), wanted)) == {}
    assert assign(FleetSnapshot(1, members(2, roles=frozenset({Role.FRONTEND})), wanted)) == {}
    assert assign(FleetSnapshot(1, (Member(NodeId("n"), draining=True),), wanted)) == {}


@given(st.integers(1, 8), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_mapping_is_spread(nodes: int, sizes: list[int]) -> None:
    """A fresh fleet gives no node more than its part of a mapping's shards, rounded up."""
    snapshot = FleetSnapshot(1, members(nodes), shards_of(sizes))
    per_mapping = Counter((key.mapping, node) for key, node in assign(snapshot).items())
    for (mapping, _), count in per_mapping.items():
        assert count <= math.ceil(sizes[int(mapping[1:])] / nodes)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data())
def test_a_mapping_is_spread_over_zones(sizes: list[int], data: st.DataObject) -> None:
    """A fresh fleet leaves no zone without a shard of a mapping that has enough, however nodes are named."""
    zones = data.draw(st.permutations([zone for zone, size in enumerate(sizes) for _ in range(size)]))
    nodes = tuple(replace(node, zone=f"z{zone}") for node, zone in zip(members(len(zones)), zones, strict=True))
    assignment = assign(FleetSnapshot(1, nodes, shards_of([len(sizes)])))
    zone_of = {member.node: member.zone for member in nodes}
    assert Counter(zone_of[node] for node in assignment.values()) == {f"z{zone}": 1 for zone in range(len(sizes))}


def test_a_joining_node_gets_a_part_of_each_large_mapping() -> None:
    """What the old nodes give away is as mixed as what they keep."""
    snapshot = FleetSnapshot(1, members(2), shards_of([12, 4, 4]))
    after = assign(replace(snapshot, members=members(3), holdings=holding(assign(snapshot))))
    per_node = Counter(node for key, node in after.items() if key.mapping == "m0")
    assert sorted(per_node.values()) == [4, 4, 4]


@given(st.integers(2, 8), st.data())
def test_loads_of_a_fresh_fleet_are_even(nodes: int, data: st.DataObject) -> None:
    """With many shards per node, of different weights, every node's load is within a tenth of the average."""
    count = data.draw(st.integers(40 * nodes, 50 * nodes))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    snapshot = FleetSnapshot(1, members(nodes), shards_of([count], [rng.uniform(0.5, 2) for _ in range(count)]))
    per_node = loads(snapshot, assign(snapshot))
    share = sum(per_node) / nodes
    assert all(abs(load - share) <= 0.1 * share for load in per_node)


@given(st.integers(2, 8), st.integers(0, 2**32))
def test_loads_even_out_when_weights_change(nodes: int, seed: int) -> None:
    """When weights drift, a bounded number of shards moves at a time, and it comes to rest within a tenth."""
    rng = random.Random(seed)
    sizes = [rng.randint(20, 30) * nodes]
    snapshot = FleetSnapshot(1, members(nodes), shards_of(sizes, [rng.uniform(0.5, 2) for _ in range(sizes[0])]))
    held = assign(snapshot)
    drifted = replace(snapshot, wanted=shards_of(sizes, [rng.uniform(0.5, 2) for _ in range(sizes[0])]))
    for _ in range(10):
        after = assign(replace(drifted, holdings=holding(held)))
        moved = moves(held, after)
        assert len(moved) <= math.ceil(sizes[0] / nodes)
        held = after
        if not moved:
            break
    else:
        raise AssertionError("it does not come to rest")
    per_node = loads(drifted, held)
    share = sum(per_node) / nodes
    assert all(abs(load - share) <= 0.1 * share for load in per_node)
    per_count = counts(drifted, held)
    assert max(per_count) - min(per_count) <= 1


@given(fleets(), st.randoms(use_true_random=False))
def test_it_comes_to_rest_however_moves_interleave(snapshot: FleetSnapshot, rng: random.Random) -> None:
    """Carrying out assignments bit by bit, each time computed anew, comes to an end without going round in circles."""
    held = {key: held.node for key, held in snapshot.holdings.items() if held.node != "gone"}
    moved = 0
    for _ in range(200):
        target = assign(replace(snapshot, holdings=holding(held), reserved={}))
        pending = sorted(key for key, node in target.items() if held.get(key) != node)
        if not pending:
            break
        for key in rng.sample(pending, rng.randint(1, len(pending))):
            held[key] = target[key]
            moved += 1
    else:
        raise AssertionError("it does not come to rest")
    assert moved <= 3 * len(snapshot.wanted)


def test_a_large_fleet_costs_no_more_for_a_shard() -> None:
    """The work grows with the shards, not with shards times nodes: counted in calls, as time would be noisy."""

    def calls(mappings: int) -> float:
        rng = random.Random(1)
        wanted = shards_of([100] * mappings, [rng.uniform(0.5, 2) for _ in range(100 * mappings)])
        before = assign(FleetSnapshot(1, members(mappings), wanted))
        snapshot = FleetSnapshot(1, members(mappings + 1), wanted, holding(before))
        count = 0

        def note(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal count
            count += event in {"call", "c_call"}

        sys.setprofile(note)
        try:
            assign(snapshot)
        finally:
            sys.setprofile(None)
        return count / len(wanted)

    assert calls(200) < 1.5 * calls(10)


def test_odd_weights_do_no_harm() -> None:
    """A weight that is no number, endless, negative or zero is dealt like any other."""
    odd = [float("nan"), float("inf"), -1.0, 0.0, 1.0, 1.0]
    snapshot = FleetSnapshot(1, members(3), shards_of([6], odd))
    assert counts(snapshot, assign(snapshot)) == [2, 2, 2]
    weightless = FleetSnapshot(1, members(3), shards_of([6], [0.0] * 6))
    assert counts(weightless, assign(weightless)) == [2, 2, 2]
