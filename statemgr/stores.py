"""Interfaces of the fleet's shared memory. One conformance suite (`tests/conformance`) judges every implementation.

All methods raise `StoreUnavailableError` when the store cannot be reached, times out, or cannot write; then nothing
may be assumed about whether the write happened. Expiry is judged by the store's own clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from model.ids import TRACKER, ShardKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from model.concurrency import CountReply, Pool, PoolWish
    from model.function_config import FunctionPart, FunctionTable, StoredPart
    from model.ids import FencingToken, MappingId, NodeId, ShardId, ShardOrigin
    from model.lease import FleetSnapshot, Lease, Member, TickReply, WantedShard
    from model.mapping import MappingRecord, MappingState
    from model.progress import ParkedRecords, ProgressUpdate, SaveResult, ShardProgress
    from statemgr.event_queue import EventQueue


class LeaseStore(Protocol):
    """Membership and leases.

    A membership is a session: one heartbeat keeps the membership and all its leases, whatever their number. A lease
    is live while its holder is a member. So a tick costs one round trip, and a dead node's leases end together.
    """

    async def join(self, member: Member, *, ttl_s: float) -> TickReply:
        """Make `member.node` a member for `ttl_s`. Joining twice under one id is a tick that also updates the facts."""

    async def tick(self, member: Member, *, ttl_s: float) -> TickReply:
        """Extend the membership and update its facts, after removing all memberships that have expired, also this one.

        `TickReply.member` is False, and nothing was extended, when this membership had expired, was never made, or
        was forgotten by a wiped store. The node then holds nothing any more and must join under a new id.
        Other members are woken (`wakes`) when an expiry, or a change of `draining` or `roles`, changed the snapshot.
        """

    async def leave(self, node: NodeId) -> None:
        """End the membership and all its leases now. Wakes the others. No error if it was no member."""

    async def snapshot(self) -> FleetSnapshot:
        """Read members, wanted shards and live holdings in one step."""

    async def acquire(
        self, node: NodeId, keys: Sequence[ShardKey], *, floor: FencingToken, ttl_s: float
    ) -> Mapping[ShardKey, tuple[Lease, ShardProgress]]:
        """Take those of `keys` that are wanted and free, each under a new token; return them with their progress.

        Free: no live holder, and not released less than `ttl_s` ago to another live, non-draining successor.
        Nothing is taken unless `node` is a member. Holding one already returns it again under its present token.
        A new token exceeds every token the shard ever had, `floor`, and the store's time in microseconds, so that it
        stays monotonic across a wiped store.
        """

    async def release(self, leases: Sequence[Lease], *, successor: Mapping[ShardKey, NodeId] | None = None) -> None:
        """Give up leases, naming who should come next. Leases that are not held under that token are left alone."""

    def wakes(self) -> AsyncIterator[None]:
        """Yield whenever another node changed the snapshot or the mappings; coalesced, best effort.

        Yields once as soon as it listens, also after each reconnecting, since something may have been missed before.
        May also yield for the listener's own changes. Never raises on a lost connection: it reconnects. Ends only by
        cancellation or `aclose()`.
        """


class ProgressStore(Protocol):
    """Fenced state of shards. Every write carries the token; an older one is refused atomically."""

    async def load(self, keys: Sequence[ShardKey]) -> Mapping[ShardKey, ShardProgress]:
        """Read progress; a shard without any is absent from the answer."""

    async def save(self, updates: Sequence[ProgressUpdate]) -> Sequence[SaveResult]:
        """Write several shards' progress in one round trip, each on its own terms; results in the order given.

        STALE when the shard has a token newer than the update's. BACKWARD when the update's position lies before the
        stored one, under the same token, and it is no rewind; equal is fine. Whose token the store has lost knows more
        than it does: the position may have been moved back before. INCOMPLETE when the update changes the shard's
        parking lot from a revision that is not the stored one: save it again with the whole lot. A shard unknown to the
        store (wiped) takes the update and its token.
        """

    async def load_parked(self, key: ShardKey) -> ParkedRecords:
        """Read a shard's parking lot, as the last save left it."""

    async def load_mapping(self, mapping: MappingId) -> Mapping[ShardKey, ShardProgress]:
        """Read the progress of every shard of a mapping, also of shards no longer wanted or only noted by an origin."""


class MappingStore(Protocol):
    """The mappings, and which shards each wants held."""

    async def put_mapping(
        self, record: MappingRecord, *, expected_revision: int | None = None, seen: int | None = None
    ) -> MappingRecord:
        """Create or replace; returns the record as stored, with its new revision and time.

        A mapping gets its tracker shard wanted in the same step. Putting an identical document changes nothing, keeps
        the state and wakes nobody, unless just one of the two, present or put, is in the state Deleting: so deletion is
        asked for, and taken back. A changed `applied` is then all that is written. Raises `ConflictError` when
        `expected_revision` (0: must not exist) is not the present one, when another mapping has the name, or when the
        mappings revision is not `seen`: so what holds among all mappings can be checked before the change.
        """

    async def mappings(self) -> tuple[int, Sequence[MappingRecord]]:
        """Return the mappings revision and all records, ordered by name."""

    async def mapping(self, mapping: MappingId) -> MappingRecord | None:
        """Return one record, at the cost of one; None when there is no such mapping."""

    async def set_mapping_state(
        self, mapping: MappingId, state: MappingState, reason: str, *, tracker: Lease, revision: int | None = None
    ) -> bool:
        """Move the state, on behalf of the mapping's tracker.

        Nothing is moved when the mapping's revision is not `revision` any more: a newer document, or a deletion, has a
        state of its own.
        False: its token is stale, or the mapping is gone (removed, or the store was wiped); nothing was written.
        """

    async def set_wanted(
        self,
        mapping: MappingId,
        shards: Sequence[WantedShard],
        *,
        tracker: Lease,
        origins: Mapping[ShardId, ShardOrigin] | None = None,
    ) -> bool:
        """Replace the mapping's wanted source shards (its tracker stays). Wakes the fleet if anything changed.

        In the same step each of `origins` is noted as `ShardProgress.origin` of its shard, wanted or not; one that is
        noted already stands. False as above. Progress of shards no longer wanted is kept, and so are their leases
        until they are released.
        """

    async def report_drained(self, lease: Lease) -> bool:
        """Have the mapping's tracker look again: the shard was read to its end, and that is saved.

        Raises `MappingRecord.drained` and the mappings revision and wakes the fleet. False: the lease's token is stale,
        or the mapping is gone.
        """

    async def try_parked(self, mapping: MappingId) -> int | None:
        """Have the holders of the mapping's shards try everything parked at once: an operator asks for it.

        Raises `MappingRecord.parked_tries` and the mappings revision and wakes the fleet. Returns the new number; None
        when there is no such mapping.
        """

    async def wish_seek(self, mapping: MappingId, wish: str) -> int | None:
        """Have the mapping's tracker move its position, in place of what was wished before and is not met yet.

        Sets `MappingRecord.seek`, raises `MappingRecord.seeks` and the mappings revision and wakes the fleet. Returns
        the wish's number; None when there is no such mapping.
        """

    async def move(
        self, mapping: MappingId, updates: Sequence[ProgressUpdate], *, tracker: Lease, wish: int
    ) -> SaveResult:
        """Meet a wish: replace the progress of shards that nobody holds, in one step, and take the wish away.

        Position and origin become those of the updates, whatever they were; a position of None is none. Every shard
        gets a new token, so that writes under leases from before are stale. Each `parked` builds on the stored lot.
        SAVED, also when the wish is not there any more: then nothing was written. STALE: the tracker's token is stale,
        or the mapping is gone. INCOMPLETE: a parking lot is another one by now; nothing was written.
        """

    async def retire(self, shards: Sequence[ShardId], *, tracker: ProgressUpdate) -> bool:
        """Forget the progress of shards for ever, and save the tracker's own, in one step. False as above.

        The tracker's ledger has taken over what theirs said. Later writes under a lease on one of them are stale.
        """

    async def remove_mapping(self, mapping: MappingId, *, tracker: Lease) -> bool:
        """Delete the mapping, its wanted shards, its holdings and its progress. False as above.

        A write under a lease from before is refused as stale ever after, so a late one brings nothing back.
        """


class FunctionConfigs(Protocol):
    """What API and files say of functions, for the whole fleet.

    Each change raises the mappings revision and wakes the fleet, so that nodes read it again.
    """

    async def functions(self) -> FunctionTable:
        """Read all parts of all functions of which anything was ever said."""

    async def put_part(
        self,
        function: str,
        part: FunctionPart,
        document: bytes | None,
        *,
        applied: str | None = None,
        seen: int | None = None,
    ) -> StoredPart:
        """Replace one part of a function; the others are not touched. Returns it as stored, with its new time.

        None says that there is none any more. `applied` None keeps the present mark. Raises `ConflictError` when the
        table's revision is not `seen`: so what holds among functions, or within a part, can be checked before.
        """

    async def forget_function(self, function: str, *, seen: int | None = None) -> None:
        """Remove all parts of a function. No error if there are none.

        Raises `ConflictError` when the table's revision is not `seen`.
        """


class CodeStore(Protocol):
    """The archives of functions that the API made, each under its SHA-256 in hexadecimal.

    Which of them are used, the functions' definitions say (`model.function_definition`).
    """

    async def put_code(self, digest: str, archive: bytes) -> None:
        """Keep an archive. What is there already is not sent again."""

    async def code(self, digest: str) -> bytes | None:
        """Return an archive; None when it is not there, or not all of it."""

    async def digests(self) -> Collection[str]:
        """Return the archives that are there."""

    async def keep_only(self, digests: Collection[str], *, older_than_s: float) -> None:
        """Drop all other archives that nobody has put for so long: whoever puts one is about to use it."""


class ConcurrencyStore(Protocol):
    """Who holds how many slots of which pool (`model.concurrency`). Limits are those of `FunctionConfigs`."""

    async def count(
        self, holder: str, wishes: Sequence[PoolWish], *, ttl_s: float, account: int, holders: int, rank: int
    ) -> CountReply:
        """State what a holder has in use, give back and take slots, of several pools in one step.

        What live holders hold of a pool together does not exceed its limit, but for slots in use that were taken when
        the limit was higher, or while the holder was not known here; then nobody gets more. The holder, and with it
        all it holds, is live for `ttl_s` from now on. `account` is the concurrency of all functions together.

        After a time in which nobody counted, a memory that is lost included, nobody gets more for `ttl_s` than
        its fallback share: the others may be at work on theirs. `holders` and `rank` say which share that is, as the
        holder was told last; 1 and 0 for one that knows of nobody.
        """

    async def stop_counting(self, holder: str, pools: Sequence[Pool]) -> None:
        """Forget a holder and what it holds of these pools. No error if it is unknown."""


class PlacementStore(Protocol):
    """What nodes offer to run for others (`model.placement`), and what they prove themselves to each other with."""

    async def offer(self, node: NodeId, document: bytes | None) -> None:
        """Replace what a node offers; None: nothing. It stands as long as the node is a member, of others nothing does.

        Wakes nobody: who has a use for offers reads them.
        """

    async def offers(self) -> Mapping[NodeId, bytes]:
        """Read what present members offer."""

    async def fleet_secret(self, proposed: str) -> str:
        """Return the fleet's secret; where there is none, `proposed` is it from now on. One for all who ask at once."""


class Store(LeaseStore, ProgressStore, MappingStore, Protocol):
    """All of it: what `statemgr.memory_store` and `statemgr.redis_store` provide."""

    @property
    def functions(self) -> FunctionConfigs:
        """What is said of functions."""

    @property
    def code(self) -> CodeStore:
        """The code of functions that the API made."""

    @property
    def concurrency(self) -> ConcurrencyStore:
        """How many invocations are under way."""

    @property
    def events(self) -> EventQueue:
        """The queue of asynchronous invocations."""

    @property
    def placement(self) -> PlacementStore:
        """What nodes offer each other."""

    async def ping(self) -> None:
        """Return when the store answers and can be written to."""

    async def aclose(self) -> None:
        """Close connections. Safe to call twice."""


def wanted_sources(mapping: MappingId, shards: Sequence[WantedShard]) -> dict[ShardKey, WantedShard]:
    """Index a mapping's wanted source shards. Raises ValueError for another mapping's shard, or its tracker."""
    wanted = {shard.key: shard for shard in shards}
    for key in wanted:
        if key.mapping != mapping or key.shard == TRACKER:
            raise ValueError(f"{key} is no source shard of {mapping}")
    return wanted


def check_tracker(tracker: Lease, mapping: MappingId) -> None:
    """Raise ValueError when this is not a lease of the mapping's tracker: a mistake in the program."""
    if tracker.key != ShardKey(mapping, TRACKER):
        raise ValueError(f"{tracker.key} is not the tracker of {mapping}")
