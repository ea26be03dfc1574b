"""What one node does about a snapshot."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from leasing.plan import contradicted, highest_token, make_plan
from model.ids import FencingToken, NodeId, ShardKey
from model.lease import FleetSnapshot, Holding, Lease, Member
from tests.support.fleet_values import ANN, BOB, CAT, shard, source


def snapshot_of(
    count: int,
    *nodes: NodeId,
    held: dict[int, NodeId] | None = None,
    reserved: dict[int, NodeId] | None = None,
) -> FleetSnapshot:
    """Make a snapshot of numbered source shards."""
    return FleetSnapshot(
        version=1,
        members=tuple(Member(node) for node in nodes),
        wanted=tuple(source(number) for number in range(count)),
        holdings={shard(number): Holding(node, FencingToken(number + 1)) for number, node in (held or {}).items()},
        reserved={shard(number): node for number, node in (reserved or {}).items()},
    )


def test_free_shards_are_taken() -> None:
    """A lone node takes what is free, what is kept for it, and what the store says it has already."""
    snapshot = snapshot_of(4, ANN, held={2: ANN}, reserved={1: ANN})
    plan = make_plan(snapshot, ANN, held={shard(3)}, leaving={}, draining=False)
    assert plan.take == (shard(0), shard(1), shard(2))
    assert (plan.give, plan.stray, plan.pass_on, plan.reserved, plan.awaited) == ({}, {}, {}, (), ())


def test_what_others_still_have_is_awaited() -> None:
    """A new node waits for the shards that their holders have to give up, and does not grab them."""
    snapshot = snapshot_of(4, ANN, BOB, held=dict.fromkeys(range(4), ANN))
    plan = make_plan(snapshot, BOB, held=(), leaving={}, draining=False)
    assert (plan.take, len(plan.awaited)) == ((), 2)
    other = make_plan(snapshot, ANN, held=snapshot.holdings.keys(), leaving={}, draining=False)
    assert other.give == dict.fromkeys(plan.awaited, BOB)


def test_a_hand_over_under_way_is_not_repeated() -> None:
    """What is leaving counts as the recipient's, until the recipient is gone."""
    snapshot = snapshot_of(4, ANN, BOB, held=dict.fromkeys(range(4), ANN))
    first = make_plan(snapshot, ANN, held=snapshot.holdings.keys(), leaving={}, draining=False)
    rest = snapshot.holdings.keys() - first.give.keys()
    again = make_plan(snapshot, ANN, held=rest, leaving=first.give, draining=False)
    assert (again.give, again.take, again.stray) == ({}, (), {})
    alone = replace(snapshot, members=snapshot.members[:1])
    back = make_plan(alone, ANN, held=rest, leaving=first.give, draining=False)
    assert (back.give, back.take) == ({}, ())  # it is taken again once it has been released


def test_a_draining_node_gives_everything_before_the_fleet_knows() -> None:
    """Its own draining counts at once, and each shard gets a recipient."""
    snapshot = snapshot_of(5, ANN, BOB, CAT, held={0: ANN, 1: ANN, 2: BOB, 3: BOB, 4: CAT})
    plan = make_plan(snapshot, ANN, held={shard(0), shard(1)}, leaving={}, draining=True)
    assert set(plan.give) == {shard(0), shard(1)}
    assert sorted(str(node) for node in plan.give.values()) == [BOB, CAT]
    assert plan.take == ()


def test_what_nobody_wants_any_more_is_given_to_nobody() -> None:
    """A held shard that is no longer wanted is given up without a recipient."""
    plan = make_plan(
        snapshot_of(1, ANN, held={0: ANN, 9: ANN}), ANN, held={shard(0), shard(9)}, leaving={}, draining=False
    )
    assert plan.give == {shard(9): None}


def test_strays_are_given_back() -> None:
    """What the store believes held here, and nobody here knows of, goes to whom it is assigned."""
    snapshot = snapshot_of(2, ANN, BOB, held={0: ANN, 1: ANN, 7: ANN})
    plan = make_plan(snapshot, ANN, held={shard(0)}, leaving={}, draining=False)
    kept = {shard(0)} - plan.give.keys()
    assert len(kept) + len(plan.take) == 1
    assert Lease(shard(7), ANN, FencingToken(8)) in plan.stray
    leaving: dict[ShardKey, NodeId | None] = {shard(7): None, shard(1): BOB}
    assert make_plan(snapshot, ANN, held={shard(0)}, leaving=leaving, draining=False).stray == {}


def test_a_shard_left_to_the_wrong_node_is_passed_on() -> None:
    """When a third node joins while a shard is on its way, the successor passes on what is not its own any more."""
    snapshot = snapshot_of(3, ANN, BOB, CAT, held={0: ANN, 2: BOB}, reserved={1: ANN})
    plans = {node: make_plan(snapshot, node, held=(), leaving={}, draining=False) for node in (ANN, CAT)}
    assert plans[CAT].reserved == (shard(1),)
    assert plans[ANN].pass_on == {shard(1): CAT}
    assert (plans[ANN].take, plans[CAT].take) == ((shard(0),), ())


@given(st.dictionaries(st.integers(0, 5), st.sampled_from([ANN, BOB])), st.sets(st.integers(0, 5)))
def test_leases_the_store_does_not_know_are_found(held: dict[int, NodeId], mine: set[int]) -> None:
    """A lease is contradicted unless the store has it for the same node under the same token."""
    snapshot = snapshot_of(6, ANN, BOB, held=held)
    leases = {shard(number): Lease(shard(number), ANN, FencingToken(number + 1)) for number in mine}
    assert set(contradicted(snapshot, leases)) == {shard(number) for number in mine if held.get(number) != ANN}
    stale = {key: replace(lease, token=FencingToken(lease.token + 1)) for key, lease in leases.items()}
    assert set(contradicted(snapshot, stale)) == set(leases)
    assert highest_token(snapshot) == max((number + 1 for number in held), default=None)


_GONE = NodeId("gone")
_NODES = (ANN, BOB, CAT)


@given(
    st.dictionaries(st.integers(0, 9), st.sampled_from([*_NODES, _GONE])),
    st.dictionaries(st.integers(0, 9), st.sampled_from([*_NODES, _GONE])),
    st.sets(st.sampled_from(_NODES), max_size=2),
    st.lists(st.floats(0.1, 100), min_size=10, max_size=10),
)
def test_what_is_free_is_taken_whatever_hand_overs_are_under_way(
    held: dict[int, NodeId], given_to: dict[int, NodeId], draining: set[NodeId], weights: list[float]
) -> None:
    """Each node knows its own hand-overs only; still each shard that nobody holds is taken by exactly one node."""
    snapshot = snapshot_of(10, *_NODES, held={number: node for number, node in held.items() if node != _GONE})
    wanted = tuple(replace(one, weight=weight) for one, weight in zip(snapshot.wanted, weights, strict=True))
    members = tuple(replace(member, draining=member.node in draining) for member in snapshot.members)
    snapshot = replace(snapshot, wanted=wanted, members=members)
    taken: list[ShardKey] = []
    for node in _NODES:
        ours = {key for key, holding in snapshot.holdings.items() if holding.node == node}
        leaving = {
            key: given_to[number] for number in range(10) if (key := shard(number)) in ours and number in given_to
        }
        plan = make_plan(snapshot, node, held=ours - leaving.keys(), leaving=leaving, draining=node in draining)
        taken += plan.take
    assert sorted(taken) == sorted(one.key for one in wanted if one.key not in snapshot.holdings)
