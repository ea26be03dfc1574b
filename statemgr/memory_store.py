"""The fleet's shared memory inside one process: for tests, simulations and the conformance suite's second opinion.

Several nodes of one test share one `MemoryStore`. No method suspends, so each is one atomic step. Time comes from the
clock it is given, so fast-forwarded loop time works. Nothing survives the process: a real fleet uses `redis_store`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from model.errors import ConflictError
from model.ids import TRACKER, ShardKey
from model.lease import FleetSnapshot, Holding, Lease, Member, ShardKind, TickReply, WantedShard
from model.progress import SaveResult
from statemgr.memory_code import MemoryCode
from statemgr.memory_concurrency import MemoryConcurrency
from statemgr.memory_event_queue import MemoryEventQueue
from statemgr.memory_functions import MemoryFunctions
from statemgr.memory_placement import MemoryPlacement
from statemgr.memory_progress import MemoryProgress
from statemgr.memory_tables import (
    Reservation,
    Session,
    asks_alike,
    awaited,
    carried_over,
    drop,
    standing,
)
from statemgr.stores import check_tracker, wanted_sources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from model.ids import FencingToken, MappingId, NodeId, ShardId, ShardOrigin
    from model.mapping import MappingRecord, MappingState
    from model.progress import ParkedRecords, ProgressUpdate, ShardProgress


class MemoryStore:
    """A `statemgr.stores.Store` in plain dictionaries. Its `clock` counts seconds, from wherever it likes."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._listeners: dict[asyncio.Event, None] = {}  # in order, so that a simulation runs alike each time
        self.functions = MemoryFunctions(clock, raised=self._raised, changed=self._mappings_changed)
        self.code = MemoryCode(clock)
        self.concurrency = MemoryConcurrency(clock, reserved=self.functions.reserved)
        self.placement = MemoryPlacement(self._members)
        self.progress = MemoryProgress(clock)
        self._forget()

    def wipe(self) -> None:
        """Forget everything, as a Redis does that restarts without its files. Nobody is woken."""
        self._forget()
        self.functions.wipe()
        self.code.wipe()
        self.concurrency.wipe()
        self.placement.wipe()
        self.progress.wipe()

    def _forget(self) -> None:
        self._incarnation = uuid.uuid4().hex
        self._version = 0
        self._mappings_revision = 0
        self._sessions: dict[NodeId, Session] = {}
        self._mappings: dict[MappingId, MappingRecord] = {}
        self._wanted: dict[ShardKey, WantedShard] = {}
        self._holdings: dict[ShardKey, Holding] = {}
        self._reserved: dict[ShardKey, Reservation] = {}
        newest_token = self.progress.newest_token
        self.events = MemoryEventQueue(self._clock, self._wanted, self._snapshot_changed, newest_token)

    def _members(self) -> Mapping[NodeId, Session]:
        self._reap()
        return self._sessions

    # Membership and leases

    async def join(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.join`."""
        self._reap()
        return self._beat(member, ttl_s)

    async def tick(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.tick`."""
        self._reap()
        if member.node not in self._sessions:
            return self._reply(member.node)
        return self._beat(member, ttl_s)

    async def leave(self, node: NodeId) -> None:
        """See `LeaseStore.leave`."""
        if node in self._sessions:
            self._end([node])

    async def snapshot(self) -> FleetSnapshot:
        """See `LeaseStore.snapshot`."""
        self._reap()
        now = self._clock()
        members = [
            replace(session.member, heartbeat_age_s=max(0.0, now - session.expires_at + session.ttl_s))
            for _, session in sorted(self._sessions.items())
        ]
        reserved = {key: kept.successor for key, kept in self._reserved.items() if awaited(kept, self._sessions, now)}
        wanted = tuple(shard for _, shard in sorted(self._wanted.items()))
        return FleetSnapshot(self._version, tuple(members), wanted, dict(self._holdings), reserved)

    async def acquire(
        self, node: NodeId, keys: Sequence[ShardKey], *, floor: FencingToken, ttl_s: float
    ) -> Mapping[ShardKey, tuple[Lease, ShardProgress]]:
        """See `LeaseStore.acquire`."""
        self._reap()
        taken: dict[ShardKey, tuple[Lease, ShardProgress]] = {}
        if node not in self._sessions:
            return taken
        changed = False
        for key in keys:
            if key not in self._wanted:
                continue
            holding = self._holdings.get(key)
            if holding is None or (holding.node == node and holding.token < self.progress.newest_token(key)):
                if self._is_reserved(key, node, ttl_s):
                    continue
                holding = Holding(node, self.progress.new_token(key, floor))
                self._holdings[key] = holding
                self._reserved.pop(key, None)
                changed = True
            if holding.node == node:
                taken[key] = (Lease(key, node, holding.token), self.progress.of(key))
        if changed:
            self._snapshot_changed()
        return taken

    async def release(self, leases: Sequence[Lease], *, successor: Mapping[ShardKey, NodeId] | None = None) -> None:
        """See `LeaseStore.release`."""
        changed = False
        for lease in leases:
            if self._holdings.get(lease.key) != Holding(lease.node, lease.token):
                continue
            del self._holdings[lease.key]
            if successor is not None and lease.key in successor:
                self._reserved[lease.key] = Reservation(successor[lease.key], self._clock())
            changed = True
        if changed:
            self._snapshot_changed()

    async def wakes(self) -> AsyncIterator[None]:
        """See `LeaseStore.wakes`. Also yields for changes made by the one who listens."""
        changed = asyncio.Event()
        changed.set()
        self._listeners[changed] = None
        try:
            while True:
                await changed.wait()
                changed.clear()
                yield
        finally:
            del self._listeners[changed]

    # Progress

    async def load(self, keys: Sequence[ShardKey]) -> Mapping[ShardKey, ShardProgress]:
        """See `ProgressStore.load`."""
        return self.progress.of_shards(keys)

    async def save(self, updates: Sequence[ProgressUpdate]) -> Sequence[SaveResult]:
        """See `ProgressStore.save`."""
        return [self._save(update) for update in updates]

    async def load_parked(self, key: ShardKey) -> ParkedRecords:
        """See `ProgressStore.load_parked`."""
        return self.progress.parked_of(key)

    async def load_mapping(self, mapping: MappingId) -> Mapping[ShardKey, ShardProgress]:
        """See `ProgressStore.load_mapping`."""
        return self.progress.of_mapping(mapping)

    # Mappings

    async def put_mapping(
        self, record: MappingRecord, *, expected_revision: int | None = None, seen: int | None = None
    ) -> MappingRecord:
        """See `MappingStore.put_mapping`."""
        if seen is not None and seen != self._mappings_revision:
            raise ConflictError(f"mapping {record.name}: the mappings have changed")
        present = self._mappings.get(record.id)
        revision = 0 if present is None else present.revision
        if expected_revision is not None and expected_revision != revision:
            raise ConflictError(f"mapping {record.name}: its revision is {revision}, not {expected_revision}")
        if any(other.name == record.name and other.id != record.id for other in self._mappings.values()):
            raise ConflictError(f"another mapping has the name {record.name}")
        if present is not None and asks_alike(present, record):
            self._mappings[record.id] = replace(present, applied=record.applied)
            return self._mappings[record.id]
        stored = replace(carried_over(record, present), revision=revision + 1, modified_time=self._clock())
        self._mappings[record.id] = stored
        tracker = ShardKey(record.id, TRACKER)
        if tracker not in self._wanted:
            self._wanted[tracker] = WantedShard(tracker, ShardKind.TRACKER)
            self._version = self._raised(self._version)
        self._mappings_changed()
        return stored

    async def mappings(self) -> tuple[int, Sequence[MappingRecord]]:
        """See `MappingStore.mappings`."""
        return self._mappings_revision, sorted(self._mappings.values(), key=lambda record: record.name)

    async def mapping(self, mapping: MappingId) -> MappingRecord | None:
        """See `MappingStore.mapping`."""
        return self._mappings.get(mapping)

    async def set_mapping_state(
        self, mapping: MappingId, state: MappingState, reason: str, *, tracker: Lease, revision: int | None = None
    ) -> bool:
        """See `MappingStore.set_mapping_state`."""
        if not self._speaks_for(tracker, mapping):
            return False
        present = self._mappings[mapping]
        current = revision is None or revision == present.revision
        if current and (present.state, present.state_reason) != (state, reason):
            self._mappings[mapping] = replace(present, state=state, state_reason=reason, modified_time=self._clock())
            self._mappings_changed()
        return True

    async def set_wanted(
        self,
        mapping: MappingId,
        shards: Sequence[WantedShard],
        *,
        tracker: Lease,
        origins: Mapping[ShardId, ShardOrigin] | None = None,
    ) -> bool:
        """See `MappingStore.set_wanted`."""
        wanted = wanted_sources(mapping, shards)
        if not self._speaks_for(tracker, mapping):
            return False
        self.progress.note_origins(mapping, origins or {})
        present = {key: shard for key, shard in self._wanted.items() if key.mapping == mapping and key.shard != TRACKER}
        if present != wanted:
            for key in present.keys() - wanted.keys():
                del self._wanted[key]
                self._reserved.pop(key, None)
            self._wanted.update(wanted)
            self._snapshot_changed()
        return True

    async def report_drained(self, lease: Lease) -> bool:
        """See `MappingStore.report_drained`."""
        mapping = lease.key.mapping
        if mapping not in self._mappings or self.progress.newest_token(lease.key) > lease.token:
            return False
        self._mappings[mapping] = replace(self._mappings[mapping], drained=self._mappings[mapping].drained + 1)
        self._mappings_changed()
        return True

    async def try_parked(self, mapping: MappingId) -> int | None:
        """See `MappingStore.try_parked`."""
        present = self._mappings.get(mapping)
        if present is None:
            return None
        self._mappings[mapping] = replace(present, parked_tries=present.parked_tries + 1)
        self._mappings_changed()
        return present.parked_tries + 1

    async def wish_seek(self, mapping: MappingId, wish: str) -> int | None:
        """See `MappingStore.wish_seek`."""
        present = self._mappings.get(mapping)
        if present is None:
            return None
        self._mappings[mapping] = replace(present, seeks=present.seeks + 1, seek=wish)
        self._mappings_changed()
        return present.seeks + 1

    async def move(
        self, mapping: MappingId, updates: Sequence[ProgressUpdate], *, tracker: Lease, wish: int
    ) -> SaveResult:
        """See `MappingStore.move`."""
        if not self._speaks_for(tracker, mapping):
            return SaveResult.STALE
        present = self._mappings[mapping]
        if present.seeks != wish or not present.seek:
            return SaveResult.SAVED
        if self.progress.move(updates) is SaveResult.INCOMPLETE:
            return SaveResult.INCOMPLETE
        self._mappings[mapping] = replace(present, seek="")
        self._mappings_changed()
        return SaveResult.SAVED

    async def retire(self, shards: Sequence[ShardId], *, tracker: ProgressUpdate) -> bool:
        """See `MappingStore.retire`."""
        mapping = tracker.key.mapping
        if not self._speaks_for(Lease(tracker.key, tracker.node, tracker.token), mapping):
            return False
        self.progress.retire(mapping, shards)
        return self._save(tracker) is SaveResult.SAVED

    async def remove_mapping(self, mapping: MappingId, *, tracker: Lease) -> bool:
        """See `MappingStore.remove_mapping`."""
        if not self._speaks_for(tracker, mapping):
            return False
        del self._mappings[mapping]
        drop(mapping, self._wanted, self._holdings, self._reserved)
        self.progress.remove(mapping)
        self._version = self._raised(self._version)
        self._mappings_changed()
        return True

    async def ping(self) -> None:
        """Return: memory always answers."""

    async def aclose(self) -> None:
        """Do nothing: other nodes may share this store."""

    # The rules

    def _reap(self) -> None:
        now = self._clock()
        self._end([node for node, session in self._sessions.items() if session.expires_at <= now])

    def _end(self, nodes: Iterable[NodeId]) -> None:
        gone = {node for node in nodes if self._sessions.pop(node, None) is not None}
        if gone:
            self._holdings = {key: holding for key, holding in self._holdings.items() if holding.node not in gone}
            self._snapshot_changed()

    def _beat(self, member: Member, ttl_s: float) -> TickReply:
        facts = replace(member, heartbeat_age_s=0.0)
        session = self._sessions.get(member.node)
        self._sessions[member.node] = Session(facts, ttl_s, self._clock() + ttl_s)
        if session is None or standing(session.member) != standing(facts):
            self._snapshot_changed()
        elif session.member != facts:
            self._version = self._raised(self._version)
        return self._reply(member.node)

    def _reply(self, node: NodeId) -> TickReply:
        others = [session.expires_at for other, session in self._sessions.items() if other != node]
        return TickReply(
            incarnation=self._incarnation,
            version=self._version,
            mappings_revision=self._mappings_revision,
            member=node in self._sessions,
            next_expiry_s=max(0.0, min(others) - self._clock()) if others else None,
        )

    def _is_reserved(self, key: ShardKey, node: NodeId, ttl_s: float) -> bool:
        kept = self._reserved.get(key)
        return kept is not None and kept.successor != node and awaited(kept, self._sessions, self._clock(), ttl_s)

    def _raised(self, number: int) -> int:
        """Return a higher number that never was: not even when the last writes were lost, since it comes from time."""
        return max(number + 1, int(self._clock() * 1_000_000))

    def _save(self, update: ProgressUpdate) -> SaveResult:
        return self.progress.save(update)

    def _speaks_for(self, tracker: Lease, mapping: MappingId) -> bool:
        check_tracker(tracker, mapping)
        if mapping not in self._mappings or self.progress.newest_token(tracker.key) > tracker.token:
            return False
        self.progress.note_token(tracker.key, tracker.token)
        return True

    def _snapshot_changed(self) -> None:
        self._version = self._raised(self._version)
        self._wake()

    def _mappings_changed(self) -> None:
        self._mappings_revision = self._raised(self._mappings_revision)
        self._wake()

    def _wake(self) -> None:
        for changed in self._listeners:
            changed.set()
