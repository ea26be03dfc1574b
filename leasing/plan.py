"""What one node should do about a snapshot: take, give, or clean up. Pure.

Every node sees the fleet as the snapshot shows it, but for what it is giving away itself: that counts as the
recipient's already, so that a hand-over under way is neither started twice nor called back. What nobody holds goes by
the snapshot alone: if the node it falls to saw something else than the others, a shard could be left to nobody for as
long as another one takes to become quiet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leasing.assignment import assign
from model.lease import Holding, Lease

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from model.ids import FencingToken, NodeId, ShardKey
    from model.lease import FleetSnapshot


@dataclass(frozen=True, slots=True)
class Plan:
    """The next steps of one node."""

    take: tuple[ShardKey, ...]  # assigned here and free to take
    give: Mapping[ShardKey, NodeId | None]  # held here and not assigned here; to whom, or no longer wanted
    stray: Mapping[Lease, NodeId | None]  # ours in the store, but neither worked on nor assigned here
    pass_on: Mapping[ShardKey, NodeId]  # kept for us by its last holder, but by now assigned to someone else
    reserved: tuple[ShardKey, ...]  # assigned here, and for now kept for someone else
    awaited: tuple[ShardKey, ...]  # assigned here, and still held by others


def contradicted(snapshot: FleetSnapshot, held: Mapping[ShardKey, Lease]) -> list[ShardKey]:
    """Return which of the leases held here the store does not know: it lost a write, or gave them to others."""
    lost = []
    for key, lease in held.items():
        holding = snapshot.holdings.get(key)
        if holding is None or (holding.node, holding.token) != (lease.node, lease.token):
            lost.append(key)
    return lost


def make_plan(
    snapshot: FleetSnapshot,
    node: NodeId,
    *,
    held: Collection[ShardKey],
    leaving: Mapping[ShardKey, NodeId | None],
    draining: bool,
) -> Plan:
    """Compare what `node` holds with what it should. `leaving`: on their way out, to whom; not part of `held`."""
    view = _as_seen_by(snapshot, node, leaving, draining=draining)
    assignment = assign(view)
    holdings, reserved = snapshot.holdings, snapshot.reserved
    if view is not snapshot and not draining:
        free = [shard.key for shard in snapshot.wanted if shard.key not in holdings]
        if free:
            seen_by_all = assign(snapshot)
            assignment |= {key: seen_by_all[key] for key in free if key in seen_by_all}
    take: list[ShardKey] = []
    awaited: list[ShardKey] = []
    elsewhere: list[ShardKey] = []
    for key, assigned in assignment.items():
        if assigned != node or key in held or key in leaving:
            continue
        holding = holdings.get(key)
        if holding is not None:
            (take if holding.node == node else awaited).append(key)
        else:
            (take if reserved.get(key, node) == node else elsewhere).append(key)
    return Plan(
        take=tuple(sorted(take)),
        give={key: assignment.get(key) for key in held if assignment.get(key) != node},
        stray={
            Lease(key, node, holding.token): assignment.get(key)
            for key, holding in holdings.items()
            if holding.node == node and key not in held and key not in leaving and assignment.get(key) != node
        },
        pass_on={
            key: assignment[key]
            for key, successor in reserved.items()
            if successor == node and key not in leaving and assignment.get(key, node) != node
        },
        reserved=tuple(elsewhere),
        awaited=tuple(awaited),
    )


def highest_token(snapshot: FleetSnapshot) -> FencingToken | None:
    """Return the highest token in use."""
    return max((holding.token for holding in snapshot.holdings.values()), default=None)


def _as_seen_by(
    snapshot: FleetSnapshot, node: NodeId, leaving: Mapping[ShardKey, NodeId | None], *, draining: bool
) -> FleetSnapshot:
    if not leaving and not draining:
        return snapshot
    holdings = dict(snapshot.holdings)
    for key, recipient in leaving.items():
        before = holdings.pop(key, None)
        if before is not None and recipient is not None:
            holdings[key] = Holding(recipient, before.token)
    members = snapshot.members
    if draining:
        members = tuple(replace(member, draining=True) if member.node == node else member for member in members)
    return replace(snapshot, members=members, holdings=holdings)
