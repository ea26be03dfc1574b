"""A Redis inside the event loop: the store in memory, with what befalls a server, and someone who watches every step.

It can be away, refuse writes, fail over to a replica that has not got the last writes, be wiped, and its clock can be
stepped. Time is true time, from an epoch on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from model.errors import StoreUnavailableError
from model.progress import SaveResult
from statemgr.memory_store import MemoryStore
from tests.support.wire import Door

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model.ids import FencingToken, MappingId, NodeId, ShardId, ShardKey
    from model.lease import Lease, Member, TickReply
    from model.mapping import MappingRecord
    from model.progress import ProgressUpdate, ShardProgress
    from tests.support.virtual_loop import VirtualLoop


Backup = tuple[dict[str, Any], dict[str, Any]]
"""What is stored: by the store itself, and by its progress."""


class StoreWatch(Protocol):
    """Who sees what the store grants, takes back and accepts."""

    def beats(self, member: Member) -> None:
        """See a heartbeat arrive, before it counts."""

    def acquired(self, taken: Mapping[ShardKey, tuple[Lease, ShardProgress]]) -> None:
        """See leases granted, or granted already and asked for again."""

    def releasing(self, leases: Sequence[Lease]) -> None:
        """See a release arrive, before it counts."""

    def released(self, leases: Sequence[Lease]) -> None:
        """See it done."""

    def members_ended(self, nodes: set[NodeId]) -> None:
        """See memberships end."""

    def saved(self, update: ProgressUpdate, result: SaveResult) -> None:
        """See progress accepted or refused."""

    def mapping_put(self, record: MappingRecord) -> None:
        """See a mapping put, as it is stored now."""

    def wanted(self, mapping: MappingId) -> None:
        """See a mapping's shards made wanted."""

    def retired(self, shards: Sequence[ShardKey]) -> None:
        """See progress forgotten on purpose."""

    def moved(self, shards: Sequence[ShardKey]) -> None:
        """See positions moved at an operator's wish."""

    def forgotten(self) -> None:
        """See the store go back to an earlier state, or to none."""


class SimulatedRedis(MemoryStore):
    """The server. `door` says whether it takes requests."""

    def __init__(self, loop: VirtualLoop, *, epoch_s: float) -> None:
        self.door = Door()
        self.ahead_s = epoch_s  # of true time
        self.read_only = False
        self.watch: StoreWatch | None = None
        self._loop = loop
        super().__init__(lambda: loop.now + self.ahead_s)

    # What befalls it

    def backup(self) -> Backup:
        """Return all that is stored; nothing stored is ever changed in place."""
        return _copied(vars(self)), _copied(vars(self.progress))

    def restore(self, backup: Backup) -> None:
        """Go back to a backup: a replica that had not got what came later took over. Who listens connects anew."""
        own, progress = backup
        vars(self).update(_copied(own))
        vars(self.progress).update(_copied(progress))
        if self.watch is not None:
            self.watch.forgotten()
        self._wake()

    def wipe(self) -> None:
        """See `MemoryStore.wipe`."""
        super().wipe()
        if self.watch is not None:
            self.watch.forgotten()

    def true_expiry(self, node: NodeId) -> float | None:
        """Return the true time at which a membership ends unless renewed; None if there is none."""
        session = self._sessions.get(node)
        return None if session is None else session.expires_at - self.ahead_s

    def _writable(self) -> None:
        if self.read_only:
            raise StoreUnavailableError("READONLY You can't write against a read only replica.")

    # The store

    async def join(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.join`."""
        self._writable()
        return await super().join(member, ttl_s=ttl_s)

    async def tick(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.tick`."""
        self._writable()
        if self.watch is not None:
            self.watch.beats(member)
        return await super().tick(member, ttl_s=ttl_s)

    async def leave(self, node: NodeId) -> None:
        """See `LeaseStore.leave`."""
        self._writable()
        await super().leave(node)

    async def acquire(
        self, node: NodeId, keys: Sequence[ShardKey], *, floor: FencingToken, ttl_s: float
    ) -> Mapping[ShardKey, tuple[Lease, ShardProgress]]:
        """See `LeaseStore.acquire`."""
        self._writable()
        taken = await super().acquire(node, keys, floor=floor, ttl_s=ttl_s)
        if self.watch is not None:
            self.watch.acquired(taken)
        return taken

    async def release(self, leases: Sequence[Lease], *, successor: Mapping[ShardKey, NodeId] | None = None) -> None:
        """See `LeaseStore.release`."""
        self._writable()
        if self.watch is not None:
            self.watch.releasing(leases)
        await super().release(leases, successor=successor)
        if self.watch is not None:
            self.watch.released(leases)

    async def save(self, updates: Sequence[ProgressUpdate]) -> Sequence[SaveResult]:
        """See `ProgressStore.save`."""
        self._writable()
        return await super().save(updates)

    def _save(self, update: ProgressUpdate) -> SaveResult:
        result = super()._save(update)
        if self.watch is not None:
            self.watch.saved(update, result)
        return result

    async def retire(self, shards: Sequence[ShardId], *, tracker: ProgressUpdate) -> bool:
        """See `MappingStore.retire`."""
        self._writable()
        known = [key for key in self.progress.stored if key.mapping == tracker.key.mapping and key.shard in shards]
        retired = await super().retire(shards, tracker=tracker)
        if self.watch is not None and retired:
            self.watch.retired(known)
        return retired

    async def wish_seek(self, mapping: MappingId, wish: str) -> int | None:
        """See `MappingStore.wish_seek`."""
        self._writable()
        return await super().wish_seek(mapping, wish)

    async def move(
        self, mapping: MappingId, updates: Sequence[ProgressUpdate], *, tracker: Lease, wish: int
    ) -> SaveResult:
        """See `MappingStore.move`."""
        self._writable()
        wished = {record.seeks for record in self._mappings.values() if record.id == mapping and record.seek}
        result = await super().move(mapping, updates, tracker=tracker, wish=wish)
        if self.watch is not None and result is SaveResult.SAVED and wish in wished:
            self.watch.moved([update.key for update in updates])
        return result

    async def put_mapping(self, *args: Any, **kwargs: Any) -> Any:
        """See `MappingStore.put_mapping`."""
        self._writable()
        stored = await super().put_mapping(*args, **kwargs)
        if self.watch is not None:
            self.watch.mapping_put(stored)
        return stored

    async def set_wanted(self, *args: Any, **kwargs: Any) -> bool:
        """See `MappingStore.set_wanted`."""
        self._writable()
        written = await super().set_wanted(*args, **kwargs)
        if written and self.watch is not None:
            self.watch.wanted(args[0])
        return written

    def _end(self, nodes: Iterable[NodeId]) -> None:
        gone = {node for node in nodes if node in self._sessions}
        super()._end(gone)
        if self.watch is not None and gone:
            self.watch.members_ended(gone)


_NOT_STORED = {"door", "ahead_s", "read_only", "watch", "_loop", "_clock", "_listeners"}


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    stored = {name: value for name, value in state.items() if name not in _NOT_STORED}
    return {name: dict(value) if isinstance(value, dict) else value for name, value in stored.items()}
