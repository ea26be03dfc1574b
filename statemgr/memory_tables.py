"""What `statemgr.memory_store` keeps of a fleet, and how it is handled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from model.ids import position_key
from model.mapping import MappingState
from model.progress import Ledger, ParkedRecords, ShardProgress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.ids import MappingId, NodeId, Position, ShardKey, ShardOrigin
    from model.lease import Member
    from model.mapping import MappingRecord
from model.progress import ParkedChange, ProgressUpdate


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


def awaited(kept: Reservation, sessions: Mapping[NodeId, Session], now: float, ttl_s: float | None = None) -> bool:
    """Tell whether the named successor may still come; `ttl_s`: for so long after the release, else its own TTL."""
    session = sessions.get(kept.successor)
    if session is None or session.member.draining:
        return False
    return now < kept.released_at + (session.ttl_s if ttl_s is None else ttl_s)


def asks_alike(present: MappingRecord, record: MappingRecord) -> bool:
    """Tell whether a record asks for what is there already."""
    return (present.document, present.name) == (record.document, record.name) and (
        (present.state is MappingState.DELETING) == (record.state is MappingState.DELETING)
    )


def goes_back(update: ProgressUpdate, before: ShardProgress) -> bool:
    """Tell whether an update's position lies before the stored one although it is no rewind."""
    if update.rewind or update.position is None or before.position is None:
        return False
    return position_key(update.position) < position_key(before.position)


def standing(member: Member) -> tuple[object, ...]:
    """Return what others must know at once."""
    return member.draining, member.roles, member.zone


def copy_of(progress: ShardProgress) -> ShardProgress:
    """Return progress with a ledger of its own: ledgers are mutable, and a store must not share one."""
    return replace(progress, ledger=progress.ledger.plus(Ledger()))


def written(update: ProgressUpdate, position: Position | None, origin: ShardOrigin | None) -> ShardProgress:
    """Return the progress that an update leaves."""
    return copy_of(
        ShardProgress(position, update.token, update.node, update.ledger, update.state, update.report, origin)
    )


def changed_lot(stored: ParkedRecords | None, change: ParkedChange | None) -> ParkedRecords | None:
    """Return a parking lot after a change, if there is one; None: the stored lot is not the one it builds on."""
    stored = stored or ParkedRecords()
    if change is None:
        return stored
    if change.base is not None and change.base != stored.revision:
        return None
    if change.base == change.revision:
        return stored  # nothing to do: it was asked whether the lot is still there
    records = {} if change.base is None else {record.position: record for record in stored.records}
    for position in change.drop:
        records.pop(position, None)
    records.update({record.position: record for record in change.put})
    return ParkedRecords(change.revision, tuple(records[at] for at in sorted(records)))


def carried_over(record: MappingRecord, present: MappingRecord | None) -> MappingRecord:
    """Return a record that replaces another one with what was asked of the mapping and is no part of its document."""
    if present is None:
        return record
    return replace(
        record, drained=present.drained, parked_tries=present.parked_tries, seeks=present.seeks, seek=present.seek
    )


def drop(mapping: MappingId, *tables: dict[ShardKey, Any]) -> None:
    """Forget what tables say of a mapping's shards."""
    for table in tables:
        for key in [key for key in table if key.mapping == mapping]:
            del table[key]
