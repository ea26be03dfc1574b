"""Membership and leases as values: who is in the fleet, which shards are wanted, who holds which."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.ids import FencingToken, NodeId, ShardKey


class Role(StrEnum):
    """What a node does (`esmd run --role`)."""

    POLLERS = "pollers"
    STATEMGR = "statemgr"
    FRONTEND = "frontend"
    CONTROLPLANE = "controlplane"


ALL_ROLES = frozenset(Role)


class ShardKind(StrEnum):
    """What holding a shard means, and so which role may hold it."""

    TRACKER = "tracker"  # discover the mapping's shards, move its state (role statemgr)
    SOURCE = "source"  # poll one shard of the source (role pollers)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one shard, until the store says otherwise or the holder's term ends."""

    key: ShardKey
    node: NodeId
    token: FencingToken


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the fleet sees it."""

    node: NodeId
    roles: frozenset[Role] = ALL_ROLES
    draining: bool = False  # takes nothing new and gives up what it has
    address: str = ""  # HOST:PORT of its HTTP surface, for operators
    heartbeat_age_s: float = 0.0  # by the store's clock
    zone: str = ""  # what may fail together, such as an availability zone; empty: not said


@dataclass(frozen=True, slots=True)
class WantedShard:
    """A shard that some member should hold."""

    key: ShardKey
    kind: ShardKind
    weight: float = 1.0  # load relative to other shards; 1: an idle one


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds a shard now. A holder that is no member any more does not count."""

    node: NodeId
    token: FencingToken


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Everything an assignment is computed from, read in one step so that all nodes see the same."""

    version: int  # grows whenever anything below changes, and is never again what it was
    members: tuple[Member, ...] = ()
    wanted: tuple[WantedShard, ...] = ()
    holdings: Mapping[ShardKey, Holding] = field(default_factory=dict)  # live ones only: held right now
    reserved: Mapping[ShardKey, NodeId] = field(default_factory=dict)  # released ones, kept for a live successor


@dataclass(frozen=True, slots=True)
class TickReply:
    """What the store answers to a heartbeat."""

    incarnation: str  # changes when the store was wiped or replaced
    version: int  # of the fleet snapshot
    mappings_revision: int  # the same, when a mapping is put, changed or deleted
    member: bool  # False: the membership had expired or the store forgot it; every lease is lost
    next_expiry_s: float | None  # until the earliest other membership expires unless renewed
