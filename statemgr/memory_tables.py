"""What `statemgr.memory_store` keeps of a fleet, and how it is handled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from model.progress import Ledger, ShardProgress

if TYPE_CHECKING:
    from model.ids import MappingId, NodeId, ShardKey
    from model.lease import Member


@dataclass(slots=True)
class Session:
    """One membership: the member's facts and until when they hold."""

    member: Member
    ttl_s: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """A released shard, kept for a while for the node its last holder named."""

    successor: NodeId
    released_at: float


def standing(member: Member) -> tuple[object, ...]:
    """Return what others must know at once."""
    return member.draining, member.roles, member.zone


def copy_of(progress: ShardProgress) -> ShardProgress:
    """Return progress with a ledger of its own: ledgers are mutable, and a store must not share one."""
    return replace(progress, ledger=progress.ledger.plus(Ledger()))


def drop(mapping: MappingId, *tables: dict[ShardKey, Any]) -> None:
    """Forget what tables say of a mapping's shards."""
    for table in tables:
        for key in [key for key in table if key.mapping == mapping]:
            del table[key]
